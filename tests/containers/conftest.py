"""Fixtures of the images' tests."""

from __future__ import annotations

import pathlib
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from container_support import TASKS, Trained, make_contract, train_workload
from ml_contract.compiled import CompiledContract
from monitor_support import Account
from moto.server import ThreadedMotoServer


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


@pytest.fixture
def aws() -> Iterator[int]:
    """The port of an empty AWS account in this process."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    # Servers of one process share their state.
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/reset", data=b"") as response:
        assert response.status == 200
    yield port
    server.stop()


@pytest.fixture
def account(aws: int, contract: CompiledContract) -> Account:
    """An account of the binary workload."""
    return Account(aws, contract)
