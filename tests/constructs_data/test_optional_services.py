"""What only some environments want: warehouse, search, dashboard, file systems, Kafka, video."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from cdk_nag import AwsSolutionsChecks
from cdk_support import Template, actions, cdk_context, only, resources, statements, synthesise_stacks
from data_support import YAML, parcels
from ml_contract.compiled import CompiledContract
from ml_contract.load import load_workload
from ml_lifecycle.analysis import DocumentSearch, QueryWorkgroup, RedshiftWarehouse, TableDashboard
from ml_lifecycle.data_lake import DataLake
from ml_lifecycle.foundation import Keys, Network
from ml_lifecycle.ingestion import KafkaSource, StreamIngestion, VideoSource
from ml_lifecycle.storage import LustreCache, SharedFiles

from environments import Dashboards, Environment, Services
from environments import Network as NetworkChoice
from stacks.data_lake import DataLakeStack
from stacks.foundation import FoundationStack
from stacks.workload_data import WorkloadDataStack

READER = "arn:aws:quicksight:eu-central-1:111111111111:group/default/analysts"


class Around:
    """Keys, network and lake of one stack."""

    def __init__(self, stack: cdk.Stack, *, max_azs: int = 3) -> None:
        self.stack = stack
        self.keys = Keys(stack, "Keys")
        self.network = Network(stack, "Network", log_key=self.keys.logs, max_azs=max_azs, pollers=True)
        self.lake = DataLake(stack, "Lake", database_prefix="t")

    @property
    def vpc(self) -> dict[str, Any]:
        return {"vpc": self.network.vpc, "subnets": self.network.vpc.isolated_subnets}

    def role(self, name: str) -> iam.Role:
        return iam.Role(self.stack, name, assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))


def warehouse(around: Around, **options: Any) -> RedshiftWarehouse:
    options = {"name": "t-warehouse", "key": around.keys.data_key, **around.vpc, **options}
    built = RedshiftWarehouse(around.stack, "Warehouse", **options)
    built.grant_zone(around.lake.curated)
    built.grant_query(around.role("Asker"))
    return built


def search(around: Around, **options: Any) -> DocumentSearch:
    options = {
        "name": "t-documents",
        "key": around.keys.data_key,
        "security_group": around.network.job_security_group,
        **around.vpc,
        **options,
    }
    return DocumentSearch(around.stack, "Search", **options)


def lustre(around: Around, **options: Any) -> LustreCache:
    options = {
        "zone": around.lake.artifacts,
        "prefix": "images/",
        "key": around.keys.data_key,
        "vpc": around.network.vpc,
        "subnet": around.network.vpc.isolated_subnets[0],
        "clients": around.network.job_security_group,
        **options,
    }
    return LustreCache(around.stack, "Lustre", **options)


def files(around: Around, **options: Any) -> SharedFiles:
    options = {
        "key": around.keys.data_key,
        "clients": around.network.job_security_group,
        **around.vpc,
        **options,
    }
    return SharedFiles(around.stack, "Files", **options)


def kafka(around: Around, contract: CompiledContract, **options: Any) -> KafkaSource:
    ingestion = StreamIngestion(
        around.stack,
        "Ingestion",
        contract=contract,
        zone=around.lake.raw,
        stream_key=around.keys.data_key,
        log_key=around.keys.logs,
    )
    options = {
        "name": "t-parcels",
        "topic": "parcels.v1",
        "ingestion": ingestion,
        "clients": around.network.job_security_group,
        "message_key": around.keys.messages,
        "log_key": around.keys.logs,
        **around.vpc,
        **options,
    }
    return KafkaSource(around.stack, "Kafka", **options)


def video(around: Around, **options: Any) -> VideoSource:
    options = {
        "name": "t-gate",
        "zone": around.lake.raw,
        "prefix": "video/",
        "key": around.keys.data_key,
        "message_key": around.keys.messages,
        "log_key": around.keys.logs,
        **options,
    }
    return VideoSource(around.stack, "Video", **options)


def dashboard(around: Around, contract: CompiledContract, **options: Any) -> TableDashboard:
    workgroup = QueryWorkgroup(
        around.stack, "Workgroup", name="t-analysts", zone=around.lake.artifacts, prefix="answers/"
    )
    options = {
        "name": "t-parcels",
        "title": "Parcels",
        "workgroup": workgroup,
        "database": "t_curated",
        "table": "parcel_delay",
        "readers": [READER],
        **options,
    }
    return TableDashboard(around.stack, "Dashboard", contract=contract, **options)


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> CompiledContract:
    return parcels(tmp_path_factory.mktemp("optional")).compiled


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> CompiledContract:
    text = YAML.replace(
        "label: {task: regression, field: minutes_late}",
        "label: {task: binary, field: carrier, values: [north, south]}",
    ).replace("{metric: rmse, at_most: 30}", "{metric: auc, at_least: 0.7}")
    folder = tmp_path_factory.mktemp("binary") / "parcel_delay"
    folder.mkdir()
    (folder / "workload.yaml").write_text(text)
    return load_workload(folder).compiled


def everything(stack: cdk.Stack, contract: CompiledContract) -> None:
    around = Around(stack)
    warehouse(around)
    found = search(around)
    found.grant_read(around.role("Seeker"))
    found.grant_write(around.role("Indexer"))
    role = around.role("Trainer")
    lustre(around).grant_describe(role)
    files(around).grant_mount(role, write=True)
    camera, producer = around.role("Camera"), around.role("Producer")
    video(around).grant_put_media(camera)
    kafka(around, contract).grant_produce(producer)
    dashboard(around, contract)


def optional(stack: cdk.Stack, contract: CompiledContract, binary: CompiledContract) -> None:
    around = Around(stack)
    gone = cdk.RemovalPolicy.DESTROY
    warehouse(around, base_rpu=16, max_rpu=16, removal_policy=gone).allow(around.network.job_security_group)
    search(around, kind="VECTORSEARCH", standby=False, removal_policy=gone)
    lustre(around, capacity_gib=4800, throughput_mbps_per_tib=500, export=True)
    files(around, backups=False, removal_policy=gone)
    video(around, retention_hours=48, interval_seconds=10, log_retention_days=7, removal_policy=gone)
    kafka(around, contract, longest_record_kib=10_240)
    dashboard(around, binary)


@pytest.fixture(scope="module")
def templates(
    tmp_path_factory: pytest.TempPathFactory, contract: CompiledContract, binary: CompiledContract
) -> dict[str, Template]:
    return synthesise_stacks(
        tmp_path_factory.mktemp("services"),
        {
            "Default": lambda stack: everything(stack, contract),
            "Options": lambda stack: optional(stack, contract, binary),
        },
    )


@pytest.fixture(scope="module")
def default(templates: dict[str, Template]) -> Template:
    return templates["Default"]


@pytest.fixture(scope="module")
def options(templates: dict[str, Template]) -> Template:
    return templates["Options"]


def resource(template: Template, kind: str) -> dict[str, Any]:
    (found,) = resources(template, kind).values()
    return dict(found)


def granted(template: Template, role: str) -> dict[str, str]:
    """Action -> its resources as text."""
    found: dict[str, str] = {}
    for statement in statements(template, role):
        listed = statement["Action"]
        for action in [listed] if isinstance(listed, str) else listed:
            found[action] = found.get(action, "") + json.dumps(statement["Resource"])
    return found


# --- all of them


def test_should_pass_the_security_checks(contract: CompiledContract, tmp_path: Path) -> None:
    app = cdk.App(context=cdk_context(), outdir=str(tmp_path))
    everything(cdk.Stack(app, "Checked"), contract)
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    app.synth()


def test_should_retain_what_holds_data_unless_told_otherwise(default: Template, options: Template) -> None:
    kinds = (
        "AWS::RedshiftServerless::Namespace",
        "AWS::OpenSearchServerless::Collection",
        "AWS::EFS::FileSystem",
        "AWS::KinesisVideo::Stream",
    )
    assert {kind: resource(default, kind)["DeletionPolicy"] for kind in kinds} == dict.fromkeys(
        kinds, "Retain"
    )
    assert {kind: resource(options, kind)["DeletionPolicy"] for kind in kinds} == dict.fromkeys(
        kinds, "Delete"
    )
    # A cache of what S3 has.
    assert resource(default, "AWS::FSx::FileSystem").get("DeletionPolicy", "Delete") == "Delete"


BAD: dict[str, tuple[Callable[[Around], object], str]] = {
    "warehouse": (
        lambda a: warehouse(a, name="T_1", base_rpu=12, max_rpu=8, subnets=[]),
        r"redshift warehouse: name .*'T_1'; base_rpu .*12; max_rpu must be at least base_rpu \(12\), got 8; "
        r"subnets .*got 0",
    ),
    "search": (
        lambda a: search(a, name="-Documents", kind="LOGS", subnets=[]),
        r"document search: name .*'-Documents'; subnets .*got 0; kind .*'LOGS'",
    ),
    "lustre": (
        lambda a: lustre(a, capacity_gib=1300, throughput_mbps_per_tib=7, prefix="/images"),
        r"lustre cache: capacity_gib .*1300; throughput_mbps_per_tib .*7; prefix .*'/images'",
    ),
    "files": (lambda a: files(a, subnets=[]), "shared files: subnets .*got none"),
    "video": (
        lambda a: video(a, name="a gate", retention_hours=0, interval_seconds=61, prefix="video"),
        r"video source: name .*'a gate'; retention_hours .*0; interval_seconds .*61; prefix .*'video'",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_should_say_every_problem_at_once(name: str) -> None:
    build, message = BAD[name]
    around = Around(cdk.Stack(cdk.App(), "Refused"))
    with pytest.raises(ValueError, match=message):
        build(around)


def test_should_refuse_a_topic_and_a_dashboard_that_cannot_be(contract: CompiledContract) -> None:
    around = Around(cdk.Stack(cdk.App(), "Refused"))
    with pytest.raises(ValueError, match=r"name .*'t_p'; topic .*'a b'; longest_record_kib .*1; subnets .*0"):
        kafka(around, contract, name="t_p", topic="a b", longest_record_kib=1, subnets=[])
    with pytest.raises(ValueError, match=r"table dashboard: name .*'a b'; readers must hold 1 to 64 .*got 0"):
        dashboard(around, contract, name="a b", readers=[])


# --- warehouse


def test_should_keep_the_warehouse_private_and_its_password_nobodys(default: Template) -> None:
    namespace = only(default, "AWS::RedshiftServerless::Namespace")
    assert namespace["ManageAdminPassword"] is True
    assert "AdminUserPassword" not in namespace
    assert namespace["KmsKeyId"] == namespace["AdminPasswordSecretKmsKeyId"]
    group = only(default, "AWS::RedshiftServerless::Workgroup")
    assert (group["BaseCapacity"], group["MaxCapacity"]) == (8, 32)
    assert (group["PubliclyAccessible"], group["EnhancedVpcRouting"]) == (False, True)
    assert len(group["SubnetIds"]) == 3
    assert group["ConfigParameters"] == [{"ParameterKey": "require_ssl", "ParameterValue": "true"}]


def test_should_let_the_warehouse_read_and_write_nothing(default: Template) -> None:
    found = granted(default, "WarehouseRole")
    assert set(found) == {
        "glue:GetDatabase",
        "glue:GetPartition",
        "glue:GetPartitions",
        "glue:GetTable",
        "glue:GetTables",
        "kms:Decrypt",
        "s3:GetBucketLocation",
        "s3:GetObject",
        "s3:ListBucket",
    }
    assert "t_curated" in found["glue:GetTable"]
    assert "LakeCurated" in found["s3:GetObject"]
    assert "LakeRaw" not in json.dumps(found)


def test_should_let_an_asker_see_its_own_statements_only(default: Template) -> None:
    own = [s for s in statements(default, "Asker") if "redshift-data:GetStatementResult" in s["Action"]]
    assert [s["Condition"] for s in own] == [
        {"StringEquals": {"redshift-data:statement-owner-iam-userid": "${aws:userid}"}}
    ]
    assert "WarehouseWorkgroup" in granted(default, "Asker")["redshift-data:ExecuteStatement"]


def test_should_ask_lake_formation_where_it_is_in_force(tmp_path: Path) -> None:
    def build(stack: cdk.Stack) -> None:
        around = Around(stack)
        around.lake.curated.governed = True
        warehouse(around)

    template = synthesise_stacks(tmp_path, {"Governed": build})["Governed"]
    assert granted(template, "WarehouseRole")["lakeformation:GetDataAccess"] == '"*"'


def test_should_write_the_statement_of_an_external_schema_and_no_other() -> None:
    around = Around(cdk.Stack(cdk.App(), "Statement"))
    built = warehouse(around)
    assert built.external_schema("t_curated") == (
        "CREATE EXTERNAL SCHEMA IF NOT EXISTS t_curated FROM DATA CATALOG DATABASE 't_curated' "
        "IAM_ROLE default"
    )
    with pytest.raises(ValueError, match="database must be"):
        built.external_schema("x'; drop schema t_curated; --")
    with pytest.raises(ValueError, match="must have a Glue database"):
        built.grant_zone(around.lake.artifacts)


# --- documents


def test_should_open_the_collection_to_the_vpc_and_to_whom_it_is_granted(default: Template) -> None:
    policies = {
        p["Properties"]["Type"]: p["Properties"]["Policy"]
        for p in resources(default, "AWS::OpenSearchServerless::SecurityPolicy").values()
    }
    network = json.dumps(policies["network"])
    assert r"\"AllowFromPublic\":false" in network
    assert "SearchEndpoint" in network
    assert r"\"AWSOwnedKey\":false" in json.dumps(policies["encryption"])
    access = only(default, "AWS::OpenSearchServerless::AccessPolicy")
    parts = access["Policy"]["Fn::Join"][1]
    text = "".join(part if isinstance(part, str) else part["Fn::GetAtt"][0] for part in parts)
    reading, writing = json.loads(text)
    assert reading["Principal"][0].startswith("Seeker")
    assert writing["Principal"][0].startswith("Indexer")
    permissions = {r["ResourceType"]: r["Permission"] for r in reading["Rules"]}
    assert permissions == {
        "index": ["aoss:DescribeIndex", "aoss:ReadDocument"],
        "collection": ["aoss:DescribeCollectionItems"],
    }
    assert "aoss:WriteDocument" in writing["Rules"][0]["Permission"]
    assert "SearchCollection" in granted(default, "Seeker")["aoss:APIAccessAll"]


def test_should_leave_a_collection_without_readers_without_an_empty_policy(options: Template) -> None:
    assert not resources(options, "AWS::OpenSearchServerless::AccessPolicy")
    found = only(options, "AWS::OpenSearchServerless::Collection")
    assert (found["Type"], found["StandbyReplicas"]) == ("VECTORSEARCH", "DISABLED")


# --- dashboard


def test_should_show_the_table_without_what_identifies_a_person(default: Template) -> None:
    table = only(default, "AWS::QuickSight::DataSet")["PhysicalTableMap"]["records"]["RelationalTable"]
    columns = {c["Name"]: c["Type"] for c in table["InputColumns"]}
    assert "parcel" not in columns
    assert columns["weight_kg"] == "DECIMAL"
    assert (table["Schema"], table["Name"]) == ("t_curated", "parcel_delay")
    shown = only(default, "AWS::QuickSight::Dashboard")
    assert [p["Principal"] for p in shown["Permissions"]] == [READER]


def used_columns(definition: Any) -> set[str]:
    if isinstance(definition, dict):
        own = {definition["ColumnName"]} if "ColumnName" in definition else set()
        return own.union(*(used_columns(v) for v in definition.values()))
    if isinstance(definition, list):
        return set().union(*(used_columns(v) for v in definition))
    return set()


def titles(template: Template) -> list[str]:
    (sheet,) = only(template, "AWS::QuickSight::Dashboard")["Definition"]["Sheets"]
    visuals = [next(iter(v.values())) for v in sheet["Visuals"]]
    return [v["Title"]["FormatText"]["PlainText"] for v in visuals]


def test_should_draw_what_the_label_asks_for(default: Template, options: Template) -> None:
    assert titles(default) == [
        "Records by month",
        "Mean of minutes_late by month",
        "Mean of minutes_late by express",
        "Mean of minutes_late by carrier",
    ]
    assert titles(options) == [
        "Records by month",
        "Records by carrier",
        "Mean of weight_kg by carrier",
        "Mean of stops by carrier",
        "Mean of minutes_late by carrier",
    ]


def test_should_draw_only_what_the_data_set_has(default: Template, options: Template) -> None:
    for template in (default, options):
        table = only(template, "AWS::QuickSight::DataSet")["PhysicalTableMap"]["records"]["RelationalTable"]
        drawn = used_columns(only(template, "AWS::QuickSight::Dashboard")["Definition"])
        assert drawn <= {c["Name"] for c in table["InputColumns"]}


# --- file systems


def test_should_link_the_cache_to_its_prefix_and_write_nothing_back(
    default: Template, options: Template
) -> None:
    system = only(default, "AWS::FSx::FileSystem")
    assert (system["StorageCapacity"], system["FileSystemTypeVersion"]) == (1200, "2.15")
    assert system["LustreConfiguration"]["DeploymentType"] == "PERSISTENT_2"
    link = only(default, "AWS::FSx::DataRepositoryAssociation")
    assert link["S3"]["AutoImportPolicy"] == {"Events": ["NEW", "CHANGED", "DELETED"]}
    assert "AutoExportPolicy" not in link["S3"]
    assert link["DataRepositoryPath"]["Fn::Join"][1][-1] == "/images/"
    export = only(options, "AWS::FSx::DataRepositoryAssociation")
    assert export["S3"]["AutoExportPolicy"] == {"Events": ["NEW", "CHANGED", "DELETED"]}


def link_statements(template: Template) -> list[dict[str, Any]]:
    return [
        s
        for key in resources(template, "AWS::KMS::Key").values()
        for s in key["Properties"]["KeyPolicy"]["Statement"]
        if s.get("Sid", "").startswith("LustreLink")
    ]


def test_should_let_the_link_use_the_zone_s_key(default: Template, options: Template) -> None:
    (reading,) = link_statements(default)
    assert reading["Action"] == ["kms:Decrypt", "kms:DescribeKey"]
    assert "AWSServiceRoleForFSxS3Access_fs-*" in json.dumps(reading["Condition"])
    (writing,) = link_statements(options)
    assert "kms:GenerateDataKey" in writing["Action"]


def test_should_warn_where_the_zone_s_key_is_somebody_else_s() -> None:
    stack = cdk.Stack(cdk.App(context=cdk_context()), "Foreign")
    around = Around(stack)
    key = "arn:aws:kms:eu-central-1:111111111111:key/1"
    around.lake.artifacts.key = cdk.aws_kms.Key.from_key_arn(stack, "Theirs", key)
    lustre(around)
    # It answers no entries: two packages bring their Python class, and the last one installed wins.
    cdk.assertions.Annotations.from_stack(stack).has_warning(
        "*", cdk.assertions.Match.string_like_regexp("AWSServiceRoleForFSxS3Access")
    )


def test_should_give_training_the_file_systems_as_channels() -> None:
    around = Around(cdk.Stack(cdk.App(), "Channels"))
    cached, shared = lustre(around), files(around)
    source: Any = around.stack.resolve(cached.channel("/train/"))["FileSystemDataSource"]
    assert source["FileSystemType"] == "FSxLustre"
    assert source["DirectoryPath"]["Fn::Join"][1][-1] == "/lake/train"
    source = around.stack.resolve(shared.channel())["FileSystemDataSource"]
    assert (source["DirectoryPath"], source["FileSystemAccessMode"]) == ("/training", "ro")


def test_should_mount_shared_files_by_tls_in_every_zone(default: Template, options: Template) -> None:
    system = only(default, "AWS::EFS::FileSystem")
    assert system["Encrypted"] is True
    assert system["BackupPolicy"] == {"Status": "ENABLED"}
    assert only(options, "AWS::EFS::FileSystem")["BackupPolicy"] == {"Status": "DISABLED"}
    deny, allow = system["FileSystemPolicy"]["Statement"]
    assert (deny["Effect"], deny["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})
    assert allow["Condition"] == {"Bool": {"elasticfilesystem:AccessedViaMountTarget": "true"}}
    assert len(resources(default, "AWS::EFS::MountTarget")) == 3
    # Who is nobody may read what the access point's user wrote.
    made = only(default, "AWS::EFS::AccessPoint")["RootDirectory"]["CreationInfo"]
    assert made["Permissions"] == "755"


def test_should_grant_training_its_file_systems_exactly(default: Template) -> None:
    found = granted(default, "Trainer")
    assert set(found) == {
        "elasticfilesystem:ClientMount",
        "elasticfilesystem:ClientWrite",
        "elasticfilesystem:DescribeMountTargets",
        "fsx:DescribeFileSystems",
    }
    assert "FilesFileSystem" in found["elasticfilesystem:ClientWrite"]
    assert "LustreFileSystem" in found["fsx:DescribeFileSystems"]


# --- Kafka


def test_should_poll_the_topic_and_keep_what_is_given_up(default: Template, options: Template) -> None:
    cluster = only(default, "AWS::MSK::ServerlessCluster")
    assert cluster["ClientAuthentication"] == {"Sasl": {"Iam": {"Enabled": True}}}
    (placed,) = cluster["VpcConfigs"]
    assert len(placed["SubnetIds"]) == 3
    assert any("JobSecurityGroup" in json.dumps(group) for group in placed["SecurityGroups"])
    mapping = only(default, "AWS::Lambda::EventSourceMapping")
    assert (mapping["Topics"], mapping["StartingPosition"]) == (["parcels.v1"], "TRIM_HORIZON")
    assert mapping["DestinationConfig"]["OnFailure"]["Destination"]["Fn::GetAtt"][0].startswith("KafkaGiven")

    def longest(template: Template) -> str:
        (name,) = [n for n in resources(template, "AWS::Lambda::Function") if n.startswith("KafkaBridge")]
        variables = template["Resources"][name]["Properties"]["Environment"]["Variables"]
        return str(variables["LONGEST_RECORD"])

    assert (longest(default), longest(options)) == ("1048576", "10485760")


def test_should_name_the_topic_and_the_group_of_this_very_cluster(default: Template) -> None:
    found = granted(default, "KafkaBridgeRole")
    for action, rest in (("kafka-cluster:ReadData", "/parcels.v1"), ("kafka-cluster:AlterGroup", "-bridge")):
        assert "*" not in found[action]
        assert rest in found[action]
        assert "KafkaCluster" in found[action]
    assert "kafka-cluster:WriteData" not in found
    assert "IngestionStream" in found["kinesis:PutRecords"]
    assert "subnet/" in found["ec2:CreateNetworkInterface"]
    assert "subnet/" not in found["ec2:DeleteNetworkInterface"]
    producer = granted(default, "Producer")
    assert set(producer) == {
        "kafka-cluster:Connect",
        "kafka-cluster:CreateTopic",
        "kafka-cluster:DescribeTopic",
        "kafka-cluster:WriteData",
        "kafka-cluster:WriteDataIdempotently",
    }
    assert "*" not in json.dumps(producer)


def test_should_give_lambda_s_pollers_lambda_s_endpoint_when_asked() -> None:
    def services(**options: Any) -> str:
        stack = cdk.Stack(cdk.App(context=cdk_context()), "Doors")
        Network(stack, "Network", log_key=Keys(stack, "Keys").logs, **options)
        template = cdk.assertions.Template.from_stack(stack).to_json()
        return json.dumps(resources(template, "AWS::EC2::VPCEndpoint"))

    assert ".lambda" in services(pollers=True)
    assert ".lambda" not in services()


# --- video


def test_should_take_pictures_each_minute(default: Template, options: Template) -> None:
    stream = only(default, "AWS::KinesisVideo::Stream")
    assert stream["DataRetentionInHours"] == 24
    assert only(options, "AWS::KinesisVideo::Stream")["DataRetentionInHours"] == 48
    schedule = only(default, "AWS::Scheduler::Schedule")
    assert schedule["ScheduleExpression"] == "cron(* * * * ? *)"
    assert json.loads(schedule["Target"]["Input"]) == {"until": "<aws.scheduler.scheduled-time>"}
    found = granted(default, "VideoPicturesRole")
    assert {a for a in found if a.startswith("kinesisvideo:")} == {
        "kinesisvideo:GetDataEndpoint",
        "kinesisvideo:GetImages",
    }
    assert "/video/*" in found["s3:PutObject"]
    assert "s3:GetObject" not in found
    assert "lambda:InvokeFunction" in actions(statements(default, "VideoScheduleRole"))


def test_should_let_a_camera_put_media_and_nothing_else(default: Template) -> None:
    found = granted(default, "Camera")
    assert {a for a in found if not a.startswith("kms:")} == {
        "kinesisvideo:DescribeStream",
        "kinesisvideo:GetDataEndpoint",
        "kinesisvideo:PutMedia",
    }
    assert "*" not in json.dumps(found)


# --- where a workload or an environment asks for it


@pytest.mark.parametrize(
    ("changes", "stream", "message"),
    [
        (
            {"network": NetworkChoice(interface_endpoints=False)},
            "stream: {kafka_topic: parcels}\n",
            "stream.kafka_topic needs endpoints .*network.interface_endpoints=False",
        ),
        (
            {"services": Services(dashboards=Dashboards(readers=(READER,)))},
            "",
            "services.dashboards asks through a workgroup of governance, got governance=None",
        ),
    ],
)
def test_should_say_what_a_workload_s_service_needs(
    tmp_path: Path, changes: dict[str, Any], stream: str, message: str
) -> None:
    (tmp_path / "workload.yaml").write_text(YAML + stream)
    loaded = load_workload(tmp_path)
    environment = replace(Environment(name="test"), **changes)
    app = cdk.App(context=cdk_context())
    foundation = FoundationStack(app, "Foundation", environment=environment)
    lake = DataLakeStack(app, "DataLake", environment=environment, workloads=[loaded])
    with pytest.raises(ValueError, match=message):
        WorkloadDataStack(
            app,
            "Data",
            environment=environment,
            workload=loaded,
            foundation=foundation,
            lake=lake.lake,
            governance=None,
        )
