"""Captured predictions become items: which, once each, from whatever a capture file holds."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_support import NOW, REGION, RULES, Steps, item_table, rules
from label_tasks import router
from label_tasks import rules as rules_module
from label_tasks.errors import BadEventError, MisconfiguredError
from label_tasks.router import Candidate, candidates, confidence_of, route, sampled, task_of
from label_tasks.tasks import Tasks


def line(record: Any, predictions: list[dict[str, Any]], *, encoding: str = "JSON", **metadata: Any) -> bytes:
    def side(value: Any) -> dict[str, Any]:
        text = json.dumps(value)
        data = base64.b64encode(text.encode()).decode() if encoding == "BASE64" else text
        return {"data": data, "encoding": encoding, "observedContentType": "application/json"}

    captured = {
        "captureData": {"endpointInput": side(record), "endpointOutput": side({"predictions": predictions})},
        "eventMetadata": {"eventId": "e", **metadata},
        "eventVersion": "0",
    }
    return json.dumps(captured).encode() + b"\n"


def parcel(number: int, **values: Any) -> dict[str, Any]:
    return {"Parcel": f"P{number}", "weight-kg": number, **values}


@pytest.mark.parametrize(
    ("score", "confidence"), [(0.4, 0.0), (1.0, 1.0), (0.0, 1.0), (0.7, 0.5), (0.2, 0.5), (0.46, 0.1)]
)
def test_should_measure_confidence_from_the_threshold(score: float, confidence: float) -> None:
    assert confidence_of({"score": score}, rules()) == pytest.approx(confidence)


@given(st.floats(0, 1))
def test_should_measure_confidence_between_none_and_certain(score: float) -> None:
    assert 0 <= confidence_of({"score": score}, rules()) <= 1
    three = rules(task="multiclass", classes=[{"value": v, "title": v} for v in "abc"])
    assert 0 <= confidence_of({"score": score}, three) <= 1


def test_should_call_a_draw_of_three_classes_no_confidence() -> None:
    three = rules(task="multiclass", classes=[{"value": v, "title": v} for v in "abc"])
    assert confidence_of({"score": 1 / 3}, three) == pytest.approx(0)
    assert confidence_of({"score": 1.0}, three) == 1


@pytest.mark.parametrize("score", [None, "0.5", True, 1.2, -0.1, float("nan")])
def test_should_refuse_a_score_that_is_no_probability(score: object) -> None:
    with pytest.raises(ValueError, match="probability"):
        confidence_of({"score": score}, rules())


def test_should_read_single_records_lists_and_encoded_bodies() -> None:
    content = b"".join(
        [
            line(parcel(1), [{"score": 0.41, "label": "yes"}], inferenceId="i1"),
            line([parcel(2), parcel(3)], [{"score": 0.1, "label": "no"}, {"score": 0.9, "label": "yes"}]),
            line({"instances": [parcel(4)]}, [{"score": 0.5, "label": "yes"}], encoding="BASE64"),
        ]
    )
    counts: Counter[str] = Counter()
    found = list(candidates(content, rules(), counts))
    assert [(c.record["Parcel"], c.inference_id, c.predicted) for c in found] == [
        ("P1", "i1", "yes"),
        ("P2", "e#0", "no"),
        ("P3", "e#1", "yes"),
        ("P4", "e", "yes"),
    ]
    assert counts == {"invocations": 3}


@pytest.mark.parametrize(
    "bad",
    [
        b"not json\n",
        b"[]\n",
        b"{}\n",
        b"\xff\xfe\n",
        b"[" * 50_000 + b"\n",
        line(parcel(1), []),
        line(["text"], [{"score": 0.5, "label": "yes"}]),
        line(parcel(1), [{"score": 7, "label": "yes"}]),
        line(parcel(1), [{"score": 0.5}]),
        json.dumps({"captureData": {"endpointInput": {"data": "{}"}}, "eventMetadata": {}}).encode(),
    ],
)
def test_should_count_what_cannot_be_read_and_go_on(bad: bytes) -> None:
    counts: Counter[str] = Counter()
    good = line(parcel(1), [{"score": 0.5, "label": "yes"}])
    assert len(list(candidates(bad.rstrip(b"\n") + b"\n" + good, rules(), counts))) == 1
    assert counts == {"invocations": 2, "unreadable": 1}


@given(st.binary(max_size=200))
def test_should_survive_any_bytes(content: bytes) -> None:
    assert list(candidates(content, rules(), Counter())) == []


def test_should_show_the_fields_of_the_rules_and_name_the_item_by_what_it_is() -> None:
    first = Candidate(record=parcel(1, addressee=None, secret="x"), inference_id="i", predicted="yes")
    task = task_of(first, rules(), origin="sample", now=NOW)
    assert task is not None
    assert task.shown == (("weight_kg", "1"), ("addressee", ""))
    assert "secret" not in repr(task)
    again = Candidate(record=parcel(1), inference_id="other", confidence=0.3)
    changed = Candidate(record=parcel(1, **{"weight-kg": 2}))
    same, other = (task_of(c, rules(), origin="sample", now=NOW) for c in (again, changed))
    assert same is not None
    assert other is not None
    assert same.task == task.task
    assert other.task != task.task
    assert task_of(Candidate(record={"Parcel": " "}), rules(), origin="sample", now=NOW) is None


def test_should_route_what_the_model_is_not_sure_of_once() -> None:
    found = [
        Candidate(record=parcel(1), confidence=0.1, predicted="yes"),
        Candidate(record=parcel(1), confidence=0.1, predicted="yes"),
        Candidate(record=parcel(2), confidence=0.2, predicted="yes"),
        Candidate(record={}, confidence=0.1, predicted="yes"),
    ]
    steps = Steps()
    with item_table() as table:
        tasks, counts = Tasks(table), Counter[str]()
        route(found, rules(), tasks, router.starter(steps, "arn"), counts=counts, now=NOW)
        assert counts == {"records": 4, "new": 1, "known": 1, "confident": 1, "without_identifier": 1}
        assert len(steps.started) == 1
        # It waits in no queue before its execution opens the first round.
        stored = tasks.get(steps.started[0])
        assert stored is not None
        assert (stored.queue, stored.origin, stored.identifier) == (None, "low_confidence", "P1")


def test_should_start_the_wait_again_for_an_item_that_a_crash_left_without_one() -> None:
    steps = Steps()
    with item_table() as table:
        one = [Candidate(record=parcel(1), confidence=0.0)]
        broken = Counter[str]()
        with pytest.raises(RuntimeError, match="crash"):
            route(one, rules(), Tasks(table), _crash, counts=broken, now=NOW)
        route(one, rules(), Tasks(table), router.starter(steps, "arn"), counts=Counter(), now=NOW)
        assert len(steps.started) == 1


def _crash(_task: str) -> None:
    raise RuntimeError("crash")


def test_should_sample_about_the_share_that_is_asked_for_and_always_the_same() -> None:
    names = [f"{n:040x}" for n in range(4_000)]
    drawn = [name for name in names if sampled(name, 10)]
    assert 300 < len(drawn) < 500
    assert drawn == [name for name in names if sampled(name, 10)]
    assert not any(sampled(name, 0) for name in names)
    assert all(sampled(name, 100) for name in names)


# --- the function -------------------------------------------------------------------------------------


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[Any, Steps, Any]]:
    file = tmp_path / "label_rules.json"
    file.write_text(json.dumps(RULES))
    monkeypatch.setattr(rules_module, "RULES", file)
    rules_module.load_rules.cache_clear()
    for name, value in {
        "TABLE": "items",
        "BUCKET": "artifacts",
        "PREFIX": "parcel-delay/capture/",
        "ENGINE": "own",
        "STATE_MACHINE": "arn:machine",
    }.items():
        monkeypatch.setenv(name, value)
    steps = Steps()
    with item_table() as table:
        s3 = boto3.client("s3", region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x")
        s3.create_bucket(Bucket="artifacts", CreateBucketConfiguration={"LocationConstraint": REGION})
        resource = type("Resource", (), {"Table": lambda _self, _name: table})()
        monkeypatch.setattr(router, "_clients", lambda: (s3, steps, resource))
        yield s3, steps, table
    rules_module.load_rules.cache_clear()


def event(key: str, bucket: str = "artifacts") -> dict[str, Any]:
    return {"detail-type": "Object Created", "detail": {"bucket": {"name": bucket}, "object": {"key": key}}}


def test_should_read_the_file_that_the_event_names(deployed: tuple[Any, Steps, Any]) -> None:
    s3, steps, _ = deployed
    key = "parcel-delay/capture/e/AllTraffic/2026/11/21/12/a b+c.jsonl"
    s3.put_object(Bucket="artifacts", Key=key, Body=line(parcel(1), [{"score": 0.41, "label": "yes"}]))
    assert router.handler(event(key), None) == {"invocations": 1, "records": 1, "new": 1}
    assert router.handler(event(key), None) == {"invocations": 1, "records": 1, "known": 1}
    assert len(steps.started) == 1


def test_should_make_items_of_records_that_a_person_asks_for(
    deployed: tuple[Any, Steps, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, steps, table = deployed
    asked = {"records": [parcel(7), parcel(8)], "reason": "nobody has labelled them"}
    assert router.handler(asked, None) == {"records": 2, "new": 2}
    found = Tasks(table).get(steps.started[0])
    assert found is not None
    assert (found.origin, found.confidence, found.queue) == ("unlabelled", None, None)
    # With Ground Truth nothing is started: its items wait from the beginning.
    monkeypatch.setenv("ENGINE", "ground_truth")
    monkeypatch.delenv("STATE_MACHINE")
    router.handler({"records": [parcel(9)]}, None)
    assert len(steps.started) == 2
    assert [task.identifier for task in Tasks(table).waiting("review")] == ["P9"]


@pytest.mark.parametrize(
    ("given_event", "why"),
    [
        ({}, "Object Created"),
        (event("parcel-delay/capture/x", "other"), "not below"),
        (event("elsewhere/x"), "not below"),
        ({"records": [1]}, "must be an object"),
        ({"records": [{}] * 1_001}, "at most 1000"),
    ],
)
def test_should_refuse_an_event_that_is_none(
    deployed: tuple[Any, Steps, Any], given_event: Any, why: str
) -> None:
    with pytest.raises(BadEventError, match=why):
        router.handler(given_event, None)


def test_should_say_what_is_missing_in_the_deployment(
    deployed: tuple[Any, Steps, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STATE_MACHINE")
    with pytest.raises(MisconfiguredError, match="STATE_MACHINE"):
        router.handler({"records": []}, None)
    monkeypatch.delenv("TABLE")
    monkeypatch.delenv("PREFIX")
    with pytest.raises(MisconfiguredError, match="TABLE, PREFIX"):
        router.handler({"records": []}, None)
