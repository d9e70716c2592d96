"""Saved queries, the environment's dashboard, the forwarder of spans: defaults, options, refusals, grants."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from cdk_support import Template, actions, only, resources, statements, synthesise_stacks
from ml_lifecycle.observability import QUERIES, PlatformDashboard, SavedQueries, SpanForwarder

from environments import Observability, Tracing
from rehearsal.story.operations.observability import metrics_of, searched


def key(stack: cdk.Stack) -> kms.IKey:
    return kms.Key(stack, "Key")


def platform(stack: cdk.Stack) -> None:
    PlatformDashboard(
        stack,
        "Platform",
        name="dev",
        environment_name="dev",
        stage="Dev",
        workloads={"Fraud": "dev-fraud", "Calls": "dev-calls"},
        topic=sns.Topic(stack, "Topic"),
    )


def forwarder(stack: cdk.Stack) -> None:
    spans = SpanForwarder(stack, "Spans", log_key=key(stack), endpoint="http://collector:4318")
    spans.subscribe("Of", logs.LogGroup(stack, "Group", log_group_name="/lines"))
    function = lambda_.Function(
        stack,
        "Traced",
        runtime=lambda_.Runtime.PYTHON_3_13,
        handler="h.h",
        code=lambda_.Code.from_inline("def h(e, c): ..."),
    )
    spans.sample(function)


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Template]:
    return synthesise_stacks(
        tmp_path_factory.mktemp("observability"),
        {
            "Queries": lambda stack: SavedQueries(
                stack,
                "Queries",
                folder="dev/fraud",
                groups={"ingestion": ["/a", "/b"], "decisions": ["/c", "/a"], "serving": []},
            ),
            "Anything": lambda stack: SavedQueries(
                stack, "Queries", folder="dev", groups={"everything": [], "jobs": ["/jobs"]}
            ),
            "Platform": platform,
            "Spans": forwarder,
            "XRay": lambda stack: SpanForwarder(stack, "Spans", log_key=key(stack)),
        },
    )


def queries_of(template: Template) -> dict[str, list[str] | None]:
    """Log groups of each saved query by its name."""
    found = resources(template, "AWS::Logs::QueryDefinition").values()
    return {r["Properties"]["Name"]: r["Properties"].get("LogGroupNames") for r in found}


def test_should_save_each_query_once_over_the_groups_of_its_sources(templates: dict[str, Template]) -> None:
    found = queries_of(templates["Queries"])
    read = {"ingestion", "decisions", "serving"}
    assert set(found) == {f"dev/fraud/{n}" for n, query in QUERIES.items() if read.intersection(query.reads)}
    assert found["dev/fraud/failures"] == ["/a", "/b", "/c"]
    assert found["dev/fraud/quarantined records"] == ["/a", "/b"]
    assert found["dev/fraud/decisions"] == ["/c", "/a"]


def test_should_leave_the_groups_to_the_operator(templates: dict[str, Template]) -> None:
    assert queries_of(templates["Anything"]) == {"dev/follow one id": None, "dev/long jobs": ["/jobs"]}
    # Which logs an endpoint of its own kind writes to is not known.
    assert queries_of(templates["Queries"])["dev/fraud/slow predictions"] is None


def test_should_refuse_more_groups_than_logs_insights_takes() -> None:
    stack = cdk.Stack(cdk.App(), "Many")
    with pytest.raises(ValueError, match="groups of 'long jobs' must be at most 50, got 51"):
        SavedQueries(stack, "Queries", folder="f", groups={"jobs": [f"/{n}" for n in range(51)]})


def body_of(template: Template) -> dict[str, Any]:
    given = only(template, "AWS::CloudWatch::Dashboard")["DashboardBody"]
    text = (
        given
        if isinstance(given, str)
        else "".join(p if isinstance(p, str) else "x" for p in given["Fn::Join"][1])
    )
    body: dict[str, Any] = json.loads(text)
    return body


def test_should_search_by_the_environments_name_and_link_to_each_workload(
    templates: dict[str, Template],
) -> None:
    widgets = body_of(templates["Platform"])["widgets"]
    shown = {(namespace, name) for widget in widgets for namespace, name, _ in metrics_of(widget)}
    assert shown >= {
        ("AWS/SageMaker", "Invocations"),
        ("MLLifecycle", "Violations"),
        ("MLLifecycle", "AttributionViolations"),
        ("AWS/SQS", "ApproximateNumberOfMessagesVisible"),
        ("AWS/Billing", "EstimatedCharges"),
    }
    text = widgets[0]["properties"]["markdown"]
    assert "#dashboards:name=dev-fraud" in text
    assert "#dashboards:name=dev-calls" in text


def test_should_alarm_on_throttled_functions_of_the_whole_region(templates: dict[str, Template]) -> None:
    alarm = only(templates["Platform"], "AWS::CloudWatch::Alarm")
    assert alarm["MetricName"] == "Throttles"
    assert alarm.get("Dimensions", []) == []
    assert alarm["AlarmDescription"].endswith("functions-throttled.md")


def test_should_send_lines_with_spans_to_the_collector(templates: dict[str, Template]) -> None:
    template = templates["Spans"]
    subscription = only(template, "AWS::Logs::SubscriptionFilter")
    assert subscription["FilterPattern"] == '"otlp"'
    functions = [r["Properties"] for r in resources(template, "AWS::Lambda::Function").values()]
    variables = [f.get("Environment", {}).get("Variables", {}) for f in functions]
    assert {"OTLP_ENDPOINT": "http://collector:4318"} in variables
    assert {"TRACE_SAMPLE_RATIO": "0.05"} in variables
    assert only(template, "AWS::Lambda::Permission")["Principal"] == "logs.amazonaws.com"
    assert not any(a.startswith("xray:") for a in actions(statements(template, "SpansFunctionRole")))


def test_should_ask_xray_without_a_collector(templates: dict[str, Template]) -> None:
    found = actions(statements(templates["XRay"], "SpansFunctionRole"))
    assert "xray:PutTraceSegments" in found


def test_should_refuse_a_share_that_is_none() -> None:
    stack = cdk.Stack(cdk.App(), "None")
    with pytest.raises(ValueError, match="sample_ratio must be above 0 and at most 1, got 0"):
        SpanForwarder(stack, "Spans", log_key=key(stack), sample_ratio=0)
    with pytest.raises(
        ValueError, match=r"endpoint must be .* got 'collector'; sample_ratio must be .* got 2"
    ):
        Tracing(endpoint="collector", sample_ratio=2)
    with pytest.raises(ValueError, match=r"silent_endpoint_hours must be between 1 and 168 .* got 169"):
        Observability(silent_endpoint_hours=169)


def test_should_watch_nothing_of_the_environment_unless_asked() -> None:
    assert Observability() == Observability(platform=False, silent_endpoint_hours=None)
    assert Tracing() == Tracing(endpoint=None, sample_ratio=0.05)


def test_should_read_what_a_search_looks_for() -> None:
    schema = "{AWS/SageMaker,EndpointName,VariantName}"
    text = f"SEARCH('{schema} MetricName=\"Invocations\" EndpointName=dev', 'Sum', 300)"
    assert searched(text) == (
        "AWS/SageMaker",
        "Invocations",
        {"EndpointName": "dev", "VariantName": ""},
    )
    assert searched("m1 / m2") is None


def test_should_have_a_page_of_the_constructs() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "observability.md"
    assert "SpanForwarder" in page.read_text(encoding="utf-8")
