"""The job's life cycle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Job:
    """Marks begin and end of a run. Bookmarks are off: no job of this repository uses them."""

    def __init__(self, glue_context: Any) -> None:
        self.glue_context = glue_context
        self.name: str | None = None

    def init(self, job_name: str, args: Mapping[str, str] | None = None) -> None:
        """Begin."""
        bookmark = dict(args or {}).get("job-bookmark-option", "job-bookmark-disable")
        if bookmark != "job-bookmark-disable":
            raise NotImplementedError(f"job bookmarks are not emulated, got {bookmark!r}")
        self.name = job_name

    def commit(self) -> None:
        """End."""
        if self.name is None:
            raise RuntimeError("Job.commit before Job.init")
