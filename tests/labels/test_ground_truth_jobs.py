"""Ground Truth: items into a manifest, annotations into a label, labels to the landing; each step twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from label_support import NOW, REGION, item, item_table, name_of, rules, stored
from label_tasks import ground_truth
from label_tasks.errors import BadEventError
from label_tasks.ground_truth import ATTRIBUTE, GroundTruth, consolidated, prepare
from label_tasks.tasks import Tasks

OUTPUT = "s3://artifacts/parcel-delay/labelling/job/output/job/manifests/output/output.manifest"


class Queue:
    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def send_message(self, *, QueueUrl: str, MessageBody: str) -> None:  # noqa: N803
        assert QueueUrl == "queue"
        self.sent.append(json.loads(MessageBody))


class Job:
    def __init__(self, table: Any) -> None:
        self.tasks, self.queue = Tasks(table), Queue()
        self.s3 = boto3.client("s3", region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x")
        self.s3.create_bucket(Bucket="artifacts", CreateBucketConfiguration={"LocationConstraint": REGION})
        self.steps = GroundTruth(
            self.tasks,
            rules(),
            self.s3,
            self.queue,
            bucket="artifacts",
            prefix="parcel-delay/labelling/",
            queue="queue",
        )

    def written(self, uri: str) -> list[dict[str, Any]]:
        body = self.s3.get_object(Bucket="artifacts", Key=uri.removeprefix("s3://artifacts/"))["Body"].read()
        return [json.loads(line) for line in body.splitlines()]

    def states(self) -> list[tuple[str, str | None]]:
        found = [self.tasks.get(name_of(n)) for n in (1, 2, 3)]
        return [(task.state, task.queue) for task in found if task is not None]


@pytest.fixture
def job() -> Iterator[Job]:
    with item_table() as table:
        made = Job(table)
        stored(made.tasks, *(item(n, token=None) for n in (1, 2, 3)))
        yield made


def test_should_take_the_items_that_wait_into_a_manifest(job: Job) -> None:
    collected = job.steps.collect("job")
    assert collected == {
        "items": 3,
        "job": "job",
        "manifest": "s3://artifacts/parcel-delay/labelling/job/input.manifest",
        "output": "s3://artifacts/parcel-delay/labelling/job/output",
    }
    lines = job.written(collected["manifest"])
    assert [line["task"] for line in lines] == [name_of(n) for n in (1, 2, 3)]
    assert json.loads(lines[0]["source"]) == [["weight_kg", "1.5"], ["addressee", ""]]
    assert "P1" not in json.dumps(lines)
    assert job.states() == [("in_job", None)] * 3
    # What is in a job is not in the next one; the same step again finds what it wrote.
    assert job.steps.collect("other")["items"] == 0
    assert job.steps.collect("job") == collected


def test_should_finish_a_step_that_crashed_between_manifest_and_items(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(job.tasks, "change", _crash)
        with pytest.raises(RuntimeError, match="crash"):
            job.steps.collect("job")
    assert job.states() == [("open", "review")] * 3
    assert job.steps.collect("job")["items"] == 3
    assert job.states() == [("in_job", None)] * 3


def _crash(*_args: Any) -> None:
    raise RuntimeError("crash")


def answered(label: str | None) -> dict[str, Any]:
    return {"label": label, "labelled_by": ["w2", "w1"], "votes": 2, "agreement": 1.0}


def test_should_harvest_what_people_agreed_on_and_give_up_the_rest(job: Job) -> None:
    job.steps.collect("job")
    lines = [
        {"source": "[]", "task": name_of(1), ATTRIBUTE: answered("yes"), f"{ATTRIBUTE}-metadata": {}},
        {"source": "[]", "task": name_of(2), ATTRIBUTE: answered(None)},
        {"source": "[]", "task": name_of(3)},
    ]
    body = "\n".join(map(json.dumps, lines)).encode()
    job.s3.put_object(Bucket="artifacts", Key=OUTPUT.removeprefix("s3://artifacts/"), Body=body)
    counts = job.steps.harvest("job", OUTPUT, now=NOW)
    assert counts == {"labelled": 1, "given_up": 1, "without_answer": 1}
    assert job.states() == [("labelled", None), ("expired", None), ("open", "review")]
    first = job.tasks.get(name_of(1))
    assert first is not None
    assert first.decision == {
        "label": "yes",
        "labelled_at": "2026-11-21T12:00:00.000+00:00",
        "labelled_by": ["w1", "w2"],
        "votes": 2,
        "agreement": 1.0,
        "resolution": "consensus",
    }
    assert job.queue.sent == [{"task": name_of(1)}]
    # Again: the decision stays, the landing hears of it again and lands it once.
    job.steps.harvest("job", OUTPUT, now=NOW.replace(year=2030))
    again = job.tasks.get(name_of(1))
    assert again is not None
    assert again.decision == first.decision


def test_should_let_the_items_of_a_failed_job_wait_again(job: Job) -> None:
    manifest = job.steps.collect("job")["manifest"]
    assert job.steps.release("job", manifest) == {"released": 3}
    assert job.states() == [("open", "review")] * 3
    # Items that another job holds are not this one's to release.
    job.steps.collect("other")
    assert job.steps.release("job", manifest) == {"released": 0}
    assert job.states() == [("in_job", None)] * 3


def worker(name: str, title: str) -> dict[str, Any]:
    return {"workerId": name, "annotationData": {"content": json.dumps({"label": {"label": title}})}}


def test_should_consolidate_with_the_consensus_of_the_page() -> None:
    items = [
        {"datasetObjectId": "0", "annotations": [worker("a", "Late"), worker("b", "Late")]},
        {"datasetObjectId": "1", "annotations": [worker("a", "Late"), worker("b", "In time")]},
        {"datasetObjectId": "2", "annotations": [worker("a", "Late")]},
    ]
    found = consolidated(items, "people", rules())
    assert [f["datasetObjectId"] for f in found] == ["0", "1", "2"]
    contents = [f["consolidatedAnnotation"]["content"]["people"] for f in found]
    assert contents[0] == {"label": "yes", "labelled_by": ["a", "b"], "votes": 2, "agreement": 1.0}
    # No agreement, and too few of the people that were asked for.
    assert [c["label"] for c in contents] == ["yes", None, None]


def test_should_show_an_item_as_the_page_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ground_truth, "load_rules", rules)
    answer = prepare({"dataObject": {"source": json.dumps([["weight_kg", "1.5"]]), "task": "x"}}, None)
    assert answer["isHumanAnnotationRequired"] == "true"
    assert answer["taskInput"]["titles"] == ["In time", "Late"]
    assert answer["taskInput"]["fields"] == [
        {"title": "weight kg", "value": "1.5", "personal": False},
        {"title": "addressee", "value": "", "personal": True},
    ]


@pytest.mark.parametrize("event", [{}, None, {"step": "collect"}, {"step": "other", "job": "j"}])
def test_should_refuse_a_step_that_is_none(job: Job, event: Any) -> None:
    with pytest.raises(BadEventError):
        ground_truth._step(job.steps, event)
