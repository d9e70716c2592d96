"""What holds between the ``batch`` block and the rest of a workload: its data quality rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml_contract.compiled import CompiledContract
from ml_contract.problems import closest
from ml_contract.quality.dqdl import RULES, DqdlError
from ml_contract.quality.rules import parsed_rules, row_rule

if TYPE_CHECKING:
    from ml_contract.spec.workload import Workload

__all__ = ["batch_problems"]


def batch_problems(workload: Workload, contract: CompiledContract) -> list[tuple[tuple[str | int, ...], str]]:
    """Return (place, message) of every rule that no engine can judge and every severity without a rule."""
    batch = workload.batch
    if batch.profile is not None and workload.stream.format == "iceberg":
        message = "DataBrew reads no Iceberg table, got stream.format: iceberg; take one of them out"
        return [(("batch", "profile"), message)]
    try:
        rules = {rule.text: rule for rule in parsed_rules(contract)}
    except DqdlError as error:
        return [(("batch", "rules"), str(error))]
    found: list[tuple[tuple[str | int, ...], str]] = []
    kinds = sorted({kind for rule in rules.values() for kind in rule.kinds})
    for name, severity in batch.severity.items():
        place = ("batch", "severity", name)
        if name not in rules and name not in kinds:
            close = closest(name, [*kinds, *rules])
            reason = "which no rule of this workload has" if name in RULES else "which is no rule"
            hint = f"did you mean {close!r}?" if close else f"rule types here: {', '.join(kinds)}"
            found.append((place, f"got {name!r}, {reason}; {hint}"))
        elif severity == "quarantine":
            chosen = [rules[name]] if name in rules else [r for r in rules.values() if name in r.kinds]
            whole = [rule.text for rule in chosen if not row_rule(rule)]
            if whole:
                found.append(
                    (
                        place,
                        f"got quarantine for {whole[0]!r}, which judges the table and no single row; "
                        "choose stop or warn",
                    )
                )
    return found
