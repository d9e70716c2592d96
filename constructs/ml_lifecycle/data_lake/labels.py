"""Where the labels lie that people gave: their writer and their readers are in different stacks."""

from __future__ import annotations

__all__ = ["labels_place"]


def labels_place(workload: str, slug: str) -> tuple[str, str]:
    """Name of the table in the curated zone's database, and its prefix in that zone."""
    return f"{workload}_labels", f"labels/{slug}/"
