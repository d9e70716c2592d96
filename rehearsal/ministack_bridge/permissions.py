"""Policies: what a check says of a role's and a resource's, and AWS's words for a refusal."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rehearsal.ministack_bridge._inside import account_scope, substitute


@dataclass(frozen=True, kw_only=True)
class Check:
    """One permission that a call needs."""

    action: str
    resource: str
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """One policy document of a role: its name and its statements as ministack parsed them."""

    name: str
    statements: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What the policies say to a check; ``grants`` are the (policy, statement number) that allowed it."""

    allowed: bool
    explicit_deny: bool
    resource_policy_arn: str
    grants: tuple[tuple[str, int], ...]


def action_matches(action: str, pattern: str) -> bool:
    """Say whether an action is meant by a pattern of a policy."""
    evaluator = importlib.import_module("ministack.core.iam_evaluator")
    return bool(evaluator.fnmatch_iam(action, pattern))


def decide(
    check: Check,
    *,
    service: str,
    principal: str,
    account: str,
    region: str,
    policies: Iterable[Policy],
    boundary: list[list[list[Any]]],
    principal_tags: Mapping[str, str] | None = None,
) -> Decision:
    """Evaluate a check against a role's policies and the resource's own, with ministack's evaluator.

    ``principal`` is the assumed-role ARN of the caller, ``principal_tags`` are the tags of its role.
    """
    evaluator = importlib.import_module("ministack.core.iam_evaluator")
    documents = list(policies)
    layers = [list(policy.statements) for policy in documents]
    context = {key.lower(): value for key, value in check.context.items()}
    context.setdefault("aws:tagkeys", None)
    with account_scope(account, region):
        if evaluator._names_condition_key(layers, "aws:resourcetag/"):
            tagging = importlib.import_module("ministack.services.tagging")
            for key, value in (tagging.resource_tags(check.resource) or {}).items():
                context.setdefault(f"aws:resourcetag/{key}".lower(), value)
        if check.action == "sts:AssumeRole" and evaluator._names_condition_key(layers, "iam:resourcetag/"):
            # IAM's own name for the tags of a role.
            from rehearsal.ministack_bridge.roles import role_tags

            for key, value in role_tags(check.resource).items():
                context.setdefault(f"iam:resourcetag/{key}".lower(), value)
        request = evaluator.EvalContext(
            principal_arn=principal,
            principal_type="AssumedRole",
            principal_account=account,
            action=check.action,
            resource_arn=check.resource,
            region=region,
            # The gateway listens on plain HTTP on this machine only; an SDK talks to AWS by TLS.
            secure_transport=True,
            service_context=context,
            principal_keys={
                f"aws:principaltag/{key}".lower(): value for key, value in (principal_tags or {}).items()
            },
        )
        result = evaluator.evaluate(request, layers, *boundary)
        own = evaluator._resource_policy(service, check.resource)
        if own is not None:
            result = evaluator.combine_resource_policy(
                result, request, *own, required=service == "kms", limits=tuple(boundary)
            )
        grants = tuple(
            (policy.name, number)
            for policy in documents
            for number, statement in enumerate(policy.statements)
            if statement.effect == "Allow" and evaluator._first_match(request, [statement], "Allow")
        )
    return Decision(
        allowed=result.decision == "Allow",
        explicit_deny=result.decision == "Deny",
        resource_policy_arn=str(result.resource_policy_arn),
        grants=grants,
    )


def add_resource_policies(service: str, lookup: Callable[[str], tuple[str | None, str] | None]) -> None:
    """Hold calls to the policies of a service's resources.

    ``lookup(resource ARN)`` returns the policy of a resource, None without one, and the account that owns
    it; None for a resource that takes no policy.
    """
    evaluator = importlib.import_module("ministack.core.iam_evaluator")
    original = evaluator._resource_policy

    def policy_of(name: str, resource: str) -> Any:
        return lookup(resource) if name == service else original(name, resource)

    substitute(evaluator, "_resource_policy", policy_of)


def access_denied(
    check: Check,
    decision: Decision,
    *,
    service: str,
    principal: str,
    headers: dict[str, str],
    request_id: str,
) -> tuple[int, dict[str, str], bytes]:
    """Return the answer of a refused call in the service's own protocol and words."""
    actions = importlib.import_module("ministack.core.iam_actions")
    named = replace(check, resource=f'"{check.resource}"') if service == "s3" else check
    by_resource = decision.explicit_deny and decision.resource_policy_arn
    status, out, body = actions.access_denied_response(
        service,
        check.action,
        principal,
        request_id,
        # ministack's own text leaves the resource out where AWS names it.
        message="" if by_resource else denial_message(named, decision, principal),
        headers=headers,
        resource_arn=check.resource,
        explicit_deny=decision.explicit_deny,
        resource_policy_arn=decision.resource_policy_arn,
    )
    return int(status), dict(out), bytes(body)


def error_answer(
    service: str, code: str, message: str, *, headers: dict[str, str], request_id: str
) -> tuple[dict[str, str], bytes]:
    """Return the headers and the body of an error in the service's own protocol.

    ``headers`` are those of the request, in whose encoding some services answer.
    """
    actions = importlib.import_module("ministack.core.iam_actions")
    _, out, body = actions.access_denied_response(
        service, "", "", request_id, error_code=code, message=message, headers=headers
    )
    return dict(out), bytes(body)


def denial_message(check: Check, decision: Decision, principal: str) -> str:
    """Return AWS's sentence for a refused call."""
    actions = importlib.import_module("ministack.core.iam_actions")
    return str(
        actions.identity_denial_message(check.action, principal, check.resource, decision.explicit_deny)
    )
