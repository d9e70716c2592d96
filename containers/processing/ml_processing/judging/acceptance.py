"""Whether a model may be registered: every check of the workload, and one verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ml_contract.compiled import CompiledContract
from ml_judging.bias import unfairness

__all__ = ["accept"]

#: The pipeline fails with these words (FailStep, ErrorMessage: 3,072 characters).
WHY_LIMIT: Final = 3_072


def accept(contract: CompiledContract, report: Mapping[str, Any]) -> dict[str, Any]:
    """The ``acceptance`` section: each check with what it found, and the verdict.

    A check that could not be made refuses nothing and says so (``passed`` is null).
    """
    checks = [
        _metric(contract, report),
        *_bias(contract, report),
        *_champion(contract, report),
    ]
    against = [check["text"] for check in checks if check["passed"] is False and check["refuses"]]
    return {
        "verdict": "refused" if against else "accepted",
        "why": "; ".join(against)[:WHY_LIMIT] if against else "every check of the workload is met",
        "warnings": [check["text"] for check in checks if check["passed"] is False and not check["refuses"]],
        "checks": checks,
    }


def _check(
    name: str,
    passed: bool | None,
    value: float | None,
    limit: float | None,
    text: str,
    *,
    refuses: bool = True,
) -> dict[str, Any]:
    return {
        "check": name, "passed": passed, "value": value, "limit": limit, "refuses": refuses, "text": text,
    }  # fmt: skip


def _metric(contract: CompiledContract, report: Mapping[str, Any]) -> dict[str, Any]:
    wanted = contract.acceptance
    name = wanted["metric"]
    found = report["metrics"].get(name)
    at_most = wanted["at_least"] is None
    limit = wanted["at_most"] if at_most else wanted["at_least"]
    said = f"{name} must be {'at most' if at_most else 'at least'} {limit:g} on the held-out part"
    if found is None:
        return _check(name, False, None, limit, f"{said}, these rows give none")
    value = found["value"]
    passed = value <= limit if at_most else value >= limit
    return _check(name, passed, value, limit, f"{said}, got {value:.4f}")


def _bias(contract: CompiledContract, report: Mapping[str, Any]) -> list[dict[str, Any]]:
    block = contract.evaluation.get("bias") or {}
    found = []
    for name, limit in block.get("limits", {}).items():
        for facet, one in report["bias"]["facets"].items():
            value = (one["before_training"] | one["after_training"]).get(name)
            fair = "1" if name == "DI" else "0"
            said = f"{name} of {facet} ({one['group']}) must be within {limit:g} of {fair}"
            passed = None if value is None else unfairness(name, value) <= limit
            got = "these rows do not define it" if value is None else f"got {value:.4f}"
            refuses = block["beyond"] == "refuse"
            found.append(
                _check(f"{name} of {facet}", passed, value, limit, f"{said}, {got}", refuses=refuses)
            )
    return found


def _below(allowed: float | None) -> float | None:
    return None if allowed is None else -allowed


def _champion(contract: CompiledContract, report: Mapping[str, Any]) -> list[dict[str, Any]]:
    rules = contract.evaluation.get("champion")
    if rules is None or report["champion"] is None:
        return []
    metric = contract.acceptance["metric"]
    found = []
    for name, section, limit, said in (
        ("champion", report["champion"]["held_out"], rules["margin"],
         "must be better than the approved model's by {:g} on the same rows"),
        ("forgetting", report["champion"]["old_data"], _below(rules["forgetting"]),
         "must be no more than {:g} worse than the approved model's on its own held-out rows"),
    ):  # fmt: skip
        if limit is None or section is None:
            continue
        text = f"{metric} " + said.format(limit if name == "champion" else -limit)
        if not section["compared"]:
            found.append(_check(name, None, None, limit, f"{text}; not compared: {section['why']}"))
            continue
        value = section["better_by"]
        got = f"got {section['value']:.4f} beside {section['champion']:.4f}"
        found.append(_check(name, value >= limit, value, limit, f"{text}, {got}"))
    return found
