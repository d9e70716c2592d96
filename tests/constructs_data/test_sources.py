"""Batch sources: the drop, the landing, who may do what, what is watched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from cdk_support import Template, actions, cdk_context, only, resources, statements
from data_support import Surroundings, parcels
from ml_contract.compiled import CompiledContract
from ml_contract.records.landing import LandingSpec
from ml_lifecycle.acknowledge import acknowledge
from ml_lifecycle.sources import (
    BatchLanding,
    DataSyncTask,
    DmsReplication,
    DropFolder,
    JdbcTable,
    ThirdPartyReader,
    ThirdPartyWriter,
)

LINES = LandingSpec(name="lines", kind="drop", owner="team", schema_version=1, format="ndjson")
TABLE = LandingSpec(name="table", kind="drop", owner="team", schema_version=2, format="csv", manifest=True)


AGENT = "arn:aws:datasync:eu-central-1:123456789012:agent/agent-0123456789abcdef0"


def spec(name: str) -> LandingSpec:
    return LandingSpec(name=name, kind="jdbc", owner="team", schema_version=1, format="parquet")


def landing(stack: cdk.Stack, around: Surroundings, **options: Any) -> BatchLanding:
    given: dict[str, Any] = {"sources": [LINES, TABLE], **options}
    return BatchLanding(
        stack,
        "Landing",
        contract=around.contract,
        environment_name="dev",
        zone=around.lake.raw,
        access_logs=around.lake.access_logs,
        data_prefix="parcel-delay/data/",
        quarantine_prefix="parcel-delay/quarantine/",
        log_key=around.log_key,
        message_key=around.key,
        **given,
    )


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> CompiledContract:
    return parcels(tmp_path_factory.mktemp("workloads")).compiled


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory, contract: CompiledContract) -> dict[str, Template]:
    """Stacks as in the app: the lake in one, sources in others; the security pack over all of them."""
    from cdk_nag import AwsSolutionsChecks

    app = cdk.App(context=cdk_context(), outdir=str(tmp_path_factory.mktemp("sources")))
    around = Surroundings(cdk.Stack(app, "Around"), contract)
    for stand_in, rule in ((around.key, "KMS5"), (around.log_key, "KMS5"), (around.topic, "SNS3")):
        acknowledge(stand_in, rule, "a stand-in of this test for what the foundation makes")
    default = cdk.Stack(app, "Default")
    built = landing(default, around, alarm_topic=around.topic)
    DropFolder(default, "Lines", name="lines", landing=built, fresh_within_hours=48, alarm_topic=around.topic)
    ThirdPartyWriter(
        default,
        "Table",
        name="table",
        landing=built,
        account="210987654321",
        external_id="shared-secret-1",
        fresh_within_hours=None,
    )
    ThirdPartyReader(
        default,
        "Reader",
        zone=around.lake.curated,
        prefix="parcel-delay/data/",
        account="210987654321",
        external_id="shared-secret-2",
    )
    tables = cdk.Stack(app, "Tables")
    vpc = ec2.Vpc(
        tables,
        "Vpc",
        max_azs=2,
        nat_gateways=0,
        restrict_default_security_group=False,
        subnet_configuration=[
            ec2.SubnetConfiguration(name="Isolated", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED)
        ],
    )
    acknowledge(vpc, "VPC7", "a stand-in of this test for the foundation's network, which has flow logs")
    landed = landing(
        tables, around, sources=[spec(name) for name in ("policies", "ledger", "share", "store")]
    )
    common: dict[str, Any] = {"landing": landed, "key": around.key}
    JdbcTable(
        tables,
        "Policies",
        name="policies",
        name_prefix="t-parcel-delay",
        engine="postgresql",
        host="db.example.com",
        port=5432,
        database="parcels",
        table="public.parcels",
        bookmark=["changed_at", "parcel"],
        columns=["parcel", "changed_at"],
        vpc=vpc,
        subnet=vpc.isolated_subnets[0],
        log_key=around.log_key,
        **common,
    )
    DmsReplication(
        tables,
        "Ledger",
        name="ledger",
        name_prefix="t-parcel-delay",
        engine="mysql",
        host="db.example.com",
        port=3306,
        database="parcels",
        tables=["parcels.sent"],
        certificate_arn="arn:aws:dms:eu-central-1:123456789012:cert:ABC",
        vpc=vpc,
        subnets=vpc.isolated_subnets,
        **common,
    )
    DataSyncTask(
        tables,
        "Share",
        name="share",
        location="smb",
        server="files.example.com",
        folder="/out",
        user="reader",
        agent_arns=[AGENT],
        log_key=around.log_key,
        **common,
    )
    DataSyncTask(
        tables,
        "Store",
        name="store",
        location="object_storage",
        server="s3.example.com",
        bucket="parcels",
        user="AKIA",
        secret_arn="arn:aws:secretsmanager:eu-central-1:123456789012:secret:store-AbCdEf",
        agent_arns=[AGENT],
        log_key=around.log_key,
        **common,
    )
    options = cdk.Stack(app, "Options")
    landing(
        options,
        around,
        accelerate=True,
        largest_file_mib=100,
        memory_mib=1024,
        drop_days=7,
        log_retention_days=7,
    )
    # Raises with the whole list when one finding is not acknowledged.
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    folder = Path(app.synth().directory)
    return {
        name: json.loads((folder / f"{name}.template.json").read_text())
        for name in ("Default", "Options", "Tables")
    }


def definition(template: Template) -> dict[str, Any]:
    """The state machine's definition; references become a word."""
    text = only(template, "AWS::StepFunctions::StateMachine")["DefinitionString"]
    parts = text["Fn::Join"][1] if isinstance(text, dict) else [text]
    found: dict[str, Any] = json.loads("".join(p if isinstance(p, str) else "REF" for p in parts))
    return found


def test_should_keep_dropped_files_encrypted_versioned_and_for_90_days(
    templates: dict[str, Template],
) -> None:
    bucket = only(templates["Default"], "AWS::S3::Bucket")
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    rules = {r["Id"]: r for r in bucket["LifecycleConfiguration"]["Rules"]}
    assert rules["Forget"]["ExpirationInDays"] == 90
    assert "AccelerateConfiguration" not in bucket
    (resource,) = resources(templates["Default"], "AWS::S3::Bucket").values()
    assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == ("Retain", "Retain")


def test_should_take_every_option(templates: dict[str, Template]) -> None:
    template = templates["Options"]
    bucket = only(template, "AWS::S3::Bucket")
    assert bucket["AccelerateConfiguration"] == {"AccelerationStatus": "Enabled"}
    function = only(template, "AWS::Lambda::Function")
    assert (function["MemorySize"], function["EphemeralStorage"]) == (1024, {"Size": 600})
    assert function["Environment"]["Variables"]["LARGEST_FILE_BYTES"] == str(100 * 1024 * 1024)
    assert {
        g["Properties"]["RetentionInDays"] for g in resources(template, "AWS::Logs::LogGroup").values()
    } == {7}


def test_should_start_with_each_file_or_with_the_manifest_of_all(templates: dict[str, Template]) -> None:
    rule = only(templates["Default"], "AWS::Events::Rule")
    assert rule["EventPattern"]["detail"]["object"]["key"] == [
        {"prefix": "drop/lines/"},
        {"wildcard": "drop/table/*.manifest.json"},
    ]
    (target,) = rule["Targets"]
    assert target["DeadLetterConfig"]


def test_should_wait_two_hours_for_files_of_a_manifest(templates: dict[str, Template]) -> None:
    check = definition(templates["Default"])["States"]["Check"]
    (patience,) = [r for r in check["Retry"] if r["ErrorEquals"] == ["IncompleteBatchError"]]
    assert patience["IntervalSeconds"] * patience["MaxAttempts"] == 7_200
    assert check["Catch"][0]["Next"] == "GiveUp"


def test_should_try_every_function_again_that_was_killed(templates: dict[str, Template]) -> None:
    states = definition(templates["Default"])["States"]
    invoking = {name: s for name, s in states.items() if str(s.get("Resource", "")).endswith("lambda:invoke")}
    assert set(invoking) == {"Check", "GiveUp", "Record"}
    for state in invoking.values():
        # Step Functions Developer Guide, "Handle transient Lambda service exceptions": out of memory or time.
        assert {"Lambda.Unknown", "Runtime.ExitError"} <= {
            e for r in state["Retry"] for e in r["ErrorEquals"]
        }


def test_should_name_only_states_that_exist(templates: dict[str, Template]) -> None:
    states = definition(templates["Default"])["States"]
    named = {
        value
        for state in states.values()
        for value in [
            state.get("Next"),
            state.get("Default"),
            *(c["Next"] for c in state.get("Choices", [])),
            *(c["Next"] for c in state.get("Catch", [])),
        ]
        if value is not None
    }
    assert named <= set(states)
    assert set(states) == named | {"Check"}


def test_should_keep_the_record_past_telling_of_it(templates: dict[str, Template]) -> None:
    """What a task returns replaces its input unless it says where to; a choice reads the record later."""
    states = definition(templates["Default"])["States"]
    for state in (s for s in states.values() if s["Type"] in ("Task", "Map")):
        assert state["ResultPath"].startswith("$.")
    assert states["HowDidItEnd"]["Choices"][0]["Variable"] == "$.record.batch.outcome"


def test_should_let_the_worker_write_only_below_its_workload(templates: dict[str, Template]) -> None:
    found = statements(templates["Default"], "LandingWorkerRole")
    assert actions(found) == {
        "cloudwatch:PutMetricData",
        "kms:Decrypt",
        "kms:GenerateDataKey",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "s3:AbortMultipartUpload",
        "s3:GetBucketLocation",
        "s3:GetObject",
        "s3:GetObjectVersion",
        "s3:ListBucket",
        "s3:ListMultipartUploadParts",
        "s3:PutObject",
    }
    written = json.dumps([s["Resource"] for s in found if "s3:PutObject" in s["Action"]])
    for folder in ("data", "quarantine", "batches", "deletions"):
        assert f"parcel-delay/{folder}/*" in written
    assert written.count("/*") == 4


def test_should_let_the_third_party_write_into_its_folder_only(templates: dict[str, Template]) -> None:
    template = templates["Default"]
    (role,) = [r for name, r in resources(template, "AWS::IAM::Role").items() if name.startswith("TableRole")]
    (trust,) = role["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Condition"] == {"StringEquals": {"sts:ExternalId": "shared-secret-1"}}
    assert "210987654321" in json.dumps(trust["Principal"])
    assert role["Properties"]["MaxSessionDuration"] == 3_600
    found = statements(template, "TableRole")
    assert "s3:GetObject" not in actions(found)
    assert "s3:ListBucket" not in actions(found)
    assert "drop/table/*" in json.dumps([s["Resource"] for s in found if "s3:PutObject" in s["Action"]])


def test_should_let_the_reader_read_one_folder(templates: dict[str, Template]) -> None:
    found = statements(templates["Default"], "ReaderRole")
    assert actions(found) == {"s3:GetObject", "s3:ListBucket", "s3:GetBucketLocation", "kms:Decrypt"}
    assert "parcel-delay/data/*" in json.dumps(
        [s["Resource"] for s in found if "s3:GetObject" in s["Action"]]
    )


def test_should_tell_when_a_source_is_stale(templates: dict[str, Template]) -> None:
    alarms = [a["Properties"] for a in resources(templates["Default"], "AWS::CloudWatch::Alarm").values()]
    (stale,) = [a for a in alarms if a["MetricName"] == "Batches"]
    assert stale["Period"] * stale["EvaluationPeriods"] == 48 * 3_600
    assert (stale["TreatMissingData"], stale["ComparisonOperator"]) == ("breaching", "LessThanThreshold")
    assert {"Name": "Source", "Value": "lines"} in stale["Dimensions"]
    assert len(stale["AlarmActions"]) == 1


def test_should_grant_reading_audit_records(tmp_path: Path, contract: CompiledContract) -> None:
    app = cdk.App(context=cdk_context(), outdir=str(tmp_path))
    stack = cdk.Stack(app, "Grants")
    built = landing(stack, Surroundings(stack, contract))
    role = iam.Role(stack, "Auditor", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
    built.grant_read_batches(role)
    template = json.loads((Path(app.synth().directory) / "Grants.template.json").read_text())
    found = statements(template, "Auditor")
    assert "parcel-delay/batches/*" in json.dumps(
        [s["Resource"] for s in found if "s3:GetObject" in s["Action"]]
    )


def test_should_name_every_wrong_argument_at_once(contract: CompiledContract) -> None:
    stack = cdk.Stack()
    around = Surroundings(stack, contract)
    with pytest.raises(ValueError, match="batch landing: ") as caught:
        landing(stack, around, sources=[], largest_file_mib=2_000, memory_mib=128, drop_days=0)
    for words in ("one source at least", "between 1 and 1706", "512 and 10240, got 128", "drop_days"):
        assert words in str(caught.value)


def test_should_refuse_a_source_that_the_landing_does_not_know(contract: CompiledContract) -> None:
    stack = cdk.Stack()
    built = landing(stack, Surroundings(stack, contract))
    with pytest.raises(ValueError, match=r"a source of the landing \(lines, table\), got 'other'"):
        DropFolder(stack, "Other", name="other", landing=built)


# --- databases and file servers -------------------------------------------------------------------


def test_should_read_a_table_with_a_bookmark_over_tls_with_a_secret(templates: dict[str, Template]) -> None:
    template = templates["Tables"]
    connection = only(template, "AWS::Glue::Connection")["ConnectionInput"]
    assert connection["ConnectionProperties"]["JDBC_ENFORCE_SSL"] == "true"
    url = "jdbc:postgresql://db.example.com:5432/parcels"
    assert connection["ConnectionProperties"]["JDBC_CONNECTION_URL"] == url
    assert "Ref" in connection["ConnectionProperties"]["SECRET_ID"]
    job = only(template, "AWS::Glue::Job")
    arguments = job["DefaultArguments"]
    assert arguments["--job-bookmark-option"] == "job-bookmark-enable"
    assert arguments["--bookmark"] == "changed_at,parcel"
    assert arguments["--columns"] == "parcel,changed_at"
    assert job["ExecutionProperty"] == {"MaxConcurrentRuns": 1}
    assert "assword" not in json.dumps(job)
    assert only(template, "AWS::Scheduler::Schedule")["ScheduleExpression"] == "cron(0 1 * * ? *)"


def test_should_let_the_reading_job_write_into_its_folder_only(templates: dict[str, Template]) -> None:
    found = statements(templates["Tables"], "PoliciesJobRole")
    written = json.dumps([s["Resource"] for s in found if "s3:DeleteObject" in s["Action"]])
    assert "drop/policies/*" in written
    assert "drop/ledger" not in written
    assert "secretsmanager:GetSecretValue" in actions(found)


def test_should_copy_tables_and_their_changes_to_parquet(templates: dict[str, Template]) -> None:
    template = templates["Tables"]
    replication = only(template, "AWS::DMS::ReplicationConfig")
    assert replication["ReplicationType"] == "full-load-and-cdc"
    (rule,) = replication["TableMappings"]["rules"]
    assert rule["object-locator"] == {"schema-name": "parcels", "table-name": "sent"}
    assert replication["ComputeConfig"]["MaxCapacityUnits"] == 4
    endpoints = [e["Properties"] for e in resources(template, "AWS::DMS::Endpoint").values()]
    (source,) = [e for e in endpoints if e["EndpointType"] == "source"]
    assert (source["EngineName"], source["SslMode"]) == ("mysql", "verify-ca")
    assert "Password" not in source
    (target,) = [e for e in endpoints if e["EndpointType"] == "target"]
    settings = target["S3Settings"]
    assert (settings["DataFormat"], settings["IncludeOpForFullLoad"]) == ("parquet", True)
    assert (settings["BucketFolder"], settings["EncryptionMode"]) == ("drop/ledger", "SSE_KMS")


def test_should_bring_files_of_a_server_with_a_login_from_a_secret(templates: dict[str, Template]) -> None:
    template = templates["Tables"]
    share = only(template, "AWS::DataSync::LocationSMB")
    assert "Password" not in share
    assert "SecretArn" in share["CustomSecretConfig"]
    store = only(template, "AWS::DataSync::LocationObjectStorage")
    assert store["CustomSecretConfig"]["SecretArn"].endswith("secret:store-AbCdEf")
    tasks = [t["Properties"] for t in resources(template, "AWS::DataSync::Task").values()]
    assert {t["Schedule"]["ScheduleExpression"] for t in tasks} == {"rate(1 day)"}
    assert {t["Options"]["PreserveDeletedFiles"] for t in tasks} == {"PRESERVE"}
    targets = [
        t["Properties"]["Subdirectory"] for t in resources(template, "AWS::DataSync::LocationS3").values()
    ]
    assert sorted(targets) == ["/drop/share/", "/drop/store/"]


def test_should_keep_logins_encrypted_and_to_be_filled(templates: dict[str, Template]) -> None:
    secrets = [
        s["Properties"] for s in resources(templates["Tables"], "AWS::SecretsManager::Secret").values()
    ]
    assert len(secrets) == 3
    assert all(s["KmsKeyId"] for s in secrets)
    assert all("to-be-filled" in s["GenerateSecretString"]["SecretStringTemplate"] for s in secrets)


def test_should_name_what_is_wrong_with_a_table_a_replication_and_a_task(contract: CompiledContract) -> None:
    stack = cdk.Stack()
    around = Surroundings(stack, contract)
    landed = landing(stack, around, sources=[spec("a")])
    vpc = ec2.Vpc(stack, "Vpc", max_azs=1, nat_gateways=0)
    common: dict[str, Any] = {"name": "a", "landing": landed, "key": around.key}
    database: dict[str, Any] = {
        "host": "h",
        "port": 1,
        "database": "d",
        "vpc": vpc,
        "name_prefix": "t",
        **common,
    }
    with pytest.raises(
        ValueError, match=r"jdbc table: engine must be one of .*; bookmark must .*; workers must"
    ):
        JdbcTable(
            stack,
            "Table",
            engine="db2",  # type: ignore[arg-type]
            table="t",
            bookmark=[],
            workers=1,
            subnet=vpc.public_subnets[0],
            log_key=around.log_key,
            **database,
        )
    with pytest.raises(
        ValueError, match=r"certificate_arn goes with mysql and oracle.*<schema>.<table>.*two zones"
    ):
        DmsReplication(
            stack, "Replication", engine="mysql", tables=["t"], subnets=vpc.public_subnets, **database
        )
    with pytest.raises(ValueError, match=r"agent_arns must be 1 to 4, got 0; bucket goes .*; user goes"):
        DataSyncTask(
            stack,
            "Task",
            location="nfs",
            server="s",
            bucket="b",
            user="u",
            agent_arns=[],
            log_key=around.log_key,
            **common,
        )
