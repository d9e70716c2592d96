"""How a record is named where its own identifier must not stand. Standard library only."""

from __future__ import annotations

import hashlib

__all__ = ["record_key"]


def record_key(workload: str, identifier: str) -> str:
    """The name of a record whose identifier is personal data: the same in every training set.

    It finds a record whose identifier is known and tells it to nobody who does not know it. It is a
    pseudonym, no anonymisation: identifiers that can be guessed can be found.
    """
    return hashlib.sha256(f"{workload}:{identifier}".encode()).hexdigest()
