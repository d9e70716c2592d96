"""Run a Glue script: ``run_job.py FOLDER SCRIPT ARGUMENTS...``.

What Glue's worker does around a script: wraps ``s3://``, runs the script as ``__main__`` and, when it raises,
leaves the last line of the trace as the run's error message in ``FOLDER/failure.txt``. Spark's Java process
may serve another job afterwards: the script's context is stopped, and ``FOLDER/clean`` says so.
"""

from __future__ import annotations

import functools
import os
import runpy
import sys
import traceback
from pathlib import Path
from typing import Any

#: What the workers need of the job's environment; the Java process that starts them has none of it.
_HANDED_ON = ("AWS_", "PYTHON", "NO_PROXY", "no_proxy", "TMPDIR", "GLUE_")


def _hand_on_environment() -> None:
    """Let Spark's Python workers have the job's credentials and import path."""
    from pyspark import SparkContext

    original: Any = SparkContext.__init__
    handed_on = {name: value for name, value in os.environ.items() if name.startswith(_HANDED_ON)}

    @functools.wraps(original)
    def start(self: Any, *args: Any, **kwargs: Any) -> None:
        kwargs["environment"] = {**handed_on, **(kwargs.get("environment") or {})}
        original(self, *args, **kwargs)

    patched: Any = SparkContext
    patched.__init__ = start


def _stop_spark(clean: Path) -> None:
    """Stop the script's Spark context, if it has one, and say that it is stopped."""
    from pyspark import SparkContext

    active: Any = SparkContext._active_spark_context
    if active is not None:
        active.stop()
    clean.touch()


def _run(folder: Path, script: str) -> int:
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as stop:
        if stop.code in (None, 0):
            return 0
        (folder / "failure.txt").write_text(f"SystemExit: {stop.code}", encoding="utf-8")
        print(f"the script ended with {stop.code!r}", file=sys.stderr)
        return 1
    except BaseException as error:  # noqa: BLE001 - whatever ends the script is the run's failure
        traceback.print_exc()
        message = "".join(traceback.format_exception_only(error)).strip()
        (folder / "failure.txt").write_text(message, encoding="utf-8")
        return 1
    return 0


def main(argv: list[str]) -> int:
    """Run the script; returns the exit status."""
    folder, script, arguments = Path(argv[1]), argv[2], argv[3:]
    from awsglue import local_s3

    local_s3.install()
    _hand_on_environment()
    sys.argv = [script, *arguments]
    try:
        return _run(folder, script)
    finally:
        _stop_spark(folder / "clean")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
