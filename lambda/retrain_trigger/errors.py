"""What can go wrong.

::

    RetrainError
    |-- BadEventError       the event says nothing that this function understands; no retry can help
    |-- MisconfiguredError  a variable, the pipeline or a permission is missing; a person has to act
    `-- TransientError      AWS was busy; the same event may succeed later

The function is invoked asynchronously: whatever it raises is tried again twice by Lambda and then kept in the
dead-letter queue, so no trigger is lost.
"""

from __future__ import annotations

__all__ = ["BadEventError", "MisconfiguredError", "RetrainError", "TransientError"]


class RetrainError(Exception):
    """Base of all errors of this function."""


class BadEventError(RetrainError):
    """The event says nothing that this function understands."""


class MisconfiguredError(RetrainError):
    """The deployment is wrong: a variable, the pipeline or a permission is missing."""


class TransientError(RetrainError):
    """AWS could not answer now."""
