"""Bias, attribution and segments, judged live; files that Model Monitor's SDK reads."""

from __future__ import annotations

import json
import math
import pathlib
import random
import tarfile
import time
from collections.abc import Callable
from typing import Any

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
from live_support import Live, approve, baselines, invocation, jsonl
from ml_contract.checks.monitoring import WITHOUT_LABELS
from ml_contract.compiled import CompiledContract
from ml_judging import bias, explain
from ml_monitoring.capture import read_capture
from ml_monitoring.kinds.attribution import ndcg
from ml_runtime.model import Model
from ml_runtime.tables import read_table
from ml_statistics.baseline import baseline
from monitor_support import BUCKET, Account

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
    # S3 says in whole seconds when a report was written.
    time.sleep(1.1)
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
