"""Job bookmarks: how far each source of a job was read, kept when the job commits.

``GLUE_BOOKMARK`` names the job's file; the rehearsal gives it to jobs that run with
``--job-bookmark-option job-bookmark-enable``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

_SEEN: dict[str, list[Any]] = {}


def enabled() -> bool:
    """Whether the job has bookmarks."""
    return "GLUE_BOOKMARK" in os.environ


def last(context: str) -> list[Any] | None:
    """Values of the bookmark keys that a committed run has read last."""
    file = Path(os.environ["GLUE_BOOKMARK"]) if enabled() else None
    if file is None or not context or not file.exists():
        return None
    found: list[Any] | None = json.loads(file.read_text(encoding="utf-8")).get(context)
    return found


def seen(context: str, values: list[Any]) -> None:
    """Note what was read now; it counts when the job commits."""
    _SEEN[context] = values


def commit() -> None:
    """Keep what was read."""
    if not enabled():
        return
    file = Path(os.environ["GLUE_BOOKMARK"])
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    draft = file.with_suffix(".part")
    draft.write_text(json.dumps({**before, **_SEEN}), encoding="utf-8")
    draft.replace(file)
