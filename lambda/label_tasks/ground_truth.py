"""SageMaker Ground Truth in place of the page: items go there in batches, labels land as the page's do.

``handler``      steps of the state machine of one labelling job: ``collect``, ``harvest``, ``release``
``prepare``      pre-annotation function: what the template shows of one item
``consolidate``  post-annotation function: the same consensus as on the page
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from function_log import log

from label_tasks.consensus import REVIEW, Vote, decide
from label_tasks.errors import BadEventError, LabelError
from label_tasks.rules import Rules, load_rules
from label_tasks.settings import Settings
from label_tasks.tasks import ExpectedError, Task, Tasks, translated, translated_but

__all__ = ["ATTRIBUTE", "GroundTruth", "consolidate", "handler", "prepare"]

#: Name under which the label stands in the output manifest (LabelAttributeName).
ATTRIBUTE = "people"
#: Items of one job; a function that marks them has minutes, a job takes up to 100,000 objects.
ITEMS_AT_ONCE = 500
_CONFIG = Config(retries={"mode": "standard", "total_max_attempts": 3}, connect_timeout=3, read_timeout=10)


class GroundTruth:
    """Steps of a job, on the table of items, a folder of S3 and the landing's queue."""

    def __init__(
        self, tasks: Tasks, rules: Rules, s3: Any, sqs: Any, *, bucket: str, prefix: str, queue: str
    ) -> None:
        self._tasks, self._rules, self._s3, self._sqs = tasks, rules, s3, sqs
        self._bucket, self._prefix, self._queue = bucket, prefix, queue

    def collect(self, job: str) -> dict[str, Any]:
        """Write the manifest of ``job`` from the items that wait, then take these out of their queue.

        The manifest is written once: a step that crashed in between goes on with the one that is there.
        """
        key = f"{self._prefix}{job}/input.manifest"
        manifest = f"s3://{self._bucket}/{key}"
        waiting = islice(self._tasks.waiting(REVIEW), ITEMS_AT_ONCE)
        lines = [
            {"source": json.dumps(task.shown, ensure_ascii=False), "task": task.task} for task in waiting
        ]
        body = "".join(json.dumps(line) + "\n" for line in lines).encode()
        try:
            with translated_but("PreconditionFailed"):
                self._s3.put_object(Bucket=self._bucket, Key=key, Body=body, IfNoneMatch="*")
        except ExpectedError:
            lines = list(self._lines(manifest))
        for line in lines:
            self._tasks.change(
                line["task"],
                lambda current: (
                    None if current.queue is None else replace(current, queue=None, state="in_job", token=job)
                ),
            )
        output = f"s3://{self._bucket}/{self._prefix}{job}/output"
        return {"items": len(lines), "job": job, "manifest": manifest, "output": output}

    def harvest(self, job: str, manifest: str, *, now: datetime) -> dict[str, Any]:
        """Keep what people agreed on and send it to the landing; give up what they did not agree on."""
        counts = {"labelled": 0, "given_up": 0, "without_answer": 0}
        for line in self._lines(manifest):
            answer = line.get(ATTRIBUTE)
            task = str(line["task"])
            if not isinstance(answer, dict):
                counts["without_answer"] += 1
                self._back(task, job)
            elif answer.get("label") is None:
                counts["given_up"] += 1
                self._tasks.change(task, lambda current: replace(current, state="expired", token=None))
            else:
                counts["labelled"] += 1
                self._keep(task, answer, now)
        return counts

    def _keep(self, task: str, answer: Mapping[str, Any], now: datetime) -> None:
        decision = {
            "label": answer["label"],
            "labelled_at": now.isoformat(timespec="milliseconds"),
            "labelled_by": sorted(answer["labelled_by"]),
            "votes": answer["votes"],
            "agreement": answer["agreement"],
            "resolution": "consensus",
        }

        def decided(current: Task) -> Task | None:
            if current.decision is not None:
                return None
            return replace(current, state="labelled", queue=None, token=None, decision=decision)

        self._tasks.change(task, decided)
        with translated():
            # Nobody waits for an answer: the landing lands a task once, however often it comes.
            self._sqs.send_message(QueueUrl=self._queue, MessageBody=json.dumps({"task": task}))

    def release(self, job: str, manifest: str) -> dict[str, Any]:
        """Let the items of a job that failed wait again."""
        return {"released": sum(self._back(str(line["task"]), job) for line in self._lines(manifest))}

    def _back(self, task: str, job: str) -> bool:
        def waiting(current: Task) -> Task | None:
            return replace(current, queue=REVIEW, state="open", token=None) if current.token == job else None

        found = self._tasks.change(task, waiting)
        return found is not None and found.queue == REVIEW

    def _lines(self, uri: str) -> Iterator[dict[str, Any]]:
        parts = urlsplit(uri)
        with translated():
            body = self._s3.get_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"))["Body"].read()
        for line in body.splitlines():
            if line.strip():
                yield json.loads(line)


@cache
def _clients() -> tuple[Any, Any, Any]:
    return (
        boto3.resource("dynamodb", config=_CONFIG),
        boto3.client("s3", config=_CONFIG),
        boto3.client("sqs", config=_CONFIG),
    )


def handler(event: Any, context: object) -> dict[str, Any]:
    """Take one step of a labelling job."""
    request = getattr(context, "aws_request_id", None)
    try:
        settings = Settings.from_environment(os.environ, "bucket", "prefix", "queue")
        dynamodb, s3, sqs = _clients()
        jobs = GroundTruth(
            Tasks(dynamodb.Table(settings.table)),
            load_rules(),
            s3,
            sqs,
            bucket=settings.bucket,
            prefix=settings.prefix,
            queue=settings.queue,
        )
        result = _step(jobs, event)
    except LabelError as error:
        log("ERROR", "step failed", error=type(error).__name__, why=str(error), request=request)
        raise
    log("INFO", "step", step=event["step"], request=request, **result)
    return result


def _step(jobs: GroundTruth, event: Any) -> dict[str, Any]:
    try:
        step, job = event["step"], event["job"]
        if step == "collect":
            return jobs.collect(job)
        if step == "harvest":
            return jobs.harvest(job, event["manifest"], now=datetime.now(UTC))
        if step == "release":
            return jobs.release(job, event["manifest"])
    except (KeyError, TypeError) as error:
        raise BadEventError(f"the event must name a step, a job and its manifest: {error!r}") from error
    raise BadEventError(f"step must be collect, harvest or release, got {step!r}")


def prepare(event: Mapping[str, Any], context: object) -> dict[str, Any]:
    """What the template shows of one item (pre-annotation, version 2018-10-16)."""
    del context
    rules = load_rules()
    values = dict(json.loads(event["dataObject"]["source"]))
    return {
        "taskInput": {
            "instructions": rules.instructions,
            "titles": [choice.title for choice in rules.classes],
            "fields": [
                {"title": field.title, "value": values.get(field.name, ""), "personal": field.personal}
                for field in rules.show
            ],
        },
        "isHumanAnnotationRequired": "true",
    }


def consolidate(event: Mapping[str, Any], context: object) -> list[dict[str, Any]]:
    """What people agreed on, per item (post-annotation, version 2018-10-16)."""
    del context
    rules = load_rules()
    s3 = boto3.client("s3", config=_CONFIG)
    parts = urlsplit(event["payload"]["s3Uri"])
    with translated():
        body = s3.get_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"))["Body"].read()
    return consolidated(json.loads(body), str(event["labelAttributeName"]), rules)


def consolidated(items: list[dict[str, Any]], attribute: str, rules: Rules) -> list[dict[str, Any]]:
    """The answer of ``consolidate`` for the workers' annotations of several items."""
    value_of = {choice.title: choice.value for choice in rules.classes}
    result = []
    for item in items:
        votes = []
        for annotation in item["annotations"]:
            given = json.loads(annotation["annotationData"]["content"])
            title = given["label"]["label"]
            if title in value_of:
                votes.append(Vote(by=str(annotation["workerId"]), label=value_of[title], at=""))
        outcome = decide(
            votes,
            per_item=rules.labellers_per_item,
            at_most=rules.labellers_at_most,
            agreement=rules.agreement,
            ended=True,
        )
        content = {
            "label": outcome.label,
            "labelled_by": list(outcome.labelled_by),
            "votes": outcome.votes,
            "agreement": round(outcome.agreement, 4),
        }
        result.append(
            {
                "datasetObjectId": item["datasetObjectId"],
                "consolidatedAnnotation": {"content": {attribute: content}},
            }
        )
    return result
