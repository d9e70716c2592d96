"""Entry of the image; it takes no command, its settings are environment variables."""

from __future__ import annotations

import os
import sys

from ml_runtime.job import base_folder, run_job

from ml_monitoring.monitor import monitor


def main(argv: list[str]) -> int:
    """Judge one window."""
    if argv:
        print(f"error: no argument is taken, got {' '.join(argv)!r}", file=sys.stderr)
        return 2
    return run_job(lambda: monitor(os.environ), base_folder() / "output" / "message")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
