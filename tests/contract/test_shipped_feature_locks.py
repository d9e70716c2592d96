"""The lock files that are checked in say what the workloads beside them ask for."""

from __future__ import annotations

from pathlib import Path

import pytest
from ml_contract.evolution.feature_lock import LOCK_NAME, FeatureLock, GroupVersion
from ml_contract.load import load_workload

LOCKS = sorted((Path(__file__).resolve().parents[2] / "workloads").glob(f"*/{LOCK_NAME}"))


def test_should_lock_the_worked_example() -> None:
    assert "claims_fraud" in [lock.parent.name for lock in LOCKS]


@pytest.mark.parametrize("file", LOCKS, ids=[lock.parent.name for lock in LOCKS])
def test_should_have_every_feature_recorded(file: Path) -> None:
    loaded = load_workload(file.parent)
    lock = FeatureLock.read(file.parent)
    assert lock is not None
    wanted = GroupVersion.of(loaded.compiled, loaded.workload.features.store)
    assert lock.with_contract(wanted) == lock, f"run: python -m ml_contract features {file.parent}"
