"""The table of items, and the few ways in which one changes.

Every change is conditional on the ``revision`` that was read, so that of two at once one wins and the other
reads again. An item that waits for votes stands in the index ``queue-created``; a decided one has left it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from typing import Any

from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

from label_tasks.consensus import Vote
from label_tasks.errors import MisconfiguredError, TransientError

__all__ = ["INDEX", "ConflictError", "ExpectedError", "Task", "Tasks", "translated", "translated_but"]

INDEX = "queue-created"
#: A change that loses this often against others is given back to the caller.
ATTEMPTS = 8
_TRANSIENT = frozenset(
    {
        "InternalServerError",
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "Throttling",
        "ThrottlingException",
        "TransactionInProgressException",
    }
)


class ConflictError(Exception):
    """Somebody else changes the item all the time; try again."""


@contextmanager
def translated() -> Iterator[None]:
    """Tell errors that pass from those that a person has to mend."""
    try:
        yield
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if error.response["Error"]["Code"] in _TRANSIENT or status >= 500:
            raise TransientError(str(error)) from error
        raise MisconfiguredError(str(error)) from error
    except (ConnectionError, HTTPClientError) as error:
        raise TransientError(str(error)) from error


@dataclass(frozen=True, kw_only=True)
class Task:
    """One item. Times are ISO 8601 in UTC, ``locks`` maps a person to seconds since 1970."""

    task: str
    identifier: str
    origin: str
    created: str
    expires: int
    shown: tuple[tuple[str, str], ...] = ()
    inference_id: str | None = None
    predicted: str | None = None
    confidence: float | None = None
    state: str = "open"
    queue: str | None = None
    needed: int = 0
    token: str | None = None
    revision: int = 0
    votes: tuple[Vote, ...] = ()
    locks: Mapping[str, int] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    decision: Mapping[str, Any] | None = None

    def voted(self, person: str) -> Vote | None:
        """The person's vote in whatever queue, or ``None``."""
        return next((vote for vote in self.votes if vote.by == person), None)

    def cast(self) -> int:
        """Votes of the queue that the item waits in."""
        return sum(1 for vote in self.votes if vote.queue == self.queue)

    def complete(self) -> bool:
        """Whether the round has the votes that it waits for."""
        return self.queue is not None and self.cast() >= self.needed

    def held_by_others(self, person: str, now: int) -> int:
        """People other than ``person`` who have the item open now."""
        return sum(1 for who, until in self.locks.items() if who != person and until > now)

    def offered(self, person: str, now: int) -> bool:
        """Whether ``person`` may be given the item now."""
        return (
            self.queue is not None
            and now < self.expires
            and self.voted(person) is None
            and person not in self.skipped
            and self.cast() + self.held_by_others(person, now) < self.needed
        )


class Tasks:
    """The table. ``table`` is a boto3 DynamoDB ``Table``."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def get(self, task: str) -> Task | None:
        """The item as it stands, or ``None``."""
        with translated():
            found = self._table.get_item(Key={"task": task}, ConsistentRead=True).get("Item")
        return None if found is None else _task(found)

    def add(self, task: Task, *, ttl: int) -> bool:
        """Store a new item; ``False`` when it is there already. ``ttl``: seconds since 1970."""
        try:
            with translated_but("ConditionalCheckFailedException"):
                self._table.put_item(
                    Item={**_item(task), "ttl": ttl}, ConditionExpression="attribute_not_exists(task)"
                )
        except ExpectedError:
            return False
        return True

    def change(self, task: str, change: Callable[[Task], Task | None]) -> Task | None:
        """Apply ``change`` to the item as it stands and store what it returns.

        ``change`` may return ``None`` to leave the item; it is called again when somebody was faster. The
        item as it then stands is returned, ``None`` when there is none. Raises ConflictError.
        """
        for _ in range(ATTEMPTS):
            current = self.get(task)
            if current is None:
                return None
            wanted = change(current)
            if wanted is None:
                return current
            wanted = replace(wanted, revision=current.revision + 1)
            if self._store(wanted, seen=current.revision):
                return wanted
        raise ConflictError(f"{task} is changed by others all the time")

    def _store(self, task: Task, *, seen: int) -> bool:
        names, values, parts, gone = {}, {":seen": seen}, [], []
        item = _item(task)
        for key in ("state", "queue", "needed", "token", "revision", "votes", "locks", "skipped", "decision"):
            names[f"#{key}"] = key
            if key in item:
                values[f":{key}"] = item[key]
                parts.append(f"#{key} = :{key}")
            else:
                gone.append(f"#{key}")
        expression = f"SET {', '.join(parts)}" + (f" REMOVE {', '.join(gone)}" if gone else "")
        try:
            with translated_but("ConditionalCheckFailedException"):
                self._table.update_item(
                    Key={"task": task.task},
                    UpdateExpression=expression,
                    ConditionExpression="#revision = :seen",
                    ExpressionAttributeNames=names,
                    ExpressionAttributeValues=values,
                )
        except ExpectedError:
            return False
        return True

    def waiting(self, queue: str) -> Iterator[Task]:
        """Items that wait in a queue, the oldest first."""
        start: dict[str, Any] = {}
        while True:
            with translated():
                page = self._table.query(
                    IndexName=INDEX,
                    KeyConditionExpression="#queue = :queue",
                    ExpressionAttributeNames={"#queue": "queue"},
                    ExpressionAttributeValues={":queue": queue},
                    Limit=50,
                    **start,
                )
            yield from (_task(item) for item in page["Items"])
            if "LastEvaluatedKey" not in page:
                return
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}


class ExpectedError(Exception):
    """The one error that the caller of ``translated_but`` knows what to do about."""


@contextmanager
def translated_but(code: str) -> Iterator[None]:
    """As ``translated``; an error with ``code`` is the expected one."""
    with translated():
        try:
            yield
        except ClientError as error:
            if error.response["Error"]["Code"] == code:
                raise ExpectedError from error
            raise


def _item(task: Task) -> dict[str, Any]:
    item = {
        key: value
        for key, value in asdict(task).items()
        if value is not None and key not in ("shown", "votes", "confidence", "decision", "skipped", "locks")
    }
    item["shown"] = json.dumps(task.shown, ensure_ascii=False)
    item["votes"] = [asdict(vote) for vote in task.votes]
    item["locks"] = dict(task.locks)
    item["skipped"] = list(task.skipped)
    if task.confidence is not None:
        # DynamoDB takes no floats.
        item["confidence"] = Decimal(f"{task.confidence:.6f}")
    if task.decision is not None:
        item["decision"] = json.dumps(task.decision, sort_keys=True)
    return item


def _task(item: Mapping[str, Any]) -> Task:
    return Task(
        task=item["task"],
        identifier=item["identifier"],
        origin=item["origin"],
        created=item["created"],
        expires=int(item["expires"]),
        shown=tuple((name, value) for name, value in json.loads(item["shown"])),
        inference_id=item.get("inference_id"),
        predicted=item.get("predicted"),
        confidence=float(item["confidence"]) if "confidence" in item else None,
        state=item["state"],
        queue=item.get("queue"),
        needed=int(item["needed"]),
        token=item.get("token"),
        revision=int(item["revision"]),
        votes=tuple(Vote(**vote) for vote in item["votes"]),
        locks={who: int(until) for who, until in item["locks"].items()},
        skipped=tuple(item["skipped"]),
        decision=json.loads(item["decision"]) if "decision" in item else None,
    )
