"""The streaming job: defaults, options, errors, exact grants."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from cdk_nag import AwsSolutionsChecks
from cdk_support import Template, actions, cdk_context, only, resources, statements, synthesise_stacks
from data_support import Surroundings, parcels
from ml_contract.compiled import CompiledContract
from ml_lifecycle.ingestion import StreamIngestion
from ml_lifecycle.processing import StreamingTransform
from ml_lifecycle.processing.streaming import STREAMING_MODULES


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> CompiledContract:
    return parcels(tmp_path_factory.mktemp("workloads")).compiled


def streaming(
    stack: cdk.Stack, contract: CompiledContract, *, tell: bool = False, **options: Any
) -> StreamingTransform:
    around = Surroundings(stack, contract)
    ingestion = StreamIngestion(
        stack,
        "Ingestion",
        contract=contract,
        zone=around.lake.raw,
        stream_key=around.key,
        log_key=around.log_key,
    )
    return StreamingTransform(
        stack,
        "Live",
        contract=contract,
        name_prefix="t-parcel-delay",
        ingestion=ingestion,
        zone=around.lake.raw,
        checkpoints=around.lake.artifacts,
        log_key=around.log_key,
        failure_topic=around.topic if tell else None,
        **options,
    )


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory, contract: CompiledContract) -> dict[str, Template]:
    def grants(stack: cdk.Stack) -> None:
        built = streaming(stack, contract)
        role = iam.Role(stack, "Operator", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        built.grant_start(role)
        built.grant_read(role)

    return synthesise_stacks(
        tmp_path_factory.mktemp("streaming"),
        {
            "Default": lambda stack: streaming(stack, contract),
            "Options": lambda stack: streaming(
                stack, contract, tell=True, window_seconds=30, worker_type="G.1X", workers=5
            ),
            "Grants": grants,
        },
    )


def test_should_run_one_small_job_that_is_started_again_when_it_ends(templates: dict[str, Template]) -> None:
    job = only(templates["Default"], "AWS::Glue::Job")
    assert job["Command"]["Name"] == "gluestreaming"
    assert (job["WorkerType"], job["NumberOfWorkers"], job["GlueVersion"]) == ("G.025X", 2, "5.0")
    assert job["ExecutionProperty"] == {"MaxConcurrentRuns": 1}
    assert job["Timeout"] == 10_079
    assert job["SecurityConfiguration"]
    schedule = only(templates["Default"], "AWS::Scheduler::Schedule")
    assert schedule["ScheduleExpression"] == "rate(15 minutes)"
    assert schedule["Target"]["RetryPolicy"]["MaximumRetryAttempts"] == 0
    given = json.dumps(schedule["Target"]["Input"])
    assert "JobName" in given


def test_should_hand_the_job_exactly_the_arguments_it_reads(templates: dict[str, Template]) -> None:
    from curate_stream.job import ARGUMENTS, OPTIONAL

    for name, window, files in (("Default", "100", "1"), ("Options", "30", "4")):
        found = only(templates[name], "AWS::Glue::Job")["DefaultArguments"]
        own = {a.removeprefix("--") for a in found if "-" not in a.removeprefix("--")}
        assert set(ARGUMENTS) <= own <= {*ARGUMENTS, *OPTIONAL}
        assert (found["--window_seconds"], found["--files"]) == (window, files)


def test_should_install_what_the_project_is_tested_with() -> None:
    from importlib.metadata import version

    assert {module.split("==")[0] for module in STREAMING_MODULES} == {"msgspec", "pyarrow"}
    for module in STREAMING_MODULES:
        name, _, pinned = module.partition("==")
        assert version(name) == pinned


def test_should_find_its_rows_by_day_without_a_crawler(templates: dict[str, Template]) -> None:
    (table,) = [
        t["Properties"]["TableInput"]
        for t in resources(templates["Default"], "AWS::Glue::Table").values()
        if t["Properties"]["TableInput"]["Name"] == "parcel_delay_live"
    ]
    assert table["Parameters"]["projection.enabled"] == "true"
    names = [column["Name"] for column in table["StorageDescriptor"]["Columns"]]
    assert names[-2:] == ["record_id", "received_at"]


def test_should_read_the_stream_and_write_its_own_prefixes_only(templates: dict[str, Template]) -> None:
    allowed = actions(statements(templates["Default"], "LiveRole"))
    assert {a for a in allowed if a.startswith("kinesis:")} == {
        "kinesis:DescribeStream",
        "kinesis:GetRecords",
        "kinesis:GetShardIterator",
        "kinesis:ListShards",
    }
    assert not {a for a in allowed if a.startswith("glue:")}
    deleting = [
        json.dumps(s["Resource"])
        for s in statements(templates["Default"], "LiveRole")
        if "s3:DeleteObject" in s["Action"]
    ]
    assert deleting
    assert all("checkpoints" in one or "parcel-delay" in one for one in deleting)
    assert not any("parcel-delay/live/" in one for one in deleting), "what landed stays"
    schedule = actions(statements(templates["Default"], "LiveScheduleRole"))
    assert schedule == {"glue:StartJobRun"}


def test_should_grant_an_operator_the_job_and_the_rows(templates: dict[str, Template]) -> None:
    allowed = actions(statements(templates["Grants"], "Operator"))
    assert {a for a in allowed if a.startswith("glue:")} == {
        "glue:BatchStopJobRun",
        "glue:GetJobRun",
        "glue:GetJobRuns",
        "glue:StartJobRun",
    }
    assert "s3:GetObject" in allowed
    assert "s3:PutObject" not in allowed


def test_should_tell_a_failure_where_it_is_asked_to(templates: dict[str, Template]) -> None:
    def told(template: Template) -> list[Any]:
        rules = resources(template, "AWS::Events::Rule")
        return [rule for name, rule in rules.items() if name.startswith("LiveFailures")]

    assert not told(templates["Default"])
    (rule,) = told(templates["Options"])
    assert rule["Properties"]["EventPattern"]["detail"]["state"] == ["FAILED", "TIMEOUT"]


def test_should_name_every_wrong_option_at_once(contract: CompiledContract) -> None:
    stack = cdk.Stack(cdk.App(context=cdk_context()), "Wrong")
    with pytest.raises(ValueError, match=r"window_seconds .* got 5; workers .* got 1; worker_type .* 'G.9X'"):
        streaming(stack, contract, window_seconds=5, workers=1, worker_type="G.9X")


def test_should_pass_the_security_rules(contract: CompiledContract, tmp_path: Path) -> None:
    app = cdk.App(context=cdk_context(), outdir=str(tmp_path))
    stack = cdk.Stack(app, "Nag")
    streaming(stack, contract, tell=True)
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    # The keys and the topic around it are plain on purpose: what is raised names them, and them alone.
    with pytest.raises(RuntimeError, match="Nag/DataKey") as found:
        app.synth()
    assert "Nag/Live" not in str(found.value)
