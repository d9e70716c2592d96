"""All models of an environment on a page: those that need somebody come first, silence is no health."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from model_dashboard.collect import Alarm, Model, Monitor, Series, collect
from model_dashboard.page import page
from model_dashboard.settings import MisconfiguredError, Settings

NOW = datetime(2026, 11, 21, 12, 50, tzinfo=UTC)
HOUR = timedelta(hours=1)
ARN = "arn:aws:sagemaker:us-east-1:1:model-package/dev-trips/2"


def series(*values: float, until: datetime = NOW) -> Series:
    return Series(points=tuple((until - HOUR * (len(values) - n), v) for n, v in enumerate(values, 1)))


def monitor(kind: str = "data", **given: Any) -> Monitor:
    return Monitor(
        **{
            "kind": kind,
            "violations": series(0),
            "unjudged": series(0),
            "records": series(10),
            "report": None,
            **given,
        }
    )


def model(**given: Any) -> Model:
    return Model(
        **{
            "name": "trips",
            "title": "Trips <of taxis>",
            "group": "dev-trips",
            "approved": ARN,
            "endpoint": "dev-trips",
            "endpoint_status": "InService",
            "versions": (),
            "monitors": (monitor(),),
            "requests": series(5, 7),
            "errors": Series(),
            "latency_ms": series(3.2),
            **given,
        }
    )


@pytest.mark.parametrize(
    ("violations", "unjudged", "verdict"),
    [
        (Series(), Series(), "no run"),
        (series(0), series(0), "quiet"),
        (series(0, 3), series(0, 0), "violations"),
        # The newest run could not judge, whatever the one before it said.
        (series(0, until=NOW - HOUR), series(0, 1), "not judged"),
        (Series(), series(1), "not judged"),
        (series(0), series(1, 0), "quiet"),
    ],
)
def test_should_say_what_the_newest_run_said(violations: Series, unjudged: Series, verdict: str) -> None:
    assert monitor(violations=violations, unjudged=unjudged).verdict == verdict


def test_should_take_nothing_for_health_that_was_not_judged() -> None:
    assert model().state == "good"
    assert (
        model(monitors=(monitor(), monitor("bias", violations=Series(), unjudged=Series()))).state
        == "unknown"
    )
    assert model(approved=None).state == "unknown"
    ringing = Alarm(name="a", state="ALARM", since=NOW, what="it drifts")
    assert model(alarms=(ringing,), approved=None).state == "alarm"


def test_should_write_a_page_without_anything_from_elsewhere() -> None:
    ringing = Alarm(
        name="a", state="ALARM", since=NOW, what="it drifts <much>. Runbook: docs/runbooks/drift.md"
    )
    text = page(
        [
            model(
                alarms=(ringing,),
                versions=({"arn": ARN, "version": "2", "status": "Approved", "made": "2026-11-20 10:00"},),
            ),
            model(endpoint=None, monitors=(), title="No endpoint"),
        ],
        environment="dev",
        now=NOW,
    )
    assert "Trips &lt;of taxis&gt;" in text
    assert "it drifts &lt;much&gt;" in text
    assert "1 with an alarm" in text
    assert "12 requests" in text
    assert "Nothing watches it" in text
    assert "src=" not in text
    assert "http" not in text
    assert "<script" not in text


class Cloud:
    """What the function asks, of one workload."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.operation = ""

    def get_paginator(self, operation: str) -> Cloud:
        self.operation = operation
        return self

    def paginate(self, **arguments: Any) -> Iterator[dict[str, Any]]:
        self.asked.append(arguments)
        if self.operation == "get_metric_data":
            points = {"data_violations": 2.0, "data_unjudged": 0.0, "requests": 9.0, "latency": 4_000.0}
            for query in arguments["MetricDataQueries"]:
                value = points.get(query["Id"])
                times = [] if value is None else [NOW - HOUR]
                values = [] if value is None else [value]
                yield {"MetricDataResults": [{"Id": query["Id"], "Timestamps": times, "Values": values}]}
        elif self.operation == "describe_alarms":
            yield {
                "MetricAlarms": [
                    {"AlarmName": "x", "StateValue": "OK"},
                    {"AlarmName": "y", "StateValue": "INSUFFICIENT_DATA"},
                    {"AlarmName": "z", "StateValue": "ALARM", "AlarmDescription": "drift"},
                ]
            }
        else:
            keys = ("a/report.html", "b/report.html", "b/report.json")
            yield {
                "Contents": [
                    {"Key": f"{arguments['Prefix']}{key}", "LastModified": NOW + HOUR * n}
                    for n, key in enumerate(keys)
                ]
            }

    def get_parameter(self, *, Name: str) -> dict[str, Any]:  # noqa: N803
        assert Name == "/ml-lifecycle/dev/trips/approved"
        raise ClientError({"Error": {"Code": "ParameterNotFound"}}, "GetParameter")

    def describe_endpoint(self, *, EndpointName: str) -> dict[str, Any]:  # noqa: N803
        assert EndpointName == "dev-trips"
        raise ClientError({"Error": {"Code": "ValidationException"}}, "DescribeEndpoint")

    def list_model_packages(self, **_: Any) -> dict[str, Any]:
        summary = {"ModelPackageArn": ARN, "ModelPackageVersion": 2, "CreationTime": NOW}
        return {"ModelPackageSummaryList": [{**summary, "ModelApprovalStatus": "Approved"}]}


def shown(folder: Path) -> Settings:
    file = folder / "models.json"
    one = {
        "name": "trips",
        "title": "Trips",
        "slug": "trips",
        "group": "dev-trips",
        "approved": "/ml-lifecycle/dev/trips/approved",
        "endpoint": "dev-trips",
        "variant": "AllTraffic",
        "alarms": ["Dev-TripsOperations-"],
        "kinds": ["data", "quality"],
    }
    file.write_text(json.dumps([one]))
    return Settings.read(
        {"ENVIRONMENT": "dev", "ARTIFACTS_BUCKET": "artifacts", "PAGE_PREFIX": "model-dashboard/"}, file
    )


def test_should_ask_about_every_model_and_bear_what_is_not_there_yet(tmp_path: Path) -> None:
    cloud = Cloud()
    clients = dict.fromkeys(("sagemaker", "ssm", "cloudwatch", "s3"), cloud)
    [found] = collect(clients, shown(tmp_path), now=NOW)
    assert (found.state, found.approved, found.endpoint_status) == ("alarm", None, "not there")
    assert [alarm.name for alarm in found.alarms] == ["z"]
    assert {one.kind: one.verdict for one in found.monitors} == {"data": "violations", "quality": "no run"}
    assert found.monitors[0].report == "trips/monitoring/b/report.html"
    assert found.latency_ms.last == (NOW - HOUR, 4.0)
    names = {
        q["MetricStat"]["Metric"]["MetricName"] for a in cloud.asked for q in a.get("MetricDataQueries", ())
    }
    assert {"Violations", "QualityUnjudged", "QualityRecordsJudged", "Invocations"} <= names
    assert json.loads(json.dumps(found.document(), default=str))["monitors"][0]["verdict"] == "violations"


def test_should_report_every_wrong_setting_at_once(tmp_path: Path) -> None:
    (tmp_path / "models.json").write_text("[{}]")
    with pytest.raises(MisconfiguredError) as error:
        Settings.read({"ENVIRONMENT": "dev"}, tmp_path / "models.json")
    for part in ("ARTIFACTS_BUCKET is not set", "PAGE_PREFIX is not set", "models.json must be a list"):
        assert part in str(error.value)
