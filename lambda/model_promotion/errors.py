"""What can go wrong.

::

    PromotionError
    |-- BadMessageError     the message is no event that this function understands
    |-- MisconfiguredError  a variable, a resource or a permission is missing; a person has to act
    `-- TransientError      the stack is busy or AWS could not answer; the same message succeeds later

A message whose handling raises stays in the queue: it is seen again after the visibility timeout, and after
the queue's ``maxReceiveCount`` it is kept in the dead-letter queue. None is lost.
"""

from __future__ import annotations

__all__ = ["BadMessageError", "MisconfiguredError", "PromotionError", "TransientError"]


class PromotionError(Exception):
    """Base of all errors of this function."""


class BadMessageError(PromotionError):
    """The message is no event that this function understands."""


class MisconfiguredError(PromotionError):
    """The deployment is wrong: a variable, a resource or a permission is missing."""


class TransientError(PromotionError):
    """Not now: the stack is busy or AWS could not answer."""
