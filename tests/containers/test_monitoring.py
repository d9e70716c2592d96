"""The monitor: capture in, verdict out, and no verdict without evidence."""

from __future__ import annotations

import base64
import datetime as dt
import json
import pathlib

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from container_support import features_of, make_records, run_image
from ml_contract.compiled import CompiledContract
from ml_monitoring.capture import DamagedLineError, payload, read_capture
from ml_monitoring.monitor import UnjudgedError, read_object
from ml_monitoring.settings import ModelMonitorEngine, OwnEngine, read_settings
from ml_runtime.job import BadInputError
from ml_statistics.baseline import baseline
from monitor_support import BUCKET, HOUR, OWN, PARAMETER, Account, line, lines, run_monitor

# --- settings -------------------------------------------------------------------------------------


def test_should_judge_the_whole_hours_before_the_schedule() -> None:
    settings = read_settings({**OWN, "WINDOW_HOURS": "3"})
    assert isinstance(settings, OwnEngine)
    assert settings.window.end == dt.datetime(2026, 11, 21, 16, tzinfo=dt.UTC)
    assert [hour.hour for hour in settings.window.hours()] == [13, 14, 15]


def test_should_read_a_scheduled_time_of_another_zone() -> None:
    settings = read_settings({**OWN, "SCHEDULED_TIME": "2026-11-21T18:20:00+02:00"})
    assert isinstance(settings, OwnEngine)
    assert settings.window.end == dt.datetime(2026, 11, 21, 16, tzinfo=dt.UTC)


def test_should_understand_what_model_monitor_sets() -> None:
    settings = read_settings(
        {
            "ENVIRONMENT": "dev",
            "WORKLOAD": "trips",
            "dataset_source": "/opt/ml/processing/input/endpoint",
            "baseline_statistics": "/opt/ml/processing/baseline/stats/statistics.json",
            "baseline_constraints": "/opt/ml/processing/baseline/constraints/constraints.json",
            "output_path": "/opt/ml/processing/resultdata",
        }
    )
    assert isinstance(settings, ModelMonitorEngine)
    assert settings.output_path == "/opt/ml/processing/resultdata"


def test_should_take_the_approved_baseline_when_model_monitor_mounts_none() -> None:
    environment = {"ENVIRONMENT": "dev", "WORKLOAD": "trips", "dataset_source": "/in", "output_path": "/out"}
    with pytest.raises(BadInputError, match="missing: APPROVED_MODEL_PARAMETER"):
        read_settings(environment)
    settings = read_settings({**environment, "APPROVED_MODEL_PARAMETER": PARAMETER})
    assert isinstance(settings, ModelMonitorEngine)
    assert settings.mounted_baseline is None
    assert settings.approved_model_parameter == PARAMETER


def test_should_name_every_setting_that_is_missing() -> None:
    with pytest.raises(BadInputError, match="WORKLOAD, CAPTURE_URI"):
        read_settings({k: v for k, v in OWN.items() if k not in ("WORKLOAD", "CAPTURE_URI")})


@pytest.mark.parametrize(("name", "value"), [("WINDOW_HOURS", "0"), ("SCHEDULED_TIME", "yesterday")])
def test_should_refuse_a_wrong_setting(name: str, value: str) -> None:
    with pytest.raises(BadInputError, match=f"{name} must be .*{value}"):
        read_settings({**OWN, name: value})


# --- capture --------------------------------------------------------------------------------------


def test_should_decode_what_was_captured_by_its_encoding() -> None:
    body = '{"weather":"dry"}'
    assert payload(line(body)) == (body.encode(), "application/json")
    assert payload(line("dry,1", "CSV", "text/csv")) == (b"dry,1", "text/csv")
    encoded = base64.b64encode(b"{}\n{}").decode()
    assert payload(line(encoded, "BASE64", "application/jsonlines")) == (b"{}\n{}", "application/jsonlines")
    assert payload(line("dry,1", "CSV", "")) == (b"dry,1", "text/csv")


@pytest.mark.parametrize(
    "damaged", [b"{", b"[]", b'{"captureData":{}}', line("%", "BASE64"), line("", "XML")]
)
def test_should_say_that_a_line_is_damaged(damaged: bytes) -> None:
    with pytest.raises(DamagedLineError):
        payload(damaged)


def test_should_read_records_features_and_refusals(contract: CompiledContract) -> None:
    records = make_records("binary", 30, seed=2)
    wrong = line('{"passengers":"many","colour":"red"}')
    several = line(json.dumps([{"weather": "dry"}, {"weather": "hail"}]))
    content = b"\n".join([lines(records), b"", wrong, several, b"{damaged", line("1,2", "CSV", "text/csv")])
    capture = read_capture([content], contract)
    observed = capture.observed
    assert (capture.files, capture.invocations, capture.records) == (1, 34, 34)
    assert observed.total == 34
    assert observed.frame.height == 31
    assert observed.reasons == {
        ("wrong_type", "passengers"): 1,
        ("unknown_field", "colour"): 1,
        ("not_allowed", "weather"): 1,
        ("unreadable_body", None): 1,
    }
    assert observed.named["weather"] == 32
    assert observed.named["passengers"] == 1 + sum("passengers" in record for record in records)
    assert sum(capture.damaged.values()) == 2


def test_should_make_the_features_that_training_made(contract: CompiledContract) -> None:
    records = make_records("binary", 50, seed=2)
    frame = read_capture([lines(records)], contract).observed.frame
    expected = features_of(records, contract).select(frame.columns)
    assert frame.equals(expected, null_equal=True)


def test_should_draw_evenly_from_more_records_than_it_judges(
    contract: CompiledContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ml_monitoring.capture.RECORDS_LIMIT", 100)
    records = [{"passengers": number % 10} for number in range(1000)]
    capture = read_capture([lines(records)], contract)
    assert (capture.records, capture.observed.total) == (1000, 100)
    assert 3 < capture.observed.frame["passengers"].mean() < 6  # type: ignore[operator]


# --- the job --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_should_find_no_violation_in_unchanged_traffic(account: Account, tmp_path: pathlib.Path) -> None:
    arn = account.approve()
    account.capture(make_records("binary", 200, seed=2))
    account.capture(make_records("binary", 100, seed=3), variant="Shadow")
    account.capture(make_records("binary", 150, seed=4, snow=0.6, scale=4), hour="2026/11/21/14")
    account.capture(make_records("binary", 150, seed=5, snow=0.6, scale=4), hour="2026/11/21/16")
    report, message = run_monitor(account, tmp_path)
    assert report["judged"] is True
    assert report["baseline"] == arn
    assert report["records"] == 300
    assert report["violations"] == []
    assert report["window"]["start"] == "2026-11-21T15:00:00+00:00"
    assert {entry["feature"] for entry in report["drift"]} == {f.name for f in account.contract.features}
    assert message == "Completed: no violation in 300 records"
    written = {path.name for path in (tmp_path / "processing/output/report").iterdir()}
    assert written == {
        "statistics.json",
        "constraints.json",
        "constraint_violations.json",
        "report.json",
        "report.html",
    }
    metrics = account.metrics()
    assert (metrics["Violations"], metrics["RecordsJudged"], metrics["Unjudged"]) == (0, 300, 0)
    assert metrics["FeatureDrift:distance"] < 0.25


@pytest.mark.slow
def test_should_find_violations_in_drifted_traffic(account: Account, tmp_path: pathlib.Path) -> None:
    account.approve()
    account.capture(make_records("binary", 300, seed=2, snow=0.6, scale=4))
    report, message = run_monitor(account, tmp_path)
    violations = json.loads((tmp_path / "processing/output/report/constraint_violations.json").read_text())
    assert {(v["feature_name"], v["constraint_check_type"]) for v in violations["violations"]} == {
        ("distance", "baseline_drift_check"),
        ("weather", "baseline_drift_check"),
    }
    assert report["violations"] == violations["violations"]
    assert message.startswith("CompletedWithViolations: 2")
    metrics = account.metrics()
    assert metrics["Violations"] == 2
    assert metrics["FeatureDrift:distance"] > 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("no parameter", "approval parameter"),
        ("no model", "no model is approved yet"),
        ("no package", "does not exist"),
        ("no baseline", "carries no data quality baseline"),
        ("baseline deleted", "statistics.json does not exist"),
        ("no capture", "nothing was captured"),
        ("few records", "20 records were captured, at least 50 are needed"),
        ("damaged capture", "2 invocations could not be read"),
    ],
)
def test_should_give_no_verdict_without_evidence(
    account: Account, tmp_path: pathlib.Path, case: str, reason: str
) -> None:
    if case not in ("no parameter", "no model", "no package"):
        account.approve(with_baseline=case != "no baseline")
    if case == "no model":
        account.parameter("none")
    if case == "no package":
        account.parameter("arn:aws:sagemaker:eu-central-1:123456789012:model-package/dev-trips/9")
    if case == "baseline deleted":
        account.client("s3").delete_object(Bucket=BUCKET, Key="baseline/statistics.json")
    if case == "few records":
        account.capture(make_records("binary", 20, seed=2))
    elif case == "damaged capture":
        account.put(f"trips/capture/dev-trips/AllTraffic/{HOUR}/x.jsonl", b"{nope\n{nope")
    elif case != "no capture":
        account.capture(make_records("binary", 300, seed=2))
    report, message = run_monitor(account, tmp_path)
    assert report["judged"] is False
    assert reason in report["reason"]
    assert message.startswith("Unjudged: ")
    written = {path.name for path in (tmp_path / "processing/output/report").iterdir()}
    assert written == {"report.json", "report.html"}
    assert account.metrics() == {"Unjudged": 1, "RecordsJudged": 0}


@pytest.mark.parametrize(
    ("listed", "expected"), [(["baseline/x.json.old"], UnjudgedError), (["baseline/x.json"], ClientError)]
)
def test_should_tell_what_is_not_there_from_what_it_may_not_read(
    listed: list[str], expected: type[Exception]
) -> None:
    """To who may list a part of a bucket only, S3 says 403 of both."""
    s3 = boto3.client("s3", region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x")
    with Stubber(s3) as stub:
        stub.add_client_error("get_object", "AccessDenied", "Access Denied", 403)
        stub.add_response("list_objects_v2", {"Contents": [{"Key": key} for key in listed]})
        with pytest.raises(expected):
            read_object(s3, "s3://b/baseline/x.json")


@pytest.mark.slow
def test_should_fail_when_aws_refuses(account: Account, tmp_path: pathlib.Path) -> None:
    account.approve()
    _, message = run_monitor(account, tmp_path, expected=1, CAPTURE_URI="s3://not-there/capture")
    assert "NoSuchBucket" in message
    assert account.metrics() == {}


@pytest.mark.slow
def test_should_run_as_the_container_of_model_monitor(account: Account, tmp_path: pathlib.Path) -> None:
    features = features_of(make_records("binary", 600, seed=1), account.contract)
    mounted = tmp_path / "processing/baseline"
    mounted.mkdir(parents=True)
    for name, document in zip(
        ("statistics", "constraints"), baseline(features, account.contract), strict=True
    ):
        (mounted / f"{name}.json").write_text(json.dumps(document))
    capture = tmp_path / "processing/input/endpoint/dev-trips/AllTraffic/2026/11/21/15"
    capture.mkdir(parents=True)
    (capture / "a.jsonl").write_bytes(lines(make_records("binary", 300, seed=2, snow=0.6)))
    account.put("contract.json", account.contract.to_json().encode())
    environment = {
        **account.environment,
        "ENVIRONMENT": "dev",
        "WORKLOAD": "trips",
        "CONTRACT_URI": f"s3://{BUCKET}/contract.json",
        "dataset_source": str(tmp_path / "processing/input/endpoint"),
        "baseline_statistics": str(mounted / "statistics.json"),
        "baseline_constraints": str(mounted / "constraints.json"),
        "output_path": str(tmp_path / "processing/resultdata"),
        "publish_cloudwatch_metrics": "Enabled",
    }
    done = run_image("monitoring", tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    violations = json.loads((tmp_path / "processing/resultdata/constraint_violations.json").read_text())
    assert [v["feature_name"] for v in violations["violations"]] == ["weather"]
    assert account.metrics()["Violations"] == 1
    (mounted / "statistics.json").unlink()
    done = run_image("monitoring", tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    assert "not mounted" in (tmp_path / "output/message").read_text()
    # A template names no baseline: it is the approved model's.
    account.approve()
    del environment["baseline_statistics"], environment["baseline_constraints"]
    done = run_image("monitoring", tmp_path, **environment, APPROVED_MODEL_PARAMETER=PARAMETER)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "output/message").read_text().startswith("CompletedWithViolations: 1")
