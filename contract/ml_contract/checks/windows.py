"""What holds between ``windows`` and the rest of a workload."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml_contract.spec.record import DELIVERY_COLUMNS, RESERVED_COLUMNS
from ml_contract.windows.flink_job import flink_format

if TYPE_CHECKING:
    from ml_contract.checks.workload import Checks
    from ml_contract.spec.windows import WindowFeature, Windows

__all__ = ["check_windows"]


def check_windows(checks: Checks) -> None:
    """Key, event time, fields and names of the window features."""
    windows = checks.workload.windows
    if windows is None:
        return
    _key(checks, windows)
    if windows.engine == "flink":
        _event_time(checks)
    for name, window in windows.features.items():
        _feature(checks, name, window)


def _key(checks: Checks, windows: Windows) -> None:
    path = ("windows", "key")
    key = checks.field(path, windows.key)
    if key is None:
        return
    if key.type not in ("string", "integer"):
        checks.wrong(path, f"{windows.key} is {key.type}; allowed here: string or integer")
    if key.sensitive == "pii":
        checks.wrong(
            path, f"{windows.key} is pii, and the online store shows the key in the clear; use another field"
        )
    if windows.engine == "flink" and not key.required:
        checks.wrong(
            path, f"{windows.key} identifies the rows of the online store; give the field required: true"
        )


def _event_time(checks: Checks) -> None:
    name = checks.workload.record.event_time
    field = checks.workload.record.fields.get(name)
    if field is None or field.format is None:
        return
    try:
        flink_format(field.format)
    except ValueError as error:
        checks.wrong(("record", "fields", name, "format"), str(error))


def _feature(checks: Checks, name: str, window: WindowFeature) -> None:
    workload = checks.workload
    path = ("windows", "features", name)
    if name in workload.record.fields or name in workload.features.derive:
        checks.wrong(path, f"{name} is a field or a derived feature; give the window another name")
    if name in RESERVED_COLUMNS or name in DELIVERY_COLUMNS or name.startswith("_"):
        checks.wrong(path, f"{name} is reserved; give the window another name")
    if window.field is None:
        return
    field = checks.field((*path, "field"), window.field)
    if field is None:
        return
    if field.type not in ("integer", "number"):
        checks.wrong(
            (*path, "field"), f"{window.field} is {field.type}; {window.aggregate} takes integer or number"
        )
    checks.may_be_used((*path, "field"), window.field, field)
