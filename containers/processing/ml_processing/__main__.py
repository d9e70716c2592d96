"""Entry of the image: ``prepare`` or ``evaluate``."""

from __future__ import annotations

import sys
from collections.abc import Callable

from ml_runtime.job import base_folder, run_job

from ml_processing.evaluate import evaluate
from ml_processing.prepare import prepare

COMMANDS: dict[str, Callable[[], None]] = {"prepare": prepare, "evaluate": evaluate}


def main(argv: list[str]) -> int:
    """Run one command."""
    if len(argv) != 1 or argv[0] not in COMMANDS:
        print(f"error: give one of {', '.join(COMMANDS)}, got {' '.join(argv)!r}", file=sys.stderr)
        return 2
    return run_job(COMMANDS[argv[0]], base_folder() / "output" / "message")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
