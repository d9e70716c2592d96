"""Other accounts: they take roles of this one as the roles' trust policies let them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rehearsal import ministack_bridge as bridge

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["install"]


def install(runtime: Runtime) -> None:
    """Hold AssumeRole of strangers to trust policies."""
    bridge.hold_strangers_to_trust(runtime.account)
