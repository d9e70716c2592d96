"""Several processes and hosts, started by torchrun, train the same network that one process does."""

from __future__ import annotations

import concurrent.futures
import pathlib
import shutil
import socket
import threading
import time
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed; 'make setup' says why")

from container_support import image_environment  # noqa: E402
from ml_runtime.job import BadInputError  # noqa: E402
from ml_trainer.data import Inputs  # noqa: E402
from ml_trainer.hosts import Hosts  # noqa: E402
from ml_trainer.interruption import InterruptedTrainingError, Interruption  # noqa: E402
from ml_training_torch import launch  # noqa: E402
from ml_training_torch.fitting import Label  # noqa: E402
from ml_training_torch.hyperparameters import read_hyperparameters  # noqa: E402
from ml_training_torch.job import Job  # noqa: E402
from ml_training_torch.tables import Table  # noqa: E402
from ml_training_torch.together import Tensors, Together  # noqa: E402
from ml_training_torch.worker import fit, main  # noqa: E402
from torch_support import SMALL, ask, lay_out  # noqa: E402

HOSTS = ("algo-1", "algo-2")
#: Sums of 32-bit floats in another order, over some hundred steps.
CLOSE = {"rtol": 2e-4, "atol": 2e-5}


@pytest.fixture
def base(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Where a job's folders are, for this process and for those that it starts."""
    base = tmp_path / "ml"
    for name, value in image_environment("training_torch", base).items():
        monkeypatch.setenv(name, value)
    for name in ("MLFLOW_TRACKING_URI", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    return base


def job_in(folder: pathlib.Path) -> tuple[Job, Inputs]:
    """Lay a job's folder out as the program does."""
    inputs = Inputs.read()
    folder.mkdir()
    splits = {name: inputs.split(name) for name in ("train", "validation")}
    for name, split in splits.items():
        Table.of(split).save(folder, name)
    job = Job(folder, inputs.fingerprint(), Label("multiclass", 3), splits["train"].matrix.shape[1])
    job.save(None)
    return job, inputs


def alone(folder: pathlib.Path) -> tuple[Tensors, dict[str, Any]]:
    """Train in this process; a process has no dropout of its own, so there is none."""
    job, inputs = job_in(folder)
    wanted = read_hyperparameters(inputs.hyperparameters)
    fit(job, inputs, wanted, Together(torch.device("cpu")), Interruption())
    return job.outcome()


def assert_alike(one: tuple[Tensors, dict[str, Any]], other: tuple[Tensors, dict[str, Any]]) -> None:
    tensors, told = one
    others, told_too = other
    assert told["rounds"] == told_too["rounds"]
    assert told["metrics"] == pytest.approx(told_too["metrics"], rel=1e-4)
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, others[name], **CLOSE)


@pytest.mark.slow
def test_should_train_on_two_hosts_what_one_process_trains(
    base: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(base, "multiclass", given={"dropout": 0, "distribution": "data_parallel"})
    expected = alone(tmp_path / "alone")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(port))

    def host(name: str) -> Job:
        job, _ = job_in(tmp_path / name)
        launch.run_processes(job, Hosts(HOSTS, name, "no-such-interface"), 1, Interruption())
        return job

    with concurrent.futures.ThreadPoolExecutor(2) as both:
        first, second = both.map(host, HOSTS)
    assert_alike(first.outcome(), expected)
    assert first.outcome()[1]["processes"] == 2
    # One host writes.
    assert not (second.folder / "outcome.json").exists()


class OnceThere(Interruption):
    """Asks for the end as soon as a checkpoint is there, as SageMaker may at any moment."""

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__()
        self._folder = folder
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not any(self._folder.glob("step-*")):
            threading.Event().wait(0.01)
        self.asked = True


@pytest.mark.slow
def test_should_share_a_network_out_and_go_on_after_an_interruption(
    base: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    # Rounds enough that the word to end comes before the last one.
    given = {"dropout": 0, "rounds": 25, "checkpoint_every_rounds": 1, "distribution": "fully_sharded"}
    lay_out(base, "multiclass", given=given)
    expected = alone(tmp_path / "alone")
    checkpoints = base / "checkpoints"
    checkpoints.mkdir()
    hosts = Hosts(("algo-1",), "algo-1", None)
    job, _ = job_in(tmp_path / "begun")
    with pytest.raises(InterruptedTrainingError):
        launch.run_processes(job, hosts, 2, OnceThere(checkpoints))
    reached = max(int(path.name.removeprefix("step-")) for path in checkpoints.glob("step-*"))
    assert 1 <= reached < 25
    shutil.rmtree(job.folder)
    resumed, _ = job_in(tmp_path / "begun")
    launch.run_processes(resumed, hosts, 2, Interruption())
    assert_alike(resumed.outcome(), expected)


def test_should_tell_why_the_first_process_failed(
    base: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(base, "multiclass", given={"batch_size": 1})
    job, _ = job_in(tmp_path / "job")
    monkeypatch.setattr(Together, "join", lambda *_: Together(torch.device("cpu"), processes=2))
    monkeypatch.setattr(Together, "share", lambda _, network: network)
    monkeypatch.setenv("RANK", "0")
    assert main([str(job.folder)]) == 1
    time.sleep(0.01)
    (job.folder / "failure-1.txt").write_text("connection closed by peer")
    assert launch.reason_of(job.folder, 1) == (
        "a step of 1 rows cannot be shared by 2 processes; raise batch_size or use fewer"
    )
    assert "ended without a word (torchrun's exit code 137)" in launch.reason_of(tmp_path / "none", 137)


def test_should_start_a_process_per_gpu_or_as_many_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    one, two = Hosts(HOSTS[:1], "algo-1", None), Hosts(HOSTS, "algo-2", "eth0")
    shared = {"distribution": "data_parallel"}
    assert launch.processes_per_host(read_hyperparameters(shared), two) == 8
    assert (
        launch.processes_per_host(read_hyperparameters({**shared, "processes_per_instance": "3"}), two) == 3
    )
    assert launch.processes_per_host(read_hyperparameters({**shared, "device": "cpu"}), two) == 1
    assert launch.processes_per_host(read_hyperparameters({}), one) == 1
    with pytest.raises(BadInputError, match="2 instances of 1 processes need distribution"):
        launch.processes_per_host(read_hyperparameters({}), two)


def test_should_name_the_network_between_hosts(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_EFA", tmp_path / "none")
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (2, "eth0")])
    assert launch.network_environment(Hosts(HOSTS[:1], "algo-1", "eth0")) == {}
    over_tcp = {"NCCL_SOCKET_IFNAME": "eth0", "GLOO_SOCKET_IFNAME": "eth0"}
    assert launch.network_environment(Hosts(HOSTS, "algo-1", "eth0")) == over_tcp
    assert launch.network_environment(Hosts(HOSTS, "algo-1", "eth7")) == {}
    (tmp_path / "none/efa_0").mkdir(parents=True)
    found = launch.network_environment(Hosts(HOSTS, "algo-1", "eth0"))
    assert found["FI_PROVIDER"] == "efa"
    assert found["FI_EFA_USE_DEVICE_RDMA"] == "1"


def test_should_ask_the_same_of_every_host(base: pathlib.Path) -> None:
    lay_out(base, "multiclass")
    ask(base, {**SMALL, "distribution": "data_parallel", "processes_per_instance": 70})
    with pytest.raises(BadInputError, match="processes_per_instance must be an integer from 1 up to 64"):
        read_hyperparameters(Inputs.read().hyperparameters)
