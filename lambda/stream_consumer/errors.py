"""What can go wrong: the record transform's errors, and one that is this function's own.

::

    TransformError
    |-- BadEventError       the event is not Lambda's for a Kinesis stream; no retry can help
    |-- MisconfiguredError  a variable, the contract or a permission is missing; a person has to act
    |-- TransientError      a service was busy; the same record may succeed later
    `-- RefusedError        the feature store refuses this record for good; it goes to the quarantine

An event source mapping tries a batch again, whole or in halves, when the function raises, and keeps its
records on S3 when the tries are over. A transient failure of single records is no error of the function: it
answers from where the batch has to be tried again.
"""

from __future__ import annotations

from record_transform.errors import BadEventError, MisconfiguredError, TransformError, TransientError

__all__ = ["BadEventError", "MisconfiguredError", "RefusedError", "TransformError", "TransientError"]


class RefusedError(TransformError):
    """The feature store does not take this record, now or later. ``code`` is the service's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
