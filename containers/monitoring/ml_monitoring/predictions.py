"""Captured invocations as predictions: what was asked, what was answered, and what turned out true."""

from __future__ import annotations

import collections
import csv
import dataclasses
import datetime as dt
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
from ml_contract.compiled import CompiledContract
from ml_contract.features.row import row_function
from ml_contract.records.codec import Rejected
from ml_runtime.content import (
    CSV,
    JSON_LINES,
    BadBodyError,
    BodyReader,
    RawRecord,
    UnsupportedTypeError,
    media_type,
)

from ml_monitoring.capture import (
    POLARS_TYPES,
    DamagedLineError,
    GroundTruthData,
    Line,
    body_of,
    decoded,
    drawn,
    with_audit,
)

__all__ = ["Predictions", "label_of", "read_ground_truth", "read_predictions", "truth_keys"]

#: Predictions that are judged at most; of more, so many are drawn evenly.
PREDICTIONS_LIMIT = 200_000


class _TruthMetadata(msgspec.Struct, rename="camel"):
    event_id: str


class _Truth(msgspec.Struct, rename="camel"):
    ground_truth_data: GroundTruthData
    event_metadata: _TruthMetadata


_TRUTH = msgspec.json.Decoder(_Truth)


def _cells(data: GroundTruthData) -> list[str]:
    """What was true of an invocation's records, one after the other."""
    if data.data is None:
        return []
    if data.encoding == "JSON":
        found = json.loads(data.data)
        return [_plain(value) for value in (found if isinstance(found, list) else [found])]
    if data.encoding != "CSV":
        raise ValueError(f"encoding {data.encoding!r} is not known")
    return [row[0].strip() for row in csv.reader(io.StringIO(data.data)) if row]


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def truth_keys(client: Any, bucket: str, prefix: str, start: dt.datetime, end: dt.datetime) -> Iterator[str]:
    """Yield the objects in the folders of hours from ``start`` up to ``end``, in their order."""
    first, last = f"{start:%Y/%m/%d/%H}", f"{end:%Y/%m/%d/%H}"
    base = f"{prefix.rstrip('/')}/".lstrip("/")
    for day in range((end.date() - start.date()).days + 1):
        folder = f"{base}{start + dt.timedelta(days=day):%Y/%m/%d}/"
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=folder):
            for item in page.get("Contents", ()):
                hour = item["Key"].removeprefix(base)[: len(first)]
                # A label that was collected in the very hour of the run is taken as well.
                if first <= hour <= last and not item["Key"].endswith("/"):
                    yield item["Key"]


def read_ground_truth(files: Iterable[bytes]) -> tuple[dict[str, str], dict[str, int]]:
    """Return what was true by inference, the last file's word, and what could not be read."""
    found: dict[str, str] = {}
    damaged = collections.Counter[str]()
    for content in files:
        for line in content.splitlines():
            if not line.strip():
                continue
            try:
                truth = _TRUTH.decode(line)
                cells = _cells(truth.ground_truth_data)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, csv.Error) as error:
                damaged[f"ground truth: {str(error)[:100]}"] += 1
                continue
            found |= zip(_ids(truth.event_metadata.event_id, len(cells)), cells, strict=True)
    return found, dict(damaged)


def _ids(inference: str, records: int) -> list[str]:
    """The name of each record of an inference."""
    return [inference] if records == 1 else [f"{inference}#{place}" for place in range(records)]


def label_of(text: str, contract: CompiledContract) -> float:
    """Return what a label says as a number: a class's position, or the number itself. Raises ValueError.

    A class is its text or, as Model Monitor wants it, its position.
    """
    values = contract.label.values
    if values is None:
        number = float(text)
        if not math.isfinite(number):
            raise ValueError(f"the label {text!r} is no finite number")
        return number
    if text in values:
        return values.index(text)
    if text.isdecimal() and int(text) < len(values):
        return int(text)
    raise ValueError(f"the label {text!r} is none of {', '.join(values)}")


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Answered records of a window.

    Args:
        frame: features, then the fields that models are judged by and never see.
        scores: as ``Model.scores`` has them, [rows] or [rows, classes].
        decided: the class's position, or the number.
        labels: the same of what was true; NaN where nobody has said so.
        files: capture files.
        invocations: lines in them.
        records: answered records, of which at most ``PREDICTIONS_LIMIT`` are here.
        damaged: why some could not be read, with how many.
        models: answers by the model that gave them.
    """

    frame: pl.DataFrame
    scores: npt.NDArray[np.float64]
    decided: npt.NDArray[np.float64]
    labels: npt.NDArray[np.float64]
    files: int
    invocations: int
    records: int
    damaged: Mapping[str, int]
    models: Mapping[str, int]

    @property
    def labelled(self) -> npt.NDArray[np.bool_]:
        """Whether somebody has said what was true."""
        known: npt.NDArray[np.bool_] = ~np.isnan(self.labels)
        return known

    def about(self) -> dict[str, Any]:
        """What a report says of them."""
        return {
            "files": self.files,
            "invocations": self.invocations,
            "records": self.records,
            "records_accepted": self.frame.height,
            "damaged": dict(self.damaged),
            "models": dict(self.models),
        }


@dataclasses.dataclass(frozen=True)
class _One:
    """One record, its answer as numbers, and what was true of it."""

    record: RawRecord
    score: float | list[float]
    decided: float
    truth: str | None


def _answers(body: bytes, content_type: str) -> tuple[list[dict[str, Any]], str]:
    """The predictions of an answer, and the model that names itself in it."""
    kind = media_type(content_type)
    if kind == CSV:
        rows = csv.reader(io.StringIO(body.decode()), strict=True)
        return [dict(zip(("score", "label"), row, strict=False)) for row in rows if row], ""
    if kind in JSON_LINES:
        return [json.loads(line) for line in body.splitlines() if line.strip()], ""
    found = json.loads(body)
    return found["predictions"], str(found.get("model", ""))


def _numbers(answer: Mapping[str, Any], contract: CompiledContract) -> tuple[float | list[float], float]:
    """Score and decision of one answer. Raises ValueError or KeyError."""
    values = contract.label.values
    if values is None:
        score = float(answer["score"])
        return score, score
    decided = label_of(str(answer["label"]), contract)
    if contract.label.task == "binary":
        return float(answer["score"]), decided
    if "scores" not in answer:
        raise ValueError("the answer lacks the scores of the classes; ask for application/json")
    return [float(answer["scores"][value]) for value in values], decided


def read_predictions(
    files: Iterable[bytes],
    contract: CompiledContract,
    *,
    truths: Mapping[str, str] | None = None,
    limit: int = PREDICTIONS_LIMIT,
    damaged: Mapping[str, int] | None = None,
) -> Predictions:
    """Decode captured invocations.

    Args:
        files: contents of capture files.
        contract: of the workload.
        truths: what was true, by the name of the record's inference; merged lines bring their own.
        limit: predictions that are kept, drawn evenly.
        damaged: what could not be read of the truths.
    """
    reader = BodyReader(contract)
    seen = collections.Counter[str]()
    damaged = collections.Counter[str](damaged or {})
    models = collections.Counter[str]()
    known = truths or {}

    def invocation(line: Line) -> Sequence[_One]:
        if line.capture_data.endpoint_output is None:
            raise DamagedLineError("the answer was not captured")
        records = reader.records(*body_of(line.capture_data.endpoint_input))
        answers, model = _answers(*body_of(line.capture_data.endpoint_output))
        if len(answers) != len(records):
            raise DamagedLineError(f"{len(records)} records have {len(answers)} answers")
        names = _ids(line.id, len(records))
        merged = [] if line.ground_truth_data is None else _cells(line.ground_truth_data)
        own = dict(zip(names, merged, strict=True)) if len(merged) == len(names) else {}
        found = [
            _One(record, *_numbers(answer, contract), own.get(name, known.get(name)))
            for name, record, answer in zip(names, records, answers, strict=True)
        ]
        models[model] += len(found)
        return found

    def predictions() -> Iterator[_One]:
        for content in files:
            seen["files"] += 1
            for text in content.splitlines():
                if not text.strip():
                    continue
                seen["invocations"] += 1
                try:
                    yield from invocation(decoded(text))
                except (DamagedLineError, BadBodyError, UnsupportedTypeError) as error:
                    damaged[f"line: {str(error)[:100]}"] += 1
                except (ValueError, KeyError, TypeError, csv.Error, RecursionError) as error:
                    # Refused requests are captured too: their answer holds no prediction.
                    damaged[f"answer: {type(error).__name__}: {str(error)[:100]}"] += 1

    kept, total = drawn(predictions(), limit)
    everything = with_audit(contract)
    features = row_function(everything)
    rows, scores, decided, labels = [], [], [], []
    for one in kept:
        record = reader.decode(one.record)
        if isinstance(record, Rejected):
            damaged["record: refused by the contract, though it was answered"] += 1
            continue
        rows.append(features(record.values))
        scores.append(one.score)
        decided.append(one.decided)
        labels.append(_known(one.truth, contract, damaged))
    schema = {f.name: POLARS_TYPES[f.type] for f in everything.features}
    width = len(contract.label.values or ()) if contract.label.task == "multiclass" else 0
    return Predictions(
        pl.DataFrame(rows, schema=schema, orient="row"),
        np.array(scores, dtype=np.float64).reshape((-1, width) if width else (-1,)),
        np.array(decided, dtype=np.float64),
        np.array(labels, dtype=np.float64),
        seen["files"],
        seen["invocations"],
        total,
        dict(damaged),
        {name: count for name, count in models.items() if name},
    )


def _known(truth: str | None, contract: CompiledContract, damaged: collections.Counter[str]) -> float:
    if truth is None or truth == "":
        return math.nan
    try:
        return label_of(truth, contract)
    except ValueError as error:
        damaged[f"ground truth: {str(error)[:100]}"] += 1
        return math.nan
