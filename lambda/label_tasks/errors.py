"""What can go wrong.

::

    LabelError
    |-- BadEventError       nothing of what the function is called with; no retry can help
    |-- MisconfiguredError  a variable, the rules or a permission is missing; a person has to act
    `-- TransientError      AWS was busy; the same event may succeed later

What a labeller does wrong is no error of the function: the API answers it (``review.RefusalError``).
"""

from __future__ import annotations

__all__ = ["BadEventError", "LabelError", "MisconfiguredError", "TransientError"]


class LabelError(Exception):
    """Base of all errors of these functions."""


class BadEventError(LabelError):
    """The event is not what the function is subscribed to."""


class MisconfiguredError(LabelError):
    """The deployment is wrong: a variable, the rules or a permission is missing."""


class TransientError(LabelError):
    """AWS could not answer now."""
