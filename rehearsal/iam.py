"""Who calls, and whether the deployed policies let them.

Every principal that is a role of the deployed app (of a function, a job, a container, a delivery stream, a
schedule) gets an access key that stands for it. The gateway finds the role behind the key of each call, the
permissions that the call needs, and asks ministack's evaluator what the role's policies, its boundary and
the resource's own policy say. A call that AWS would refuse is refused in AWS's words. What was granted and
never needed is listed.

Not subject to it are the operator (who runs the CDK CLI and the story) and the roles that ``cdk bootstrap``
made for the CLI: those belong to the tool, not to the app.
"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rehearsal import ministack_bridge as bridge
from rehearsal.control import control
from rehearsal.ministack_bridge import Check, Decision

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["AccessDeniedError", "Authorizer", "Credentials", "Identities", "Principal"]

#: Names that the modern CDK bootstrap template gives the roles of the CLI, whatever the qualifier.
_BOOTSTRAP_ROLE = re.compile(
    r"cdk-[a-z0-9]+-(deploy|file-publishing|image-publishing|lookup|cfn-exec)-role-\d+-.+"
)
_ROLE_ARN = re.compile(r"arn:[\w-]+:iam::(\d{12}):role/(?:.*/)?([\w+=,.@-]+)")


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """What a client signs with."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None


@dataclass(frozen=True, kw_only=True)
class Principal:
    """A role that calls: its ARN and the ARN of the session by which AWS's messages name it."""

    role_arn: str
    session_arn: str

    @property
    def account(self) -> str:
        """The account of the role."""
        return self.role_arn.split(":")[4]


class Identities:
    """Gives out access keys that stand for roles, and knows them again."""

    def __init__(self, account: str) -> None:
        self.account = account
        self.operator = Credentials(access_key_id=account, secret_access_key="rehearsal")  # noqa: S106 - nothing checks it
        self._roles: dict[str, Principal] = {}
        self._credentials: dict[tuple[str, str], Credentials] = {}
        self._lock = threading.Lock()

    def for_role(self, role_arn: str, session: str = "rehearsal") -> Credentials:
        """Return the credentials of a session of a role; the same ones each time."""
        match = _ROLE_ARN.fullmatch(role_arn)
        if match is None:
            raise ValueError(
                f"role must be an IAM role ARN, got {role_arn!r}; e.g. arn:aws:iam::123456789012:role/Job"
            )
        session = re.sub(r"[^\w+=,.@-]", "-", session)[:64]
        with self._lock:
            if (role_arn, session) not in self._credentials:
                account, name = match.groups()
                digest = hashlib.sha256(f"{role_arn}|{session}".encode()).digest()
                key = "ASIA" + base64.b32encode(digest)[:16].decode()
                credentials = Credentials(
                    access_key_id=key,
                    secret_access_key=hashlib.sha256(b"secret" + digest).hexdigest()[:40],
                    session_token=base64.b64encode(digest).decode(),
                )
                bridge.register_session(
                    key,
                    role_arn=role_arn,
                    session=session,
                    secret=credentials.secret_access_key,
                    token=str(credentials.session_token),
                )
                arn = f"arn:aws:sts::{account}:assumed-role/{name}/{session}"
                self._roles[key] = Principal(role_arn=role_arn, session_arn=arn)
                self._credentials[role_arn, session] = credentials
            return self._credentials[role_arn, session]

    def principal(self, access_key_id: str) -> Principal | None:
        """Return the role behind an access key; None when policies do not apply to the caller."""
        with self._lock:
            known = self._roles.get(access_key_id)
        if known is not None:
            return known
        session = bridge.session_role(access_key_id)
        if session is None:
            return None
        account, name = session.split(":")[4], session.split("/")[1]
        if _BOOTSTRAP_ROLE.fullmatch(name):
            return None
        return Principal(role_arn=self._arn_of(account, name), session_arn=session)

    @staticmethod
    def _arn_of(account: str, name: str) -> str:
        """A session's ARN leaves out the path of its role."""
        found = (arn for arn in bridge.role_arns(account) if arn.rsplit("/", 1)[-1] == name)
        return next(found, f"arn:aws:iam::{account}:role/{name}")


class AccessDeniedError(Exception):
    """A call that the policies do not allow."""

    def __init__(self, check: Check, decision: Decision, principal: Principal) -> None:
        self.check = check
        self.decision = decision
        self.principal = principal
        super().__init__(bridge.denial_message(check, decision, principal.session_arn))


@dataclass(frozen=True)
class _Refusal:
    role: str
    action: str
    resource: str
    message: str


class Authorizer:
    """Decides calls and remembers which grants they needed."""

    def __init__(self, account: str) -> None:
        self._account = account
        self._used: dict[str, dict[tuple[str, int], set[str]]] = {}
        self._refused: dict[tuple[str, str, str], _Refusal] = {}
        self._lock = threading.Lock()

    def require(self, principal: Principal, service: str, checks: Iterable[Check], region: str) -> None:
        """Raise `AccessDeniedError` for the first permission that a call needs and that is not given."""
        known = bridge.role_policies(principal.role_arn)
        policies, boundary = ((), []) if known is None else known
        tags = bridge.role_tags(principal.role_arn)
        for check in checks:
            decision = bridge.decide(
                check,
                service=service if check.action.split(":")[0] != "kms" else "kms",
                principal=principal.session_arn,
                account=principal.account,
                region=region,
                policies=policies,
                boundary=boundary,
                principal_tags=tags,
            )
            if not decision.allowed:
                denied = AccessDeniedError(check, decision, principal)
                self._note_refusal(denied)
                raise denied
            self._note_use(principal.role_arn, check.action, decision.grants)

    def note_service_use(self, role_arn: str, actions: Sequence[str], resource: str, region: str) -> None:
        """Note that AWS itself uses a role's grants (Lambda writing a function's log), where they are
        granted.
        """
        known = bridge.role_policies(role_arn)
        if known is None:
            return
        policies, boundary = known
        for action in actions:
            decision = bridge.decide(
                Check(action=action, resource=resource),
                service=action.split(":")[0],
                principal=role_arn,
                account=role_arn.split(":")[4],
                region=region,
                policies=policies,
                boundary=boundary,
            )
            self._note_use(role_arn, action, decision.grants)

    def _note_use(self, role_arn: str, action: str, grants: Iterable[tuple[str, int]]) -> None:
        with self._lock:
            table = self._used.setdefault(role_arn, {})
            for grant in grants:
                table.setdefault(grant, set()).add(action)

    def _note_refusal(self, denied: AccessDeniedError) -> None:
        check = denied.check
        key = (denied.principal.role_arn, check.action, check.resource)
        with self._lock:
            self._refused[key] = _Refusal(*key, str(denied))

    def grants(self) -> list[dict[str, Any]]:
        """Return, per role of the app, each action its policies allow and whether a call needed it."""
        rows = []
        for role_arn in bridge.role_arns(self._account):
            if _BOOTSTRAP_ROLE.fullmatch(role_arn.rsplit("/", 1)[-1]):
                continue
            known = bridge.role_policies(role_arn)
            if known is None:
                continue
            with self._lock:
                used = {grant: set(actions) for grant, actions in self._used.get(role_arn, {}).items()}
                refused = [r for r in self._refused.values() if r.role == role_arn]
            entries = [
                {
                    "policy": policy.name,
                    "statement": number,
                    "action": action,
                    "resources": list(statement.resources),
                    "used": any(
                        bridge.action_matches(made, action) for made in used.get((policy.name, number), ())
                    ),
                }
                for policy in known[0]
                for number, statement in enumerate(policy.statements)
                if statement.effect == "Allow"
                for action in statement.actions
            ]
            rows.append(
                {
                    "role": role_arn,
                    "called": bool(used),
                    "grants": entries,
                    "refused": [
                        {"action": r.action, "resource": r.resource, "message": r.message} for r in refused
                    ],
                }
            )
        return rows

    def refusals(self) -> int:
        """Return how many different permissions were refused so far."""
        with self._lock:
            return len(self._refused)


@control("GET", "/iam")
def _iam(runtime: Runtime, body: dict[str, Any]) -> dict[str, Any]:
    """Return the used and unused grants per role, and what was refused."""
    del body
    return {"roles": runtime.authorizer.grants()}
