"""CodeBuild: a build's commands run on this machine, as the project's service role."""

from __future__ import annotations

from rehearsal.executors.code_build import builds, operations

__all__ = ["builds", "operations"]
