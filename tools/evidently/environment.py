"""The environment that has Evidently: uv makes it the first time, from ``report.py.lock``, and keeps it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["EvidentlyError", "command", "run"]

SCRIPT = Path(__file__).with_name("report.py")
#: Another Python that has Evidently, in place of uv's environment.
OVERRIDE = "EVIDENTLY_PYTHON"


class EvidentlyError(RuntimeError):
    """Evidently could not be started, or failed; the text says why."""


def command() -> list[str]:
    """How ``report.py`` is started.

    Raises:
        EvidentlyError: there is no uv.
    """
    if python := os.environ.get(OVERRIDE):
        return [python, str(SCRIPT)]
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is None:
        raise EvidentlyError(f"uv is not installed; run 'make setup', or name a Python in {OVERRIDE}")
    # This Python: no other is downloaded.
    return [uv, "run", "--quiet", "--locked", "--python", sys.executable, "--script", str(SCRIPT)]


def run(arguments: Sequence[str], *, timeout: float = 3_600) -> str:
    """Run ``report.py``; return what it printed.

    Raises:
        EvidentlyError: the environment cannot be made (no package index can be reached), or the report
            fails.
    """
    # Evidently counts its users otherwise. PYTHONPATH is for this environment, not for that one.
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [*command(), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env={**environment, "DO_NOT_TRACK": "1"},
    )
    if done.returncode:
        last = "\n".join(done.stderr.strip().splitlines()[-8:])
        raise EvidentlyError(f"Evidently ended with {done.returncode}: {last}")
    return done.stdout
