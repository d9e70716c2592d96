"""Roles: which policies they have, and what those allow."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from verify.assembly import Assembly, Resource
from verify.tables.managed_policies import MANAGED_POLICIES

__all__ = ["Grants", "Statement", "actions_of", "grants_of", "policies_of"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Statement:
    """One statement that allows, where it stands."""

    actions: tuple[str, ...]
    resources: tuple[str, ...]
    policy: Resource | None
    #: NotAction: everything but.
    inverted: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Grants:
    """What a role may do as far as the assembly says it."""

    statements: tuple[Statement, ...]
    #: Managed policies whose content nobody here knows.
    unknown: tuple[str, ...]

    def allow(self, action: str) -> bool:
        """Whether an action (``s3:GetObject``) is allowed on anything at all."""
        return any(self._matches(statement, action) for statement in self.statements)

    def allow_on(self, action: str, resource: str) -> bool:
        """Whether an action is allowed on one resource, as text with marks."""
        return any(
            self._matches(statement, action)
            and any(fnmatchcase(resource, _pattern(allowed)) for allowed in statement.resources)
            for statement in self.statements
        )

    @staticmethod
    def _matches(statement: Statement, action: str) -> bool:
        hit = any(fnmatchcase(action.lower(), pattern.lower()) for pattern in statement.actions)
        return hit != statement.inverted


def _pattern(text: str) -> str:
    return text.replace("[", "[[]")


@functools.cache
def _attached(assembly: Assembly) -> Mapping[Resource, tuple[Resource, ...]]:
    """Policies of every role that stand beside it in a template, wherever that is."""
    found: dict[Resource, list[Resource]] = {}
    for policy in assembly.resources("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy", "AWS::IAM::RolePolicy"):
        roles = policy.properties.get("Roles", [policy.properties.get("RoleName")])
        for value in roles:
            role = assembly.target(policy.stack, value)
            if role is not None:
                found.setdefault(role, []).append(policy)
    return {role: tuple(policies) for role, policies in found.items()}


def policies_of(assembly: Assembly, role: Resource) -> tuple[Resource, ...]:
    """Policies of a role that are resources of their own."""
    return _attached(assembly).get(role, ())


def actions_of(policy: Resource) -> frozenset[str]:
    """Every action that a policy's statements name."""
    given = _listed(policy.properties["PolicyDocument"].get("Statement", []))
    return frozenset(str(action) for statement in given for action in _listed(statement.get("Action", [])))


@functools.cache
def grants_of(assembly: Assembly, role: Resource) -> Grants:
    """Everything that a role is allowed: inline, attached, and AWS's managed policies that are known."""
    statements: list[Statement] = []
    unknown: list[str] = []
    for inline in role.properties.get("Policies", ()):
        statements += _statements(assembly, role, inline["PolicyDocument"], None)
    for policy in policies_of(assembly, role):
        statements += _statements(assembly, policy, policy.properties["PolicyDocument"], policy)
    for value in role.properties.get("ManagedPolicyArns", ()):
        target = assembly.target(role.stack, value)
        if target is not None and target.type == "AWS::IAM::ManagedPolicy":
            statements += _statements(assembly, target, target.properties["PolicyDocument"], target)
            continue
        name = re.sub(r"^.*:policy/", "", assembly.text(role.stack, value))
        if name in MANAGED_POLICIES:
            statements.append(Statement(actions=MANAGED_POLICIES[name], resources=("*",), policy=None))
        else:
            unknown.append(name)
    return Grants(statements=tuple(statements), unknown=tuple(unknown))


def _statements(
    assembly: Assembly, at: Resource, document: Mapping[str, Any], policy: Resource | None
) -> Iterator[Statement]:
    for statement in _listed(document.get("Statement", [])):
        if statement.get("Effect") != "Allow":
            continue
        inverted = "NotAction" in statement
        actions = _listed(statement.get("NotAction" if inverted else "Action", []))
        yield Statement(
            actions=tuple(map(str, actions)),
            resources=tuple(
                assembly.text(at.stack, value) for value in _listed(statement.get("Resource", "*"))
            ),
            policy=policy,
            inverted=inverted,
        )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
