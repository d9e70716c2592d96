"""What people are told of drift, trainings and versions that wait: as data and as text, with numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from lifecycle_notice import KINDS, Notice, object_page, publish
from retraining_notices import handler as entry
from retraining_notices.logic import BadEventError, FailedStep, notice_of
from retraining_notices.settings import MisconfiguredError, Settings

URI = "s3://artifacts/claims/monitoring"
SETTINGS = Settings(
    topic_arn="arn:aws:sns:us-east-1:123456789012:people",
    workload="claims_fraud",
    environment="dev",
    region="us-east-1",
    monitors={"drift-alarm": ("data", URI)},
)
EXECUTION = "arn:aws:sagemaker:us-east-1:123456789012:pipeline/dev-claims-fraud/execution/abc"
PACKAGE = "arn:aws:sagemaker:us-east-1:123456789012:model-package/dev-claims-fraud/4"
EVALUATION = {
    "rows": 92,
    "metrics": {"auc": {"value": 0.86}, "f1": {"value": 0.7}},
    "acceptance": {
        "verdict": "accepted",
        "why": "every check of the workload is met",
        "checks": [{"check": "champion auc", "value": 0.86, "limit": 0.84}, {"check": "x", "value": None}],
    },
}


class FakeSources:
    def __init__(self, *, report: Mapping[str, Any] | None = None, failed: FailedStep | None = None) -> None:
        self.report = report
        self.failed = failed

    def newest_report(self, uri: str) -> tuple[str, Mapping[str, Any]] | None:
        return None if self.report is None else (f"{uri}/2026/11/22/run-1/report.json", self.report)

    def document(self, uri: str) -> Mapping[str, Any] | None:
        return self.report

    def failure(self, execution_arn: str) -> FailedStep | None:
        return self.failed


def event(kind: str, detail: Mapping[str, Any]) -> dict[str, Any]:
    return {"detail-type": kind, "time": "2026-11-22T10:00:00Z", "detail": dict(detail)}


def alarm(name: str = "drift-alarm", value: str = "ALARM") -> dict[str, Any]:
    return event(
        "CloudWatch Alarm State Change", {"alarmName": name, "state": {"value": value, "reason": "5 > 1"}}
    )


def execution(status: str, before: str | None = None) -> dict[str, Any]:
    return event(
        "SageMaker Model Building Pipeline Execution Status Change",
        {
            "pipelineExecutionArn": EXECUTION,
            "pipelineExecutionDescription": "drift: alarm drift-alarm",
            "currentPipelineExecutionStatus": status,
            "previousPipelineExecutionStatus": before,
            "executionStartTime": "2026-11-22T09:30:00Z",
            "executionEndTime": "2026-11-22T10:00:00Z",
        },
    )


def package(**more: Any) -> dict[str, Any]:
    return event(
        "SageMaker Model Package State Change",
        {
            "ModelPackageArn": PACKAGE,
            "ModelPackageVersion": 4,
            "ModelPackageStatus": "Completed",
            "ModelApprovalStatus": "PendingManualApproval",
            "ModelMetrics": {"ModelQuality": {"Statistics": {"S3Uri": "s3://artifacts/c/evaluation.json"}}},
            **more,
        },
    )


def said(event: object, sources: FakeSources | None = None) -> Notice:
    notice = notice_of(event, FakeSources() if sources is None else sources, SETTINGS)
    assert notice is not None
    return notice


def test_should_tell_which_features_drifted_and_where_the_report_is() -> None:
    report = {
        "records_judged": 600,
        "violations": [{"feature_name": "age", "description": "psi 0.4 is above 0.25"}],
    }

    notice = said(alarm(), FakeSources(report=report))

    assert (notice.kind, notice.why) == ("drift.found", "5 > 1")
    assert notice.numbers == {
        "monitor": "data",
        "violations": 1,
        "records judged": 600,
        "found": ["age: psi 0.4 is above 0.25"],
    }
    assert notice.links["report file"] == f"{URI}/2026/11/22/run-1/report.json"
    assert "report.html" in notice.links["report"]
    assert notice.correlation_id == "2026/11/22/run-1"


def test_should_tell_of_drift_even_when_the_report_cannot_be_read() -> None:
    notice = said(alarm())

    assert notice.numbers == {"monitor": "data"}
    assert notice.links["alarm"].endswith("#alarmsV2:alarm/drift-alarm")


@pytest.mark.parametrize("ignored", [alarm(value="OK"), alarm(name="another")])
def test_should_say_nothing_of_alarms_that_are_over_or_of_others(ignored: object) -> None:
    assert notice_of(ignored, FakeSources(), SETTINGS) is None


def test_should_tell_why_a_training_was_started() -> None:
    notice = said(execution("Executing"))

    assert (notice.kind, notice.why) == ("retraining.started", "drift: alarm drift-alarm")
    assert notice.correlation_id == EXECUTION


@pytest.mark.parametrize(("status", "before"), [("Succeeded", "Executing"), ("Executing", "Stopping")])
def test_should_leave_the_end_of_a_good_training_to_its_version(status: str, before: str) -> None:
    assert notice_of(execution(status, before), FakeSources(), SETTINGS) is None


def test_should_tell_a_failed_training_from_a_refused_model() -> None:
    failed = said(execution("Failed"), FakeSources(failed=FailedStep(name="Train", why="out of memory")))
    refused = said(execution("Failed"), FakeSources(failed=FailedStep(name="Reject", why="auc is 0.5")))
    stopped = said(execution("Stopped"))

    assert (failed.kind, failed.numbers["step"], failed.numbers["minutes"]) == (
        "retraining.failed",
        "Train",
        30.0,
    )
    assert failed.why == "out of memory (started for: drift: alarm drift-alarm)"
    assert (refused.kind, refused.title) == ("model.refused", "the new model was not accepted")
    assert (stopped.kind, stopped.title) == ("retraining.failed", "a training stopped")


def test_should_tell_how_good_the_version_is_that_waits() -> None:
    notice = said(package(), FakeSources(report=EVALUATION))

    assert notice.kind == "model.waits"
    assert notice.numbers == {
        "version": 4,
        "champion auc (limit 0.84)": 0.86,
        "auc": 0.86,
        "f1": 0.7,
        "held-out rows": 92,
    }
    assert notice.links["model package"] == PACKAGE


@pytest.mark.parametrize(
    "more",
    [
        {"ModelApprovalStatus": "Approved"},
        {"ModelPackageStatus": "InProgress"},
        {"UpdatedModelPackageFields": ["CustomerMetadataProperties"]},
    ],
)
def test_should_tell_once_that_a_version_waits(more: dict[str, Any]) -> None:
    assert notice_of(package(**more), FakeSources(), SETTINGS) is None


@pytest.mark.parametrize("wrong", [None, {"detail-type": "x"}, event("x", {})])
def test_should_refuse_what_it_is_not_subscribed_to(wrong: object) -> None:
    with pytest.raises(BadEventError):
        notice_of(wrong, FakeSources(), SETTINGS)


# --- how it is told ---


class FakeSns:
    def __init__(self) -> None:
        self.published: list[dict[str, Any]] = []

    def publish(self, **request: Any) -> Mapping[str, Any]:
        self.published.append(request)
        return {}


def notice(**more: Any) -> Notice:
    return Notice(
        **{
            "kind": "model.waits",
            "workload": "claims_fraud",
            "environment": "dev",
            "title": "version 4 waits \u2013 look",
            "why": "it is good",
            "time": "2026-11-22T10:00:00Z",
            "correlation_id": PACKAGE,
            "numbers": {"auc": 0.861234, "unknown": None, "nothing": float("nan"), "found": ["a", "b"]},
            "links": {"package": PACKAGE},
            **more,
        }
    )


def test_should_publish_data_for_programs_and_text_for_mail() -> None:
    sns = FakeSns()
    publish(sns, "topic", notice())

    [request] = sns.published
    message = json.loads(request["Message"])
    document = json.loads(message["default"])
    assert document["numbers"] == {"auc": 0.861234, "found": ["a", "b"]}
    assert "auc: 0.8612" in message["email"]
    assert f"package: {PACKAGE}" in message["email"]
    assert "unknown" not in message["email"]
    assert {name: value["StringValue"] for name, value in request["MessageAttributes"].items()} == {
        "notice": "model.waits",
        "workload": "claims_fraud",
        "environment": "dev",
    }


def test_should_write_a_subject_that_sns_takes() -> None:
    subject = notice(title="\u00e4" * 200).subject()

    assert len(subject) == 100
    assert subject.isascii()
    assert subject.startswith("dev claims_fraud: -")


def test_should_refuse_a_kind_that_nobody_knows() -> None:
    with pytest.raises(ValueError, match=r"kind must be one of drift\.found"):
        notice(kind="news")
    assert len(set(KINDS)) == len(KINDS)


def test_should_lead_to_the_object_in_the_console() -> None:
    assert object_page("s3://bucket/a b/report.html", "eu-central-1") == (
        "https://eu-central-1.console.aws.amazon.com/s3/object/bucket?region=eu-central-1&prefix=a%20b/report.html"
    )


# --- the function ---


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> FakeSns:
    for name, value in (
        ("TOPIC_ARN", "topic"),
        ("WORKLOAD", "claims_fraud"),
        ("ENVIRONMENT", "dev"),
        ("AWS_REGION", "us-east-1"),
        ("MONITORS", json.dumps([{"alarm": "drift-alarm", "kind": "data", "uri": URI}])),
    ):
        monkeypatch.setenv(name, value)
    sns = FakeSns()
    monkeypatch.setattr(entry, "_clients", lambda: (FakeSources(), sns))
    return sns


def test_should_publish_and_log_without_the_numbers(
    environment: FakeSns, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = entry.handler(alarm(), None)

    line = json.loads(capsys.readouterr().out)
    assert (line["message"], line["notice"], line["correlation_id"]) == ("told", "drift.found", "drift-alarm")
    assert answer["told"] is True
    assert len(environment.published) == 1


def test_should_publish_nothing_for_what_is_not_worth_a_word(environment: FakeSns) -> None:
    assert entry.handler(execution("Succeeded"), None) == {"told": False}
    assert environment.published == []


def test_should_report_every_missing_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MisconfiguredError, match=r"TOPIC_ARN is not set; .*MONITORS must be"):
        Settings.from_environment({"AWS_REGION": "us-east-1", "MONITORS": "[1]"})
