"""Fixtures of the images' tests."""

from __future__ import annotations

import json
import pathlib
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from container_support import TASKS, Trained, make_contract, train_workload
from live_support import HOUR, TRUTH_HOUR, WATCHED, Live, jsonl
from ml_contract.compiled import CompiledContract
from ml_monitoring.monitor import monitor
from monitor_support import BUCKET, OWN, Account
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


@pytest.fixture
def watched(tmp_path: pathlib.Path) -> CompiledContract:
    block = "monitoring: {minimum_records: 50, drift: {distance: psi, threshold: 0.25}}\n"
    return make_contract(tmp_path / "watched", "binary", **{block: WATCHED})


@pytest.fixture
def play(
    account: Account, watched: CompiledContract, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[dict[str, Any], pathlib.Path]]:
    """Return the function that runs the monitor here: kind and traffic to report and folder."""
    account.contract = watched
    for name, value in account.environment.items():
        monkeypatch.setenv(name, value)

    def run(
        kind: str, live: Live | None, truths: list[dict[str, Any]] | None = None, **more: str
    ) -> tuple[dict[str, Any], pathlib.Path]:
        base = tmp_path / f"run-{len(list(tmp_path.glob('run-*')))}"
        monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(base))
        folder = base / "processing/input/contract"
        folder.mkdir(parents=True)
        (base / "output").mkdir()
        (folder / "contract.json").write_text(account.contract.to_json())
        hour = HOUR if kind != "attribution" else TRUTH_HOUR
        if live is not None:
            account.put(f"trips/capture/dev-trips/AllTraffic/{hour}/a.jsonl", jsonl(live.invocations))
        if truths:
            account.put(f"trips/ground-truth/{TRUTH_HOUR}/a.jsonl", jsonl(truths))
        monitor({**OWN, "KIND": kind, "GROUND_TRUTH_URI": f"s3://{BUCKET}/trips/ground-truth"} | more)
        out = base / "processing/output/report"
        account.put(f"trips/monitoring-{kind}/{base.name}/report.json", (out / "report.json").read_bytes())
        report: dict[str, Any] = json.loads((out / "report.json").read_text())
        return report, out

    return run
