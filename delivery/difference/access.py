"""Who may do more: every policy document of two templates, taken apart into single permissions.

A permission is one action on one resource for one subject under one condition. It is new when no permission
of the same subject before covered it, wherever it stood: a statement that moves to another policy of the same
role widens nothing.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from delivery.difference.values import flat

__all__ = ["Permission", "Widening", "permissions", "widened"]

_ATTACHED = ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy")
#: What a role trusts is told apart from what it may.
TRUST = " (its trust)"
#: An asset's object is named by the hash of its content: another one is no other permission.
_ASSET = re.compile(r"(\bcdk-[a-z0-9]+-assets-.*/)[0-9a-f]{64}")
#: A principal of an account that is named by its number.
_OTHERS = re.compile(r"\b[0-9]{12}\b")
_PRINCIPALS = ("AWS::IAM::Role", "AWS::IAM::User", "AWS::IAM::Group")
#: Where a resource policy says whose it is.
_OWNERS = ("Bucket", "Queues", "Topics", "SecretId", "KeyId", "ResourceArn", "RepositoryName")


@dataclass(frozen=True, kw_only=True)
class Permission:
    """One action for one subject. ``subject`` is a logical id, ``principal`` whom a resource policy names."""

    subject: str
    effect: str
    action: str
    resource: str
    principal: str = ""
    condition: str = ""
    #: The resource of the template that says it; not part of what is compared.
    said_by: str = ""

    def covers(self, other: Permission) -> bool:
        """Whether who has this permission has the other one."""
        return (
            self.subject == other.subject
            and self.effect == other.effect
            and _matches(self.principal, other.principal)
            and self.condition in ("", other.condition)
            and _matches(self.action.lower(), other.action.lower())
            and _matches(self.resource, other.resource)
        )

    def __str__(self) -> str:
        whom = f" to {self.principal}" if self.principal else ""
        under = f", if {self.condition}" if self.condition else ""
        return f"{self.action} on {self.resource}{whom}{under}"


def _matches(pattern: str, text: str) -> bool:
    if pattern == text:
        return True
    if "*" not in pattern and "?" not in pattern:
        return False
    # Of fnmatch's signs IAM has * and ? only.
    return fnmatch.fnmatchcase(text, re.sub(r"\[", "[[]", pattern))


def permissions(resources: Mapping[str, Mapping[str, Any]]) -> list[Permission]:
    """Every permission that the resources of a template give."""
    found: list[Permission] = []
    for logical_id, resource in resources.items():
        properties = resource.get("Properties", {})
        for subject in _subjects(logical_id, resource["Type"], properties):
            for path, document in _documents(properties, ""):
                # What a role trusts is another thing than what it may do.
                trust = path.endswith("AssumeRolePolicyDocument")
                whose = f"{subject}{TRUST}" if trust else subject
                for statement in _listed(document.get("Statement", [])):
                    found += _of_statement(whose, statement, logical_id)
        found += _beside(logical_id, resource["Type"], properties)
    return found


def _subjects(logical_id: str, kind: str, properties: Mapping[str, Any]) -> list[str]:
    if kind in _ATTACHED:
        attached = [
            flat(one) for key in ("Roles", "Users", "Groups") for one in _listed(properties.get(key, []))
        ]
        return [name.strip("${}") for name in attached] or [logical_id]
    for owner in _OWNERS:
        if owner in properties and kind not in _PRINCIPALS and kind.endswith("Policy"):
            return [flat(one).strip("${}") for one in _listed(properties[owner])]
    return [logical_id]


def _documents(value: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, str) and value.lstrip().startswith("{") and '"Statement"' in value:
        try:
            value = json.loads(value)
        except ValueError:
            return
    if isinstance(value, Mapping):
        if "Statement" in value and isinstance(value["Statement"], list | Mapping):
            yield path, value
            return
        for key, part in value.items():
            yield from _documents(part, f"{path}.{key}")
    elif isinstance(value, list):
        for part in value:
            yield from _documents(part, path)


def _of_statement(subject: str, statement: Any, said_by: str) -> Iterator[Permission]:
    if not isinstance(statement, Mapping):
        return
    condition = json.dumps(statement["Condition"], sort_keys=True) if statement.get("Condition") else ""
    for action in _worded(statement, "Action"):
        for resource in _worded(statement, "Resource") or ["(this resource)"]:
            for principal in _principals(statement):
                yield Permission(
                    subject=subject,
                    effect=str(statement.get("Effect", "Allow")),
                    action=action,
                    resource=resource,
                    principal=principal,
                    condition=condition,
                    said_by=said_by,
                )


def _worded(statement: Mapping[str, Any], key: str) -> list[str]:
    if f"Not{key}" in statement:
        # All but these: no pattern says it, so it is compared as it stands.
        return [f"all but {', '.join(sorted(map(flat, _listed(statement[f'Not{key}']))))}"]
    return [_ASSET.sub(r"\1<asset>", flat(one)) for one in _listed(statement.get(key, []))]


def _principals(statement: Mapping[str, Any]) -> list[str]:
    if "NotPrincipal" in statement:
        return [f"all but {flat(statement['NotPrincipal'])}"]
    given = statement.get("Principal")
    if given is None:
        return [""]
    if isinstance(given, str):
        return [given]
    return [
        "*" if flat(one) == "*" else f"{kind}:{flat(one)}"
        for kind, named in given.items()
        for one in _listed(named)
    ]


def _beside(logical_id: str, kind: str, properties: Mapping[str, Any]) -> Iterator[Permission]:
    """What gives permissions without a policy document."""
    if kind in _PRINCIPALS:
        for arn in _listed(properties.get("ManagedPolicyArns", [])):
            yield Permission(
                subject=logical_id,
                effect="Allow",
                action="everything in the policy",
                resource=flat(arn),
                said_by=logical_id,
            )
        boundary = properties.get("PermissionsBoundary")
        if boundary is not None:
            # A boundary only takes away.
            yield Permission(
                subject=logical_id,
                effect="Deny",
                action="everything outside of the boundary",
                resource=flat(boundary),
                said_by=logical_id,
            )
    elif kind == "AWS::Lambda::Permission":
        narrowed = {
            key: flat(properties[key])
            for key in (
                "SourceArn",
                "SourceAccount",
                "PrincipalOrgID",
                "EventSourceToken",
                "FunctionUrlAuthType",
            )
            if key in properties
        }
        yield Permission(
            subject=flat(properties.get("FunctionName", "")).strip("${}").partition(".")[0],
            effect="Allow",
            action=flat(properties.get("Action", "")),
            resource="(this function)",
            principal=flat(properties.get("Principal", "")),
            condition=json.dumps(narrowed, sort_keys=True) if narrowed else "",
            said_by=logical_id,
        )


def _listed(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    return [] if value is None else [value]


@dataclass(frozen=True, kw_only=True)
class Widening:
    """What somebody may that they could not; ``said_by`` is the resource that says so."""

    subject: str
    said_by: str
    words: str


def widened(
    before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]
) -> Iterator[Widening]:
    """Each permission that is new and each denial that is gone.

    Who is new altogether is told once, with how much it may, and what of that is wide or is another
    account's.
    """
    old, new = permissions(before), permissions(after)
    allowed = _by_subject(p for p in old if p.effect == "Allow")
    known = {p.subject for p in old}
    for subject, given in _by_subject(p for p in new if p.effect == "Allow").items():
        more = [p for p in given if not any(had.covers(p) for had in allowed.get(subject, ()))]
        if subject in known:
            yield from _each(subject, more)
        else:
            yield from _of_new(subject, more)
    kept = _by_subject(p for p in new if p.effect == "Deny")
    there = {p.subject for p in new}
    for denial in (p for p in old if p.effect == "Deny"):
        # Whoever is gone is denied nothing and may nothing.
        if denial.subject in there and not any(d.covers(denial) for d in kept.get(denial.subject, ())):
            yield Widening(
                subject=denial.subject, said_by=denial.said_by, words=f"is no longer denied: {denial}"
            )


def _each(subject: str, more: Iterable[Permission]) -> Iterator[Widening]:
    told = {f"may now: {permission}{_wide(permission)}": permission for permission in more}
    for words, permission in told.items():
        yield Widening(subject=subject, said_by=permission.said_by, words=words)


def _of_new(subject: str, given: Sequence[Permission]) -> Iterator[Widening]:
    notable = [p for p in given if _wide(p) or _OTHERS.search(p.principal)]
    if subject.endswith(TRUST) or any(p.principal for p in given):
        # A resource of one's own that names its services is no widening; who else is, follows.
        yield from _each(subject, notable)
        return
    services = sorted({p.action.partition(":")[0] for p in given})
    yield Widening(
        subject=subject,
        said_by=given[0].said_by,
        words=f"is new and may {len({str(p) for p in given})} things of {', '.join(services)}",
    )
    yield from _each(subject, notable)


def _by_subject(found: Iterable[Permission]) -> Mapping[str, list[Permission]]:
    table: dict[str, list[Permission]] = {}
    for permission in found:
        table.setdefault(permission.subject, []).append(permission)
    return table


def _wide(permission: Permission) -> str:
    """What is wider than anybody should approve without a second look."""
    if permission.principal.endswith(":root") and "${AWS::AccountId}" in permission.principal:
        # The account's own policies decide: how every key policy of AWS's own begins.
        return ""
    wide = []
    if permission.action == "*" or permission.action.endswith(":*"):
        wide.append("every action")
    # A resource policy's * is the resource itself.
    if permission.resource == "*" and not permission.principal:
        wide.append("every resource")
    if permission.principal in ("*", "AWS:*") and not permission.condition:
        wide.append("everybody")
    return f" ({', '.join(wide)})" if wide else ""
