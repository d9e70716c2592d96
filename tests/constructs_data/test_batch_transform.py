"""Batch transform: workflow, jobs, starts, rules, exact grants."""

from __future__ import annotations

import json
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from cdk_support import Template, actions, only, resources, statements, synthesise_stacks
from data_support import Surroundings, parcels
from ml_contract.compiled import CompiledContract
from ml_contract.quality.rules import dqdl
from ml_lifecycle.data_lake import parquet_table
from ml_lifecycle.features import FeatureGroup
from ml_lifecycle.processing import BatchTransform
from ml_lifecycle.processing.modules import GLUE_MODULES

#: What boto3 brings, and so Glue.
BOTO3S = {"urllib3", "python-dateutil", "six"}


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> CompiledContract:
    return parcels(tmp_path_factory.mktemp("workloads")).compiled


def batch(
    stack: cdk.Stack, contract: CompiledContract, *, tell: bool = False, **options: Any
) -> BatchTransform:
    around = Surroundings(stack, contract)
    table = parquet_table(
        stack,
        "RawTable",
        zone=around.lake.raw,
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
        zone=around.lake.features,
        online_key=around.key,
    )
    return BatchTransform(
        stack,
        "Batch",
        contract=contract,
        name_prefix="t-parcel-delay",
        lake=around.lake,
        raw_table=table,
        feature_group=group,
        log_key=around.log_key,
        failure_topic=around.topic if tell else None,
        **{"raw_prefix": "parcel-delay/data/", **options},
    )


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory, contract: CompiledContract) -> dict[str, Template]:
    def grants(stack: cdk.Stack) -> None:
        built = batch(stack, contract)
        built.grant_start(iam.Role(stack, "Starter", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com")))
        built.grant_read_features(
            iam.Role(stack, "Trainer", assumed_by=iam.ServicePrincipal("sagemaker.amazonaws.com"))
        )

    return synthesise_stacks(
        tmp_path_factory.mktemp("batch"),
        {
            "Default": lambda stack: batch(stack, contract),
            "Options": lambda stack: batch(
                stack,
                contract,
                tell=True,
                worker_type="G.4X",
                workers=20,
                timeout=cdk.Duration.hours(8),
                schedule="rate(6 hours)",
                on_landing=False,
                log_retention_days=14,
            ),
            "ByHand": lambda stack: batch(stack, contract, schedule=None, on_landing=False),
            "Grants": grants,
            "Labelled": lambda stack: batch(stack, contract, labels=True),
        },
    )


def job(template: Template, script: str) -> Template:
    found: Template
    (found,) = [
        j["Properties"]
        for name, j in resources(template, "AWS::Glue::Job").items()
        if name.startswith(f"Batch{script}")
    ]
    return found


def test_should_run_glue_5_with_two_small_workers_bookmarks_off_and_no_retry(
    templates: dict[str, Template],
) -> None:
    for script in ("Curate", "BuildFeatures"):
        found = job(templates["Default"], script)
        assert (found["GlueVersion"], found["WorkerType"], found["NumberOfWorkers"]) == ("5.0", "G.1X", 2)
        assert (found["MaxRetries"], found["Timeout"]) == (0, 120)
        assert found["ExecutionProperty"] == {"MaxConcurrentRuns": 1}
        arguments = found["DefaultArguments"]
        assert arguments["--job-bookmark-option"] == "job-bookmark-disable"
        assert arguments["--custom-logGroup-prefix"] == "/aws-glue/jobs/t-parcel-delay"


def test_should_let_the_feature_job_read_the_labels_that_people_gave(templates: dict[str, Template]) -> None:
    labelled = templates["Labelled"]
    found = job(labelled, "BuildFeatures")["DefaultArguments"]["--labels_table"]
    assert found == "t_curated.parcel_delay_labels"
    assert "--labels_table" not in job(labelled, "Curate")["DefaultArguments"]
    assert "--labels_table" not in job(templates["Default"], "BuildFeatures")["DefaultArguments"]
    readers = [
        name
        for name, policy in resources(labelled, "AWS::IAM::Policy").items()
        if "/labels/parcel-delay/*" in json.dumps(policy) and "parcel_delay_labels" in json.dumps(policy)
    ]
    assert len(readers) == 1
    assert readers[0].startswith("BatchFeaturesRole")


def test_should_hand_each_job_exactly_the_arguments_it_reads(templates: dict[str, Template]) -> None:
    own = {
        script: {
            a for a in job(templates["Default"], script)["DefaultArguments"] if "_" in a or a == "--contract"
        }
        for script in ("Curate", "BuildFeatures")
    }
    assert own == {
        "Curate": {
            "--aws_region",
            "--contract",
            "--raw_uri",
            "--curated_uri",
            "--curated_database",
            "--curated_table",
            "--quality_uri",
            "--quarantine_uri",
            "--ruleset_name",
        },
        "BuildFeatures": {
            "--aws_region",
            "--contract",
            "--curated_database",
            "--curated_table",
            "--features_uri",
            "--snapshots_uri",
            "--feature_group_name",
        },
    }
    assert job(templates["Default"], "Curate")["DefaultArguments"]["--aws_region"] == {"Ref": "AWS::Region"}


def test_should_take_sizes_and_timeout(templates: dict[str, Template]) -> None:
    found = job(templates["Options"], "Curate")
    assert (found["WorkerType"], found["NumberOfWorkers"], found["Timeout"]) == ("G.4X", 20, 480)
    groups = resources(templates["Options"], "AWS::Logs::LogGroup").values()
    assert {g["Properties"]["RetentionInDays"] for g in groups} == {14}


def test_should_encrypt_logs_bookmarks_and_objects_of_every_job_and_of_the_crawler(
    templates: dict[str, Template],
) -> None:
    template = templates["Default"]
    name, security = next(iter(resources(template, "AWS::Glue::SecurityConfiguration").items()))
    encryption = security["Properties"]["EncryptionConfiguration"]
    assert encryption["CloudWatchEncryption"]["CloudWatchEncryptionMode"] == "SSE-KMS"
    assert encryption["JobBookmarksEncryption"]["JobBookmarksEncryptionMode"] == "CSE-KMS"
    assert encryption["S3Encryptions"][0]["S3EncryptionMode"] == "SSE-KMS"
    for script in ("Curate", "BuildFeatures"):
        assert job(template, script)["SecurityConfiguration"] == {"Ref": name}
    assert only(template, "AWS::Glue::Crawler")["CrawlerSecurityConfiguration"] == {"Ref": name}
    for group in resources(template, "AWS::Logs::LogGroup").values():
        assert group["Properties"]["KmsKeyId"]["Fn::GetAtt"][0].startswith("LogKey")


def test_should_crawl_then_curate_then_build_features(templates: dict[str, Template]) -> None:
    template = templates["Default"]
    triggers = {
        n[len("Batch") : -8]: t["Properties"] for n, t in resources(template, "AWS::Glue::Trigger").items()
    }
    assert set(triggers) == {"OnLanding", "AfterCrawl", "AfterCurate"}
    assert {json.dumps(t["WorkflowName"]) for t in triggers.values()} == {
        json.dumps({"Ref": next(iter(resources(template, "AWS::Glue::Workflow")))})
    }
    crawler = {"Ref": next(iter(resources(template, "AWS::Glue::Crawler")))}
    assert triggers["OnLanding"]["Type"] == "EVENT"
    assert triggers["OnLanding"]["EventBatchingCondition"] == {"BatchSize": 10, "BatchWindow": 300}
    assert triggers["OnLanding"]["Actions"] == [{"CrawlerName": crawler}]
    (after_crawl,) = triggers["AfterCrawl"]["Predicate"]["Conditions"]
    assert (after_crawl["CrawlerName"], after_crawl["CrawlState"]) == (crawler, "SUCCEEDED")
    (after_curate,) = triggers["AfterCurate"]["Predicate"]["Conditions"]
    assert after_curate["State"] == "SUCCEEDED"
    assert [after_curate["JobName"]] == [a["JobName"] for a in triggers["AfterCrawl"]["Actions"]]
    assert triggers["AfterCurate"]["StartOnCreation"] is True


def test_should_start_when_an_object_lands_below_the_raw_prefix(templates: dict[str, Template]) -> None:
    template = templates["Default"]
    rule = only(template, "AWS::Events::Rule")
    assert rule["EventPattern"]["detail-type"] == ["Object Created"]
    assert rule["EventPattern"]["detail"]["object"] == {"key": [{"prefix": "parcel-delay/data/"}]}
    assert rule["EventPattern"]["detail"]["bucket"]["name"][0]["Ref"].startswith("LakeRawBucket")
    found = statements(template, "BatchLandingRole")
    assert actions(found) == {"glue:NotifyEvent"}
    assert found[0]["Resource"] == rule["Targets"][0]["Arn"]


def test_should_start_every_night_by_default_and_on_any_schedule(templates: dict[str, Template]) -> None:
    schedule = only(templates["Default"], "AWS::Scheduler::Schedule")
    assert schedule["ScheduleExpression"] == "cron(0 2 * * ? *)"
    assert schedule["Target"]["Arn"]["Fn::Join"][1][-1] == ":scheduler:::aws-sdk:glue:startWorkflowRun"
    workflow = next(iter(resources(templates["Default"], "AWS::Glue::Workflow")))
    assert schedule["Target"]["Input"]["Fn::Join"][1] == ['{"Name": "', {"Ref": workflow}, '"}']
    assert only(templates["Options"], "AWS::Scheduler::Schedule")["ScheduleExpression"] == "rate(6 hours)"
    assert actions(statements(templates["Default"], "BatchScheduleRole")) == {"glue:StartWorkflowRun"}


def test_should_start_by_hand_only_when_nothing_else_is_asked_for(templates: dict[str, Template]) -> None:
    template = templates["ByHand"]
    assert not resources(template, "AWS::Scheduler::Schedule")
    assert not resources(template, "AWS::Events::Rule")
    kinds = {t["Properties"]["Type"] for t in resources(template, "AWS::Glue::Trigger").values()}
    assert kinds == {"ON_DEMAND", "CONDITIONAL"}


def test_should_tell_failures_of_its_own_jobs(templates: dict[str, Template]) -> None:
    rule = only(templates["Options"], "AWS::Events::Rule")
    assert rule["EventPattern"]["detail"]["state"] == ["FAILED", "TIMEOUT"]
    jobs = set(resources(templates["Options"], "AWS::Glue::Job"))
    assert {ref["Ref"] for ref in rule["EventPattern"]["detail"]["jobName"]} == jobs


def test_should_crawl_the_table_of_the_contract_and_never_guess_a_schema(
    templates: dict[str, Template],
) -> None:
    crawler = only(templates["Default"], "AWS::Glue::Crawler")
    assert crawler["Targets"] == {"CatalogTargets": [{"DatabaseName": "t_raw", "Tables": ["parcel_delay"]}]}
    assert crawler["SchemaChangePolicy"] == {"UpdateBehavior": "LOG", "DeleteBehavior": "LOG"}


def test_should_check_the_rules_of_the_contract(
    templates: dict[str, Template], contract: CompiledContract
) -> None:
    ruleset = only(templates["Default"], "AWS::Glue::DataQualityRuleset")
    assert ruleset["Ruleset"] == dqdl(contract)
    assert 'IsComplete "parcel"' in ruleset["Ruleset"]


def test_should_let_athena_compute_the_months_of_features(
    templates: dict[str, Template], contract: CompiledContract
) -> None:
    tables = {
        t["Properties"]["DatabaseName"]: t["Properties"]["TableInput"]
        for t in resources(templates["Default"], "AWS::Glue::Table").values()
    }
    table = tables["t_features"]
    assert table["Parameters"]["projection.event_month.type"] == "date"
    assert [
        (c["Name"], c["Type"]) for c in table["StorageDescriptor"]["Columns"]
    ] == contract.feature_columns()
    assert "projection.enabled" not in tables["t_raw"]["Parameters"]


def test_should_keep_curated_rows_in_an_iceberg_table_by_month(
    templates: dict[str, Template], contract: CompiledContract
) -> None:
    table = only(templates["Default"], "Custom::IcebergTable")
    assert (table["Database"], table["Name"]) == ("t_curated", contract.name)
    assert [tuple(pair) for pair in table["Columns"]] == contract.glue_columns()
    assert table["PartitionBy"] == [["month", contract.event_time]]


def test_should_give_each_job_what_it_touches_and_nothing_else(templates: dict[str, Template]) -> None:
    common = {
        "s3:GetObject",
        "s3:ListBucket",
        "s3:GetBucketLocation",
        "s3:PutObject",
        "s3:AbortMultipartUpload",
        "s3:ListMultipartUploadParts",
        "s3:DeleteObject",
        "kms:Decrypt",
        "kms:GenerateDataKey",
        "logs:CreateLogGroup",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "logs:AssociateKmsKey",
        "cloudwatch:PutMetricData",
    }
    template = templates["Default"]
    assert actions(statements(template, "BatchCurateRole")) == common | {
        "glue:GetDataQualityRuleset",
        "glue:GetDatabase",
        "glue:GetTable",
        "glue:UpdateTable",
    }
    assert actions(statements(template, "BatchFeaturesRole")) == common | {
        "glue:GetTable",
        "sagemaker:PutRecord",
        "sagemaker:DescribeFeatureGroup",
        "sagemaker:BatchGetRecord",
        "sagemaker:DeleteRecord",
    }
    for role in ("BatchCurateRole", "BatchFeaturesRole", "BatchCrawlerRole"):
        for statement in statements(template, role):
            if statement["Resource"] == "*":
                assert statement["Action"] == "cloudwatch:PutMetricData"
                assert statement["Condition"] == {"StringEquals": {"cloudwatch:namespace": "Glue"}}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_should_let_spark_ask_for_folders_and_leave_their_markers(templates: dict[str, Template]) -> None:
    found = statements(templates["Default"], "BatchFeaturesRole")

    def keys(action: str) -> set[str]:
        return {
            resource["Fn::Join"][1][-1]
            for s in found
            if action in _listed(s["Action"])
            for resource in _listed(s["Resource"])
            if "Fn::Join" in resource and "cdk-" not in json.dumps(resource)
        }

    markers = {
        "/parcel-delay/",
        "/parcel-delay_$folder$",
        "/parcel-delay/data/",
        "/parcel-delay/data_$folder$",
        "/parcel-delay/snapshots/",
        "/parcel-delay/snapshots_$folder$",
    }
    assert keys("s3:GetObject") == {
        "/parcel-delay",
        "/parcel-delay/data",
        "/parcel-delay/data/*",
        "/parcel-delay/snapshots",
        "/parcel-delay/snapshots/*",
        *markers,
    }
    assert keys("s3:PutObject") == {"/parcel-delay/data/*", "/parcel-delay/snapshots/*", *markers}
    unconditional = [
        resource
        for s in found
        if "s3:ListBucket" in _listed(s["Action"]) and "Condition" not in s
        for resource in _listed(s["Resource"])
    ]
    assert len(unconditional) == 2, "the curated and the features zone"


def test_should_let_glue_name_log_groups_after_the_security_configuration(
    templates: dict[str, Template],
) -> None:
    for role in ("BatchCurateRole", "BatchFeaturesRole"):
        (logs,) = [s for s in statements(templates["Default"], role) if "logs:CreateLogGroup" in s["Action"]]
        assert logs["Resource"]["Fn::Join"][1][-1].startswith(":log-group:/aws-glue/jobs/")
        assert logs["Resource"]["Fn::Join"][1][-1].endswith("parcel-delay*")


def test_should_let_a_job_read_its_own_assets_and_not_the_bucket_of_assets(
    templates: dict[str, Template],
) -> None:
    found = [s for s in statements(templates["Default"], "BatchCurateRole") if "s3:GetObject" in s["Action"]]
    keys = [
        resource["Fn::Join"][1][-1]
        for s in found
        for resource in (s["Resource"] if isinstance(s["Resource"], list) else [s["Resource"]])
        if "cdk-" in json.dumps(resource)
    ]
    assert len(keys) == 3
    assert not [key for key in keys if "*" in key]


def test_should_grant_starting_and_reading_features(templates: dict[str, Template]) -> None:
    template = templates["Grants"]
    assert actions(statements(template, "Starter")) == {
        "glue:StartWorkflowRun",
        "glue:GetWorkflow",
        "glue:GetWorkflowRun",
        "glue:GetWorkflowRuns",
    }
    (objects,) = [s for s in statements(template, "Trainer") if s["Action"] == "s3:GetObject"]
    assert objects["Resource"]["Fn::Join"][1][1] == "/parcel-delay/data/*"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 1}, "workers must be between 2 and 299, got 1"),
        (
            {"schedule": "every night"},
            r"schedule must be cron\(...\), rate\(...\) or None, got 'every night'",
        ),
        ({"raw_prefix": "x"}, "raw_prefix must end with '/', got 'x'"),
        ({"workers": 300, "raw_prefix": "x"}, "workers must .*; raw_prefix must"),
    ],
)
def test_should_refuse_wrong_options(
    options: dict[str, Any], message: str, contract: CompiledContract
) -> None:
    with pytest.raises(ValueError, match=message):
        batch(cdk.Stack(), contract, **options)


def test_should_offer_metrics_of_a_job(contract: CompiledContract) -> None:
    built = batch(cdk.Stack(), contract)
    metric = built.metric_job("curate", "glue.driver.aggregate.elapsedTime")
    assert metric.namespace == "Glue"
    assert metric.dimensions is not None
    assert metric.dimensions["JobName"] == built.curate_job_name


def test_should_install_what_the_lock_holds_and_no_other_version() -> None:
    lock = (Path(__file__).resolve().parents[2] / "requirements.txt").read_text()
    locked = set(re.findall(r"^([a-z0-9.-]+==[^ ;]+)", lock, re.MULTILINE))
    assert set(GLUE_MODULES) <= locked
    needed = {requirement("pyiceberg"), *(name for name in needs("pyiceberg"))}
    given = {module.partition("==")[0] for module in GLUE_MODULES}
    assert needed <= given, "pip would take any version of what is missing"


def requirement(text: str) -> str:
    return re.split(r"[ \[<>=!~;(]", text, maxsplit=1)[0].lower().replace("_", "-")


def needs(package: str) -> set[str]:
    """What a package needs, and what that needs, without its extras."""
    found: set[str] = set()
    for line in metadata.requires(package) or ():
        name = requirement(line)
        if "extra ==" not in line and "sys_platform" not in line and name not in BOTO3S:
            found |= {name} | needs(name)
    return found


def test_should_install_from_wheels_in_s3_and_from_nowhere_else(
    tmp_path: Path, contract: CompiledContract
) -> None:
    place = "s3://tools/glue/modules.gluewheels.zip"
    template = synthesise_stacks(tmp_path, {"Wheels": lambda stack: batch(stack, contract, wheels=place)})[
        "Wheels"
    ]
    arguments = job(template, "Curate")["DefaultArguments"]
    assert arguments["--additional-python-modules"] == place
    assert arguments["--python-modules-installer-option"] == "--no-index"
    granted = json.dumps(statements(template, "BatchCurateRole"))
    assert ":s3:::tools/glue/modules.gluewheels.zip" in granted
    with pytest.raises(ValueError, match=r"wheels must look like .*\.gluewheels\.zip or be None, got"):
        batch(cdk.Stack(), contract, wheels="https://example.com/x.zip")
