"""The folder SageMaker mounts, and how a job tells why it failed."""

from __future__ import annotations

import json
import os
import pathlib
import sys
import time
import traceback
from collections.abc import Callable

from function_log import log

#: SageMaker shows the first 1,024 characters of a failure reason or exit message.
MESSAGE_LIMIT = 1024


class JobError(Exception):
    """A job cannot do what it was asked to.

    JobError
    └── BadInputError    what the job was given is wrong; the same input fails again
    """


class BadInputError(JobError):
    """What the job was given is wrong: a file, a value, too little data.

    Its text is for the person who reads it.
    """


def base_folder() -> pathlib.Path:
    """Return SageMaker's mount point; ``SAGEMAKER_BASE_DIR`` relocates it."""
    return pathlib.Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))


def job_name() -> str | None:
    """What the job is called, by which it is followed: a pipeline's job carries its execution's id.

    SageMaker tells a training job by its environment, a processing job by a file; a batch run has its own id.
    """
    for name in ("TRAINING_JOB_NAME", "RUN_ID"):
        if os.environ.get(name):
            return os.environ[name]
    file = base_folder() / "config" / "processingjobconfig.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # Nobody's job: a run by hand.
        return None
    arn = config.get("ProcessingJobArn", "") if isinstance(config, dict) else ""
    return str(arn).rpartition("/")[2] or None


def say(text: str) -> None:
    """Print one line at once: a job's output is its log stream."""
    print(text, flush=True)


def only_file(folder: pathlib.Path, suffix: str) -> pathlib.Path:
    """Return the one file of that suffix in a folder, whatever its name."""
    if not folder.is_dir():
        raise BadInputError(f"the input folder {folder} is missing; check the job's inputs")
    found = sorted(path for path in folder.iterdir() if path.is_file() and path.name.endswith(suffix))
    if len(found) != 1:
        names = ", ".join(path.name for path in found)
        raise BadInputError(f"{folder} must hold exactly one *{suffix} file, got {len(found)}: [{names}]")
    return found[0]


def run_job(work: Callable[[], None], message: pathlib.Path) -> int:
    """Run a job and return its exit code; the reason of a failure goes to stderr and to ``message``.

    Bad input fails with its text alone. Anything else is a defect or the platform's fault: its traceback
    goes to the log, its last line to ``message``. The log's last line says how it ended and how long it took.
    """
    started = time.monotonic()

    def ended(level: str, **fields: object) -> None:
        seconds = round(time.monotonic() - started, 3)
        log(level, "job ended", job=job_name(), correlation_id=job_name(), seconds=seconds, **fields)

    try:
        work()
    except BadInputError as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001 - the last line of defence: every failure must leave its reason
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
    else:
        ended("INFO")
        return 0
    print(f"error: {reason}", file=sys.stderr, flush=True)
    leave_message(reason, message)
    ended("ERROR", why=reason[:MESSAGE_LIMIT])
    return 1


def leave_message(text: str, path: pathlib.Path) -> None:
    """Write what SageMaker shows as the failure reason or exit message."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text[:MESSAGE_LIMIT], encoding="utf-8")
