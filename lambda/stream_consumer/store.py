"""The online feature store: one record a call, tried again while it is busy."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from stream_consumer.errors import MisconfiguredError, RefusedError, TransientError

__all__ = ["OnlineStore"]

#: Tries of one record in one invocation. The event source mapping tries again after that.
ATTEMPTS: Final = 4
FIRST_WAIT_SECONDS: Final = 0.05
LONGEST_WAIT_SECONDS: Final = 1.0
#: PutRecord's errors (API reference of Feature Store Runtime) and the common ones that say "busy".
TRANSIENT: Final = frozenset(
    {
        "InternalFailure",
        "InternalServerError",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
#: The record itself is wrong. Everything else (AccessForbidden, ResourceNotFound) is wrong for every record.
REFUSED: Final = frozenset({"ValidationError", "ValidationException"})


class OnlineStore:
    """Puts records into the online store of one feature group. Needs ``sagemaker:PutRecord`` and its key.

    The store keeps the record with the greatest event time (Feature Store Runtime API reference, PutRecord:
    a record that is not newer "is a historic record and it is written only to the OfflineStore"), so an older
    or a repeated one changes nothing. The offline store is the batch path's, hence ``TargetStores``.
    """

    def __init__(
        self,
        client: Any,
        feature_group: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._feature_group = feature_group
        self._sleep = sleep
        self._spread = spread

    def put(self, texts: Mapping[str, str]) -> None:
        """Put one record, by feature name.

        :raises RefusedError: the store does not take this record
        :raises TransientError: the store stayed busy through every try
        :raises MisconfiguredError: nothing can be put until a person acts
        """
        record = [{"FeatureName": name, "ValueAsString": value} for name, value in texts.items()]
        wait = FIRST_WAIT_SECONDS
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._client.put_record(
                    FeatureGroupName=self._feature_group, Record=record, TargetStores=["OnlineStore"]
                )
            except ClientError as error:
                code = str(error.response["Error"]["Code"])
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                if code in REFUSED:
                    raise RefusedError(code, str(error.response["Error"].get("Message", ""))) from error
                if code not in TRANSIENT and status < 500 and status != 429:
                    raise MisconfiguredError(str(error)) from error
                if attempt == ATTEMPTS:
                    raise TransientError(str(error)) from error
            except BotoCoreError as error:
                if attempt == ATTEMPTS:
                    raise TransientError(str(error)) from error
            else:
                return
            # Full jitter, so that callers that were throttled together do not come back together.
            self._sleep(wait * self._spread())
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)
        raise AssertionError("the last attempt returns or raises")
