"""The job's life cycle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import bookmarks


class Job:
    """Marks begin and end of a run; what was read is kept when it commits, if the job has bookmarks."""

    def __init__(self, glue_context: Any) -> None:
        self.glue_context = glue_context
        self.name: str | None = None

    def init(self, job_name: str, args: Mapping[str, str] | None = None) -> None:
        """Begin."""
        bookmark = dict(args or {}).get("job-bookmark-option", "job-bookmark-disable")
        if bookmark == "job-bookmark-pause":
            raise NotImplementedError("a paused job bookmark is not emulated")
        self.name = job_name

    def commit(self) -> None:
        """End."""
        if self.name is None:
            raise RuntimeError("Job.commit before Job.init")
        bookmarks.commit()
