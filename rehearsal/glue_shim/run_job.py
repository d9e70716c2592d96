"""Run a Glue script: ``run_job.py FAILURE_FILE SCRIPT ARGUMENTS...``.

What Glue's worker does around a script: wraps ``s3://``, runs the script as ``__main__`` and, when it raises,
leaves the last line of the trace as the run's error message.
"""

from __future__ import annotations

import runpy
import sys
import traceback
from pathlib import Path


def main(argv: list[str]) -> int:
    """Run the script; returns the exit status."""
    failure, script, arguments = Path(argv[1]), argv[2], argv[3:]
    from awsglue import local_s3

    local_s3.install()
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as stop:
        if stop.code in (None, 0):
            return 0
        failure.write_text(f"SystemExit: {stop.code}", encoding="utf-8")
        print(f"the script ended with {stop.code!r}", file=sys.stderr)
        return 1
    except BaseException as error:  # noqa: BLE001 - whatever ends the script is the run's failure
        traceback.print_exc()
        message = "".join(traceback.format_exception_only(error)).strip()
        failure.write_text(message, encoding="utf-8")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
