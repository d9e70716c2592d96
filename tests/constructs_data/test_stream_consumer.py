"""Stream consumer: defaults, options, errors, exact grants, what becomes of what fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from cdk_nag import AwsSolutionsChecks
from cdk_support import Template, actions, cdk_context, only, resources, statements, synthesise_stacks
from data_support import Surroundings, parcels
from ml_contract.compiled import CompiledContract
from ml_lifecycle.features import FeatureGroup
from ml_lifecycle.ingestion import StreamConsumer, StreamIngestion


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> CompiledContract:
    return parcels(tmp_path_factory.mktemp("workloads")).compiled


def consumer(
    stack: cdk.Stack,
    contract: CompiledContract,
    *,
    online: bool = True,
    alarmed: bool = False,
    **options: Any,
) -> StreamConsumer:
    around = Surroundings(stack, contract)
    ingestion = StreamIngestion(
        stack,
        "Ingestion",
        contract=contract,
        zone=around.lake.raw,
        stream_key=around.key,
        log_key=around.log_key,
    )
    group = FeatureGroup(
        stack,
        "Features",
        contract=contract,
        name_prefix="t-parcel-delay",
        zone=around.lake.features,
        online_key=around.key,
        online=online,
    )
    return StreamConsumer(
        stack,
        "Consumer",
        contract=contract,
        ingestion=ingestion,
        feature_group=group,
        log_key=around.log_key,
        alarm_topic=around.topic if alarmed else None,
        **options,
    )


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory, contract: CompiledContract) -> dict[str, Template]:
    def grants(stack: cdk.Stack) -> None:
        built = consumer(stack, contract)
        role = iam.Role(stack, "Auditor", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        built.grant_read_quarantine(role)
        built.grant_read_failures(role)

    return synthesise_stacks(
        tmp_path_factory.mktemp("consumer"),
        {
            "Default": lambda stack: consumer(stack, contract),
            "Options": lambda stack: consumer(
                stack,
                contract,
                alarmed=True,
                fan_out=True,
                batch_size=500,
                attempts=5,
                maximum_age_minutes=30,
                parallelization=4,
                memory_mib=512,
                log_retention_days=7,
            ),
            "Grants": grants,
        },
    )


def mapping(template: Template) -> dict[str, Any]:
    found: dict[str, Any] = only(template, "AWS::Lambda::EventSourceMapping")
    return found


def function(template: Template) -> dict[str, Any]:
    (found,) = (
        f["Properties"] for n, f in resources(template, "AWS::Lambda::Function").items() if "Consumer" in n
    )
    properties: dict[str, Any] = found
    return properties


def test_should_try_a_batch_three_times_in_halves_and_then_keep_its_records(
    templates: dict[str, Template],
) -> None:
    found = mapping(templates["Default"])
    assert found["BatchSize"] == 100
    assert found["MaximumRetryAttempts"] == 2
    assert found["MaximumRecordAgeInSeconds"] == 3600
    assert found["ParallelizationFactor"] == 1
    assert found["BisectBatchOnFunctionError"] is True
    assert found["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert found["StartingPosition"] == "TRIM_HORIZON"
    assert found["MetricsConfig"] == {"Metrics": ["EventCount"]}
    (bucket,) = (n for n in resources(templates["Default"], "AWS::S3::Bucket") if n.startswith("LakeRaw"))
    assert found["DestinationConfig"] == {"OnFailure": {"Destination": {"Fn::GetAtt": [bucket, "Arn"]}}}
    assert "Fn::GetAtt" in found["EventSourceArn"]
    assert found["EventSourceArn"]["Fn::GetAtt"][0].startswith("IngestionStream")


def test_should_read_with_a_throughput_of_its_own_where_fan_out_is_asked(
    templates: dict[str, Template],
) -> None:
    assert not resources(templates["Default"], "AWS::Kinesis::StreamConsumer")
    template = templates["Options"]
    ((name, registered),) = resources(template, "AWS::Kinesis::StreamConsumer").items()
    assert registered["Properties"]["ConsumerName"].startswith("parcel-delay-online-")
    # Tags are create-only: a changed one would register a successor under a name that is taken.
    assert "Tags" not in registered["Properties"]
    assert mapping(template)["EventSourceArn"] == {"Fn::GetAtt": [name, "ConsumerARN"]}


def test_should_take_every_option(templates: dict[str, Template]) -> None:
    template = templates["Options"]
    found = mapping(template)
    assert (found["BatchSize"], found["MaximumRetryAttempts"]) == (500, 4)
    assert (found["MaximumRecordAgeInSeconds"], found["ParallelizationFactor"]) == (1800, 4)
    assert function(template)["MemorySize"] == 512
    groups = resources(template, "AWS::Logs::LogGroup")
    (own,) = (g for n, g in groups.items() if n.startswith("ConsumerLogs"))
    assert own["Properties"]["RetentionInDays"] == 7


def test_should_tell_the_function_where_features_and_refused_records_go(
    templates: dict[str, Template],
) -> None:
    found = function(templates["Default"])
    variables = found["Environment"]["Variables"]
    assert variables["FEATURE_GROUP_NAME"].startswith("t-parcel-delay-")
    # Not the delivery path's quarantine: that one sees the same records, and they count once.
    assert variables["QUARANTINE_URI"]["Fn::Join"][1][-1] == "/parcel-delay/consumer-quarantine/"
    assert (found["PackageType"], found["MemorySize"], found["Timeout"]) == ("Image", 1024, 60)


def test_should_grant_reading_putting_and_keeping_and_nothing_else(templates: dict[str, Template]) -> None:
    found = statements(templates["Default"], "ConsumerRole")
    assert actions(found) == {
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "kinesis:DescribeStream",
        "kinesis:DescribeStreamSummary",
        "kinesis:GetShardIterator",
        "kinesis:GetRecords",
        "kinesis:ListShards",
        "sagemaker:PutRecord",
        "s3:PutObject",
        "s3:AbortMultipartUpload",
        "s3:ListMultipartUploadParts",
        "s3:ListBucket",
        "kms:Decrypt",
        "kms:GenerateDataKey",
    }
    assert not [s for s in found if s["Resource"] == "*"]
    (objects,) = (s["Resource"] for s in found if "s3:PutObject" in s["Action"])
    assert sorted(o["Fn::Join"][1][1] for o in objects) == [
        "/aws/lambda/*",
        "/parcel-delay/consumer-quarantine/*",
    ]
    more = actions(statements(templates["Options"], "ConsumerRole")) - actions(found)
    assert more == {"kinesis:SubscribeToShard", "kinesis:DescribeStreamConsumer"}


def test_should_make_the_mapping_only_when_its_role_may_read(templates: dict[str, Template]) -> None:
    (found,) = resources(templates["Default"], "AWS::Lambda::EventSourceMapping").values()
    assert any(name.startswith("ConsumerRoleDefaultPolicy") for name in found["DependsOn"])


def test_should_grant_reading_what_was_refused_and_what_was_given_up(templates: dict[str, Template]) -> None:
    found = statements(templates["Grants"], "Auditor")
    assert actions(found) >= {"s3:GetObject", "kms:Decrypt"}
    text = str(found)
    assert "consumer-quarantine/" in text
    assert "/aws/lambda/" in text


def test_should_alarm_when_records_wait_are_kept_aside_or_lost(templates: dict[str, Template]) -> None:
    alarms = {
        a["Properties"]["MetricName"]: a["Properties"]
        for n, a in resources(templates["Options"], "AWS::CloudWatch::Alarm").items()
        if n.startswith("Consumer")
    }
    assert set(alarms) == {
        "IteratorAge",
        "OnFailureDestinationDeliveredEventCount",
        "DroppedEventCount",
        "Errors",
    }
    # Half the age at which records are given up.
    assert alarms["IteratorAge"]["Threshold"] == 15 * 60 * 1000
    assert all(a["Namespace"] == "AWS/Lambda" and a["AlarmActions"] for a in alarms.values())
    (dimension,) = alarms["DroppedEventCount"]["Dimensions"]
    assert dimension["Name"] == "EventSourceMappingUUID"
    silent = resources(templates["Default"], "AWS::CloudWatch::Alarm").values()
    assert not [a for a in silent if a["Properties"].get("AlarmActions")]


def test_should_name_every_wrong_argument_at_once(contract: CompiledContract) -> None:
    stack = cdk.Stack(cdk.App(context=cdk_context()), "Wrong")
    with pytest.raises(ValueError, match="stream consumer") as caught:
        consumer(
            stack,
            contract,
            online=False,
            batch_size=0,
            attempts=0,
            maximum_age_minutes=0,
            parallelization=11,
            memory_mib=64,
        )
    text = str(caught.value)
    for part in (
        "batch_size must be between 1 and 10000, got 0",
        "attempts must be between 1 and 10001, got 0",
        "maximum_age_minutes must be between 1 and 10080, got 0",
        "parallelization must be between 1 and 10, got 11",
        "memory_mib must be between 128 and 10240, got 64",
        "online=False",
    ):
        assert part in text


def test_should_leave_no_finding_of_the_security_pack_unanswered(
    contract: CompiledContract, tmp_path: Path
) -> None:
    app = cdk.App(context=cdk_context(), outdir=str(tmp_path))
    stack = cdk.Stack(app, "Checked")
    consumer(stack, contract, fan_out=True)
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    # The keys and the topic around it are plain on purpose: what is raised names them, and them alone.
    with pytest.raises(RuntimeError, match="Checked/DataKey") as found:
        app.synth()
    assert "Checked/Consumer" not in str(found.value)
