"""Stream ingestion: defaults, options, errors, exact grants."""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from cdk_support import Template, actions, only, resources, statements, synthesise_stacks
from data_support import Surroundings, parcels
from ml_contract.compiled import CompiledContract
from ml_lifecycle.ingestion import StreamIngestion


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> CompiledContract:
    return parcels(tmp_path_factory.mktemp("workloads")).compiled


def ingestion(stack: cdk.Stack, contract: CompiledContract, **options: Any) -> StreamIngestion:
    around = Surroundings(stack, contract)
    return StreamIngestion(
        stack,
        "Ingestion",
        contract=contract,
        zone=around.lake.raw,
        stream_key=around.key,
        log_key=around.log_key,
        **options,
    )


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory, contract: CompiledContract) -> dict[str, Template]:
    def options(stack: cdk.Stack) -> None:
        around = Surroundings(stack, contract)
        StreamIngestion(
            stack,
            "Ingestion",
            contract=contract,
            zone=around.lake.raw,
            stream_key=around.key,
            log_key=around.log_key,
            mode="provisioned",
            shards=3,
            retention_hours=48,
            buffer_seconds=300,
            buffer_mib=128,
            memory_mib=2048,
            log_retention_days=7,
            alarm_topic=around.topic,
        )

    def grants(stack: cdk.Stack) -> None:
        built = ingestion(stack, contract)
        for name in ("Producer", "Consumer", "Auditor"):
            role = iam.Role(stack, name, assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
            {
                "Producer": built.grant_put_records,
                "Consumer": built.grant_read,
                "Auditor": built.grant_read_quarantine,
            }[name](role)

    return synthesise_stacks(
        tmp_path_factory.mktemp("ingestion"),
        {"Default": lambda stack: ingestion(stack, contract), "Options": options, "Grants": grants},
    )


def destination(template: Template) -> Template:
    found: Template = only(template, "AWS::KinesisFirehose::DeliveryStream")[
        "ExtendedS3DestinationConfiguration"
    ]
    return found


def test_should_keep_an_encrypted_on_demand_stream_for_a_day(templates: dict[str, Template]) -> None:
    stream = only(templates["Default"], "AWS::Kinesis::Stream")
    assert stream["StreamModeDetails"] == {"StreamMode": "ON_DEMAND"}
    assert stream["RetentionPeriodHours"] == 24
    assert stream["StreamEncryption"]["EncryptionType"] == "KMS"
    assert "ShardCount" not in stream


def test_should_retain_the_stream_because_it_alone_holds_what_is_not_delivered(
    templates: dict[str, Template],
) -> None:
    (stream,) = resources(templates["Default"], "AWS::Kinesis::Stream").values()
    assert (stream["DeletionPolicy"], stream["UpdateReplacePolicy"]) == ("Retain", "Retain")


def test_should_take_every_option_of_stream_and_delivery(templates: dict[str, Template]) -> None:
    template = templates["Options"]
    stream = only(template, "AWS::Kinesis::Stream")
    assert (stream["ShardCount"], stream["RetentionPeriodHours"]) == (3, 48)
    assert stream["StreamModeDetails"] == {"StreamMode": "PROVISIONED"}
    assert destination(template)["BufferingHints"] == {"IntervalInSeconds": 300, "SizeInMBs": 128}
    assert only(template, "AWS::Lambda::Function")["MemorySize"] == 2048
    groups = resources(template, "AWS::Logs::LogGroup").values()
    assert {g["Properties"]["RetentionInDays"] for g in groups} == {7}


def test_should_convert_to_parquet_by_the_table_of_the_contract(
    templates: dict[str, Template], contract: CompiledContract
) -> None:
    template = templates["Default"]
    conversion = destination(template)["DataFormatConversionConfiguration"]
    assert conversion["Enabled"] is True
    assert conversion["SchemaConfiguration"]["DatabaseName"] == "t_raw"
    assert conversion["SchemaConfiguration"]["TableName"] == "parcel_delay"
    table = only(template, "AWS::Glue::Table")["TableInput"]
    assert [(c["Name"], c["Type"]) for c in table["StorageDescriptor"]["Columns"]] == contract.glue_columns()
    assert table["PartitionKeys"] == [{"Name": "ingest_date", "Type": "string"}]
    assert destination(template)["CompressionFormat"] == "UNCOMPRESSED"


def test_should_write_rows_and_failures_below_prefixes_of_the_workload(
    templates: dict[str, Template],
) -> None:
    found = destination(templates["Default"])
    assert found["Prefix"] == "parcel-delay/data/ingest_date=!{timestamp:yyyy-MM-dd}/"
    assert found["ErrorOutputPrefix"].startswith(
        "parcel-delay/delivery-errors/!{firehose:error-output-type}/"
    )
    environment = only(templates["Default"], "AWS::Lambda::Function")["Environment"]["Variables"]
    assert environment["QUARANTINE_URI"]["Fn::Join"][1][-1] == "/parcel-delay/quarantine/"


def test_should_run_the_transform_from_an_image_within_firehoses_limits(
    templates: dict[str, Template],
) -> None:
    function = only(templates["Default"], "AWS::Lambda::Function")
    assert function["PackageType"] == "Image"
    assert function["MemorySize"] == 1024
    assert function["Timeout"] == 120
    (processor,) = destination(templates["Default"])["ProcessingConfiguration"]["Processors"]
    parameters = {p["ParameterName"]: p["ParameterValue"] for p in processor["Parameters"]}
    assert parameters["BufferSizeInMBs"] == "1"
    assert parameters["NumberOfRetries"] == "3"


def test_should_give_the_function_its_log_and_its_quarantine_and_nothing_else(
    templates: dict[str, Template],
) -> None:
    found = statements(templates["Default"], "IngestionTransformRole")
    assert actions(found) == {
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "s3:PutObject",
        "s3:AbortMultipartUpload",
        "s3:ListMultipartUploadParts",
        "kms:Decrypt",
        "kms:GenerateDataKey",
    }
    objects = [s["Resource"] for s in found if "s3:PutObject" in s["Action"]]
    assert [o["Fn::Join"][1][1] for o in objects] == ["/parcel-delay/quarantine/*"]
    role = [r for n, r in resources(templates["Default"], "AWS::IAM::Role").items() if "TransformRole" in n]
    assert "ManagedPolicyArns" not in role[0]["Properties"]


def test_should_give_firehose_exactly_what_its_guide_lists(templates: dict[str, Template]) -> None:
    found = statements(templates["Default"], "IngestionDeliveryRole")
    assert actions(found) == {
        "kinesis:DescribeStream",
        "kinesis:GetShardIterator",
        "kinesis:GetRecords",
        "kinesis:ListShards",
        "lambda:InvokeFunction",
        "lambda:GetFunctionConfiguration",
        "s3:AbortMultipartUpload",
        "s3:GetBucketLocation",
        "s3:GetObject",
        "s3:ListBucket",
        "s3:ListBucketMultipartUploads",
        "s3:ListMultipartUploadParts",
        "s3:PutObject",
        "glue:GetTable",
        "glue:GetTableVersion",
        "glue:GetTableVersions",
        "logs:PutLogEvents",
        "kms:Decrypt",
        "kms:GenerateDataKey",
    }
    assert not [s for s in found if s["Resource"] == "*"]


def test_should_create_the_delivery_only_after_its_role_table_and_permissions(
    templates: dict[str, Template],
) -> None:
    (delivery,) = resources(templates["Default"], "AWS::KinesisFirehose::DeliveryStream").values()
    waits = " ".join(delivery["DependsOn"])
    for needed in (
        "DeliveryRoleDefaultPolicy",
        "DeliveryRoleRawDescribe",
        "IngestionTable",
        "IngestionTransform",
    ):
        assert needed in waits


def test_should_trust_firehose_for_this_account_only(templates: dict[str, Template]) -> None:
    (role,) = [r for n, r in resources(templates["Default"], "AWS::IAM::Role").items() if "DeliveryRole" in n]
    (statement,) = role["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "firehose.amazonaws.com"}
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


def test_should_alarm_on_late_reading_failing_function_and_failing_conversion(
    templates: dict[str, Template],
) -> None:
    alarms = {
        a["Properties"]["MetricName"]: a["Properties"]
        for a in resources(templates["Options"], "AWS::CloudWatch::Alarm").values()
    }
    assert set(alarms) == {
        "KinesisMillisBehindLatest",
        "Errors",
        "FailedConversion.Records",
        "ExecuteProcessing.Success",
        "DeliveryToS3.DataFreshness",
    }
    for alarm in alarms.values():
        assert [action["Ref"][:5] for action in alarm["AlarmActions"]] == ["Topic"]
        assert alarm["TreatMissingData"] == "notBreaching"
    assert alarms["KinesisMillisBehindLatest"]["Threshold"] == 900_000
    for alarm in resources(templates["Default"], "AWS::CloudWatch::Alarm").values():
        assert alarm["Properties"]["AlarmActions"] == []


def test_should_grant_producers_consumers_and_auditors_exactly(templates: dict[str, Template]) -> None:
    template = templates["Grants"]
    assert actions(statements(template, "Producer")) == {
        "kinesis:PutRecord",
        "kinesis:PutRecords",
        "kinesis:DescribeStreamSummary",
        "kms:GenerateDataKey",
    }
    assert actions(statements(template, "Consumer")) == {
        "kinesis:DescribeStream",
        "kinesis:GetShardIterator",
        "kinesis:GetRecords",
        "kinesis:ListShards",
        "kms:Decrypt",
    }
    reading = [s for s in statements(template, "Auditor") if s["Action"] == "s3:GetObject"]
    assert reading[0]["Resource"]["Fn::Join"][1][1] == "/parcel-delay/quarantine/*"


def test_should_offer_metrics_of_the_stream_and_the_delivery(contract: CompiledContract) -> None:
    built = ingestion(cdk.Stack(), contract)
    names = {
        metric.metric_name: metric.namespace
        for metric in (
            built.metric_incoming_records(),
            built.metric_read_age(),
            built.metric_delivery_freshness(),
            built.metric_delivered_records(),
            built.metric_failed_conversions(),
            built.metric_transform_errors(),
        )
    }
    assert names == {
        "IncomingRecords": "AWS/Kinesis",
        "KinesisMillisBehindLatest": "AWS/Firehose",
        "DeliveryToS3.DataFreshness": "AWS/Firehose",
        "DeliveryToS3.Records": "AWS/Firehose",
        "FailedConversion.Records": "AWS/Firehose",
        "Errors": "AWS/Lambda",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shards": 0}, "shards must be between 1 and 10000, got 0"),
        ({"retention_hours": 23}, r"retention_hours must be between 24 and 8760 \(a year\), got 23"),
        ({"buffer_seconds": 901}, "buffer_seconds must be between 0 and 900, got 901"),
        ({"buffer_mib": 5}, "buffer_mib must be between 64 and 128 with format conversion, got 5"),
        ({"memory_mib": 64}, "memory_mib must be between 128 and 10240, got 64"),
        ({"shards": 0, "buffer_mib": 5}, "shards must .*; buffer_mib must"),
    ],
)
def test_should_refuse_what_the_services_refuse(
    options: dict[str, int], message: str, contract: CompiledContract
) -> None:
    with pytest.raises(ValueError, match=message):
        ingestion(cdk.Stack(), contract, **options)


# --- Iceberg and long records ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory, contract: CompiledContract) -> dict[str, Template]:
    return synthesise_stacks(
        tmp_path_factory.mktemp("iceberg"),
        {
            "Iceberg": lambda stack: ingestion(
                stack, contract, format="iceberg", partition_by=["carrier"], max_record_kib=10_240
            )
        },
    )


def test_should_deliver_to_an_iceberg_table_divided_by_values(tables: dict[str, Template]) -> None:
    template = tables["Iceberg"]
    found = only(template, "AWS::KinesisFirehose::DeliveryStream")
    assert "ExtendedS3DestinationConfiguration" not in found
    iceberg = found["IcebergDestinationConfiguration"]
    assert iceberg["AppendOnly"] is True
    assert iceberg["s3BackupMode"] == "FailedDataOnly"
    (target,) = iceberg["DestinationTableConfigurationList"]
    assert target["DestinationDatabaseName"] == "t_raw"
    table = only(template, "Custom::IcebergTable")
    assert (table["Name"], table["PartitionBy"]) == ("parcel_delay", [["identity", "carrier"]])
    assert not [n for n in resources(template, "AWS::Glue::Table") if n.startswith("Ingestion")]
    (processor,) = iceberg["ProcessingConfiguration"]["Processors"]
    assert processor["Type"] == "Lambda"
    kept = iceberg["S3Configuration"]["ErrorOutputPrefix"]
    assert kept.startswith("parcel-delay/delivery-errors/!{firehose:error-output-type}/")


def test_should_let_firehose_commit_to_its_table_and_to_no_other(tables: dict[str, Template]) -> None:
    found = statements(tables["Iceberg"], "IngestionDeliveryRole")
    assert {"glue:GetTable", "glue:UpdateTable", "s3:DeleteObject"} <= actions(found)
    assert not [s for s in found if s["Resource"] == "*"]
    catalog = [s["Resource"] for s in found if "glue:UpdateTable" in s["Action"]]
    assert catalog
    assert "t_raw" in str(catalog)


def test_should_take_records_as_long_as_told(
    tables: dict[str, Template], templates: dict[str, Template]
) -> None:
    assert only(tables["Iceberg"], "AWS::Kinesis::Stream")["MaxRecordSizeInKiB"] == 10_240
    assert "MaxRecordSizeInKiB" not in only(templates["Default"], "AWS::Kinesis::Stream")


def test_should_watch_the_rows_that_do_not_get_into_the_table(tables: dict[str, Template]) -> None:
    alarms = resources(tables["Iceberg"], "AWS::CloudWatch::Alarm").values()
    names = {a["Properties"]["MetricName"] for a in alarms}
    assert names == {
        "KinesisMillisBehindLatest",
        "Errors",
        "DeliveryToIceberg.FailedRowCount",
        "ExecuteProcessing.Success",
    }


def test_should_alarm_when_the_function_could_not_be_asked(templates: dict[str, Template]) -> None:
    (found,) = (
        a["Properties"]
        for a in resources(templates["Default"], "AWS::CloudWatch::Alarm").values()
        if a["Properties"]["MetricName"] == "ExecuteProcessing.Success"
    )
    assert (found["ComparisonOperator"], found["Threshold"]) == ("LessThanThreshold", 1)
    assert (found["Statistic"], found["TreatMissingData"]) == ("Average", "notBreaching")


def test_should_tell_no_freshness_of_an_iceberg_table(contract: CompiledContract) -> None:
    built = ingestion(cdk.Stack(), contract, format="iceberg")
    assert built.metric_delivered_records().metric_name == "DeliveryToIceberg.SuccessfulRowCount"
    assert built.metric_failed_conversions().metric_name == "DeliveryToIceberg.FailedRowCount"
    with pytest.raises(ValueError, match="use metric_read_age"):
        built.metric_delivery_freshness()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"partition_by": ["carrier"]},
            "partition_by goes with format='iceberg', got carrier with 'parquet'",
        ),
        ({"format": "iceberg", "partition_by": ["colour"]}, "must name fields of parcel_delay, got colour"),
        ({"max_record_kib": 512}, r"max_record_kib must be between 1024 and 10240 \(10 MiB\), got 512"),
    ],
)
def test_should_refuse_partitions_and_sizes_that_cannot_be(
    contract: CompiledContract, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ingestion(cdk.Stack(), contract, **options)
