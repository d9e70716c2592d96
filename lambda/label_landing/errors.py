"""What can go wrong.

::

    LandingError
    |-- BadEventError       a message that is none; it goes to the dead letters
    |-- MisconfiguredError  a variable or a permission is missing; a person has to act
    `-- TransientError      AWS was busy, or others commit all the time; the same message may succeed later
"""

from __future__ import annotations

__all__ = ["BadEventError", "LandingError", "MisconfiguredError", "TransientError"]


class LandingError(Exception):
    """Base of all errors of this function."""


class BadEventError(LandingError):
    """The message is not what the state machine sends."""


class MisconfiguredError(LandingError):
    """The deployment is wrong: a variable or a permission is missing."""


class TransientError(LandingError):
    """AWS could not answer now."""
