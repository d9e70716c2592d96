"""What can go wrong.

::

    EnrichmentError
    |-- MisconfiguredError  a variable, a table or a permission is missing; a person has to act
    `-- TransientError      AWS was busy, or others commit all the time; the same call may succeed later
"""

from __future__ import annotations

__all__ = ["EnrichmentError", "MisconfiguredError", "TransientError"]


class EnrichmentError(Exception):
    """Base of all errors of this function."""


class MisconfiguredError(EnrichmentError):
    """The deployment is wrong: a variable, a table or a permission is missing."""


class TransientError(EnrichmentError):
    """AWS could not answer now; the state machine asks again."""
