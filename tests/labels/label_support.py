"""Rules, items and a page's requests for tests of labelling."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
from label_tasks.rules import Rules
from label_tasks.tasks import Task, Tasks
from moto import mock_aws

REGION = "eu-central-1"
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)

RULES: dict[str, Any] = {
    "workload": "parcel_delay",
    "title": "Parcels that arrive late",
    "instructions": "Say whether the parcel was late.",
    "identifier": "Parcel",
    "label_field": "late",
    "task": "binary",
    "classes": [{"value": "no", "title": "In time"}, {"value": "yes", "title": "Late"}],
    "show": [
        {"name": "weight_kg", "source": "weight-kg", "title": "weight kg", "personal": False},
        {"name": "addressee", "source": "addressee", "title": "addressee", "personal": True},
    ],
    "threshold": 0.4,
    "review_below_confidence": 0.2,
    "sample_percent": 0,
    "labellers_per_item": 2,
    "labellers_at_most": 3,
    "agreement": 0.66,
    "expires_hours": 72,
    "lock_minutes": 15,
}


def rules(**changes: Any) -> Rules:
    """The rules, some of them changed."""
    return Rules.from_json(json.dumps({**RULES, **changes}))


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.moment = NOW

    def __call__(self) -> datetime:
        return self.moment

    def wait(self, **duration: float) -> None:
        self.moment += timedelta(**duration)


class Steps:
    """Step Functions: what was started and answered."""

    def __init__(self) -> None:
        self.answered: list[tuple[str, dict[str, Any]]] = []
        self.started: list[str] = []
        self.error: str | None = None

    def send_task_success(self, *, taskToken: str, output: str) -> None:  # noqa: N803
        self._fail("SendTaskSuccess")
        self.answered.append((taskToken, json.loads(output)))

    def start_execution(self, *, stateMachineArn: str, name: str, input: str) -> None:  # noqa: N803
        assert json.loads(input) == {"task": name}
        if name in self.started:
            self._raise("ExecutionAlreadyExists", "StartExecution", 400)
        self.started.append(name)

    def _fail(self, operation: str) -> None:
        if self.error is not None:
            self._raise(self.error, operation, 400)

    def _raise(self, code: str, operation: str, status: int) -> None:
        from botocore.exceptions import ClientError

        answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
        raise ClientError(answer, operation)


class OneCallAtATime:
    """A table whose calls are atomic, as DynamoDB's are: moto checks a condition and writes in two steps."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._table, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                return found(*args, **kwargs)

        return call


@contextmanager
def item_table() -> Iterator[Any]:
    """A table as the construct defines it (its own test compares the two)."""
    with mock_aws():
        table = boto3.resource(
            "dynamodb", region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x"
        ).create_table(
            TableName="items",
            AttributeDefinitions=[
                {"AttributeName": name, "AttributeType": "S"} for name in ("task", "queue", "created")
            ],
            KeySchema=[{"AttributeName": "task", "KeyType": "HASH"}],
            GlobalSecondaryIndexes=[
                {
                    "IndexName": "queue-created",
                    "KeySchema": [
                        {"AttributeName": "queue", "KeyType": "HASH"},
                        {"AttributeName": "created", "KeyType": "RANGE"},
                    ],
                    "Projection": {"ProjectionType": "ALL"},
                }
            ],
            BillingMode="PAY_PER_REQUEST",
        )
        yield OneCallAtATime(table)


def name_of(number: int) -> str:
    """Name of an item."""
    return f"{number:040x}"


def item(number: int = 1, **changes: Any) -> Task:
    """An item that waits for two people."""
    given: dict[str, Any] = {
        "task": name_of(number),
        "identifier": f"P{number}",
        "origin": "low_confidence",
        "created": (NOW + timedelta(seconds=number)).isoformat(timespec="milliseconds"),
        "expires": int((NOW + timedelta(hours=72)).timestamp()),
        "shown": (("weight_kg", f"{number}.5"), ("addressee", "")),
        "inference_id": f"i{number}",
        "predicted": "yes",
        "confidence": 0.1,
        "queue": "review",
        "needed": 2,
        "token": f"token {number}",
    }
    return Task(**{**given, **changes})


def stored(tasks: Tasks, *items: Task) -> None:
    """Put items into the table."""
    for one in items:
        assert tasks.add(one, ttl=one.expires + 1)


def request(
    method: str, path: str, *, person: str | None = "ada", groups: str = "[labellers]", body: object = None
) -> dict[str, Any]:
    """A request as API Gateway hands it over, payload format 2.0."""
    event: dict[str, Any] = {
        "version": "2.0",
        "rawPath": path,
        "requestContext": {"http": {"method": method, "path": path}},
        "isBase64Encoded": False,
    }
    if person is not None:
        claims = {"username": person, "cognito:groups": groups, "sub": person}
        event["requestContext"]["authorizer"] = {"jwt": {"claims": claims, "scopes": ["labels/label"]}}
    if body is not None:
        event["body"] = json.dumps(body)
    return event
