"""One JSON object per log line, so that Logs Insights finds its fields."""

from __future__ import annotations

import json
import sys

__all__ = ["log"]


def log(level: str, message: str, **fields: object) -> None:
    """Write one line to the function's log. ``fields`` must not carry values of records."""
    sys.stdout.write(json.dumps({"level": level, "message": message, **fields}, sort_keys=True) + "\n")
    sys.stdout.flush()
