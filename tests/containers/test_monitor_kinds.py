"""Model quality, bias and attribution, judged live: with evidence a verdict, without it none."""

from __future__ import annotations

import json
import math
import pathlib
import random
import tarfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from container_support import (
    Trained,
    features_of,
    make_contract,
    make_records,
    prepare_inputs,
    run_image,
    write_features,
)
from ml_contract.checks.monitoring import WITHOUT_LABELS
from ml_contract.compiled import CompiledContract
from ml_judging import bias, explain, quality
from ml_judging.measures import measures_of
from ml_monitoring.capture import read_capture
from ml_monitoring.history import since
from ml_monitoring.kinds.attribution import ndcg
from ml_monitoring.monitor import monitor
from ml_monitoring.predictions import label_of, read_ground_truth, read_predictions
from ml_monitoring.settings import OwnEngine, read_settings
from ml_runtime.job import BadInputError
from ml_runtime.model import Model
from ml_runtime.tables import read_table
from ml_statistics.baseline import baseline
from monitor_support import BUCKET, OWN, PARAMETER, Account

WATCHED = """
evaluation:
  bias:
    facets: {electric: {disadvantaged: [true]}}
    limits: {DPPL: 0.5, RD: 0.9}
  explain: {shap_rows: 40}
monitoring:
  quality: {delay_hours: 2, minimum_labels: 40, limits: {recall: {minimum: 0.5}}}
  bias: {limits: {DI: 0.9}, tolerance: 0.2}
  attribution: {rows: 60, ndcg: 0.9}
  minimum_records: 50
"""
#: At 16:20 predictions of 13:00 to 14:00 are judged by the labels that there are by then.
HOUR = "2026/11/21/13"
TRUTH_HOUR = "2026/11/21/15"


@pytest.fixture
def watched(tmp_path: pathlib.Path) -> CompiledContract:
    block = "monitoring: {minimum_records: 50, drift: {distance: psi, threshold: 0.25}}\n"
    return make_contract(tmp_path / "watched", "binary", **{block: WATCHED})


def invocation(
    record: dict[str, Any], name: str, answer: dict[str, Any], truth: str | None = None
) -> dict[str, Any]:
    """Return one captured invocation; with ``truth`` a merged one."""
    body = {key: value for key, value in record.items() if key != "outcome"}
    return {
        "captureData": {
            "endpointInput": {"data": json.dumps(body), "encoding": "JSON", "mode": "INPUT"},
            "endpointOutput": {
                "observedContentType": "application/json",
                "data": json.dumps({"predictions": [answer], "model": "dev-trips/1"}),
                "encoding": "JSON",
            },
        },
        "eventMetadata": {"eventId": f"event-{name}", "inferenceId": name},
        "eventVersion": "0",
        **({} if truth is None else {"groundTruthData": {"data": truth, "encoding": "CSV"}}),
    }


def truth(name: str, data: str, encoding: str = "CSV") -> dict[str, Any]:
    """Return a line of a ground-truth file."""
    return {
        "groundTruthData": {"data": data, "encoding": encoding},
        "eventMetadata": {"eventId": name},
        "eventVersion": "0",
    }


def jsonl(entries: list[dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps(entry) for entry in entries).encode()


class Live:
    """Traffic whose answers are right to a degree, and what turned out true of it."""

    def __init__(self, count: int, *, right: float, seed: int = 5) -> None:
        rng = random.Random(seed)
        self.invocations, self.truths, self.labels, self.scores = [], [], [], []
        for record in make_records("binary", count, seed=seed):
            late = record["outcome"] == "late"
            said = late if rng.random() < right else not late
            score = 0.5 + (0.4 if said else -0.4) * rng.random()
            answer = {"score": score, "label": "late" if score >= 0.45 else "on time"}
            self.invocations.append(invocation(record, record["trip_id"], answer))
            self.truths.append(truth(record["trip_id"], record["outcome"]))
            self.labels.append(int(late))
            self.scores.append(score)


def baselines(contract: CompiledContract, live: Live) -> dict[str, dict[str, Any]]:
    """Return what the package of a model that does as ``live`` does carries."""
    labels, scores = np.array(live.labels), np.array(live.scores)
    measures = measures_of("binary", labels, scores, threshold=0.45, columns=1)
    metrics = {n: {"value": v, "standard_deviation": 0.01} for n, v in measures.values().items()}
    decided = (scores >= 0.45).astype(np.int64)
    found = read_predictions([jsonl(live.invocations)], contract)
    later = bias.after_training(found.frame, labels, decided, np.zeros((len(labels), 1)), contract)
    return {
        "quality": quality.statistics(
            "binary", labels, scores, decided, metrics, classes=contract.label.values, about={}
        ),
        "bias": bias.clarify_report(
            "outcome",
            {},
            {name: {"group": one["group"], "metrics": one["metrics"]} for name, one in later.items()},
        ),
    }


def approve(account: Account, documents: dict[str, dict[str, Any]], model: pathlib.Path | None = None) -> str:
    """Register and approve a package with these baselines."""
    places = {"quality": ("ModelQuality", "Statistics"), "bias": ("Bias", "PostTrainingConstraints")}
    places["explained"] = ("Explainability", "Constraints")
    carried: dict[str, Any] = {}
    for name, document in documents.items():
        account.put(f"baseline/{name}.json", json.dumps(document).encode())
        kind, part = places[name]
        uri = f"s3://{BUCKET}/baseline/{name}.json"
        carried[kind] = {part: {"ContentType": "application/json", "S3Uri": uri}}
    given: dict[str, Any] = {"DriftCheckBaselines": carried}
    if model is not None:
        account.put("models/model.tar.gz", model.read_bytes())
        container = {"Image": "x", "ModelDataUrl": f"s3://{BUCKET}/models/model.tar.gz"}
        given["InferenceSpecification"] = {
            "Containers": [container],
            "SupportedContentTypes": ["text/csv"],
            "SupportedResponseMIMETypes": ["text/csv"],
        }
    sagemaker = account.client("sagemaker")
    sagemaker.create_model_package_group(ModelPackageGroupName="dev-trips")
    arn: str = sagemaker.create_model_package(ModelPackageGroupName="dev-trips", **given)["ModelPackageArn"]
    account.parameter(arn)
    return arn


@pytest.fixture
def play(
    account: Account, watched: CompiledContract, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[dict[str, Any], pathlib.Path]]:
    """Return the function that runs the monitor here: kind and traffic to report and folder."""
    account.contract = watched
    for name, value in account.environment.items():
        monkeypatch.setenv(name, value)

    def run(
        kind: str, live: Live | None, truths: list[dict[str, Any]] | None = None, **more: str
    ) -> tuple[dict[str, Any], pathlib.Path]:
        base = tmp_path / f"run-{len(list(tmp_path.glob('run-*')))}"
        monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(base))
        folder = base / "processing/input/contract"
        folder.mkdir(parents=True)
        (base / "output").mkdir()
        (folder / "contract.json").write_text(account.contract.to_json())
        hour = HOUR if kind != "attribution" else TRUTH_HOUR
        if live is not None:
            account.put(f"trips/capture/dev-trips/AllTraffic/{hour}/a.jsonl", jsonl(live.invocations))
        if truths:
            account.put(f"trips/ground-truth/{TRUTH_HOUR}/a.jsonl", jsonl(truths))
        monitor({**OWN, "KIND": kind, "GROUND_TRUTH_URI": f"s3://{BUCKET}/trips/ground-truth"} | more)
        out = base / "processing/output/report"
        account.put(f"trips/monitoring-{kind}/{base.name}/report.json", (out / "report.json").read_bytes())
        report: dict[str, Any] = json.loads((out / "report.json").read_text())
        return report, out

    return run


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


# --- bias -----------------------------------------------------------------------------------------


def favour(live: Live, *, electric: float, others: float, seed: int = 3) -> Live:
    """Let the model say "late", which is good for nobody here but counts so, to some of each."""
    rng = random.Random(seed)
    for entry in live.invocations:
        record = json.loads(entry["captureData"]["endpointInput"]["data"])
        late = rng.random() < (electric if record.get("electric") else others)
        answer = {"score": 0.9 if late else 0.1, "label": "late" if late else "on time"}
        entry["captureData"]["endpointOutput"]["data"] = json.dumps({"predictions": [answer]})
    return live


def test_should_find_no_bias_where_both_fare_alike(
    account: Account, watched: CompiledContract, play: Callable[..., Any]
) -> None:
    approve(account, baselines(watched, Live(300, right=0.9, seed=1)))
    live = favour(Live(300, right=0.9), electric=0.5, others=0.5)
    report, out = play("bias", live, live.truths)
    assert report["judged"], report
    assert report["violations"] == []
    assert {one["name"] for one in report["findings"]} == {
        "DPPL of electric",
        "RD of electric",
        "DI of electric",
    }
    assert report["labelled"] == 300
    document = json.loads((out / "analysis.json").read_text())
    [facet] = document["post_training_bias_metrics"]["facets"]["electric"]
    assert facet["value_or_threshold"] == "true"
    assert {one["name"] for one in facet["metrics"]} == set(bias.OF_ANSWERS)
    assert account.metrics()["BiasViolations"] == 0


def test_should_say_that_one_group_fares_worse(
    account: Account, watched: CompiledContract, play: Callable[..., Any]
) -> None:
    approve(account, baselines(watched, Live(300, right=0.9, seed=1)))
    report, out = play("bias", favour(Live(300, right=0.9), electric=0.02, others=0.9))
    document = json.loads((out / "constraint_violations.json").read_text())
    assert {(one["metric_name"], one["facet"], one["facet_value"]) for one in document["violations"]} == {
        ("DI", "electric", "true"),
        ("DPPL", "electric", "true"),
    }
    assert {one["constraint_check_type"] for one in document["violations"]} == {"bias_drift_check"}
    # Nobody has said what was true: what needs labels is told to be unjudged, not fair.
    assert "RD of electric" in report["unjudged"]
    dppl = next(one for one in report["findings"] if one["measure"] == "DPPL")
    assert dppl["value"] > 0.7


def test_should_not_judge_the_bias_of_a_handful(
    account: Account, watched: CompiledContract, play: Callable[..., Any]
) -> None:
    approve(account, baselines(watched, Live(300, right=0.9, seed=1)))
    report, _ = play("bias", Live(55, right=0.9))
    assert report["judged"] is False
    assert "30 of each are needed" in report["reason"]
    assert account.metrics() == {"BiasUnjudged": 1, "BiasRecordsJudged": 0}


def test_should_know_alike_which_metrics_need_no_labels() -> None:
    assert WITHOUT_LABELS == bias.WITHOUT_LABELS


# --- attribution ----------------------------------------------------------------------------------


def test_should_rank_as_clarify_does() -> None:
    held = {"a": 4.0, "b": 2.0, "c": 1.0}
    live = {"a": 1.0, "b": 3.0, "c": 2.0}
    gain = 2 / math.log2(2) + 1 / math.log2(3) + 4 / math.log2(4)
    ideal = 4 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
    assert ndcg(held, live) == pytest.approx(gain / ideal)
    assert ndcg(held, {name: value * 7 for name, value in held.items()}) == pytest.approx(1)


@pytest.mark.slow
def test_should_tell_what_the_model_goes_by_live(
    account: Account,
    watched: CompiledContract,
    play: Callable[..., Any],
    trained: Callable[[str], Trained],
    tmp_path: pathlib.Path,
) -> None:
    one = trained("binary")
    archive = tmp_path / "model.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted(one.model.iterdir()):
            tar.add(path, path.name)
    model = Model.load(one.model)
    frame, _ = read_table(one.prepared / "test", watched.feature_columns())
    matrix = model.fitted.matrix(frame)
    worth = explain.shares_of(one.model, model, matrix, background=matrix).importance()

    def held(values: dict[str, float]) -> dict[str, Any]:
        return {"explanations": {"kernel_shap": {"outcome": {"global_shap_values": values}}}}

    approve(account, {"explained": held(worth)}, archive)
    live = Live(150, right=0.9)
    report, out = play("attribution", live)
    assert report["judged"], report
    assert report["ndcg"] > 0.95
    assert report["records_judged"] == 60
    assert report["violations"] == []
    assert next(iter(report["importance"])) == next(iter(worth))
    assert json.loads((out / "analysis.json").read_text())["explanations"]["kernel_shap"]["outcome"]
    names = list(worth)
    account.put(
        "baseline/explained.json",
        json.dumps(held(dict(zip(names[::-1], worth.values(), strict=True)))).encode(),
    )
    history = f"s3://{BUCKET}/trips/monitoring-attribution"
    report, out = play("attribution", live, REPORTS_URI=history)
    [violation] = json.loads((out / "constraint_violations.json").read_text())["violations"]
    assert violation["constraint_check_type"] == "feature_attribution_drift_check"
    assert account.metrics()["AttributionViolations"] == 1
    # The same window again takes its own place in the history.
    assert [run["violations"] for run in report["history"]] == [1]
    report, _ = play("attribution", live, REPORTS_URI=history, SCHEDULED_TIME="2026-11-21T17:20:00Z")
    assert [run["violations"] for run in report["history"]] == [1, None]


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_should_write_files_that_the_sdk_of_model_monitor_reads(
    account: Account, watched: CompiledContract, play: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3
    from sagemaker.core.helper.session_helper import Session
    from sagemaker.core.model_monitor.monitoring_files import Constraints, ConstraintViolations, Statistics

    approve(account, baselines(watched, Live(300, right=0.9, seed=1)))
    live = Live(120, right=0.3)
    _, out = play("quality", live, live.truths)
    features = features_of(make_records("binary", 300, seed=1), watched)
    for name, document in zip(("statistics", "constraints"), baseline(features, watched), strict=True):
        account.put(f"read/data/{name}.json", json.dumps(document).encode())
        account.put(f"read/quality/{name}.json", (out / f"{name}.json").read_bytes())
    account.put("read/quality/constraint_violations.json", (out / "constraint_violations.json").read_bytes())
    session = Session(boto_session=boto3.Session(region_name="eu-central-1"), default_bucket=BUCKET)
    place = f"s3://{BUCKET}/read"

    statistics = Statistics.from_s3_uri(f"{place}/data/statistics.json", sagemaker_session=session)
    assert {one["name"] for one in statistics.body_dict["features"]} == {f.name for f in watched.features}
    constraints = Constraints.from_s3_uri(f"{place}/data/constraints.json", sagemaker_session=session)
    # What the SDK switches on and off for a feature stands where the SDK looks for it.
    constraints.set_monitoring(enable_monitoring=False, feature_name="distance")
    [entry] = [one for one in constraints.body_dict["features"] if one["name"] == "distance"]
    assert entry["monitoring_config_overrides"] == {"evaluate_constraints": "Disabled"}
    assert constraints.body_dict["monitoring_config"]["evaluate_constraints"] == "Enabled"
    violations = ConstraintViolations.from_s3_uri(
        f"{place}/quality/constraint_violations.json", sagemaker_session=session
    )
    assert {one["metric_name"] for one in violations.body_dict["violations"]} == {"recall", "auc"}


# --- segments -------------------------------------------------------------------------------------

APART = {
    "monitoring: {minimum_records: 50, drift: {distance: psi, threshold: 0.25}}": (
        "monitoring: {minimum_records: 50, segments: [depot]}"
    ),
    "    driver: {type: string}\n": (
        "    driver: {type: string}\n    depot: {type: string, sensitive: protected}\n"
    ),
}


@pytest.mark.slow
def test_should_describe_the_segments_of_what_the_model_learned_from(tmp_path: pathlib.Path) -> None:
    contract = make_contract(tmp_path, "binary", **APART)
    records = [
        record | {"depot": "south" if number % 3 else "north"}
        for number, record in enumerate(make_records("binary", 300))
    ]
    base = tmp_path / "prepare"
    write_features(features_of(records, contract), contract, prepare_inputs(base, contract))
    done = run_image("processing", base, "prepare")
    assert done.returncode == 0, done.stderr
    out = base / "processing/output"
    statistics = json.loads((out / "baseline/statistics.json").read_text())
    sizes = {(one["field"], one["value"]): one["item_count"] for one in statistics["segments"]}
    assert sizes.keys() == {("depot", "south"), ("depot", "north")}
    assert sum(sizes.values()) == statistics["dataset"]["item_count"]
    # The model never sees it.
    frame, _ = read_table(out / "train", contract.training_columns())
    assert "depot" not in frame.columns
    assert "depot" not in {feature["name"] for feature in statistics["features"]}


def test_should_tell_live_records_apart(tmp_path: pathlib.Path) -> None:
    contract = make_contract(tmp_path, "binary", **APART)
    record = make_records("binary", 1)[0]
    entries = [invocation(record | more, "x", {}) for more in ({"depot": "south"}, {"depot": "north"}, {})]
    observed = read_capture([jsonl(entries)], contract).observed
    assert observed.segments is not None
    assert observed.segments["depot"].to_list() == ["south", "north", None]
    assert "depot" not in observed.frame.columns
