"""The launcher that starts a workload's training script in one of SageMaker's images."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable

import pytest
from container_support import ROOT

LAUNCHER = ROOT / "containers" / "shared" / "ml_script" / "__main__.py"
PROGRAM = """
import json, os, pathlib, sys
told = {name: value for name, value in os.environ.items() if name.startswith("SM_")}
target = pathlib.Path(os.environ["SM_MODEL_DIR"])
target.mkdir(parents=True, exist_ok=True)
(target / "told.json").write_text(json.dumps({"argv": sys.argv[1:], "here": os.getcwd(), "told": told}))
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: pathlib.Path) -> Start:
    """Start a program the way a job does: python3 on the zip of the channel."""

    def begin(
        program: str, *, hosts: tuple[str, ...] | list[str] = ("algo-1", "algo-2"), **launch: object
    ) -> subprocess.Popen[str]:
        base = tmp_path / "ml"
        (base / "input" / "config").mkdir(parents=True)
        for channel in ("code", "train", "contract"):
            (base / "input" / "data" / channel).mkdir(parents=True)
        (base / "input" / "config" / "hyperparameters.json").write_text('{"lr": "0.1", "rounds": "5"}')
        told_of = {"hosts": hosts, "current_host": hosts[-1], "network_interface_name": "eth1"}
        (base / "input" / "config" / "resourceconfig.json").write_text(json.dumps(told_of))
        archive = base / "input" / "data" / "code" / "0123abcd.zip"
        with zipfile.ZipFile(archive, "w") as packed:
            packed.write(LAUNCHER, "__main__.py")
            packed.writestr("program/train.py", program)
            told = {"entry_point": "train.py", "torchrun": False, "processes_per_instance": None}
            packed.writestr("launch.json", json.dumps(told | launch))
        kept = {
            name: value
            for name, value in os.environ.items()
            if name in ("PATH", "HOME", "MASTER_ADDR", "MASTER_PORT")
        }
        return subprocess.Popen(
            [sys.executable, str(archive)],
            env={**kept, "SAGEMAKER_BASE_DIR": str(base)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin


def test_should_tell_a_script_what_sagemakers_toolkits_tell_it(start: Start, tmp_path: pathlib.Path) -> None:
    process = start(PROGRAM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    base = tmp_path / "ml"
    told = json.loads((base / "model" / "told.json").read_text())
    assert told["argv"] == ["--lr", "0.1", "--rounds", "5"]
    assert told["here"] == str(base / "code" / "program")
    variables = told["told"]
    assert variables["SM_CHANNEL_TRAIN"] == str(base / "input" / "data" / "train")
    assert json.loads(variables["SM_CHANNELS"]) == ["code", "contract", "train"]
    assert json.loads(variables["SM_HOSTS"]) == ["algo-1", "algo-2"]
    assert variables["SM_CURRENT_HOST"] == "algo-2"
    assert variables["SM_NETWORK_INTERFACE_NAME"] == "eth1"


def test_should_leave_the_reason_when_a_script_fails(start: Start, tmp_path: pathlib.Path) -> None:
    process = start("raise SystemExit('the carrier is unknown')")
    process.communicate(timeout=30)
    assert process.returncode == 1
    failure = (tmp_path / "ml" / "output" / "failure").read_text()
    assert failure == "train.py ended with exit code 1: the carrier is unknown"


def test_should_hand_on_that_the_job_is_stopped(start: Start) -> None:
    process = start(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "print('ready', flush=True)\n"
        "time.sleep(30)\n"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert time.monotonic() - began < 10
    assert process.returncode == 0


def test_should_gather_every_host_with_torchrun() -> None:
    import runpy

    command = runpy.run_path(str(LAUNCHER))["command"]
    hosts = {"hosts": ["algo-1", "algo-2", "algo-3"], "current_host": "algo-2"}
    launch = {"entry_point": "train.py", "torchrun": True, "processes_per_instance": None}
    words = command(launch, pathlib.Path("/p"), {"lr": "1"}, hosts)
    assert words[:3] == [sys.executable, "-m", "torch.distributed.run"]
    assert {"--nnodes=3", "--node_rank=1", "--nproc_per_node=gpu", "--master_addr=algo-1"} < set(words)
    assert words[-3:] == ["/p/train.py", "--lr", "1"]
    two = command(launch | {"processes_per_instance": 2}, pathlib.Path("/p"), {}, {})
    assert {"--nnodes=1", "--node_rank=0", "--nproc_per_node=2"} < set(two)


TOGETHER = """
import json, os, pathlib
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
total = torch.tensor([float(dist.get_rank() + 1)])
dist.all_reduce(total)
if dist.get_rank() == 0:
    target = pathlib.Path(os.environ["SM_MODEL_DIR"])
    target.mkdir(parents=True, exist_ok=True)
    (target / "sum.json").write_text(json.dumps({"sum": total.item(), "size": dist.get_world_size()}))
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_should_bring_two_processes_together(
    start: Start, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(free.getsockname()[1]))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    # One host, as far as this job is told.
    process = start(TOGETHER, hosts=["algo-1"], torchrun=True, processes_per_instance=2)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert json.loads((tmp_path / "ml" / "model" / "sum.json").read_text()) == {"sum": 3.0, "size": 2}
