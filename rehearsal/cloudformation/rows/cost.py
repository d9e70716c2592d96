"""Rows of cost: what AWS Budgets does when a budget is spent."""

# ruff: noqa: ARG005 - the functions of a row share one signature
from __future__ import annotations

from rehearsal.cloudformation.rows.base import Context, Properties, Row

__all__ = ["TABLE"]


def _action(p: Properties, context: Context) -> Properties:
    """The API has its own names for the threshold's and the subscribers' members."""
    threshold = p["ActionThreshold"]
    out = {key: value for key, value in p.items() if key not in ("ActionThreshold", "Subscribers")}
    return out | {
        "AccountId": context.runtime.account,
        "ActionThreshold": {
            "ActionThresholdType": threshold["Type"],
            "ActionThresholdValue": float(threshold["Value"]),
        },
        "Subscribers": [{"SubscriptionType": s["Type"], "Address": s["Address"]} for s in p["Subscribers"]],
        "ApprovalModel": p.get("ApprovalModel", "MANUAL"),
    }


def _names(p: Properties, output: Properties) -> Properties:
    return {"AccountId": p["AccountId"], "BudgetName": p["BudgetName"], "ActionId": output["ActionId"]}


TABLE = {
    "AWS::Budgets::BudgetsAction": Row(
        service="budgets",
        create="CreateBudgetAction",
        delete="DeleteBudgetAction",
        identify=_names,
        convert=_action,
        ref=lambda p, out, found: f"{out['ActionId']}|{p['BudgetName']}",
        attributes=lambda p, out, found: {"ActionId": out["ActionId"]},
    ),
}
