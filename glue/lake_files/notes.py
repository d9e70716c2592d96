"""The note beside feature rows: what they were built from, or that they are being written.

Rows are replaced file by file. Who reads them while that goes on, or after the job died in the middle, finds
a part of them, or some twice; the note says so until the last file is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lake_files.objects import write_text

__all__ = ["NOTE", "begin", "finish"]

#: Beside the feature rows. Spark and Athena skip names with an underscore.
NOTE = "_snapshot.json"


def begin(s3: Any, uri: str, run_id: str | None = None) -> None:
    """Say that the rows below ``uri`` are being replaced from now on."""
    write_text(s3, f"{uri}{NOTE}", json.dumps({"writing": True, "run_id": run_id}, sort_keys=True))


def finish(s3: Any, uri: str, note: Mapping[str, Any]) -> None:
    """Say that the rows below ``uri`` are whole, and what they are."""
    write_text(s3, f"{uri}{NOTE}", json.dumps(note, sort_keys=True))
