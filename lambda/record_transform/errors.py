"""What can go wrong.

::

    TransformError
    |-- BadEventError       the event is not Firehose's; no retry can help
    |-- MisconfiguredError  a variable, the contract or a permission is missing; a person has to act
    `-- TransientError      S3 was busy; the same batch may succeed later

Firehose invokes the function again when it raises (three times by default) and keeps the batch under its
error prefix after that, so no record is lost. A record that the contract refuses is no error: it is
quarantined.
"""

from __future__ import annotations

__all__ = ["BadEventError", "MisconfiguredError", "TransformError", "TransientError"]


class TransformError(Exception):
    """Base of all errors of this function."""


class BadEventError(TransformError):
    """The event is not a batch of Firehose records."""


class MisconfiguredError(TransformError):
    """The deployment is wrong: a variable, the contract or a permission is missing."""


class TransientError(TransformError):
    """S3 could not answer now."""
