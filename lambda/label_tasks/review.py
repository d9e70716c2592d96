"""Lambda entry point ``label_tasks.review.handler``: the page of the labellers and its JSON API.

API Gateway has checked who asks before ``/api/`` is reached (a JWT authoriser); here it is decided what that
person may do. The page itself, its script and its style hold no data and need no sign-in.

A labeller never sees what the model said: it would pull the label towards it.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

import boto3
from botocore.config import Config
from function_log import log

from label_tasks.consensus import ADJUDICATION, REVIEW, Vote
from label_tasks.errors import BadEventError, LabelError
from label_tasks.rounds import signal
from label_tasks.rules import Rules, load_rules
from label_tasks.settings import Settings
from label_tasks.tasks import ConflictError, Task, Tasks

__all__ = ["ADJUDICATORS", "Person", "RefusalError", "Review", "handler"]

#: Members of this group of the user pool settle what others disagree on.
ADJUDICATORS: Final = "adjudicators"
#: Items that are looked at for one that a person may have, and counted for "items left".
LOOKED_AT: Final = 500
_PAGE = Path(__file__).with_name("page")
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/app.css": ("app.css", "text/css; charset=utf-8"),
}
_TASK = re.compile(r"/api/tasks/([0-9a-f]{40})/(label|skip)")
_CONFIG = Config(retries={"mode": "standard", "total_max_attempts": 3}, connect_timeout=3, read_timeout=10)


class RefusalError(Exception):
    """What a person asked for cannot be; answered with ``status`` and a sentence for the page."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Person:
    """Who asks, as the user pool knows them."""

    name: str
    adjudicator: bool = False

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> Person:
        """Read the claims that API Gateway has checked. Raises RefusalError without any."""
        try:
            claims = event["requestContext"]["authorizer"]["jwt"]["claims"]
            name = str(claims["username"])
        except (KeyError, TypeError):
            raise RefusalError(401, "sign in first") from None
        # API Gateway hands a list over as the text "[a b]".
        groups = claims.get("cognito:groups", "")
        listed = groups if isinstance(groups, list) else re.split(r"[\s,]+", str(groups).strip("[]"))
        return cls(name=name, adjudicator=ADJUDICATORS in listed)


class Review:
    """What a person may do. ``now`` gives the time, ``signal`` tells the state machine of a full round."""

    def __init__(
        self,
        tasks: Tasks,
        rules: Rules,
        *,
        signal: Callable[[Task], object],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._tasks = tasks
        self._rules = rules
        self._signal = signal
        self._now = now

    def about(self, person: Person) -> dict[str, Any]:
        """What the page says before the first item."""
        rules = self._rules
        return {
            "person": person.name,
            "adjudicator": person.adjudicator,
            "title": rules.title,
            "instructions": rules.instructions,
            "classes": [{"value": c.value, "title": c.title} for c in rules.classes],
            "lock_minutes": rules.lock_minutes,
        }

    def next(self, person: Person) -> dict[str, Any]:
        """Give ``person`` an item and keep it for them for a while; the one that they hold already first."""
        now = int(self._now().timestamp())
        queues = (ADJUDICATION, REVIEW) if person.adjudicator else (REVIEW,)
        offered = []
        for queue in queues:
            for looked, task in enumerate(self._tasks.waiting(queue)):
                if looked == LOOKED_AT:
                    break
                if task.offered(person.name, now):
                    offered.append(task)
        offered.sort(key=lambda task: task.locks.get(person.name, 0) <= now)
        until = now + self._rules.lock_minutes * 60

        def lock(current: Task) -> Task | None:
            if not current.offered(person.name, now):
                return None
            held = {who: end for who, end in current.locks.items() if end > now}
            return replace(current, locks={**held, person.name: until})

        for task in offered:
            got = self._tasks.change(task.task, lock)
            if got is not None and got.locks.get(person.name) == until:
                return {"task": self._shown(got), "left": len(offered), "until": until}
        return {"task": None, "left": 0}

    def _shown(self, task: Task) -> dict[str, Any]:
        values = dict(task.shown)
        answer: dict[str, Any] = {
            "task": task.task,
            "queue": task.queue,
            "fields": [
                {"title": field.title, "value": values.get(field.name, ""), "personal": field.personal}
                for field in self._rules.show
            ],
        }
        if task.queue == ADJUDICATION:
            said = Counter(vote.label for vote in task.votes)
            answer["said"] = [{"value": value, "votes": said[value]} for value in self._rules.values]
        return answer

    def label(self, person: Person, task: str, label: object) -> dict[str, Any]:
        """Count the person's label. The same again changes nothing, another one is refused."""
        if not isinstance(label, str) or label not in self._rules.values:
            raise RefusalError(400, f"label must be one of {', '.join(self._rules.values)}")
        moment = self._now()
        now = int(moment.timestamp())
        again = False

        def vote(current: Task) -> Task | None:
            nonlocal again
            before = current.voted(person.name)
            again = before is not None
            if before is not None:
                if before.label != label:
                    raise RefusalError(409, "you have labelled this item already; a label stays")
                return None
            if current.queue is None:
                raise RefusalError(409, "this item is decided or its time is over; take the next one")
            if current.queue == ADJUDICATION and not person.adjudicator:
                raise RefusalError(403, "this item waits for an adjudicator")
            if now >= current.expires:
                raise RefusalError(409, "the time of this item is over; take the next one")
            if current.cast() + current.held_by_others(person.name, now) >= current.needed:
                raise RefusalError(409, "others label this item now; take the next one")
            cast = Vote(
                by=person.name,
                label=label,
                at=moment.isoformat(timespec="milliseconds"),
                queue=current.queue,
            )
            locks = {who: end for who, end in current.locks.items() if who != person.name}
            return replace(current, votes=(*current.votes, cast), locks=locks)

        stored = self._change(task, vote)
        if stored.complete() and stored.token is not None:
            # Also when the same label comes again: the signal may have been lost the first time.
            self._signal(stored)
        return {"task": task, "counted": True, "again": again}

    def skip(self, person: Person, task: str) -> dict[str, Any]:
        """Give the item back; it is not offered to this person again."""

        def give_back(current: Task) -> Task | None:
            if person.name in current.skipped:
                return None
            locks = {who: end for who, end in current.locks.items() if who != person.name}
            return replace(current, locks=locks, skipped=(*current.skipped, person.name))

        self._change(task, give_back)
        return {"task": task, "skipped": True}

    def _change(self, task: str, change: Callable[[Task], Task | None]) -> Task:
        try:
            stored = self._tasks.change(task, change)
        except ConflictError:
            raise RefusalError(409, "others are faster all the time; try again") from None
        if stored is None:
            raise RefusalError(404, "there is no such item")
        return stored


def answer_to(event: Mapping[str, Any], review: Review) -> dict[str, Any]:
    """Answer one request to ``/api/``. Raises RefusalError."""
    method, path = event["requestContext"]["http"]["method"], event["rawPath"]
    person = Person.of(event)
    if (method, path) == ("GET", "/api/me"):
        return review.about(person)
    if (method, path) == ("POST", "/api/next"):
        return review.next(person)
    found = _TASK.fullmatch(path)
    if method == "POST" and found is not None:
        if found[2] == "skip":
            return review.skip(person, found[1])
        return review.label(person, found[1], _body(event).get("label"))
    raise RefusalError(404, f"{method} {path} is nothing that this page has")


def _body(event: Mapping[str, Any]) -> dict[str, Any]:
    text = event.get("body") or ""
    try:
        raw = base64.b64decode(text, validate=True) if event.get("isBase64Encoded") else text
        body = json.loads(raw)
    except (ValueError, binascii.Error, RecursionError):
        raise RefusalError(400, "the body must be JSON") from None
    if not isinstance(body, dict):
        raise RefusalError(400, "the body must be an object")
    return body


@cache
def _clients() -> tuple[Any, Any]:
    return boto3.resource("dynamodb", config=_CONFIG), boto3.client("stepfunctions", config=_CONFIG)


def handler(event: Any, context: object) -> dict[str, Any]:
    """Answer one request of the HTTP API (payload format 2.0)."""
    request = getattr(context, "aws_request_id", None)
    try:
        settings = Settings.from_environment(os.environ, "sign_in_url", "client_id", "scope")
        try:
            method, path = event["requestContext"]["http"]["method"], event["rawPath"]
        except (KeyError, TypeError):
            raise BadEventError("the event must be a request of the HTTP API, payload format 2.0") from None
        if method == "GET" and path in _FILES:
            name, kind = _FILES[path]
            return _answer(200, (_PAGE / name).read_text(encoding="utf-8"), kind, settings)
        if (method, path) == ("GET", "/config"):
            config = {
                "sign_in_url": settings.sign_in_url,
                "client_id": settings.client_id,
                "scope": settings.scope,
            }
            return _json(200, config, settings)
        dynamodb, stepfunctions = _clients()
        review = Review(
            Tasks(dynamodb.Table(settings.table)),
            load_rules(),
            signal=lambda task: signal(stepfunctions, task),
        )
        try:
            result = answer_to(event, review)
        except RefusalError as refusal:
            log("INFO", "refused", status=refusal.status, why=str(refusal), request=request)
            return _json(refusal.status, {"error": str(refusal)}, settings)
    except LabelError as error:
        log("ERROR", "request failed", error=type(error).__name__, why=str(error), request=request)
        raise
    log("INFO", "answered", route=f"{method} {path.rpartition('/')[2]}", request=request)
    return _json(200, result, settings)


def _json(status: int, data: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    return _answer(status, json.dumps(data, ensure_ascii=False), "application/json", settings)


def _answer(status: int, body: str, kind: str, settings: Settings) -> dict[str, Any]:
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; "
        f"connect-src 'self' {settings.sign_in_url}; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "statusCode": status,
        "headers": {
            "content-type": kind,
            "cache-control": "no-store",
            "content-security-policy": policy,
            "strict-transport-security": "max-age=31536000",
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cross-origin-opener-policy": "same-origin",
        },
        "body": body,
    }
