"""The model side: raw records in, scores out."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from ml_contract.features.row import row_function
from ml_contract.records.codec import Rejected
from ml_runtime.content import (
    CSV,
    JSON,
    JSON_LINES,
    BadBodyError,
    BodyReader,
    RawRecord,
    UnsupportedTypeError,
    media_type,
)
from ml_runtime.model import Model, OneRow

log = logging.getLogger("ml_serving")

Header = tuple[bytes, bytes]
JSON_HEADER: Header = (b"content-type", b"application/json")
CSV_HEADER: Header = (b"content-type", b"text/csv; charset=utf-8")
LINES_HEADER: Header = (b"content-type", b"application/jsonlines")
#: Records whose reasons an answer lists.
RECORDS_LISTED = 100
#: Records of one body. Empty ones fit by the million into six megabytes and would take minutes; a container
#: has 60 s to answer (SageMaker developer guide, "How containers serve requests").
RECORDS_LIMIT = 100_000
RECORDS_AT_ONCE = 4_096

#: What callers that do not care send; looked up before the header is taken apart.
_ANY_JSON = frozenset({JSON, "*/*"})

_encode = msgspec.json.Encoder().encode


class Answer(NamedTuple):
    """A response: status, content type header, body."""

    status: int
    content_type: Header
    body: bytes


class RefusedError(ValueError):
    """A request that is answered with ``status`` and this text."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class NotFiniteError(ValueError):
    """The model answered with a number that is none."""


def failure(status: int, message: str, **details: object) -> Answer:
    """Return an answer that says what went wrong."""
    return Answer(status, JSON_HEADER, _encode({"error": message, **details}))


class Predictor:
    """Scores the records of a body by one model.

    ``served_as`` says which model it is, ``<package group>/<version>``; an answer in JSON names it, and with
    the answer the captured prediction does. ``threshold`` takes the place of the contract's.

    ``answer`` is not for several threads at once: one record is scored in a buffer that is used again.
    ``answer_many`` uses none, and may run beside it.
    """

    def __init__(self, model: Model, *, served_as: str | None = None, threshold: float | None = None) -> None:
        contract = model.contract
        label = contract.label
        self._reader = BodyReader(contract)
        self._features = row_function(contract)
        self._vector = model.fitted.vector
        self._model = model
        self._task = label.task
        self._threshold = contract.decision_threshold if threshold is None else threshold
        self._values = label.values
        # One record asked for as JSON is what endpoints mostly get: its way is short.
        self._row = None if label.task == "multiclass" else OneRow(model)
        self._served_as = {} if served_as is None else {"model": served_as}
        end = b"}]}" if served_as is None else b'}],"model":%b}' % _encode(served_as)
        self._ends = [end]
        if label.values is not None:
            self._ends = [b',"label":%b%b' % (_encode(value), end) for value in label.values]

    def answer(self, body: bytes, content_type: str, accept: str) -> Answer:
        """Score a body and say so in the wanted type.

        A body that cannot be scored gets a 400 with every reason.
        """
        return self._answered(body, content_type, accept, row=self._row)

    def answer_many(self, body: bytes, content_type: str, accept: str) -> Answer:
        """Do as ``answer`` does, in any thread."""
        return self._answered(body, content_type, accept, row=None)

    def _answered(self, body: bytes, content_type: str, accept: str, *, row: OneRow | None) -> Answer:
        try:
            records = self._records(body, content_type)
            if len(records) > 1 or row is None or accept not in _ANY_JSON:
                return self._several(records, accept)
            record = self._reader.decode(records[0])
            if isinstance(record, Rejected):
                return self._refusal([(0, record)], 1)
            return self._one(row.score(self._vector(self._features(record.values))))
        except RefusedError as error:
            return failure(error.status, str(error))
        except NotFiniteError as error:
            log.error("%s", error)  # noqa: TRY400 - the text says all
            return failure(500, str(error))

    def _records(self, body: bytes, content_type: str) -> Sequence[RawRecord]:
        try:
            records = self._reader.records(body, content_type)
        except UnsupportedTypeError as error:
            raise RefusedError(415, str(error)) from error
        except BadBodyError as error:
            raise RefusedError(400, str(error)) from error
        if not records:
            raise RefusedError(400, "the body holds no record")
        if len(records) > RECORDS_LIMIT:
            raise RefusedError(
                413,
                f"the body holds {len(records)} records, allowed are {RECORDS_LIMIT}; send several bodies",
            )
        return records

    def _several(self, records: Sequence[RawRecord], accept: str) -> Answer:
        """Score in parts, so that memory does not grow with the body."""
        predictions: list[dict[str, Any]] = []
        refused: list[tuple[int, Rejected]] = []
        for start in range(0, len(records), RECORDS_AT_ONCE):
            vectors = []
            for index, raw in enumerate(records[start : start + RECORDS_AT_ONCE], start):
                record = self._reader.decode(raw)
                if isinstance(record, Rejected):
                    refused.append((index, record))
                elif not refused:
                    vectors.append(self._vector(self._features(record.values)))
            if not refused:
                predictions += self._predictions(vectors)
        return self._refusal(refused, len(records)) if refused else self._render(predictions, accept)

    def _one(self, score: float) -> Answer:
        if not math.isfinite(score):
            raise NotFiniteError("the model answered with a number that is not finite")
        end = self._ends[self._values is not None and score >= self._threshold]
        return Answer(200, JSON_HEADER, b'{"predictions":[{"score":%b%b' % (repr(score).encode(), end))

    def _predictions(self, vectors: list[list[float]]) -> list[dict[str, Any]]:
        with np.errstate(over="ignore"):
            matrix = np.array(vectors, dtype=np.float32)
        scores = self._model.scores(matrix)
        if not np.isfinite(scores).all():
            raise NotFiniteError("the model answered with a number that is not finite")
        if self._values is None:
            return [{"score": score} for score in scores.tolist()]
        if self._task == "binary":
            negative, positive = self._values
            return [
                {"score": score, "label": positive if score >= self._threshold else negative}
                for score in scores.tolist()
            ]
        best = scores.argmax(axis=1)
        return [
            {
                "score": row[position],
                "label": self._values[position],
                "scores": dict(zip(self._values, row, strict=True)),
            }
            for row, position in zip(scores.tolist(), best.tolist(), strict=True)
        ]

    def _render(self, predictions: list[dict[str, Any]], accept: str) -> Answer:
        for wanted in accept.split(","):
            kind = media_type(wanted)
            if kind in (JSON, "*/*", "application/*", ""):
                return Answer(200, JSON_HEADER, _encode({"predictions": predictions, **self._served_as}))
            if kind in JSON_LINES:
                return Answer(200, LINES_HEADER, b"".join(_encode(p) + b"\n" for p in predictions))
            if kind == CSV:
                return Answer(200, CSV_HEADER, "".join(_csv_row(p) for p in predictions).encode())
        return failure(
            406, f"accept {accept!r} cannot be met; ask for {JSON}, {CSV} or application/jsonlines"
        )

    def _refusal(self, refused: list[tuple[int, Rejected]], total: int) -> Answer:
        records = [
            {"index": index, "reasons": [reason.to_json() for reason in record.reasons]}
            for index, record in refused[:RECORDS_LISTED]
        ]
        return failure(400, f"{len(refused)} of {total} records do not fit the contract", records=records)


def _csv_row(prediction: dict[str, Any]) -> str:
    label = prediction.get("label")
    if label is None:
        return f"{prediction['score']!r}\n"
    quoted = label if label.isalnum() else '"' + label.replace('"', '""') + '"'
    return f"{prediction['score']!r},{quoted}\n"
