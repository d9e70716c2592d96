"""The instances of a training job: a process each, which find each other as SageMaker's hosts do."""

from __future__ import annotations

import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import TYPE_CHECKING, Any

from rehearsal.deaths import DEATHS
from rehearsal.executors import containers
from rehearsal.executors.containers import JobFolder
from rehearsal.executors.training_jobs.channels import described
from rehearsal.executors.training_jobs.tracking import tracked

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime
    from rehearsal.services.engine import Record

__all__ = ["Crew", "Ended"]

#: Seconds between SIGTERM and SIGKILL of a job that is stopped (StopTrainingJob, API reference).
GRACE_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How the hosts of a job ended."""

    #: completed | failed | lost (a machine) | stopped | timed-out | interrupted
    how: str
    #: Number of the host that failed first, from 0, and its exit code.
    host: int = 0
    exit_code: int | None = None
    seconds: float = 0
    #: Whether every program had ended by itself when it was asked to.
    in_time: bool = True


class Crew:
    """The hosts of one attempt of a job: their folders, their processes."""

    def __init__(self, runtime: Runtime, record: Record, root: Path, attempt: int) -> None:
        self._runtime = runtime
        self._record = record
        resources = record.data["ResourceConfig"]
        groups = resources.get("InstanceGroups")
        count = sum(group["InstanceCount"] for group in groups) if groups else resources["InstanceCount"]
        self.names = [f"algo-{number}" for number in range(1, count + 1)]
        self.folders = [_folder(root, attempt, name) for name in self.names]
        self._processes: list[Popen[bytes]] = []

    @property
    def bases(self) -> list[Path]:
        """What stands for `/opt/ml` on each host."""
        return [folder.base for folder in self.folders]

    def configure(self, checkpoint_folder: str | None) -> list[Path]:
        """Write what the containers are told; the folders of their checkpoints, where the job keeps some."""
        data = self._record.data
        mode = data["AlgorithmSpecification"]["TrainingInputMode"]
        for name, folder in zip(self.names, self.folders, strict=True):
            for path in ("model", "output/data", "input/config"):
                (folder.base / path).mkdir(parents=True, exist_ok=True)
            config = folder.base / "input" / "config"
            containers.write_json(config / "hyperparameters.json", data.get("HyperParameters", {}))
            containers.write_json(
                config / "inputdataconfig.json", described(data.get("InputDataConfig", []), mode)
            )
            containers.write_json(
                config / "resourceconfig.json",
                {
                    "current_host": name,
                    "current_instance_type": data["ResourceConfig"].get("InstanceType"),
                    "current_group_name": "homogeneousCluster",
                    "hosts": self.names,
                    "instance_groups": [
                        {
                            "instance_group_name": "homogeneousCluster",
                            "instance_type": data["ResourceConfig"].get("InstanceType"),
                            "hosts": self.names,
                        }
                    ],
                    # All hosts are this machine.
                    "network_interface_name": "lo0" if sys.platform == "darwin" else "lo",
                },
            )
        if checkpoint_folder is None:
            return []
        folders = [folder.local(checkpoint_folder) for folder in self.folders]
        for place in folders:
            place.mkdir(parents=True, exist_ok=True)
        return folders

    def start(self, *, role: str, region: str) -> None:
        """Start the programs.

        :raises TransferError: there is no program
        """
        data = self._record.data
        algorithm = data["AlgorithmSpecification"]
        together = {}
        if len(self.names) > 1:
            # Hosts of an account resolve each other's names; here all are this machine, on a port of the job.
            together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
        for name, folder in zip(self.names, self.folders, strict=True):
            process = containers.start_program(
                self._runtime,
                folder,
                image=algorithm["TrainingImage"],
                role=role,
                region=region,
                variables={
                    "TRAINING_JOB_NAME": self._record.name,
                    "TRAINING_JOB_ARN": self._record.arn,
                    "SM_CURRENT_HOST": name,
                    **together,
                    **tracked(self._runtime, self._record, data.get("Environment", {})),
                },
                entrypoint=algorithm.get("ContainerEntrypoint"),
                arguments=algorithm.get(
                    "ContainerArguments", () if "ContainerEntrypoint" in algorithm else ("train",)
                ),
                isolated=data.get("EnableNetworkIsolation", False),
            )
            self._processes.append(process)
            DEATHS.watch(
                self._runtime,
                "training-job",
                self._record.name,
                process,
                log=folder.log,
                folder=folder.base,
            )

    def wait(
        self,
        *,
        limit_seconds: float,
        stop: threading.Event,
        taken: Callable[[], float | None],
    ) -> Ended:
        """Wait until all have ended, one has failed, the time is over, or somebody ends them.

        :param taken: the warning in seconds once the capacity is taken away, None before
        """
        began = time.monotonic()
        limit = min(limit_seconds, containers.REAL_LIMIT_SECONDS)

        def ended(how: str, **more: Any) -> Ended:
            return Ended(how=how, seconds=time.monotonic() - began, **more)

        while True:
            codes = [process.poll() for process in self._processes]
            failed = next((number for number, code in enumerate(codes) if code), None)
            if failed is not None:
                # The other hosts wait for it in vain; SageMaker ends them.
                self._end(GRACE_SECONDS)
                how = "lost" if DEATHS.how(self._processes[failed]) == "machine" else "failed"
                return ended(how, host=failed, exit_code=codes[failed])
            if all(code == 0 for code in codes):
                return ended("completed")
            if stop.wait(0.05) or self._runtime.stopping.is_set():
                return ended("stopped", in_time=self._end(GRACE_SECONDS))
            if time.monotonic() - began > limit:
                return ended("timed-out", in_time=self._end(GRACE_SECONDS))
            warning = taken()
            if warning is not None:
                return ended("interrupted", in_time=self._end(warning))

    def _end(self, grace_seconds: float) -> bool:
        """Ask all to end, then make them; whether the asking was enough."""
        running = [process for process in self._processes if process.poll() is None]
        if grace_seconds > 0:
            for process in running:
                process.terminate()
        deadline = time.monotonic() + grace_seconds
        in_time = True
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except TimeoutExpired:
                in_time = False
                process.kill()
                process.wait()
        return in_time

    def said(self, pattern: str) -> bool:
        """Whether a line of the first host's log matches."""
        log = self.folders[0].log
        if not log.exists():
            return False
        return re.search(pattern, log.read_text("utf-8", "replace"), re.MULTILINE) is not None

    def failure(self, host: int) -> str:
        """What a host left as the reason of its failure."""
        folder = self.folders[host]
        file = folder.base / "output" / "failure"
        return file.read_text("utf-8", "replace") if file.is_file() else containers.tail(folder.log)


def _folder(root: Path, attempt: int, host: str) -> JobFolder:
    """The folder of one host: the first's of the first attempt is the job's own."""
    place = root
    if attempt > 1:
        place /= f"attempt-{attempt}"
    if host != "algo-1":
        place /= host
    folder = JobFolder(root=place)
    folder.base.mkdir(parents=True, exist_ok=True)
    return folder


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
