"""What every SageMaker container has in common here: its folder, its environment, its process, its log.

A container is the program of its image, run as a process of this machine with `/opt/ml` moved into the job's
folder (`SAGEMAKER_BASE_DIR`) and with credentials that stand for the job's role.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from subprocess import Popen
from typing import TYPE_CHECKING, Any

from rehearsal import ministack_bridge as bridge
from rehearsal.executors.transfer import TransferError
from rehearsal.images import ImageError
from rehearsal.services.engine import ApiError

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime
    from rehearsal.services.engine import Record, Service

__all__ = [
    "INTERNAL_ERROR",
    "JobFolder",
    "Outcome",
    "Stops",
    "assume",
    "event_detail",
    "run_to_end",
    "said_status",
    "ship_log",
    "start_program",
    "start_work",
    "write_json",
]

_CONTAINER_BASE = "/opt/ml"
_ROOT = frozenset({None, "root", "0", "root:root", "0:0"})
# A job on one laptop that takes longer than this hangs; StoppingCondition may only make it shorter.
REAL_LIMIT_SECONDS = 3600
#: What SageMaker says of a job whose fault is its own ("Troubleshooting", InternalServerError).
INTERNAL_ERROR = "InternalServerError: We encountered an internal error. Please try again."


@dataclass(frozen=True, kw_only=True)
class JobFolder:
    """The folder of one job: `opt/ml` as the container sees it, and the log beside it."""

    root: Path

    @classmethod
    def of(cls, runtime: Runtime, kind: str, name: str) -> JobFolder:
        """A new folder for the job; a second job of that name (after a delete) gets one of its own."""
        parent = runtime.state / "sagemaker" / kind
        number = 0
        while True:
            root = parent / (name if not number else f"{name}.{number}")
            try:
                root.mkdir(parents=True)
            except FileExistsError:
                number += 1
                continue
            folder = cls(root=root)
            folder.base.mkdir(parents=True)
            return folder

    @property
    def base(self) -> Path:
        """What stands for `/opt/ml`."""
        return self.root / "opt" / "ml"

    @property
    def log(self) -> Path:
        """Where the container's output goes."""
        return self.root / "container.log"

    def local(self, path: str) -> Path:
        """The place on this machine of a path inside the container.

        :raises ApiError: it is not below /opt/ml
        """
        parts = Path(path).parts
        if not path.startswith(f"{_CONTAINER_BASE}/") or ".." in parts:
            raise ApiError("ValidationException", f"LocalPath must be below {_CONTAINER_BASE}/, got {path!r}")
        return self.base / path.removeprefix(f"{_CONTAINER_BASE}/")

    def words(self, words: Sequence[str]) -> list[str]:
        """Words of a command with `/opt/ml` moved to where it is on this machine."""
        pattern = re.compile(rf"(?<![\w/]){_CONTAINER_BASE}(?=/|$)")
        return [pattern.sub(str(self.base), word) for word in words]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a container ended."""

    exit_code: int | None
    stopped: bool
    timed_out: bool
    seconds: float


class Stops:
    """The stop signals of running jobs, by ARN."""

    def __init__(self) -> None:
        self._events: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def begin(self, arn: str) -> threading.Event:
        """The signal of a job that starts now."""
        with self._lock:
            event = self._events[arn] = threading.Event()
            return event

    def stop(self, arn: str) -> bool:
        """Ask a job to stop; False when it is not under way."""
        with self._lock:
            event = self._events.get(arn)
        if event is None:
            return False
        event.set()
        return True

    def end(self, arn: str) -> None:
        """Forget a job."""
        with self._lock:
            self._events.pop(arn, None)


def assume(role: str) -> None:
    """Check that SageMaker may assume a role, as it does when a job or an endpoint starts.

    :raises TransferError: the role does not exist or does not trust the service
    """
    if not bridge.trusts(role, "sagemaker.amazonaws.com"):
        raise TransferError(
            f"ClientError: Could not assume role {role}: it does not exist, or its trust policy does "
            "not name sagemaker.amazonaws.com"
        )


def write_json(path: Path, value: Any) -> None:
    """Write one of the configuration files of a container."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, default=_plain), encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    raise TypeError(f"{value!r} does not fit into JSON")


def environment(
    runtime: Runtime,
    *,
    program: Mapping[str, str],
    job: Mapping[str, str],
    base: Path,
    role: str,
    region: str,
    isolated: bool,
) -> dict[str, str]:
    """The whole environment of a container. An isolated one gets no credentials and no endpoint."""
    credentials = {} if isolated else runtime.role_environment(role, region)
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(base.parent),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        **program,
        **job,
        "SAGEMAKER_BASE_DIR": str(base),
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        **credentials,
    }


def start_program(
    runtime: Runtime,
    folder: JobFolder,
    *,
    image: str,
    role: str,
    region: str,
    variables: Mapping[str, str],
    entrypoint: Sequence[str] | None = None,
    arguments: Sequence[str] = (),
    isolated: bool = False,
) -> Popen[bytes]:
    """Start the program of an image.

    :param entrypoint: replaces the image's own ENTRYPOINT
    :param arguments: stand after the entrypoint, instead of the image's CMD
    :raises TransferError: no program is known for the image, as when it cannot be pulled
    """
    try:
        program = runtime.images.program(image)
    except ImageError as error:
        raise TransferError(f"ClientError: The image {image} cannot be pulled: {error}") from error
    if program.user not in _ROOT:
        raise TransferError(
            f"ClientError: The image {image} runs as user {program.user}; SageMaker runs containers with "
            'root users only ("Custom Inference Code with Hosting Services"): '
            "leave USER out of its Dockerfile"
        )
    if entrypoint is not None:
        words = [*map(_interpreter, entrypoint), *arguments]
    else:
        words = [*program.entrypoint, *(arguments or program.command)]
    return runtime.popen(
        folder.words(words),
        env=environment(
            runtime,
            program=program.env,
            job={key: folder.words([value])[0] for key, value in variables.items()},
            base=folder.base,
            role=role,
            region=region,
            isolated=isolated,
        ),
        cwd=program.cwd,
        log=folder.log,
    )


def _interpreter(word: str) -> str:
    return sys.executable if re.fullmatch(r"(/usr(/local)?/bin/)?python(3(\.\d+)?)?", word) else word


def run_to_end(
    runtime: Runtime, process: Popen[bytes], *, limit_seconds: float, stop: threading.Event
) -> Outcome:
    """Wait for a container to end, for its time limit or for `stop`, whichever is first."""
    began = time.monotonic()
    limit = min(limit_seconds, REAL_LIMIT_SECONDS)
    stopped = timed_out = False
    while process.poll() is None:
        if stop.wait(0.05) or runtime.stopping.is_set():
            stopped = True
            break
        if time.monotonic() - began > limit:
            timed_out = True
            break
    if stopped or timed_out:
        runtime.end_child(process)
    return Outcome(
        exit_code=process.returncode,
        stopped=stopped,
        timed_out=timed_out,
        seconds=time.monotonic() - began,
    )


def said_status(code: int) -> int:
    """The exit status of a process as a service says it: 128 and the number of the signal that ended it."""
    return code if code >= 0 else 128 - code


def start_work(runtime: Runtime, title: str, function: Callable[..., object], *args: Any) -> None:
    """Run a job in the background; the clock and `idle` wait for it."""
    entered = threading.Event()

    def run() -> None:
        entered.set()
        function(*args)

    runtime.background(title, run)
    entered.wait()


def tail(log: Path, lines: int = 12) -> str:
    """The end of a log, for a failure reason."""
    if not log.exists():
        return ""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


#: Lines of a container's output that are in CloudWatch Logs, by its folder.
_SHIPPED: dict[Path, int] = {}
_SHIPPING = threading.Lock()


def ship_log(runtime: Runtime, folder: JobFolder, *, role: str, region: str, group: str, stream: str) -> None:
    """Put a container's output into CloudWatch Logs under the job's role, as SageMaker does.

    Asked again while the container runs, it puts the lines that have come since.
    A role without logs permissions loses the logs and nothing else; that is noted in the ledger.
    """
    from botocore.exceptions import ClientError

    if not folder.log.exists():
        return
    with _SHIPPING:
        lines = folder.log.read_text(encoding="utf-8", errors="replace").splitlines()
        shipped = _SHIPPED.get(folder.root, 0)
        _SHIPPED[folder.root] = len(lines)
    events = [
        {"timestamp": int(time.time() * 1000), "message": line}
        for line in lines[shipped:][-2000:]
        if line.strip()
    ]
    client = runtime.client("logs", role=role, region=region)
    try:
        for call, arguments in (
            (client.create_log_group, {"logGroupName": group}),
            (client.create_log_stream, {"logGroupName": group, "logStreamName": stream}),
        ):
            try:
                call(**arguments)
            except client.exceptions.ResourceAlreadyExistsException:
                continue
        if events:
            client.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)
    except ClientError as error:
        runtime.ledger.recorded(
            "log",
            stream,
            f"the role may not write its log to {group}: {error}",
            role=role,
            log=str(folder.log),
        )


def event_detail(service: Service, noun: str, record: Record) -> dict[str, Any]:
    """A resource as SageMaker's events show it: its Describe answer with times as epoch milliseconds."""
    shape = service.operation(f"Describe{noun}").output_shape
    detail: dict[str, Any] = _milliseconds(service.describe(noun, record, shape))
    return {**detail, "Tags": dict(service.tags.get(record.arn, {}))}


def _milliseconds(value: Any) -> Any:
    if isinstance(value, datetime):
        return int(value.timestamp() * 1000)
    if isinstance(value, Mapping):
        return {key: _milliseconds(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_milliseconds(item) for item in value]
    return value
