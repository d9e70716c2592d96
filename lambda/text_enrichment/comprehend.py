"""Asking Amazon Comprehend about many texts, and losing none of them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from text_enrichment.errors import MisconfiguredError, TransientError

__all__ = ["BATCH", "MOST_BYTES", "Answer", "Comprehend", "cut"]

#: Documents a call (BatchDetectSentiment, BatchDetectEntities: TextList).
BATCH: Final = 25
#: UTF-8 bytes a document: "5 KB" (ibid.), which the guidelines and quotas give as 5,000 bytes.
MOST_BYTES: Final = 5_000
#: A call that AWS is too busy for is made so often; then the state machine tries later.
CALL_ATTEMPTS: Final = 6
#: A document that alone failed is asked for so often. AWS lists no codes of ErrorList that would never pass.
DOCUMENT_ATTEMPTS: Final = 3
#: A document that a call names neither among its results nor among its errors.
NOT_ANSWERED: Final = "NOT_ANSWERED"
#: Seconds that a wait may take at most.
_LONGEST_WAIT: Final = 20.0
_BUSY: Final = frozenset(
    {"ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded", "InternalServerException"}
)
#: What one document can do to its whole call.
_OF_DOCUMENTS: Final = frozenset({"TextSizeLimitExceededException", "InvalidRequestException"})


@dataclass
class Answer:
    """What Comprehend found in one text; ``errors`` holds a code per kind that it did not answer."""

    sentiment: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    entities: list[dict[str, Any]] | None = None
    errors: dict[str, str] = field(default_factory=dict)


def cut(text: str) -> tuple[str, bool]:
    """The beginning of a text that Comprehend takes, and whether something was cut off."""
    encoded = text.encode()
    if len(encoded) <= MOST_BYTES:
        return text, False
    return encoded[:MOST_BYTES].decode(errors="ignore"), True


class Comprehend:
    """The two batch operations in one language. ``client`` should not retry by itself."""

    def __init__(
        self,
        client: Any,
        *,
        language: str,
        kinds: Sequence[str],
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        operations = {"sentiment": client.batch_detect_sentiment, "entities": client.batch_detect_entities}
        self._operations = {kind: operations[kind] for kind in kinds}
        self._language = language
        self._sleep = sleep

    def ask(self, texts: Sequence[str]) -> list[Answer]:
        """Answer at most ``BATCH`` texts, which are short enough and not empty, in their order.

        :raises TransientError: AWS is too busy
        :raises MisconfiguredError: the calls are not allowed or not possible
        """
        answers = [Answer() for _ in texts]
        for kind in self._operations:
            for answer, found in zip(answers, self._all(kind, texts), strict=True):
                if isinstance(found, str):
                    answer.errors[kind] = found
                elif kind == "sentiment":
                    answer.sentiment, answer.scores = found["Sentiment"], found["SentimentScore"]
                else:
                    answer.entities = found["Entities"]
        return answers

    def _all(self, kind: str, texts: Sequence[str]) -> list[dict[str, Any] | str]:
        """A result or a code of error for each text."""
        found: list[dict[str, Any] | str] = [NOT_ANSWERED] * len(texts)
        open_ones = list(range(len(texts)))
        for attempt in range(DOCUMENT_ATTEMPTS):
            if attempt:
                self._wait(attempt)
            for index, one in zip(open_ones, self._batch(kind, [texts[i] for i in open_ones]), strict=True):
                found[index] = one
            open_ones = [index for index in open_ones if isinstance(found[index], str)]
            if not open_ones:
                break
        return found

    def _batch(self, kind: str, texts: Sequence[str]) -> list[dict[str, Any] | str]:
        """One look at some texts; a document that spoils the call is found by halving."""
        try:
            response = self._call(kind, texts)
        except _RefusedError as error:
            if len(texts) == 1:
                return [error.code]
            middle = len(texts) // 2
            return self._batch(kind, texts[:middle]) + self._batch(kind, texts[middle:])
        found: list[dict[str, Any] | str] = [NOT_ANSWERED] * len(texts)
        for refused in response.get("ErrorList", ()):
            found[refused["Index"]] = str(refused.get("ErrorCode") or NOT_ANSWERED)
        for result in response.get("ResultList", ()):
            found[result["Index"]] = result
        return found

    def _call(self, kind: str, texts: Sequence[str]) -> dict[str, Any]:
        why = ""
        for attempt in range(CALL_ATTEMPTS):
            if attempt:
                self._wait(attempt)
            try:
                response: dict[str, Any] = self._operations[kind](
                    TextList=list(texts), LanguageCode=self._language
                )
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code in _OF_DOCUMENTS:
                    raise _RefusedError(code) from error
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                if code not in _BUSY and status < 500:
                    raise MisconfiguredError(str(error)) from error
                why = str(error)
            except BotoCoreError as error:
                why = str(error)
            else:
                return response
        raise TransientError(f"Comprehend was asked {CALL_ATTEMPTS} times: {why}")

    def _wait(self, attempt: int) -> None:
        self._sleep(random.uniform(0, min(_LONGEST_WAIT, 0.5 * 2**attempt)))  # noqa: S311 - jitter, no secret


class _RefusedError(Exception):
    """A call was refused for what its documents are."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code
