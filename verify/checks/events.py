"""Event patterns against the events that are really emitted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from verify.assembly import Resource
from verify.code.emitters import own_events
from verify.code.literals import ANY
from verify.context import Context
from verify.finding import Check, Finding
from verify.tables.events import CHECKED, EVENTS, TRAIL_EVENTS, Fields

_ID = "events"
#: Keys of an event beside its detail (EventBridge, "Events: metadata").
_ENVELOPE = frozenset(
    {"version", "id", "detail-type", "source", "account", "time", "region", "resources", "detail"}
)
#: Content filters (EventBridge, "Comparison operators").
_FILTERS = frozenset(
    {
        "prefix",
        "suffix",
        "anything-but",
        "numeric",
        "exists",
        "cidr",
        "equals-ignore-case",
        "wildcard",
    }
)


def run(context: Context) -> Iterator[Finding]:
    """Hold every rule's pattern against what its source sends."""
    own: dict[tuple[str, str], list[Any]] = {}
    for source, kind, detail in own_events(context.assembly, context.deployed):
        own.setdefault((source, kind), []).append(detail)
    buckets = _announcing(context)
    for rule in context.assembly.resources("AWS::Events::Rule"):
        pattern = rule.properties.get("EventPattern")
        if pattern is None:
            continue
        plain = context.assembly.plain(rule.stack, pattern)
        for path, value, allowed in why_never(plain, own):
            yield Finding(
                check=_ID,
                place=f"{rule.place}: EventPattern{path}",
                value=value,
                allowed=allowed,
                fix="write the pattern as the source writes its events",
            )
        yield from _silent_buckets(context, rule, buckets)


def why_never(
    pattern: Mapping[str, Any], own: Mapping[tuple[str, str], Sequence[Any]]
) -> Iterator[tuple[str, str, str]]:
    """Yield path, value and what is allowed for each reason why no event can match ``pattern``.

    Args:
        pattern: an event pattern as plain data.
        own: details of our own events by source and detail-type.
    """
    for key in sorted(pattern.keys() - _ENVELOPE):
        yield f"/{key}", f"no event has {key}", ", ".join(sorted(_ENVELOPE))
    sources, kinds = pattern.get("source"), pattern.get("detail-type")
    if not isinstance(sources, list) or not sources or not isinstance(kinds, list) or not kinds:
        yield "", "a pattern without a source or a detail-type", "both, so that it is known what it waits for"
        return
    for source in sources:
        for kind in kinds:
            if not isinstance(source, str) or not isinstance(kind, str):
                yield "", f"{source!r} and {kind!r} name no event", "a source and a detail-type as texts"
                continue
            details = pattern.get("detail", {})
            if (source, kind) in own:
                # Somebody of ours sends it; one of them has to fit.
                reasons = [list(_never_own(details, sent)) for sent in own[source, kind]]
                if all(reasons):
                    yield from reasons[0]
            elif source.startswith("aws."):
                yield from _never_aws(source, kind, details)
            else:
                sent = ", ".join(sorted(f"{one}: {other}" for one, other in own)) or "nothing"
                yield "", f"nobody sends {kind!r} of {source!r}", f"what our code and machines send: {sent}"


def _never_aws(source: str, kind: str, details: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    fields = EVENTS.get((source, kind), TRAIL_EVENTS.get(kind))
    if fields is None:
        kinds = sorted(name for known, name in EVENTS if known == source)
        yield "", f"no event {kind!r} of {source!r} is known", ", ".join(kinds) or "events of the table"
        return
    for path, values in _leaves(details):
        allowed = _allowed(fields, path)
        if allowed is False:
            yield f"/detail/{path}", f"{kind!r} has no detail.{path}", ", ".join(sorted(fields))
        elif not isinstance(values, list):
            yield f"/detail/{path}", f"{values!r} is no list", "a list of values and filters"
        elif isinstance(allowed, frozenset):
            never = [value for value in values if not any(_fits(value, one) for one in allowed)]
            for value in never:
                yield f"/detail/{path}", f"it is never {value!r}", ", ".join(sorted(allowed))


def _never_own(details: Mapping[str, Any], sent: Any) -> Iterator[tuple[str, str, str]]:
    if sent == ANY:
        return
    for path, values in _leaves(details):
        value = sent
        for step in path.split("."):
            value = value.get(step, None) if isinstance(value, Mapping) else value if value == ANY else None
        if value is None:
            yield f"/detail/{path}", f"the event has no detail.{path}", ", ".join(sorted(sent))
        elif value != ANY and not any(_fits(one, str(value)) for one in values):
            yield f"/detail/{path}", f"it is never of {values!r}", str(value)


def _allowed(fields: Fields, path: str) -> frozenset[str] | bool | None:
    """Values a field may have; None for any; False for a field that the event does not have."""
    if path in fields:
        return fields[path]
    parts = path.split(".")
    if any(f"{'.'.join(parts[:length])}.*" in fields for length in range(1, len(parts) + 1)):
        return None
    return False


def _leaves(detail: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a pattern with its path, ``state.value``; ``$or`` is each of its branches."""
    for key, value in detail.items():
        if key == "$or":
            for branch in value:
                yield from _leaves(branch, path)
            continue
        here = f"{path}.{key}" if path else key
        if isinstance(value, Mapping):
            yield from _leaves(value, here)
        else:
            yield here, value


def _fits(wanted: Any, value: str) -> bool:  # noqa: PLR0911 - one a filter
    """Whether a value or filter of a pattern lets one value through."""
    if not isinstance(wanted, Mapping):
        return str(wanted) == value
    (name, argument), *_ = wanted.items()
    if name not in _FILTERS:
        return False
    match name:
        case "prefix" | "suffix":
            text = argument["equals-ignore-case"].lower() if isinstance(argument, Mapping) else str(argument)
            have = value.lower() if isinstance(argument, Mapping) else value
            return have.startswith(text) if name == "prefix" else have.endswith(text)
        case "anything-but":
            if isinstance(argument, Mapping):
                return not _fits(argument, value)
            return value not in (argument if isinstance(argument, list) else [argument])
        case "exists":
            return bool(argument)
        case "equals-ignore-case":
            return str(argument).lower() == value.lower()
        case _:
            return True


def _announcing(context: Context) -> frozenset[str]:
    """Buckets whose objects EventBridge hears of, by their marks and names."""
    found = set()
    for bucket in context.assembly.resources("AWS::S3::Bucket"):
        settings = bucket.properties.get("NotificationConfiguration", {}).get("EventBridgeConfiguration")
        if settings is not None and settings.get("EventBridgeEnabled", True) is not False:
            found.add(_mark(bucket))
    return frozenset(found)


def _mark(bucket: Resource) -> str:
    return "${" + f"{bucket.stack.id}|{bucket.id}" + "}"


def _silent_buckets(context: Context, rule: Resource, announcing: frozenset[str]) -> Iterator[Finding]:
    """A rule on objects of a bucket of ours that tells EventBridge nothing."""
    pattern = rule.properties["EventPattern"]
    if pattern.get("source") != ["aws.s3"]:
        return
    for value in pattern.get("detail", {}).get("bucket", {}).get("name", ()):
        target = context.assembly.target(rule.stack, value)
        if target is not None and target.type == "AWS::S3::Bucket" and _mark(target) not in announcing:
            yield Finding(
                check=_ID,
                place=f"{rule.place}: EventPattern/detail/bucket/name",
                value=f"bucket {target.place} tells EventBridge nothing",
                allowed="a bucket with NotificationConfiguration.EventBridgeConfiguration",
                fix="switch event_bridge_enabled on for the bucket",
            )


CHECK = Check(
    id=_ID,
    title="Event patterns against the events that are really emitted",
    proves="every EventBridge rule can match an event: of AWS's services by their fields and values, of ours "
    "by what functions and state machines put on the bus, and every bucket it waits for tells EventBridge",
    source=f"Amazon EventBridge Events Reference, {CHECKED}; put_events in the deployed code",
    run=run,
)
