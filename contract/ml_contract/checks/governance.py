"""What holds between the governance of a workload and its record."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ml_contract.checks.workload import Checks
    from ml_contract.problems import Location

__all__ = ["check_governance"]

#: Field types whose values a row filter may name, and the Python type of the values.
_FILTERED: dict[str, type] = {"string": str, "integer": int, "boolean": bool}


def check_governance(checks: Checks) -> None:
    """Row filters name values that their field may have; masks stand on pii fields."""
    governance = checks.workload.governance
    for persona, rows in governance.row_filters.items():
        path: Location = ("governance", "row_filters", persona)
        field = checks.field((*path, "field"), rows.field)
        if field is None:
            continue
        kind = _FILTERED.get(field.type)
        if kind is None:
            allowed = ", ".join(_FILTERED)
            checks.wrong((*path, "field"), f"{rows.field} is {field.type}; a row filter takes {allowed}")
            continue
        if field.sensitive == "pii":
            checks.wrong((*path, "field"), f"{rows.field} is pii; a filter on it would tell who is in it")
        for value in rows.values:
            if type(value) is not kind:
                checks.wrong((*path, "values"), f"got {value!r}; {rows.field} holds {field.type} values")
            elif field.allowed is not None and value not in field.allowed:
                known = ", ".join(field.allowed)
                message = f"got {value!r}, which {rows.field} never is; allowed are {known}"
                checks.wrong((*path, "values"), message)
    for name in governance.masks:
        path = ("governance", "masks", name)
        field = checks.field(path, name)
        if field is not None and field.sensitive != "pii":
            checks.wrong(path, f"{name} is not pii and needs no mask; mark it sensitive: pii or remove this")
