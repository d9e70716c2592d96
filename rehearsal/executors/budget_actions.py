"""AWS Budgets: actions of a budget are kept and described; nobody is billed, so none is ever due."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from rehearsal.services.engine import ApiError, instead

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime
    from rehearsal.services.engine import Call, Record, Service

__all__ = ["install"]

NOUN = "BudgetAction"


def _found(service: Service, call: Call) -> Record:
    record = service.peek(NOUN, str(call.params["ActionId"]))
    if record is None or record.data["BudgetName"] != call.params["BudgetName"]:
        raise ApiError(
            "NotFoundException", f"There is no action {call.params['ActionId']} of the budget.", 404
        )
    return record


@instead("budgets", "CreateBudgetAction")
def _create(service: Service, call: Call) -> dict[str, Any]:
    account, budget = call.params["AccountId"], call.params["BudgetName"]
    names = {b["BudgetName"] for b in _budgets(service, account)}
    if budget not in names:
        raise ApiError(
            "NotFoundException", f"Unable to get budget: {budget} - the budget doesn't exist.", 404
        )
    action = str(uuid.uuid4())
    service.put(NOUN, action, {**call.params, "ActionId": action, "Status": "STANDBY"})
    service.runtime.ledger.recorded(service.name, budget, "nobody is billed, so its action is never due")
    return {"AccountId": account, "BudgetName": budget, "ActionId": action}


def _budgets(service: Service, account: str) -> list[dict[str, Any]]:
    client = service.runtime.forwarding_client("budgets", region=service.region)
    found: list[dict[str, Any]] = client.describe_budgets(AccountId=account).get("Budgets", [])
    return found


@instead("budgets", "DescribeBudgetAction")
def _describe(service: Service, call: Call) -> dict[str, Any]:
    record = _found(service, call)
    return {
        "AccountId": call.params["AccountId"],
        "BudgetName": call.params["BudgetName"],
        "Action": record.data,
    }


@instead("budgets", "DescribeBudgetActionsForBudget")
def _of_budget(service: Service, call: Call) -> dict[str, Any]:
    every = service.records.get(NOUN, {}).values()
    return {"Actions": [r.data for r in every if r.data["BudgetName"] == call.params["BudgetName"]]}


@instead("budgets", "DeleteBudgetAction")
def _delete(service: Service, call: Call) -> dict[str, Any]:
    record = _found(service, call)
    with service.lock:
        del service.records[NOUN][record.name]
    return {
        "AccountId": call.params["AccountId"],
        "BudgetName": call.params["BudgetName"],
        "Action": record.data,
    }


def install(runtime: Runtime) -> None:
    """Nothing beyond the operations above."""
    del runtime
