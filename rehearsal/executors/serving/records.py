"""Records of batch transform: how files are split, filtered by JSONPath, joined with their answers.

Pure. Source: "Associate prediction results with input records" and CreateTransformJob, developer guide.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["RecordError", "batches", "filtered", "joined", "lines_of", "parsed", "path_of", "rendered"]

CSV, JSON = "text/csv", "application/jsonlines"
_STEP = re.compile(
    r"\.(?P<name>[A-Za-z_][\w-]*)|\.?(?P<all>\*)|\[(?P<names>'[^']*'(?:\s*,\s*'[^']*')*)\]"
    r"|\[(?P<span>-?\d*:-?\d*)\]|\[(?P<numbers>-?\d+(?:\s*,\s*-?\d+)*)\]"
)


class RecordError(Exception):
    """A record or a filter that cannot be worked with; the text says which."""


def lines_of(content: bytes) -> list[bytes]:
    """The records of a file that is split by line; empty ones are none."""
    return [line for line in content.replace(b"\r\n", b"\n").split(b"\n") if line]


def batches(records: Sequence[bytes], *, largest: int, single: bool) -> Iterator[list[bytes]]:
    """The payloads of a file: one record each, or as many as fit into `largest` bytes.

    :raises RecordError: a record alone is larger
    """
    batch: list[bytes] = []
    size = 0
    for record in records:
        if len(record) > largest:
            raise RecordError(f"a record has {len(record)} bytes; MaxPayloadInMB allows {largest}")
        if batch and (single or size + len(record) + 1 > largest):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += len(record) + 1
    if batch:
        yield batch


def path_of(text: str) -> list[re.Match[str]]:
    """The steps of a JSONPath, as far as SageMaker takes them.

    :raises RecordError: it is none of those
    """
    if not text.startswith("$"):
        raise RecordError(f"a filter is a JSONPath that begins with $, got {text!r}")
    steps, at = [], 1
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None:
            raise RecordError(f"the filter {text!r} is not supported from {text[at:]!r} on")
        steps.append(match)
        at = match.end()
    return steps


def filtered(value: Any, path: Sequence[re.Match[str]]) -> Any:
    """What a filter leaves of a value.

    :raises RecordError: it points at nothing
    """
    for step in path:
        try:
            value = _stepped(value, step)
        except (KeyError, IndexError, TypeError) as error:
            raise RecordError(f"the filter finds no {step[0]} in {value!r}") from error
    return value


def _stepped(value: Any, step: re.Match[str]) -> Any:
    found = step.groupdict()
    if found["name"] is not None:
        return value[found["name"]]
    if found["all"] is not None:
        return list(value.values()) if isinstance(value, Mapping) else list(value)
    if found["names"] is not None:
        names = re.findall(r"'([^']*)'", found["names"])
        return value[names[0]] if len(names) == 1 else {name: value[name] for name in names}
    if found["span"] is not None:
        start, _, end = found["span"].partition(":")
        if not isinstance(value, list):
            raise TypeError(value)
        return value[int(start) if start else None : int(end) if end else None]
    numbers = [int(number) for number in found["numbers"].split(",")]
    return value[numbers[0]] if len(numbers) == 1 else [value[number] for number in numbers]


def parsed(record: bytes, kind: str) -> Any:
    """A record as a value: a row of CSV is a list of texts.

    :raises RecordError: it is not what the content type says
    """
    try:
        text = record.decode("utf-8")
        return next(csv.reader([text])) if kind == CSV else json.loads(text)
    except (UnicodeDecodeError, ValueError, StopIteration) as error:
        raise RecordError(f"a record is no {kind}: {error}") from error


def rendered(value: Any, kind: str) -> bytes:
    """A value as a record."""
    if kind != CSV:
        return json.dumps(value).encode()
    sink = io.StringIO()
    row = value if isinstance(value, list) else [value]
    csv.writer(sink, lineterminator="").writerow(row)
    return sink.getvalue().encode()


def joined(given: Any, answer: Any, kind: str) -> Any:
    """A record with its answer: further columns, or the key SageMakerOutput."""
    if kind == CSV:
        return [*given, *answer]
    if isinstance(given, Mapping):
        return {**given, "SageMakerOutput": answer}
    return {"SageMakerInput": given, "SageMakerOutput": answer}
