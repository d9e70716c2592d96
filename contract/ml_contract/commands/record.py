"""``python -m ml_contract lock`` and ``check --against``: how a record changed, what is recorded."""

from __future__ import annotations

import sys
from pathlib import Path

from ml_contract.evolution.record import (
    LOCK_NAME,
    Change,
    breaking_problems,
    changes,
    lock_text,
    read_lock,
    record_schema,
)
from ml_contract.load import ContractError, load_workload
from ml_contract.problems import join

__all__ = ["check_against", "record_lock"]


def check_against(path: Path, old: Path) -> int:
    """Say what changed since ``old``, a workload.yaml or a lock file. 1 when something of it breaks."""
    try:
        loaded = load_workload(path, locked=False)
        before = read_lock(old) if old.suffix == ".json" else None
        if before is None:
            before = record_schema(load_workload(old, locked=False).workload)
        problems = breaking_problems(loaded, before)
    except ContractError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    _tell([c for c in changes(before, record_schema(loaded.workload)) if not c.breaking or not problems])
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    return 1 if problems else 0


def record_lock(path: Path) -> int:
    """Write the workload's lock file, unless that would hide a breaking change. 1 when it would."""
    try:
        loaded = load_workload(path, locked=False)
        file = loaded.path.parent / LOCK_NAME
        before = read_lock(file)
        problems = [] if before is None else breaking_problems(loaded, before)
    except ContractError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    if problems:
        return 1
    if before is not None:
        _tell(changes(before, record_schema(loaded.workload)))
    file.write_text(lock_text(loaded.workload), encoding="utf-8")
    sys.stdout.write(f"{file}: schema version {loaded.workload.record.schema_version}\n")
    return 0


def _tell(found: list[Change]) -> None:
    for change in found:
        word = "breaking" if change.breaking else "additive"
        sys.stdout.write(f"{word}: {join(change.path)}: {change.message}\n")
