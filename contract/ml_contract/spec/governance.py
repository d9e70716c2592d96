"""Blocks of a workload that say who may see which of its rows and columns."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ml_contract.spec.blocks import ColumnName, Strict

#: The people whose view of the rows a workload may narrow. Engineers repair rows and auditors read none.
NarrowedPersona = Literal["data_scientist", "mlops_engineer"]
#: hash: a keyed hash, equal for equal values, so that joins still work. redact: no value.
Mask = Literal["hash", "redact"]


class RowFilter(Strict):
    """The rows that a persona sees: those whose field has one of the values."""

    field: ColumnName
    values: tuple[str | bool | int, ...] = Field(min_length=1)

    def expression(self) -> str:
        """The condition in SQL: ``policy_state IN ('OH', 'IL')``."""
        return f"{self.field} IN ({', '.join(_literal(value) for value in self.values)})"


class GovernanceSpec(Strict):
    """Who sees what of the workload's tables, beyond what ``classification`` and ``sensitive`` say."""

    row_filters: dict[NarrowedPersona, RowFilter] = Field(
        default_factory=dict, description="Rows that a persona sees; without one it sees them all."
    )
    masks: dict[ColumnName, Mask] = Field(
        default_factory=dict,
        description="How a pii field stands in the masked view; a keyed hash unless named here.",
    )
    scan: bool = Field(
        default=False,
        description="Look for values that look personal in fields that are not marked as sensitive.",
    )


def _literal(value: str | bool | int) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return "'" + value.replace("'", "''") + "'"
