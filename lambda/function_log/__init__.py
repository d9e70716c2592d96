"""One JSON object per log line, so that Logs Insights finds its fields; the same in functions and images.

A package beside the functions; ``ml_lifecycle.code`` stages it with each function that imports it and each
image that copies it.
"""

from __future__ import annotations

import json
import os
import sys

__all__ = ["log"]


def log(level: str, message: str, **fields: object) -> None:
    """Write one line to the log. ``fields`` must not carry values of records or personal data.

    ``correlation_id`` is the id by which a thing is followed from part to part: of a record, a prediction, a
    run, an execution. A line without one is found by the function's own request, ``request``. With X-Ray's
    header in the environment, ``trace`` says which trace the line belongs to.
    """
    line = {"level": level, "message": message, **fields}
    if line.get("correlation_id") is None:
        line["correlation_id"] = fields.get("request")
    trace = os.environ.get("_X_AMZN_TRACE_ID")
    if trace:
        line["trace"] = trace
    sys.stdout.write(json.dumps(line, default=str, sort_keys=True) + "\n")
    sys.stdout.flush()
