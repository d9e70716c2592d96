"""Fixtures of the images' tests."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import pytest
from container_support import TASKS, Trained, make_contract, train_workload
from ml_contract.compiled import CompiledContract


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """Return the function from a task to its trained workload; each is trained once."""
    known: dict[str, Trained] = {}

    def get(task: str) -> Trained:
        if task not in known:
            known[task] = train_workload(task, tmp_path_factory.mktemp(task))
        return known[task]

    return get


@pytest.fixture(params=TASKS)
def workload(request: pytest.FixtureRequest, trained: Callable[[str], Trained]) -> Trained:
    """One trained workload per task."""
    return trained(request.param)


@pytest.fixture
def contract(tmp_path: pathlib.Path) -> CompiledContract:
    """The binary contract."""
    return make_contract(tmp_path / "workload", "binary")
