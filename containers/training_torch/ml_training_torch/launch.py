"""torchrun: as many processes as wanted on every host, which find each other at the first one."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys
import time

import torch
from ml_runtime.job import BadInputError, JobError
from ml_trainer.hosts import Hosts
from ml_trainer.interruption import InterruptedTrainingError, Interruption

from ml_training_torch.hyperparameters import Hyperparameters
from ml_training_torch.job import Job

#: Where the driver of an Elastic Fabric Adapter shows it.
_EFA = pathlib.Path("/sys/class/infiniband")


def processes_per_host(wanted: Hyperparameters, hosts: Hosts) -> int:
    """Return how many processes train on this host.

    Raises BadInputError when several are asked for and nothing says how they share the work.
    """
    given = wanted.processes_per_instance
    if wanted.distribution == "none":
        if hosts.count > 1 or (given or 1) > 1:
            raise BadInputError(
                f"hyperparameters: {hosts.count} instances of {given or 1} processes need distribution, "
                "data_parallel or fully_sharded; each would train the same model by itself"
            )
        return 1
    if given is not None:
        return given
    return max(1, torch.cuda.device_count()) if wanted["device"] != "cpu" else 1


def run_processes(job: Job, hosts: Hosts, processes: int, asked: Interruption) -> None:
    """Train with torchrun and wait for it.

    Raises:
        InterruptedTrainingError: the training was asked to end.
        JobError: a process failed, with its reason.
    """
    if hosts.count == 1:
        # A free port, so that two trainings on one machine do not meet.
        meeting = ["--standalone"]
    else:
        meeting = [
            f"--nnodes={hosts.count}",
            f"--node-rank={hosts.rank}",
            f"--master-addr={hosts.address}",
            f"--master-port={hosts.port}",
        ]
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            *meeting,
            f"--nproc-per-node={processes}",
            "--max-restarts=0",
            "-m",
            "ml_training_torch.worker",
            str(job.folder),
        ],
        # Each process sets its own number of threads; torchrun only wants to hear one.
        env={"OMP_NUM_THREADS": "1", **network_environment(hosts), **os.environ},
    )
    told = False
    while process.poll() is None:
        if asked.asked and not told:
            # SageMaker tells the first process of a container only.
            process.terminate()
            told = True
        time.sleep(0.2)
    if job.interrupted:
        raise InterruptedTrainingError("interrupted; what was learned is in the checkpoint")
    if process.returncode and told:
        raise InterruptedTrainingError("interrupted in a round; the checkpoint before it stands")
    if process.returncode:
        raise JobError(reason_of(job.folder, process.returncode))


def network_environment(hosts: Hosts) -> dict[str, str]:
    """Return the variables by which NCCL and Gloo find the network between hosts.

    Over an Elastic Fabric Adapter NCCL goes through libfabric (``aws-ofi-nccl``, in the image that is built
    with CUDA); without one, over TCP. A variable that the job sets itself stands.
    """
    if hosts.count == 1:
        return {}
    found: dict[str, str] = {}
    if hosts.interface in {name for _, name in socket.if_nameindex()}:
        found |= {"NCCL_SOCKET_IFNAME": str(hosts.interface), "GLOO_SOCKET_IFNAME": str(hosts.interface)}
    if _EFA.is_dir() and any(_EFA.iterdir()):
        # RDMA where the adapter has it (p4d and later); libfabric falls back by itself where it has not.
        found |= {"FI_PROVIDER": "efa", "FI_EFA_USE_DEVICE_RDMA": "1", "RDMAV_FORK_SAFE": "1"}
    return found


def reason_of(folder: pathlib.Path, code: int) -> str:
    """Return what the first process to fail wrote; the others only say that they lost it."""
    told = sorted(folder.glob("failure-*.txt"), key=lambda path: path.stat().st_mtime_ns)
    if told:
        return told[0].read_text()
    return f"a training process ended without a word (torchrun's exit code {code}); see the log above"
