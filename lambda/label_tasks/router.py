"""Lambda entry point ``label_tasks.router.handler``: predictions become items that people label.

Called by EventBridge for each file that data capture wrote, or by a person with records that nobody has
labelled: ``{"records": [{...}], "reason": "..."}``, each record as a producer would send it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from function_log import log

from label_tasks.consensus import REVIEW
from label_tasks.errors import BadEventError, LabelError, MisconfiguredError
from label_tasks.rules import Rules, load_rules
from label_tasks.settings import Settings
from label_tasks.tasks import Task, Tasks, translated

__all__ = ["Candidate", "candidates", "confidence_of", "handler", "route"]

#: Items stay in the table this long after their time is over, for people who look back.
KEPT_DAYS = 90
#: Records of one call by a person: a synchronous event is 6 MB at most (AWS Lambda quotas).
RECORDS_AT_ONCE = 1_000
_CONFIG = Config(retries={"mode": "standard", "total_max_attempts": 3}, connect_timeout=3, read_timeout=10)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One record, and what the model said of it."""

    record: Mapping[str, Any]
    inference_id: str | None = None
    predicted: str | None = None
    confidence: float | None = None


def confidence_of(prediction: Mapping[str, Any], rules: Rules) -> float:
    """How sure the model is: 0 when it cannot tell, 1 when it is certain.

    Binary: the distance of the score from the decision threshold, as a share of what is possible on its side.
    Multiclass: how far the greatest probability lies above that of a draw. Raises ValueError.
    """
    score = prediction.get("score")
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not 0 <= score <= 1:
        raise ValueError(f"score must be a probability, got {score!r}")
    if rules.task == "binary":
        room = 1 - rules.threshold if score >= rules.threshold else rules.threshold
        return abs(score - rules.threshold) / room
    draw = 1 / len(rules.classes)
    return max(0.0, (score - draw) / (1 - draw))


def candidates(content: bytes, rules: Rules, counts: Counter[str]) -> Iterator[Candidate]:
    """Yield what a capture file holds; what cannot be read is counted, not raised."""
    for line in content.splitlines():
        if not line.strip():
            continue
        counts["invocations"] += 1
        try:
            captured = json.loads(line)
            data, metadata = captured["captureData"], captured["eventMetadata"]
            records = _records(_payload(data["endpointInput"]))
            answer = json.loads(_payload(data["endpointOutput"]))
            predictions = answer["predictions"]
            found = [
                Candidate(
                    record=record,
                    inference_id=_inference_id(metadata, place, len(records)),
                    predicted=str(prediction["label"]),
                    confidence=confidence_of(prediction, rules),
                )
                for place, (record, prediction) in enumerate(zip(records, predictions, strict=True))
            ]
        except (ValueError, KeyError, TypeError, RecursionError):
            # Refused requests are captured too, and other types than JSON may have been asked for.
            counts["unreadable"] += 1
            continue
        yield from found


def _inference_id(metadata: Mapping[str, Any], place: int, count: int) -> str | None:
    given = metadata.get("inferenceId", metadata.get("eventId"))
    return None if given is None else str(given) if count == 1 else f"{given}#{place}"


def _payload(side: Mapping[str, Any]) -> str:
    text: str = side["data"]
    if side.get("encoding") != "BASE64":
        return text
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error


def _records(text: str) -> list[Mapping[str, Any]]:
    """One record, a list of them, ``{"instances": [...]}`` or JSON lines: what the serving image takes."""
    try:
        body = json.loads(text)
    except ValueError:
        body = [json.loads(line) for line in text.splitlines() if line.strip()]
    if isinstance(body, dict) and isinstance(body.get("instances"), list):
        body = body["instances"]
    found = body if isinstance(body, list) else [body]
    if not all(isinstance(record, dict) for record in found):
        raise ValueError("a record must be an object")
    return found


def task_of(candidate: Candidate, rules: Rules, *, origin: str, now: datetime) -> Task | None:
    """Make the item of a record; ``None`` when the record does not say which it is.

    Its name is made from the record's identifier and what is shown of it: the same record scored again is the
    same item, a changed one is another.
    """
    identifier = candidate.record.get(rules.identifier)
    if identifier is None or str(identifier).strip() == "":
        return None
    shown = tuple((field.name, _text(candidate.record.get(field.source))) for field in rules.show)
    name = hashlib.sha256(
        json.dumps([rules.workload, str(identifier), shown], ensure_ascii=False).encode()
    ).hexdigest()[:40]
    return Task(
        task=name,
        identifier=str(identifier),
        origin=origin,
        created=now.isoformat(timespec="milliseconds"),
        expires=int((now + timedelta(hours=rules.expires_hours)).timestamp()),
        shown=shown,
        inference_id=candidate.inference_id,
        predicted=candidate.predicted,
        confidence=candidate.confidence,
    )


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)[:2_000]


def sampled(task: str, percent: float) -> bool:
    """Whether a sure prediction is among those that people see too; always the same answer."""
    return int(hashlib.sha256(f"sample {task}".encode()).hexdigest()[:8], 16) < percent / 100 * 2**32


def route(
    found: Sequence[Candidate] | Iterator[Candidate],
    rules: Rules,
    tasks: Tasks,
    start: Any,
    *,
    counts: Counter[str],
    now: datetime,
    origin: str | None = None,
    queue: str | None = None,
) -> None:
    """Store an item for each candidate that people shall see and start the wait for its votes.

    ``start(task)`` starts it; started twice it is one. The item is stored first: a crash between the two is
    mended when the same event comes again. ``queue`` is where it waits from the beginning, for an engine that
    takes waiting items by itself.
    """
    for candidate in found:
        counts["records"] += 1
        unsure = candidate.confidence is not None and candidate.confidence < rules.review_below_confidence
        task = task_of(candidate, rules, origin=origin or ("low_confidence" if unsure else "sample"), now=now)
        if task is None:
            counts["without_identifier"] += 1
            continue
        if origin is None and not unsure and not sampled(task.task, rules.sample_percent):
            counts["confident"] += 1
            continue
        ttl = task.expires + KEPT_DAYS * 86_400
        task = replace(task, queue=queue)
        counts["new" if tasks.add(task, ttl=ttl) else "known"] += 1
        start(task.task)


@cache
def _clients() -> tuple[Any, Any, Any]:
    return (
        boto3.client("s3", config=_CONFIG),
        boto3.client("stepfunctions", config=_CONFIG),
        boto3.resource("dynamodb", config=_CONFIG),
    )


def starter(client: Any, state_machine: str) -> Any:
    """Starts an execution that is named by its item, once."""

    def start(task: str) -> None:
        with translated():
            try:
                client.start_execution(
                    stateMachineArn=state_machine, name=task, input=json.dumps({"task": task})
                )
            except ClientError as error:
                if error.response["Error"]["Code"] != "ExecutionAlreadyExists":
                    raise

    return start


def _starter(client: Any, settings: Settings) -> Any:
    if settings.engine != "own":
        return lambda _task: None
    if not settings.state_machine:
        raise MisconfiguredError("not set: STATE_MACHINE")
    return starter(client, settings.state_machine)


def handler(event: Any, context: object) -> dict[str, int]:
    """Make items of what the event names; what was counted is returned and logged."""
    request = getattr(context, "aws_request_id", None)
    try:
        settings = Settings.from_environment(os.environ, "bucket", "prefix", "engine")
        rules = load_rules()
        s3, stepfunctions, dynamodb = _clients()
        counts: Counter[str] = Counter()
        origin = None
        found: Sequence[Candidate] | Iterator[Candidate]
        if isinstance(event, dict) and isinstance(event.get("records"), list):
            origin = "unlabelled"
            found = _asked(event["records"])
        else:
            bucket, key = _object(event, settings)
            with translated():
                content = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
            found = candidates(content, rules, counts)
        route(
            found,
            rules,
            Tasks(dynamodb.Table(settings.table)),
            _starter(stepfunctions, settings),
            counts=counts,
            now=datetime.now(UTC),
            origin=origin,
            queue=None if settings.engine == "own" else REVIEW,
        )
    except LabelError as error:
        log("ERROR", "cannot route", error=type(error).__name__, why=str(error), request=request)
        raise
    log("INFO", "routed", workload=rules.workload, request=request, **counts)
    return dict(counts)


def _asked(records: list[Any]) -> list[Candidate]:
    if len(records) > RECORDS_AT_ONCE:
        raise BadEventError(f"records must be at most {RECORDS_AT_ONCE}, got {len(records)}; call again")
    if not all(isinstance(record, dict) for record in records):
        raise BadEventError("each of records must be an object, as a producer would send it")
    return [Candidate(record=record) for record in records]


def _object(event: Any, settings: Settings) -> tuple[str, str]:
    try:
        detail = event["detail"]
        bucket, key = str(detail["bucket"]["name"]), str(detail["object"]["key"])
    except (KeyError, TypeError):
        raise BadEventError('the event must be "Object Created" of S3, or {"records": [...]}') from None
    if bucket != settings.bucket or not key.startswith(settings.prefix):
        raise BadEventError(f"s3://{bucket}/{key} is not below s3://{settings.bucket}/{settings.prefix}")
    return bucket, key
