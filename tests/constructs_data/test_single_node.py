"""The batch engine on one machine, and the workflow that all engines but Glue's share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from cdk_support import Template, actions, cdk_context, only, resources, statements, synthesise_stacks
from data_support import Surroundings, parcels
from ml_contract.compiled import CompiledContract
from ml_lifecycle.acknowledge import acknowledge
from ml_lifecycle.data_lake import parquet_table
from ml_lifecycle.features import FeatureGroup
from ml_lifecycle.processing import EmrServerlessTransform, SingleNodeTransform
from ml_lifecycle.processing.workflow import short_name


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> CompiledContract:
    return parcels(tmp_path_factory.mktemp("workloads")).compiled


def around(stack: cdk.Stack, contract: CompiledContract, *, tell: bool) -> dict[str, Any]:
    """What both engines are given."""
    found = Surroundings(stack, contract)
    table = parquet_table(
        stack,
        "RawTable",
        zone=found.lake.raw,
        name=contract.name,
        columns=contract.glue_columns(),
        prefix="parcel-delay/data/",
        partition_key=("ingest_date", "string"),
    )
    group = FeatureGroup(
        stack,
        "Features",
        contract=contract,
        name_prefix="t-p",
        zone=found.lake.features,
        online_key=found.key,
    )
    return {
        "contract": contract,
        "name_prefix": "t-parcel-delay",
        "lake": found.lake,
        "raw_table": table,
        "raw_prefix": "parcel-delay/data/",
        "feature_group": group,
        "log_key": found.log_key,
        "failure_topic": found.topic if tell else None,
    }


def single(
    stack: cdk.Stack, contract: CompiledContract, *, tell: bool = True, **options: Any
) -> SingleNodeTransform:
    given = around(stack, contract, tell=tell)
    key = stack.node.find_child("DataKey")
    return SingleNodeTransform(stack, "Batch", volume_key=key, **{**given, **options})  # type: ignore[arg-type]


def spark(
    stack: cdk.Stack, contract: CompiledContract, *, tell: bool = True, **options: Any
) -> EmrServerlessTransform:
    return EmrServerlessTransform(stack, "Batch", **{**around(stack, contract, tell=tell), **options})


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory, contract: CompiledContract) -> dict[str, Template]:
    def grants(stack: cdk.Stack) -> None:
        built = single(stack, contract)
        built.grant_start(iam.Role(stack, "Starter", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com")))

    return synthesise_stacks(
        tmp_path_factory.mktemp("single"),
        {
            "Default": lambda stack: single(stack, contract),
            "Options": lambda stack: single(
                stack,
                contract,
                tell=False,
                instance_type="ml.g4dn.xlarge",
                volume_gb=500,
                timeout=cdk.Duration.hours(5),
                schedule="rate(6 hours)",
                on_landing=False,
            ),
            "Grants": grants,
            "Emr": lambda stack: spark(stack, contract),
            "Labelled": lambda stack: single(stack, contract, labels=True),
            "EmrLabelled": lambda stack: spark(stack, contract, labels=True),
            "EmrOptions": lambda stack: spark(
                stack, contract, max_vcpu=400, max_memory_gb=3_000, idle_minutes=1, schedule=None
            ),
        },
    )


def definition(template: Template) -> dict[str, Any]:
    """The state machine, references as their logical ids."""
    (machine,) = resources(template, "AWS::StepFunctions::StateMachine").values()
    parts = machine["Properties"]["DefinitionString"]["Fn::Join"][1]
    text = "".join(part if isinstance(part, str) else next(iter(_flat(part))) for part in parts)
    found: dict[str, Any] = json.loads(text)
    return found


def _flat(part: dict[str, Any]) -> list[str]:
    value = next(iter(part.values()))
    return [value if isinstance(value, str) else ".".join(str(one) for one in value)]


def test_should_run_two_jobs_of_one_image_in_a_row(templates: dict[str, Template]) -> None:
    states = definition(templates["Default"])["States"]
    curate, features = states["Curate"], states["Features"]
    assert (curate["Next"], features["End"]) == ("Features", True)
    for state, step, command in ((curate, "curate", "curate"), (features, "features", "build_features")):
        assert state["Resource"].endswith(":states:::sagemaker:createProcessingJob.sync")
        request = state["Parameters"]
        assert request["AppSpecification"]["ContainerArguments"][0] == command
        assert request["ProcessingJobName.$"].startswith(f"States.Format('t-parcel-delay-{step}-{{}}'")
        assert request["Environment"] == {"RUN_ID.$": "$$.Execution.Name"}
        cluster = request["ProcessingResources"]["ClusterConfig"]
        assert (cluster["InstanceType"], cluster["VolumeSizeInGB"]) == ("ml.m5.xlarge", 60)
        assert cluster["VolumeKmsKeyId"].startswith("DataKey")
        assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 7_200}


def test_should_hand_each_job_exactly_the_arguments_it_reads(templates: dict[str, Template]) -> None:
    from ml_batch.__main__ import COMMANDS

    states = definition(templates["Default"])["States"]
    for name in ("Curate", "Features"):
        command, *words = states[name]["Parameters"]["AppSpecification"]["ContainerArguments"]
        _, required, optional = COMMANDS[command]
        given = {word.removeprefix("--") for word in words[::2]}
        assert set(required) - {"run_id"} <= given <= {*required, *optional}


@pytest.mark.parametrize("name", ["Labelled", "EmrLabelled"])
def test_should_let_only_the_feature_job_read_the_labels_that_people_gave(
    templates: dict[str, Template], name: str
) -> None:
    states = definition(templates[name])["States"]
    assert "t_curated.parcel_delay_labels" in json.dumps(states["Features"])
    assert "labels_table" not in json.dumps(states["Curate"])
    text = json.dumps(
        [
            p["Properties"]
            for p in resources(templates[name], "AWS::IAM::Policy").values()
            if "Features" in json.dumps(p["Properties"]["Roles"])
        ]
    )
    assert "/labels/parcel-delay/*" in text
    assert "parcel_delay_labels" in text
    assert "labels_table" not in json.dumps(templates["Default"])
    assert "parcel_delay_labels" not in json.dumps(templates["Default"])


def test_should_name_no_key_for_a_volume_that_the_machine_encrypts_itself(
    templates: dict[str, Template],
) -> None:
    cluster = definition(templates["Options"])["States"]["Curate"]["Parameters"]["ProcessingResources"]
    assert cluster["ClusterConfig"] == {
        "InstanceCount": 1,
        "InstanceType": "ml.g4dn.xlarge",
        "VolumeSizeInGB": 500,
    }


def test_should_let_one_run_work_one_wait_and_end_the_others(templates: dict[str, Template]) -> None:
    states = definition(templates["Default"])["States"]
    assert states["Alone"]["Choices"][0]["NumericLessThanEquals"] == 1
    first, second = states["Turn"]["Choices"]
    assert (first["Next"], second["Next"], states["Turn"]["Default"]) == ("Landed", "Wait", "Covered")
    assert states["Wait"]["Next"] == "Runs"
    assert states["Covered"]["Type"] == "Succeed"


def test_should_ask_again_when_throttled_and_tell_a_failure_once(templates: dict[str, Template]) -> None:
    states = definition(templates["Default"])["States"]
    for name in ("Curate", "Features"):
        (retry,) = states[name]["Retry"]
        assert "States.ALL" not in retry["ErrorEquals"], "a broken rule breaks again"
        assert "SageMaker.ThrottlingException" in retry["ErrorEquals"]
        (catch,) = states[name]["Catch"]
        assert (catch["ErrorEquals"], catch["Next"]) == (["States.ALL"], "Tell")
        # A null would be dropped on the way, and the result would take the input's place.
        assert states[name]["ResultSelector"] == {}
    assert states["Tell"]["Next"] == "Failed"
    assert states["Failed"]["ErrorPath"] == "$.error.Error"
    silent = definition(templates["Options"])["States"]
    assert "Tell" not in silent
    assert "Catch" not in silent["Curate"]


def test_should_start_when_data_lands_after_gathering_and_every_night(templates: dict[str, Template]) -> None:
    rule = only(templates["Default"], "AWS::Events::Rule")
    assert rule["EventPattern"]["detail"]["object"] == {"key": [{"prefix": "parcel-delay/data/"}]}
    assert json.loads(rule["Targets"][0]["Input"]) == {"gather_seconds": 300}
    schedule = only(templates["Default"], "AWS::Scheduler::Schedule")
    assert schedule["ScheduleExpression"] == "cron(0 2 * * ? *)"
    assert not resources(templates["Options"], "AWS::Events::Rule")


def test_should_give_each_role_what_it_touches_and_nothing_else(templates: dict[str, Template]) -> None:
    template = templates["Default"]
    machine = actions(statements(template, "BatchWorkflowRole"))
    assert {a for a in machine if a.startswith(("sagemaker", "iam", "sns", "states"))} == {
        "iam:PassRole",
        "sagemaker:AddTags",
        "sagemaker:CreateProcessingJob",
        "sagemaker:DescribeProcessingJob",
        "sagemaker:StopProcessingJob",
        "sns:Publish",
        "states:ListExecutions",
    }
    curate = actions(statements(template, "BatchCurateRole"))
    assert not {a for a in curate if a.startswith("sagemaker")}
    assert {"glue:UpdateTable", "glue:BatchCreatePartition"} <= curate
    assert "sagemaker:PutRecord" in actions(statements(template, "BatchFeaturesRole"))
    assert "glue:UpdateTable" not in actions(statements(template, "BatchFeaturesRole"))


def test_should_keep_its_tables_when_a_workload_outgrows_the_machine(templates: dict[str, Template]) -> None:
    def tables(template: Template) -> set[str]:
        kinds = ("Custom::IcebergTable", "AWS::Glue::Table")
        return {name for kind in kinds for name in resources(template, kind)}

    assert tables(templates["Default"]) == tables(templates["Emr"])


def test_should_grant_starting(templates: dict[str, Template]) -> None:
    assert actions(statements(templates["Grants"], "Starter")) == {
        "states:DescribeExecution",
        "states:DescribeStateMachine",
        "states:GetExecutionHistory",
        "states:ListExecutions",
        "states:StartExecution",
    }


def test_should_bound_the_spark_application_and_stop_it_when_idle(templates: dict[str, Template]) -> None:
    application = only(templates["Emr"], "AWS::EMRServerless::Application")
    assert application["MaximumCapacity"] == {"Cpu": "64 vCPU", "Memory": "256 GB"}
    assert application["AutoStopConfiguration"] == {"Enabled": True, "IdleTimeoutMinutes": 15}
    assert application["Type"] == "SPARK"
    options = only(templates["EmrOptions"], "AWS::EMRServerless::Application")
    assert options["MaximumCapacity"] == {"Cpu": "400 vCPU", "Memory": "3000 GB"}
    assert options["AutoStopConfiguration"]["IdleTimeoutMinutes"] == 1


def test_should_submit_the_same_jobs_with_a_key_for_disks_and_logs(templates: dict[str, Template]) -> None:
    from curate import job

    states = definition(templates["Emr"])["States"]
    request = states["Curate"]["Parameters"]
    assert states["Curate"]["Resource"].endswith(":states:::emr-serverless:startJobRun.sync")
    overrides = request["ConfigurationOverrides"]
    assert overrides["DiskEncryptionConfiguration"]["EncryptionKeyArn"]
    assert overrides["MonitoringConfiguration"]["CloudWatchLoggingConfiguration"]["EncryptionKeyArn"]
    submit = request["JobDriver"]["SparkSubmit"]
    words = submit["EntryPointArguments.$"].removeprefix("States.Array(").removesuffix(")").split(", ")
    given = {word.strip("'").removeprefix("--") for word in words[::2]}
    assert {*job.ARGUMENTS, "run_id"} <= given <= {*job.ARGUMENTS, *job.OPTIONAL, "run_id"}
    assert "spark.executorEnv.PYSPARK_PYTHON=/usr/bin/python3.11" in submit["SparkSubmitParameters"]


def test_should_let_only_emr_serverless_act_as_its_jobs(templates: dict[str, Template]) -> None:
    roles = resources(templates["Emr"], "AWS::IAM::Role")
    for name, role in roles.items():
        if name.startswith(("BatchCurateRole", "BatchFeaturesRole")):
            (statement,) = role["Properties"]["AssumeRolePolicyDocument"]["Statement"]
            assert statement["Principal"] == {"Service": "emr-serverless.amazonaws.com"}
            assert statement["Condition"] == {
                "StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}
            }
    machine = actions(statements(templates["Emr"], "BatchWorkflowRole"))
    assert {a for a in machine if a.startswith("emr-serverless")} == {
        "emr-serverless:CancelJobRun",
        "emr-serverless:GetJobRun",
        "emr-serverless:StartJobRun",
    }


@pytest.mark.parametrize("engine", [single, spark])
def test_should_pass_the_security_pack(engine: Any, contract: CompiledContract, tmp_path: Path) -> None:
    from cdk_nag import AwsSolutionsChecks

    app = cdk.App(context=cdk_context(), outdir=str(tmp_path))
    stack = cdk.Stack(app, "Pack")
    engine(stack, contract)
    for stand_in, rule in (("DataKey", "KMS5"), ("LogKey", "KMS5"), ("Topic", "SNS3")):
        acknowledge(stack.node.find_child(stand_in), rule, "a stand-in of this test for the foundation's own")
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    app.synth()


@pytest.mark.parametrize(
    ("engine", "options", "message"),
    [
        (single, {"instance_type": "ml.x.large"}, "'ml.x.large' is no instance type for processing"),
        (single, {"raw_prefix": "x"}, "raw_prefix must end with '/', got 'x'"),
        (single, {"gather_seconds": 7_200}, "gather_seconds must be between 0 and 3600, got 7200"),
        (
            single,
            {"schedule": "nightly"},
            r"schedule must be cron\(...\), rate\(...\) or None, got 'nightly'",
        ),
        (spark, {"max_vcpu": 4, "idle_minutes": 0}, "max_vcpu must be at least 8, got 4; idle_minutes must"),
    ],
)
def test_should_refuse_wrong_options(
    engine: Any, options: dict[str, Any], message: str, contract: CompiledContract
) -> None:
    with pytest.raises(ValueError, match=message):
        engine(cdk.Stack(), contract, **options)


def test_should_leave_room_in_a_jobs_name_and_never_share_a_cut_prefix() -> None:
    assert short_name("dev-claims-fraud") == "dev-claims-fraud"
    long = [short_name(f"production-an_environment-and-a-long-workload-{n}") for n in (1, 2)]
    assert long[0] != long[1]
    assert all(len(f"{name}-features-0123456789ab") <= 63 for name in long)
