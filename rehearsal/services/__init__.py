"""AWS services that ministack lacks: one engine for all, and what a few of them do beyond keeping records."""

from __future__ import annotations

__all__ = ["load"]


def load() -> None:
    """Register the behaviour of the services of this package."""
    from rehearsal.services import delivery, lakeformation

    del delivery, lakeformation
