"""Checks that read the deployed code: variables, metrics, grants."""

from __future__ import annotations

from typing import Any

import pytest
from verify_support import Mini

from verify.finding import Finding

Json = Any


def values(found: list[Finding]) -> list[str]:
    return sorted(finding.value for finding in found)


SETTINGS = """
import os


def read(environment):
    problems = [f"{name} is not set" for name in ("TABLE", "QUEUE") if not environment.get(name)]
    text = environment.get("HOURS", "")
    if not text.isdigit():
        problems.append("HOURS must be a number")
    mode = environment.get("MODE", "fast")
    if mode not in ("fast", "slow"):
        problems.append("MODE must be fast or slow")
    least = environment.get("LEAST", "")
    if least and not least.isdigit():
        problems.append("LEAST must be a number")
    return problems, environment["BUCKET"]


def handler(event, context):
    return read(os.environ)
"""


def test_should_pass_variables_that_are_set_and_read(mini: Mini) -> None:
    mini.function(SETTINGS, variables={"TABLE": "t", "QUEUE": "q", "HOURS": "1", "BUCKET": "b"})
    assert mini.found("variables") == []


@pytest.mark.parametrize("missing", ["TABLE", "QUEUE", "HOURS", "BUCKET"])
def test_should_catch_a_variable_that_the_code_cannot_do_without(mini: Mini, missing: str) -> None:
    given = {"TABLE": "t", "QUEUE": "q", "HOURS": "1", "BUCKET": "b"}
    mini.function(SETTINGS, variables={name: value for name, value in given.items() if name != missing})
    assert values(mini.found("variables")) == [
        f"variable {missing} is not set and work.handler.handler cannot do without it"
    ]


@pytest.mark.parametrize("name", ["TABEL", "UNUSED"])
def test_should_catch_a_variable_that_nobody_reads(mini: Mini, name: str) -> None:
    given = {"TABLE": "t", "QUEUE": "q", "HOURS": "1", "BUCKET": "b", name: "x", "AWS_RETRY_MODE": "standard"}
    mini.function(SETTINGS, variables=given)
    assert values(mini.found("variables")) == [
        f"variable {name} is set and work.handler.handler never reads it"
    ]


def test_should_follow_constants_dataclasses_and_nested_functions(mini: Mini) -> None:
    mini.function(
        """
import os
from dataclasses import dataclass, fields

SERVER = "TRACKING_SERVER"


@dataclass
class Settings:
    table: str
    queue: str = ""

    @classmethod
    def from_environment(cls, environment, *needed):
        values = {field.name: environment.get(field.name.upper(), "") for field in fields(cls)}
        missing = [name.upper() for name in ("table", *needed) if not values[name]]
        if missing:
            raise ValueError(missing)
        return cls(**values)


def handler(event, context):
    def whole(name):
        return int(os.environ.get(name, "0"))

    return Settings.from_environment(os.environ, "queue"), whole("KEEP"), os.environ.get(SERVER)
""",
        variables={"TABLE": "t", "KEEP": "1", "TRACKING_SERVER": "s"},
    )
    assert values(mini.found("variables")) == [
        "variable QUEUE is not set and work.handler.handler cannot do without it"
    ]


def test_should_not_let_a_read_pass_whose_name_it_cannot_see(mini: Mini) -> None:
    mini.function(
        "import os\ndef handler(event, context):\n    return os.environ[event['name']]\n",
        variables={"A": "1"},
    )
    assert values(mini.found("variables")) == [
        "work.handler:3 reads a variable whose name the code does not say"
    ]


def test_should_ignore_code_that_the_entry_does_not_reach(mini: Mini) -> None:
    mini.function(
        "import os\ndef handler(event, context): ...\ndef other(event, context):\n    os.environ['X']\n"
    )
    assert mini.found("variables") == []


def test_should_read_the_variables_of_a_container(mini: Mini) -> None:
    digest = mini.code(
        {
            "Dockerfile": 'FROM python\nENTRYPOINT ["python", "-m", "judge"]\n',
            "judge/__init__.py": "",
            "judge/__main__.py": "import os\nprint(os.environ['CAPTURE_URI'])\n",
        },
        image=True,
    )
    job = {
        "AppSpecification": {"ImageUri": f"registry/assets:{digest}"},
        "Environment": {"CAPTURE_URL": "s3://b"},
    }
    import json

    mini.add(
        "Schedule", "AWS::Scheduler::Schedule", {"Target": {"Arn": "arn:aws:x", "Input": json.dumps(job)}}
    )
    assert values(mini.found("variables")) == [
        "variable CAPTURE_URI is not set and judge.__main__ cannot do without it",
        "variable CAPTURE_URL is set and judge.__main__ never reads it",
    ]


PUBLISHER = """
import boto3

NAMESPACE = "Ours"


def metrics(values, kind):
    common = [{"Name": "Environment", "Value": "dev"}]
    data = [{"MetricName": name, "Dimensions": common, "Value": v} for name, v in values.items()]
    data += [{"MetricName": f"{kind}Drift", "Dimensions": [*common, {"Name": "Feature", "Value": "f"}]}]
    boto3.client("cloudwatch").put_metric_data(Namespace=NAMESPACE, MetricData=data)


def handler(event, context):
    metrics({"Violations": 1.0}, event["kind"])
"""


def alarm(namespace: str, name: str, *dimensions: str) -> Json:
    return {
        "Namespace": namespace,
        "MetricName": name,
        "Dimensions": [{"Name": dimension, "Value": "x"} for dimension in dimensions],
    }


@pytest.mark.parametrize(
    ("metric", "caught"),
    [
        (alarm("Ours", "Violations", "Environment"), False),
        (alarm("Ours", "QualityDrift", "Environment", "Feature"), False),
        (alarm("AWS/Lambda", "Errors", "FunctionName"), False),
        (alarm("Ours", "Violation", "Environment"), True),
        (alarm("Ours", "Violations", "Environment", "Workload"), True),
        (alarm("Ours", "Violations"), True),
        (alarm("Theirs", "Violations", "Environment"), True),
        (alarm("AWS/Lambda", "Error", "FunctionName"), True),
        (alarm("AWS/SageMaker", "Invocation5XXErrors", "EndpointName"), True),
    ],
)
def test_should_catch_an_alarm_on_what_nobody_publishes(mini: Mini, metric: Json, caught: bool) -> None:
    mini.function(PUBLISHER)
    mini.add("Alarm", "AWS::CloudWatch::Alarm", metric)
    assert bool(mini.found("metrics")) is caught


def test_should_read_dashboards_with_their_dots_and_searches(mini: Mini) -> None:
    import json

    mini.function(PUBLISHER)
    search = "SEARCH('{Ours,Environment,Features} MetricName=\"QualityDrift\"', 'Maximum', 300)"
    rows = [
        ["Ours", "Violations", "Environment", "dev"],
        [".", "Violation", ".", "."],
        [{"expression": search}],
    ]
    body = {"widgets": [{"type": "metric", "properties": {"metrics": rows}}]}
    mini.add("Board", "AWS::CloudWatch::Dashboard", {"DashboardBody": json.dumps(body)})
    assert values(mini.found("metrics")) == [
        "nobody publishes Ours QualityDrift by Environment, Features",
        "nobody publishes Ours Violation by Environment",
    ]


def test_should_know_metrics_of_log_lines_and_filters(mini: Mini) -> None:
    mini.function(
        """
import json


def handler(event, context):
    print(json.dumps({
        "_aws": {"CloudWatchMetrics": [
            {"Namespace": "Lines", "Dimensions": [["Workload"]], "Metrics": [{"Name": "Seen"}]}
        ]},
        "Workload": "w",
        "Seen": 1,
    }))
"""
    )
    transformation = {"MetricNamespace": "Filters", "MetricName": "Refused", "MetricValue": "1"}
    mini.add("Filter", "AWS::Logs::MetricFilter", {"MetricTransformations": [transformation]})
    mini.add("Good", "AWS::CloudWatch::Alarm", alarm("Lines", "Seen", "Workload"))
    mini.add("Also", "AWS::CloudWatch::Alarm", alarm("Filters", "Refused"))
    mini.add("Bad", "AWS::CloudWatch::Alarm", alarm("Lines", "Seen"))
    assert [finding.place for finding in mini.found("metrics")] == ["Dev/Main Bad: MetricName"]


CALLER = """
import boto3


class Store:
    def __init__(self, client):
        self._client = client

    def keep(self, key):
        self._client.put_object(Bucket="b", Key=key)
        return self._client.get_paginator("list_objects_v2").paginate(Bucket="b")


def handler(event, context):
    store = Store(boto3.client("s3"))
    store.keep("k")
    machine = boto3.client("sagemaker")
    machine.create_processing_job(ProcessingJobName="j", RoleArn="r")
"""
NEEDED = ("s3:PutObject", "s3:ListBucket", "sagemaker:CreateProcessingJob", "iam:PassRole")


def test_should_pass_calls_that_are_granted(mini: Mini) -> None:
    mini.function(CALLER, actions=NEEDED)
    assert mini.found("grants") == []


@pytest.mark.parametrize("missing", NEEDED)
def test_should_catch_a_call_that_nothing_grants(mini: Mini, missing: str) -> None:
    mini.function(CALLER, actions=tuple(action for action in NEEDED if action != missing))
    (finding,) = mini.found("grants")
    assert (finding.severity, finding.allowed) == ("error", missing)


def test_should_take_wildcards_for_what_they_grant(mini: Mini) -> None:
    mini.function(CALLER, actions=("s3:Put*", "s3:List*", "sagemaker:*", "iam:PassRole"))
    assert mini.found("grants") == []


def test_should_remark_a_grant_that_nobody_uses(mini: Mini) -> None:
    mini.function(CALLER, actions=(*NEEDED, "s3:DeleteObject", "logs:PutLogEvents"))
    (finding,) = mini.found("grants")
    assert (finding.severity, finding.place) == ("warning", "Dev/Main FunctionRolePolicy: s3:DeleteObject")


def test_should_hold_machines_schedules_and_rules_against_their_roles(mini: Mini) -> None:
    import json

    mini.role("Role", ("s3:GetObject",))
    role = {"Fn::GetAtt": ["Role", "Arn"]}
    state = {"Type": "Task", "Resource": "arn:aws:states:::aws-sdk:glue:startJobRun", "Parameters": {}}
    definition = json.dumps({"StartAt": "A", "States": {"A": state}})
    mini.add("Machine", "AWS::StepFunctions::StateMachine", {"DefinitionString": definition, "RoleArn": role})
    target = {"Arn": "arn:aws:scheduler:::aws-sdk:sqs:sendMessage", "RoleArn": role, "Input": "{}"}
    mini.add("Schedule", "AWS::Scheduler::Schedule", {"Target": target})
    targets = [{"Id": "T", "Arn": {"Ref": "Machine"}, "RoleArn": role}]
    mini.add("Rule", "AWS::Events::Rule", {"ScheduleExpression": "rate(1 day)", "Targets": targets})
    assert sorted(finding.allowed for finding in mini.found("grants")) == [
        "glue:StartJobRun",
        "sqs:SendMessage",
        "states:StartExecution",
    ]


def test_should_know_events_that_our_code_and_machines_send(mini: Mini) -> None:
    import json

    mini.function(
        """
import boto3


def handler(event, context):
    boto3.client("events").put_events(Entries=[{"Source": "ours.code", "DetailType": "Done", "Detail": "{}"}])
""",
        actions=("events:PutEvents",),
    )
    entry = {"Source": "ours.machine", "DetailType": "Landed", "Detail": {"status": "ok", "rows.$": "$.n"}}
    state = {
        "Type": "Task",
        "Resource": "arn:aws:states:::events:putEvents",
        "Parameters": {"Entries": [entry]},
    }
    definition = json.dumps({"StartAt": "A", "States": {"A": state}})
    mini.add("Machine", "AWS::StepFunctions::StateMachine", {"DefinitionString": definition})

    def rule(source: str, kind: str, detail: Json) -> Json:
        return {"EventPattern": {"source": [source], "detail-type": [kind], "detail": detail}, "Targets": []}

    mini.add("Code", "AWS::Events::Rule", rule("ours.code", "Done", {}))
    mini.add("Machines", "AWS::Events::Rule", rule("ours.machine", "Landed", {"status": ["ok"]}))
    mini.add("Rows", "AWS::Events::Rule", rule("ours.machine", "Landed", {"rows": [{"numeric": [">", 0]}]}))
    assert mini.found("events") == []
    mini.add("Typo", "AWS::Events::Rule", rule("ours.code", "Dnoe", {}))
    mini.add("Field", "AWS::Events::Rule", rule("ours.machine", "Landed", {"state": ["ok"]}))
    mini.add("Value", "AWS::Events::Rule", rule("ours.machine", "Landed", {"status": ["failed"]}))
    places = sorted(finding.place.split(":")[0] for finding in mini.found("events"))
    assert places == ["Dev/Main Field", "Dev/Main Typo", "Dev/Main Value"]


RESOURCE = """
def apply(event):
    properties = event["ResourceProperties"]
    if event["RequestType"] == "Delete":
        return None
    return properties["Bucket"], make(properties)


def make(wanted):
    return wanted["Key"], wanted.get("Size")


def handler(event, context):
    return apply(event)
"""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"Bucket": "b", "Key": "k"}, []),
        ({"Bucket": "b", "Key": "k", "Size": 1}, []),
        ({"Bucket": "b"}, ["Key is not given and Function reads it"]),
        ({"Bucket": "b", "Key": "k", "Colour": 1}, ["Colour is given and Function never reads it"]),
    ],
)
def test_should_hold_a_custom_resource_against_its_function(
    mini: Mini, given: Json, expected: list[str]
) -> None:
    mini.function(RESOURCE)
    mini.add("Thing", "Custom::Thing", {"ServiceToken": {"Fn::GetAtt": ["Function", "Arn"]}, **given})
    assert values(mini.found("parameters")) == expected
