"""What the server knows at the end, entered into the report: the ledger and the permissions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rehearsal.story.tale import Tale

__all__ = ["close_ledger", "close_permissions", "denied", "unused"]


def close_ledger(tale: Tale) -> None:
    """Enter what ran, what was recorded and what failed."""
    entries = tale.cloud.ledger()
    tale.report.ledger = {
        outcome: [
            {"kind": e["kind"], "name": e["name"], "why": e["why"]}
            for e in entries
            if e["outcome"] == outcome
        ]
        for outcome in ("ran", "recorded", "failed")
    }


def close_permissions(tale: Tale) -> None:
    """Enter which granted actions nothing used, and what was refused."""
    roles = tale.cloud.permissions()
    tale.report.iam = {"unused": unused(roles), "denied": denied(roles), "roles": len(roles)}


def unused(roles: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Granted actions that no call needed, per role; roles that nothing assumed come last."""
    rows = []
    for role in roles:
        actions = sorted({g["action"] for g in role["grants"] if not g["used"]})
        if actions:
            rows.append(
                {"role": role["role"].rsplit("/", 1)[-1], "called": role["called"], "actions": actions}
            )
    return sorted(rows, key=lambda row: (not row["called"], row["role"]))


def denied(roles: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Calls that were refused."""
    return [
        {"role": role["role"].rsplit("/", 1)[-1], "action": r["action"], "resource": r["resource"]}
        for role in roles
        for r in role["refused"]
    ]
