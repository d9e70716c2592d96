"""What can go wrong.

::

    LandingError
    |-- BadEventError         the input is not what the state machine sends; no retry can help
    |-- IncompleteBatchError  files that the manifest names have not arrived; asked again later
    |-- MisconfiguredError    a variable, a file or a permission is missing; a person has to act
    `-- TransientError        S3 or CloudWatch was busy; the same call may succeed later

The state machine retries by these names. A file that cannot be read is no error: it is quarantined.
"""

from __future__ import annotations

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

__all__ = [
    "BadEventError",
    "IncompleteBatchError",
    "LandingError",
    "MisconfiguredError",
    "TransientError",
    "told_apart",
]


class LandingError(Exception):
    """Base of all errors of this function."""


class BadEventError(LandingError):
    """The input is not one of the state machine's."""


class IncompleteBatchError(LandingError):
    """The manifest names files that are not there yet."""


class MisconfiguredError(LandingError):
    """The deployment is wrong: a variable, a file or a permission is missing."""


class TransientError(LandingError):
    """AWS could not answer now."""


def told_apart(error: ClientError | BotoCoreError) -> LandingError:
    """What an AWS error means for the state machine."""
    if isinstance(error, BotoCoreError):
        return TransientError(str(error))
    answer: Any = error.response
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status >= 500 or status in (408, 409, 429) or answer["Error"]["Code"] in ("SlowDown", "Throttling"):
        return TransientError(str(error))
    return MisconfiguredError(str(error))
