"""Roles and sessions: who there is, whom a role trusts and who stands behind an access key."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from rehearsal.ministack_bridge._inside import CFN, account_scope, substitute
from rehearsal.ministack_bridge.permissions import Policy


def register_session(access_key_id: str, *, role_arn: str, session: str, secret: str, token: str) -> None:
    """Let STS know an access key that stands for a role, so that ``GetCallerIdentity`` answers it."""
    sts = importlib.import_module("ministack.services.sts")
    account, name = role_arn.split(":")[4], role_arn.rsplit("/", 1)[-1]
    sts.register_session(
        access_key_id,
        {
            "Arn": f"arn:aws:sts::{account}:assumed-role/{name}/{session}",
            "UserId": f"{name}:{session}",
            "SecretAccessKey": secret,
            "SessionToken": token,
        },
    )


def session_role(access_key_id: str) -> str | None:
    """Return the assumed-role ARN of a session that STS issued, None for a key that is none."""
    sts = importlib.import_module("ministack.services.sts")
    session = sts._sessions.get(access_key_id)
    arn = None if session is None else str(session.get("Arn", ""))
    return arn if arn is not None and ":assumed-role/" in arn else None


def role_policies(role_arn: str) -> tuple[tuple[Policy, ...], list[list[list[Any]]]] | None:
    """Return the policies of a role and its permissions boundary; None when there is no such role."""
    iam = importlib.import_module("ministack.services.iam")
    evaluator = importlib.import_module("ministack.core.iam_evaluator")
    account, name = role_arn.split(":")[4], role_arn.rsplit("/", 1)[-1]
    role = iam._roles.get_scoped(account, None, name)
    if role is None:
        return None
    policies = [
        Policy(name=policy, statements=tuple(evaluator.parse_policy_document(document)))
        for policy, document in (role.get("InlinePolicies") or {}).items()
    ]
    for arn in role.get("AttachedPolicies", []):
        document = evaluator._resolve_managed_policy_document(arn, account)
        if document:
            policies.append(Policy(name=arn, statements=tuple(evaluator.parse_policy_document(document))))
    return tuple(policies), evaluator._permissions_boundary(iam._roles, name, account)


def role_arns(account: str) -> tuple[str, ...]:
    """Return the ARNs of every role of an account."""
    iam = importlib.import_module("ministack.services.iam")
    with account_scope(account, "us-east-1"):
        return tuple(role["Arn"] for role in iam._roles.values())


def trusts(role_arn: str, service_principal: str, *, tells_source: bool = True) -> bool:
    """Say whether a role's trust policy lets a service assume it.

    A statement with a condition on the source (``aws:SourceAccount``, ``aws:SourceArn``) lets in nobody who
    does not tell it.
    """
    iam = importlib.import_module("ministack.services.iam")
    evaluator = importlib.import_module("ministack.core.iam_evaluator")
    role = iam._roles.get_scoped(role_arn.split(":")[4], None, role_arn.rsplit("/", 1)[-1])
    if role is None:
        return False
    document = role.get("AssumeRolePolicyDocument") or "{}"
    parsed = json.loads(document) if isinstance(document, str) else document
    statements = parsed.get("Statement", [])
    for statement in statements if isinstance(statements, list) else [statements]:
        principal = statement.get("Principal", {})
        if not tells_source and "aws:source" in json.dumps(statement.get("Condition", {})).lower():
            continue
        if statement.get("Effect") == "Allow" and isinstance(principal, dict):
            services = principal.get("Service", [])
            if evaluator._service_principal_matches({"Service": services}, service_principal):
                return True
    return False


def hold_strangers_to_trust(account: str) -> None:
    """Let another account take a role only as the role's trust policy says, external id included.

    ministack looks at trust policies only when it checks signatures too. Who signs with an account's number
    as the access key is that account's root.
    """
    sts = importlib.import_module("ministack.services.sts")
    iam = importlib.import_module("ministack.services.iam")
    evaluator = importlib.import_module("ministack.core.iam_evaluator")
    original = sts.handle_request

    async def handle(method: str, path: str, headers: Any, body: Any, query: Any) -> Any:
        params = {**dict(query), **parse_qs((body or b"").decode("utf-8", errors="replace"))}
        caller = sts._caller_identity(headers, query)
        stranger = isinstance(caller, Mapping) and caller["accountId"] != account
        arn = sts._p(params, "RoleArn") if sts._p(params, "Action") == "AssumeRole" else ""
        known = arn.count(":") >= 5
        role = iam._roles.get_scoped(arn.split(":")[4], None, arn.rsplit("/", 1)[-1]) if known else None
        # A role that is not there is refused to its own account in the same words.
        if known and isinstance(caller, Mapping) and (stranger or role is None):
            context = evaluator.EvalContext(
                principal_arn=caller["userArn"],
                principal_type=caller["principalType"],
                principal_account=caller["accountId"],
                action="sts:AssumeRole",
                resource_arn=arn,
                region="us-east-1",
                service_context={"sts:externalid": sts._p(params, "ExternalId", None)},
                principal_keys=caller.get("principalKeys", {}),
            )
            trust = "{}" if role is None else role.get("AssumeRolePolicyDocument", "{}")
            if not evaluator.evaluate_trust_policy(trust, caller["userArn"], context):
                who = caller["userArn"]
                message = f"User: {who} is not authorized to perform: sts:AssumeRole on resource: {arn}"
                return sts._error(403, "AccessDenied", message, ns="sts")
        return await original(method, path, headers, body, query)

    substitute(sts, "handle_request", handle)


def role_tags(role_arn: str) -> dict[str, str]:
    """Return the tags of a role, which are those of its sessions' principal; empty when there is no role."""
    iam = importlib.import_module("ministack.services.iam")
    role = iam._roles.get_scoped(role_arn.split(":")[4], None, role_arn.rsplit("/", 1)[-1])
    return {} if role is None else {tag["Key"]: tag["Value"] for tag in role.get("Tags", [])}


def keep_boundaries() -> None:
    """Give a role the permissions boundary that its template names; ministack drops the property.

    A boundary that is no policy of the account fails the resource, as IAM's NoSuchEntity does.
    """
    provisioners = importlib.import_module(f"{CFN}.provisioners")
    iam = importlib.import_module("ministack.services.iam")
    evaluator = importlib.import_module("ministack.core.iam_evaluator")
    responses = importlib.import_module("ministack.core.responses")
    handlers = provisioners._RESOURCE_HANDLERS["AWS::IAM::Role"]
    create, update = handlers["create"], handlers["update"]

    def check(props: Mapping[str, Any]) -> None:
        arn = props.get("PermissionsBoundary")
        if arn and not evaluator._resolve_managed_policy_document(arn, responses.get_account_id()):
            raise ValueError(f"Policy {arn} does not exist or is not attachable.")

    def keep(name: str, props: Mapping[str, Any]) -> None:
        role = iam._roles.get(name)
        if props.get("PermissionsBoundary"):
            role["PermissionsBoundary"] = props["PermissionsBoundary"]
        else:
            role.pop("PermissionsBoundary", None)

    def made(logical_id: str, props: Mapping[str, Any], stack: str) -> Any:
        check(props)
        result = create(logical_id, props, stack)
        keep(result[0], props)
        return result

    def changed(physical_id: str, old: Any, new: Mapping[str, Any], stack: str, *rest: Any) -> Any:
        check(new)
        result = update(physical_id, old, new, stack, *rest)
        keep(result[0], new)
        return result

    provisioners._RESOURCE_HANDLERS["AWS::IAM::Role"] = {**handlers, "create": made, "update": changed}


def role_exists(role_arn: str) -> bool:
    """Say whether there is a role of that ARN."""
    return role_policies(role_arn) is not None
