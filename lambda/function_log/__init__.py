"""One JSON object per log line, so that Logs Insights finds its fields.

A package beside the functions; ``ml_lifecycle.code`` stages it with each function that imports it.
"""

from __future__ import annotations

import json
import sys

__all__ = ["log"]


def log(level: str, message: str, **fields: object) -> None:
    """Write one line to the function's log. ``fields`` must not carry values of records or personal data."""
    line = {"level": level, "message": message, **fields}
    sys.stdout.write(json.dumps(line, default=str, sort_keys=True) + "\n")
    sys.stdout.flush()
