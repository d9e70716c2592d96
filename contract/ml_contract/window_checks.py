"""What holds between ``windows`` and the rest of a workload."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml_contract.model import DELIVERY_COLUMNS, RESERVED_COLUMNS

if TYPE_CHECKING:
    from ml_contract.checks import Checks

__all__ = ["check_windows"]


def check_windows(checks: Checks) -> None:
    """Key, fields and names of the window features."""
    workload = checks.workload
    windows = workload.windows
    if windows is None:
        return
    key = checks.field(("windows", "key"), windows.key)
    if key is not None:
        if key.type not in ("string", "integer"):
            checks.wrong(("windows", "key"), f"{windows.key} is {key.type}; allowed here: string or integer")
        if key.sensitive == "pii":
            checks.wrong(
                ("windows", "key"),
                f"{windows.key} is pii, and the online store shows the key in the clear; use another field",
            )
        if windows.engine == "flink" and not key.required:
            checks.wrong(
                ("windows", "key"),
                f"{windows.key} identifies the rows of the online store; give the field required: true",
            )
    taken = {*workload.record.fields, *workload.features.derive}
    for name, window in windows.features.items():
        path = ("windows", "features", name)
        if name in taken:
            checks.wrong(path, f"{name} is a field or a derived feature; give the window another name")
        if name in RESERVED_COLUMNS or name in DELIVERY_COLUMNS or name.startswith("_"):
            checks.wrong(path, f"{name} is reserved; give the window another name")
        if window.field is None:
            continue
        field = checks.field((*path, "field"), window.field)
        if field is None:
            continue
        if field.type not in ("integer", "number"):
            checks.wrong(
                (*path, "field"),
                f"{window.field} is {field.type}; {window.aggregate} takes integer or number",
            )
        checks.may_be_used((*path, "field"), window.field, field)
