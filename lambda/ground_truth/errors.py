"""What can go wrong.

::

    GroundTruthError
    |-- BadEventError       nothing that this function is subscribed to; it goes to the dead letters
    |-- MisconfiguredError  a variable, a table or a permission is missing; a person has to act
    `-- TransientError      AWS was busy; the same event may succeed later
"""

from __future__ import annotations

__all__ = ["BadEventError", "GroundTruthError", "MisconfiguredError", "TransientError"]


class GroundTruthError(Exception):
    """Base of all errors of this function."""


class BadEventError(GroundTruthError):
    """The event is none of those that are sent."""


class MisconfiguredError(GroundTruthError):
    """The deployment is wrong: a variable, a table or a permission is missing."""


class TransientError(GroundTruthError):
    """AWS could not answer now."""
