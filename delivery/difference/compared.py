"""Compare stacks: what a deploy would do to what is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from delivery.assemblies import Stack
from delivery.difference.access import widened
from delivery.difference.findings import KINDS, Difference, Finding, StackDifference
from delivery.difference.holding import fate, holds_data, loosened
from delivery.difference.network import opened
from delivery.difference.values import at, differing, flat, references, same
from delivery.registry import PropertyPath, ResourceType, resource_type

__all__ = ["compare"]

Resources = Mapping[str, Mapping[str, Any]]


def compare(before: Sequence[Stack], after: Sequence[Stack]) -> Difference:
    """Compare what is there with what would be; stacks are the same when place and name are.

    A stack that ``after`` lacks is told as gone: no deploy deletes it, it is left to itself.
    """
    old = {_place(stack): stack for stack in before}
    new = {_place(stack): stack for stack in after}
    stacks: list[StackDifference] = []
    findings: list[Finding] = []
    for place in sorted({*old, *new}, key=lambda place: (old.get(place) or new[place]).id):
        one, other = old.get(place), new.get(place)
        if other is None:
            assert one is not None
            stacks.append(StackDifference(stack=one.id, state="gone", removed=tuple(one.resources)))
            continue
        if one is None:
            stacks.append(StackDifference(stack=other.id, state="new", added=tuple(other.resources)))
            findings += _openings(other.id, {}, other.resources)
            continue
        stacks.append(_counted(one, other))
        findings += _of_stack(one, other)
    order = list(KINDS)
    return Difference(
        stacks=tuple(stacks), findings=tuple(sorted(findings, key=lambda f: order.index(f.kind)))
    )


def _place(stack: Stack) -> tuple[str | None, str | None, str]:
    return stack.account, stack.region, stack.name


def _counted(before: Stack, after: Stack) -> StackDifference:
    old, new = before.resources, after.resources
    changed = tuple(name for name in new if name in old and not same(old[name], new[name]))
    added = tuple(name for name in new if name not in old)
    removed = tuple(name for name in old if name not in new)
    state = "changed" if added or changed or removed else "same"
    return StackDifference(stack=after.id, state=state, added=added, changed=changed, removed=removed)


def _of_stack(before: Stack, after: Stack) -> Iterator[Finding]:
    old, new = before.resources, after.resources
    replaced = _replaced(old, new)
    for name, why in replaced.items():
        yield from _replacement(after.id, name, old[name], new[name], why)
    for name, why in _perhaps(old, new, replaced).items():
        yield _finding("perhaps-replaced", after.id, name, new[name], why)
    for name in old:
        if name not in new:
            yield from _destruction(after.id, name, old[name], new, old)
    for name in new:
        if name in old:
            for words in loosened(old[name], new[name]):
                yield _finding("protection", after.id, name, new[name], words)
    if before.protected and not after.protected:
        yield Finding(
            kind="protection",
            stack=after.id,
            resource="(the stack)",
            type="AWS::CloudFormation::Stack",
            why="its termination protection goes",
        )
    yield from _openings(after.id, old, new)


def _finding(kind: str, stack: str, name: str, resource: Mapping[str, Any], why: str) -> Finding:
    return Finding(kind=kind, stack=stack, resource=name, type=resource["Type"], why=why)


# -- replaced ------------------------------------------------------------------------------------------------


def _replaced(old: Resources, new: Resources) -> dict[str, str]:
    """Each resource that is replaced, and why; what refers to one by a create-only property follows."""
    found: dict[str, str] = {}
    both = [name for name in new if name in old]
    for name in both:
        if old[name]["Type"] != new[name]["Type"]:
            # CloudFormation refuses an update that changes a type; the CDK shows it, so do we.
            found[name] = f"its type goes from {old[name]['Type']} to {new[name]['Type']}"
            continue
        kind = resource_type(new[name]["Type"])
        if kind is not None:
            changes = _create_only_changes(kind.create_only, old[name], new[name])
            if changes:
                found[name] = f"create-only: {'; '.join(changes)}"
    while True:
        more = {
            name: why
            for name in both
            if name not in found and (why := _follows(name, new[name], found)) is not None
        }
        if not more:
            return found
        found |= more


def _create_only_changes(
    paths: Sequence[PropertyPath], old: Mapping[str, Any], new: Mapping[str, Any]
) -> list[str]:
    changes = []
    for path in paths:
        was, now = at(old.get("Properties", {}), path), at(new.get("Properties", {}), path)
        if not same(was, now):
            words = f"{_shown(was)} to {_shown(now)}" if "*" not in path else "its items differ"
            where = [p for one, other in zip(was, now, strict=False) for p in differing(one, other) if p]
            inner = f" ({', '.join(where[:3])})" if where else ""
            changes.append(
                f"{'.'.join(path)}{inner} goes from {words}"
                if "*" not in path
                else f"{'.'.join(path)}: {words}"
            )
    return changes


def _shown(values: list[Any]) -> str:
    if not values:
        return "nothing"
    text = flat(values[0])
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _follows(name: str, resource: Mapping[str, Any], replaced: Mapping[str, str]) -> str | None:
    kind = resource_type(resource["Type"])
    if kind is None:
        return None
    for path in kind.create_only:
        for value in at(resource.get("Properties", {}), path):
            for other in references(value):
                if other in replaced and other != name:
                    return f"create-only: {'.'.join(path)} refers to {other}, which is replaced"
    return None


def _perhaps(old: Resources, new: Resources, replaced: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for name in new:
        kind = resource_type(new[name]["Type"]) if name in old and name not in replaced else None
        if kind is not None:
            changes = _create_only_changes(kind.conditionally_create_only, old[name], new[name])
            if changes:
                found[name] = "; ".join(changes)
    return found


def _replacement(
    stack: str, name: str, old: Mapping[str, Any], new: Mapping[str, Any], why: str
) -> Iterator[Finding]:
    if holds_data(old):
        kind, words = fate(old, replaced=True)
        yield _finding(kind, stack, name, old, f"it is replaced ({why}); {words}")
    else:
        yield _finding("replaced", stack, name, new, why)
    fixed = _fixed_name(old, new)
    if fixed is not None:
        yield _finding(
            "refused",
            stack,
            name,
            new,
            f"it is replaced and keeps the name {fixed}: the new one is made before the old one is deleted",
        )


def _fixed_name(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    kind: ResourceType | None = resource_type(new["Type"])
    if kind is None or old["Type"] != new["Type"] or len(kind.given_identifier) != 1:
        return None
    was, now = (at(r.get("Properties", {}), kind.given_identifier[0]) for r in (old, new))
    return flat(now[0]) if now and same(was, now) else None


# -- destroyed -----------------------------------------------------------------------------------------------


def _destruction(
    stack: str, name: str, resource: Mapping[str, Any], new: Resources, old: Resources
) -> Iterator[Finding]:
    twin = _twin(name, resource, new, old)
    renamed = (
        "" if twin is None else f"{twin} is the same under another logical id, and new to CloudFormation; "
    )
    if holds_data(resource):
        kind, words = fate(resource, replaced=False)
        yield _finding(kind, stack, name, resource, f"{renamed}{words}")
    elif twin is not None:
        yield _finding("replaced", stack, name, resource, f"{renamed}this one is deleted")
    else:
        yield _finding("destroyed", stack, name, resource, "it stands in the template no more")


def _twin(name: str, resource: Mapping[str, Any], new: Resources, old: Resources) -> str | None:
    """A new resource that looks like one that goes: a changed construct id, most likely."""
    for other, candidate in new.items():
        if other not in old and candidate["Type"] == resource["Type"]:
            one, two = (dict(r.get("Properties", {})) for r in (resource, candidate))
            if same(one, two) or _but_name(name, one) == _but_name(other, two):
                return other
    return None


def _but_name(name: str, properties: Mapping[str, Any]) -> str:
    return flat(properties).replace(name, "(itself)")


# -- opened --------------------------------------------------------------------------------------------------


def _openings(stack: str, old: Resources, new: Resources) -> Iterator[Finding]:
    for widening in widened(old, new):
        said_by = new.get(widening.said_by) or old[widening.said_by]
        yield _finding("access", stack, widening.subject, said_by, widening.words)
    for name, words in opened(old, new):
        yield _finding("network", stack, name, new[name], words)
