"""Reading predictions, and model quality: with evidence a verdict, without it none."""

from __future__ import annotations

import json
import pathlib
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from container_support import (
    make_contract,
    make_records,
)
from live_support import Live, approve, baselines, invocation, jsonl, truth
from ml_contract.compiled import CompiledContract
from ml_judging import quality
from ml_judging.measures import measures_of
from ml_monitoring.history import since
from ml_monitoring.monitor import monitor
from ml_monitoring.predictions import label_of, read_ground_truth, read_predictions
from ml_monitoring.settings import OwnEngine, read_settings
from ml_runtime.job import BadInputError
from monitor_support import BUCKET, OWN, PARAMETER, Account

# --- settings and reading -------------------------------------------------------------------------


def test_should_refuse_a_kind_that_there_is_not() -> None:
    with pytest.raises(BadInputError, match="KIND must be one of data, quality, bias, attribution, got 'x'"):
        read_settings({**OWN, "KIND": "x"})


def test_should_ask_for_ground_truth_where_quality_is_judged() -> None:
    with pytest.raises(BadInputError, match="missing: GROUND_TRUTH_URI"):
        read_settings({**OWN, "KIND": "quality"})
    settings = read_settings({**OWN, "KIND": "bias"})
    assert isinstance(settings, OwnEngine)
    assert (settings.kind, settings.ground_truth_uri) == ("bias", None)
    assert str(settings.window.earlier(2)) == "2026-11-21T13:00Z to 2026-11-21T14:00Z"


def test_should_read_labels_as_they_come() -> None:
    files = [
        jsonl([truth("a", "late"), truth("b", "0"), truth("c", "on time\nlate")]),
        jsonl([truth("a", "on time"), truth("d", '["late", "on time"]', "JSON")]) + b"\n{torn",
        jsonl([truth("e", "x", "BASE64")]),
    ]
    found, damaged = read_ground_truth(files)
    assert found == {
        "a": "on time",
        "b": "0",
        "c#0": "on time",
        "c#1": "late",
        "d#0": "late",
        "d#1": "on time",
    }
    assert sum(damaged.values()) == 2


def test_should_read_a_class_by_its_text_or_its_position(contract: CompiledContract) -> None:
    assert [label_of(text, contract) for text in ("late", "1", "on time", "0")] == [1, 1, 0, 0]
    with pytest.raises(ValueError, match="the label '2' is none of on time, late"):
        label_of("2", contract)


def test_should_read_answers_of_every_type(contract: CompiledContract) -> None:
    record = {"weather": "dry", "distance-km": 3.0}
    entries = []
    for body, kind in (
        ('{"predictions":[{"score":0.9,"label":"late"}]}', "application/json"),
        ('{"score":0.2,"label":"on time"}\n', "application/jsonlines"),
        ("0.7,late\n", "text/csv; charset=utf-8"),
        ('{"error":"1 of 1 records do not fit the contract"}', "application/json"),
    ):
        one = invocation(record, "x", {})
        one["captureData"]["endpointOutput"] = {
            "observedContentType": kind,
            "data": body,
            "encoding": "CSV" if "csv" in kind else "JSON",
        }
        entries.append(one)
    found = read_predictions([jsonl(entries)], contract, truths={"x": "late"})
    assert found.scores.tolist() == [0.9, 0.2, 0.7]
    assert found.decided.tolist() == [1, 0, 1]
    assert found.labels.tolist() == [1, 1, 1]
    assert sum(found.damaged.values()) == 1


def test_should_know_since_when_without_being_misled_by_silence() -> None:
    runs = [
        {"start": f"2026-11-21T{hour:02}:00", "violations": count, "beyond": beyond}
        for hour, count, beyond in (
            (1, 1, ["x"]),
            (2, 0, []),
            (3, 1, ["x"]),
            (4, None, []),
            (5, 2, ["x", "y"]),
        )
    ]
    assert since(runs, "x") == "2026-11-21T03:00"
    assert since(runs, "y") == "2026-11-21T05:00"
    assert since(runs, "z") is None


# --- quality --------------------------------------------------------------------------------------


def test_should_find_no_fault_in_a_model_that_does_as_it_did(
    account: Account, watched: CompiledContract, play: Callable[..., Any]
) -> None:
    arn = approve(account, baselines(watched, Live(300, right=0.9, seed=1)))
    live = Live(200, right=0.9)
    report, out = play("quality", live, live.truths[:150])
    assert report["judged"], report
    assert (report["records_judged"], report["labelled"], report["share_without_label"]) == (150, 150, 0.25)
    assert report["baseline"] == arn
    assert report["violations"] == []
    assert report["window"]["start"] == "2026-11-21T13:00:00+00:00"
    assert report["models"] == {"dev-trips/1": 200}
    statistics = json.loads((out / "statistics.json").read_text())
    metrics = statistics["binary_classification_metrics"]
    labels, decided = np.array(live.labels[:150]), np.array(live.scores[:150]) >= 0.45
    assert metrics["recall"]["value"] == pytest.approx(decided[labels == 1].mean())
    assert metrics["confusion_matrix"]["1"]["1"] == int((decided & (labels == 1)).sum())
    assert {"true_positive_rate", "f2", "precision_best_constant_classifier"} <= metrics.keys()
    assert statistics["dataset"]["item_count"] == 150
    constraints = json.loads((out / "constraints.json").read_text())["binary_classification_constraints"]
    assert constraints["recall"] == {"threshold": 0.5, "comparison_operator": "LessThanThreshold"}
    assert constraints["auc"]["threshold"] < report["metrics"]["auc"]["value"]
    page = (out / "report.html").read_text()
    assert "no violation" in page
    assert "http" not in page
    assert "<script" not in page
    found = account.metrics()
    assert (found["QualityViolations"], found["QualityRecordsJudged"], found["QualityUnjudged"]) == (
        0,
        150,
        0,
    )


def test_should_say_that_a_model_has_become_worse(
    account: Account, watched: CompiledContract, play: Callable[..., Any]
) -> None:
    approve(account, baselines(watched, Live(300, right=0.9, seed=1)))
    live = Live(200, right=0.3)
    report, out = play("quality", live, live.truths)
    violations = json.loads((out / "constraint_violations.json").read_text())["violations"]
    assert {one["metric_name"] for one in violations} == {"recall", "auc"}
    assert {one["constraint_check_type"] for one in violations} == {"LessThanThreshold"}
    assert [one["since"] for one in report["findings"]] == ["2026-11-21T13:00:00+00:00"] * 2
    assert account.metrics()["QualityViolations"] == 2


def test_should_not_take_chance_for_a_worse_model(
    account: Account, watched: CompiledContract, play: Callable[..., Any]
) -> None:
    """What the package reached is one draw, what these few labels say another."""
    held = baselines(watched, Live(300, right=0.9, seed=1))
    held["quality"]["binary_classification_metrics"]["auc"]["value"] = 0.999
    approve(account, held)
    live = Live(45, right=0.88)
    report, _ = play("quality", live, live.truths)
    [auc] = [one for one in report["findings"] if one["name"] == "auc"]
    low, high = report["metrics"]["auc"]["interval"]
    assert low < auc["limit"] < high
    assert not auc["beyond"]


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("no capture", "nothing was captured"),
        ("no label", "0 of 60 predictions have a label 2 hours later, at least 40 are needed"),
        ("few labels", "39 of 60 predictions have a label"),
        ("one class", "all 45 labels are 'late': nothing can be told apart"),
        ("no baseline", "carries no model quality baseline"),
        ("no model", "no model is approved yet"),
    ],
)
def test_should_not_judge_quality_without_evidence(
    account: Account, watched: CompiledContract, play: Callable[..., Any], case: str, reason: str
) -> None:
    live = Live(60, right=0.9)
    held = baselines(watched, live)
    if case == "no baseline":
        del held["quality"]
    approve(account, held)
    if case == "no model":
        account.parameter("none")
    truths = live.truths[:39] if case == "few labels" else live.truths
    if case == "one class":
        truths = [one | {"groundTruthData": {"data": "1", "encoding": "CSV"}} for one in truths[:45]]
    report, out = play(
        "quality", None if case == "no capture" else live, None if case == "no label" else truths
    )
    assert report["judged"] is False
    assert reason in report["reason"]
    assert {path.name for path in out.iterdir()} == {"report.json", "report.html"}
    assert "not judged" in (out / "report.html").read_text()
    assert account.metrics() == {"QualityUnjudged": 1, "QualityRecordsJudged": 0}


def test_should_judge_what_model_monitor_has_merged(
    account: Account, watched: CompiledContract, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = Live(120, right=0.3)
    approve(account, baselines(watched, Live(300, right=0.9, seed=1)))
    for entry, label in zip(live.invocations, live.labels, strict=True):
        entry["groundTruthData"] = {"data": str(label), "encoding": "CSV"}
    source = tmp_path / "merged/dev-trips/AllTraffic/2026/11/21/13"
    source.mkdir(parents=True)
    (source / "merged.jsonl").write_bytes(jsonl(live.invocations))
    account.put("contract.json", watched.to_json().encode())
    for name, value in {**account.environment, "SAGEMAKER_BASE_DIR": str(tmp_path / "ml")}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "ml/output").mkdir(parents=True)
    monitor(
        {
            "KIND": "quality",
            "ENVIRONMENT": "dev",
            "WORKLOAD": "trips",
            "CONTRACT_URI": f"s3://{BUCKET}/contract.json",
            "APPROVED_MODEL_PARAMETER": PARAMETER,
            "dataset_source": str(tmp_path / "merged"),
            "output_path": str(tmp_path / "result"),
            "start_time": "2026-11-21T13:00:00Z",
            "end_time": "2026-11-21T14:00:00Z",
        }
    )
    violations = json.loads((tmp_path / "result/constraint_violations.json").read_text())["violations"]
    assert {one["metric_name"] for one in violations} == {"recall", "auc"}


@pytest.mark.parametrize(("columns", "judged"), [(4, True), (None, False)])
def test_should_judge_numbers_by_as_many_columns_as_the_model_has(
    account: Account, tmp_path: pathlib.Path, play: Callable[..., Any], columns: int | None, judged: bool
) -> None:
    block = "monitoring: {minimum_records: 50, drift: {distance: psi, threshold: 0.25}}\n"
    watched = "monitoring: {quality: {delay_hours: 2, limits: {adjusted_r2: {minimum: 0.5}}}}\n"
    account.contract = make_contract(tmp_path / "numbers", "regression", **{block: watched})
    held = {"dataset": {"columns": columns}, "regression_metrics": {"rmse": {"value": 2.0}}}
    approve(account, {"quality": held})
    live, rng = Live(0, right=1), random.Random(1)
    for record in make_records("regression", 80):
        said = record["outcome"] + rng.gauss(0, 5)
        live.invocations.append(invocation(record, record["trip_id"], {"score": said}))
        live.truths.append(truth(record["trip_id"], str(record["outcome"])))
        live.scores.append(said)
        live.labels.append(record["outcome"])
    report, _ = play("quality", live, live.truths)
    assert report["judged"] is judged
    if not judged:
        assert "does not say how many columns" in report["reason"]
        return
    plain, adjusted = (report["metrics"][name]["value"] for name in ("r2", "adjusted_r2"))
    assert adjusted == pytest.approx(1 - (1 - plain) * 79 / (80 - columns - 1))
    # Much worse than in the package; the limit of people is kept.
    assert [one["metric_name"] for one in report["violations"]] == ["rmse"]
    assert report["violations"][0]["constraint_check_type"] == "GreaterThanThreshold"


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_should_write_the_quality_of_every_task(task: str) -> None:
    rng = np.random.default_rng(2)
    if task == "regression":
        labels = rng.normal(size=80)
        scores = labels + rng.normal(size=80) / 10
        decided, classes = scores, None
    else:
        labels = rng.integers(0, 3, 80)
        scores = np.eye(3)[labels] * 0.6 + rng.dirichlet([1, 1, 1], 80) * 0.4
        decided, classes = scores.argmax(axis=1), ("a", "b", "c")
    measures = measures_of(task, labels, scores, threshold=0.5, columns=0)
    metrics = {name: {"value": v, "standard_deviation": 0.0} for name, v in measures.values().items()}
    found = quality.statistics(task, labels, scores, decided, metrics, classes=classes, about={})
    values = found[quality.METRICS[task]]
    wanted = {"mae", "mse", "rmse", "r2"}
    if task == "multiclass":
        wanted = {"accuracy", "weighted_recall", "weighted_precision", "weighted_f0_5", "weighted_f1"}
        assert values["weighted_recall"]["value"] == pytest.approx(values["accuracy"]["value"])
    assert wanted <= values.keys()
    json.dumps(found, allow_nan=False)
