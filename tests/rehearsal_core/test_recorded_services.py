"""What only an account runs deploys, is checked and is taken away; a reference to nothing is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rehearsal.server import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.rehearsal]

ROLE = "arn:aws:iam::123456789012:role/any"
GROUP = "arn:aws:quicksight:us-east-1:123456789012:group/default/analysts"
SUBNETS = ["subnet-1a2b3c4d", "subnet-2a2b3c4d", "subnet-3a2b3c4d"]


def resource(kind: str, *, after: str | None = None, **properties: Any) -> dict[str, Any]:
    found = {"Type": kind, "Properties": properties}
    return found if after is None else {**found, "DependsOn": after}


def chart(column: str) -> dict[str, Any]:
    named = {"ColumnName": column, "DataSetIdentifier": "table"}
    wells = {
        "Category": [{"CategoricalDimensionField": {"FieldId": "by", "Column": named}}],
        "Values": [],
    }
    visual = {"VisualId": "v", "ChartConfiguration": {"FieldWells": {"BarChartAggregatedFieldWells": wells}}}
    return {
        "DataSetIdentifierDeclarations": [
            {"Identifier": "table", "DataSetArn": {"Fn::GetAtt": ["DataSet", "Arn"]}}
        ],
        "Sheets": [{"SheetId": "s", "Visuals": [{"BarChartVisual": visual}]}],
    }


def template(*, column: str = "late", capacity: int = 8) -> str:
    table = {
        "DataSourceArn": {"Fn::GetAtt": ["DataSource", "Arn"]},
        "Schema": "lake",
        "Name": "parcels",
        "InputColumns": [{"Name": "late", "Type": "STRING"}],
    }
    rules = {"ResourceType": "collection", "Resource": ["collection/papers"]}
    closed = {"Rules": [rules, {**rules, "ResourceType": "dashboard"}], "AllowFromPublic": False}
    resources = {
        "Kafka": resource(
            "AWS::MSK::ServerlessCluster",
            ClusterName="parcels",
            VpcConfigs=[{"SubnetIds": SUBNETS, "SecurityGroups": ["sg-1a2b3c4d"]}],
            ClientAuthentication={"Sasl": {"Iam": {"Enabled": True}}},
        ),
        "Video": resource("AWS::KinesisVideo::Stream", Name="gate", DataRetentionInHours=24),
        "Namespace": resource("AWS::RedshiftServerless::Namespace", NamespaceName="wares", IamRoles=[ROLE]),
        "Workgroup": resource(
            "AWS::RedshiftServerless::Workgroup",
            after="Namespace",
            WorkgroupName="wares",
            NamespaceName="wares",
            BaseCapacity=capacity,
        ),
        "DataSource": resource(
            "AWS::QuickSight::DataSource",
            AwsAccountId={"Ref": "AWS::AccountId"},
            DataSourceId="parcels",
            Name="Parcels",
            Type="ATHENA",
            DataSourceParameters={"AthenaParameters": {"WorkGroup": "primary"}},
        ),
        "DataSet": resource(
            "AWS::QuickSight::DataSet",
            AwsAccountId={"Ref": "AWS::AccountId"},
            DataSetId="parcels",
            Name="Parcels",
            ImportMode="DIRECT_QUERY",
            PhysicalTableMap={"t": {"RelationalTable": table}},
            Permissions=[{"Principal": GROUP, "Actions": ["quicksight:DescribeDataSet"]}],
        ),
        "Dashboard": resource(
            "AWS::QuickSight::Dashboard",
            AwsAccountId={"Ref": "AWS::AccountId"},
            DashboardId="parcels",
            Name="Parcels",
            Definition=chart(column),
        ),
        "Door": resource(
            "AWS::OpenSearchServerless::VpcEndpoint", Name="papers", VpcId="vpc-1a2b3c4d", SubnetIds=SUBNETS
        ),
        "Encryption": resource(
            "AWS::OpenSearchServerless::SecurityPolicy",
            Name="papers-e",
            Type="encryption",
            Policy=json.dumps({"Rules": [rules], "AWSOwnedKey": True}),
        ),
        "Network": resource(
            "AWS::OpenSearchServerless::SecurityPolicy",
            Name="papers-n",
            Type="network",
            Policy={
                "Fn::Sub": [
                    json.dumps([{**closed, "SourceVPCEs": ["DOOR"]}]).replace("DOOR", "${Door}"),
                    {"Door": {"Ref": "Door"}},
                ]
            },
        ),
        "Collection": resource(
            "AWS::OpenSearchServerless::Collection", after="Encryption", Name="papers", Type="SEARCH"
        ),
        "Lustre": resource(
            "AWS::FSx::FileSystem",
            FileSystemType="LUSTRE",
            StorageCapacity=1200,
            SubnetIds=SUBNETS[:1],
            LustreConfiguration={"DeploymentType": "PERSISTENT_2", "PerUnitStorageThroughput": 125},
        ),
        "Link": resource(
            "AWS::FSx::DataRepositoryAssociation",
            FileSystemId={"Ref": "Lustre"},
            FileSystemPath="/lake",
            DataRepositoryPath="s3://lake/parcels/",
        ),
    }
    given = {
        "Kafka": {"Fn::GetAtt": ["Kafka", "Arn"]},
        "Video": {"Fn::GetAtt": ["Video", "Arn"]},
        "Namespace": {"Fn::GetAtt": ["Namespace", "Namespace.NamespaceArn"]},
        "Endpoint": {"Fn::GetAtt": ["Collection", "CollectionEndpoint"]},
        "Mount": {"Fn::GetAtt": ["Lustre", "LustreMountName"]},
        "Link": {"Ref": "Link"},
    }
    outputs = {name: {"Value": value} for name, value in given.items()}
    return json.dumps({"Resources": resources, "Outputs": outputs})


def settled(client: Callable[[str], Any], stack: str) -> dict[str, Any]:
    for _ in range(200):
        found: dict[str, Any] = client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
        if not found["StackStatus"].endswith("IN_PROGRESS"):
            return found
        time.sleep(0.1)
    raise AssertionError("the stack does not settle")


def reasons(client: Callable[[str], Any], stack: str) -> list[str]:
    events = client("cloudformation").describe_stack_events(StackName=stack)["StackEvents"]
    return [e["ResourceStatusReason"] for e in events if "FAILED" in e["ResourceStatus"]]


def test_should_record_and_change_and_take_away(client: Callable[[str], Any], server: ServerProcess) -> None:
    cloudformation = client("cloudformation")
    cloudformation.create_stack(StackName="wide", TemplateBody=template())
    found = settled(client, "wide")
    assert found["StackStatus"] == "CREATE_COMPLETE", reasons(client, "wide")
    outputs = {o["OutputKey"]: o["OutputValue"] for o in found["Outputs"]}
    assert outputs["Kafka"].startswith("arn:aws:kafka:us-east-1:123456789012:cluster/parcels/")
    assert outputs["Video"].startswith("arn:aws:kinesisvideo:us-east-1:123456789012:stream/gate/")
    assert outputs["Namespace"].startswith("arn:aws:redshift-serverless:us-east-1:123456789012:namespace/")
    assert outputs["Endpoint"]
    assert len(outputs["Mount"]) == 8
    assert outputs["Link"].startswith("dra-")
    kafka = client("kafka").describe_cluster_v2(ClusterArn=outputs["Kafka"])["ClusterInfo"]
    assert kafka["Serverless"]["VpcConfigs"][0]["SecurityGroupIds"] == ["sg-1a2b3c4d"]
    kinds = {e["kind"] for e in server.control("GET", "/ledger?outcome=recorded")["entries"]}
    assert {"kafka", "kinesisvideo", "redshift-serverless", "quicksight", "fsx"} <= kinds

    cloudformation.update_stack(StackName="wide", TemplateBody=template(capacity=16))
    assert settled(client, "wide")["StackStatus"] == "UPDATE_COMPLETE", reasons(client, "wide")
    warehouse = client("redshift-serverless")
    assert warehouse.get_workgroup(workgroupName="wares")["workgroup"]["baseCapacity"] == 16

    cloudformation.delete_stack(StackName="wide")
    for _ in range(100):
        if not client("fsx").describe_file_systems()["FileSystems"]:
            break
        time.sleep(0.1)
    assert client("fsx").describe_file_systems()["FileSystems"] == []
    assert client("opensearchserverless").list_collections()["collectionSummaries"] == []
    with pytest.raises(warehouse.exceptions.ResourceNotFoundException):
        warehouse.get_namespace(namespaceName="wares")


def test_should_refuse_a_dashboard_on_a_column_that_is_not_there(client: Callable[[str], Any]) -> None:
    client("cloudformation").create_stack(StackName="wrong", TemplateBody=template(column="lat"))
    assert settled(client, "wrong")["StackStatus"].startswith("ROLLBACK")
    assert any("The definition has no table.lat" in reason for reason in reasons(client, "wrong"))


def test_should_refuse_what_refers_to_nothing(client: Callable[[str], Any]) -> None:
    fsx, warehouse = client("fsx"), client("redshift-serverless")
    with pytest.raises(fsx.exceptions.FileSystemNotFound):
        fsx.create_data_repository_association(
            FileSystemId="fs-0123456789abcdef0", FileSystemPath="/l", DataRepositoryPath="s3://lake/"
        )
    with pytest.raises(warehouse.exceptions.ResourceNotFoundException):
        warehouse.create_workgroup(workgroupName="alone", namespaceName="nobody")


def test_should_refuse_a_policy_without_rules(client: Callable[[str], Any]) -> None:
    search = client("opensearchserverless")
    with pytest.raises(search.exceptions.ValidationException):
        search.create_access_policy(name="empty", type="data", policy="[]")
    with pytest.raises(search.exceptions.ValidationException):
        search.create_security_policy(name="empty", type="network", policy="[]")


def test_should_answer_that_no_camera_sends(client: Callable[[str], Any]) -> None:
    video, archive = client("kinesisvideo"), client("kinesis-video-archived-media")
    video.create_stream(StreamName="door", DataRetentionInHours=1)
    assert video.get_data_endpoint(StreamName="door", APIName="GET_IMAGES")["DataEndpoint"]
    start = datetime(2026, 1, 1, tzinfo=UTC)
    asked = {
        "StreamName": "door",
        "ImageSelectorType": "PRODUCER_TIMESTAMP",
        "StartTimestamp": start,
        "EndTimestamp": start + timedelta(minutes=1),
        "SamplingInterval": 3000,
        "Format": "JPEG",
    }
    pages = list(archive.get_paginator("get_images").paginate(**asked, PaginationConfig={"PageSize": 15}))
    images = [image for page in pages for image in page["Images"]]
    assert [len(page["Images"]) for page in pages] == [15, 5]
    assert {image["Error"] for image in images} == {"NO_MEDIA"}
    assert images[-1]["TimeStamp"] == start + timedelta(seconds=57)
    with pytest.raises(archive.exceptions.ResourceNotFoundException):
        archive.get_images(**{**asked, "StreamName": "window"})


@pytest.mark.parametrize(("granted", "status"), [(True, "CREATE_COMPLETE"), (False, "ROLLBACK_COMPLETE")])
def test_should_map_a_topic_only_where_the_functions_role_may_look(
    client: Callable[[str], Any], server: ServerProcess, *, granted: bool, status: str
) -> None:
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    cluster = {"Fn::GetAtt": ["Cluster", "Arn"]}
    looking = {
        "Effect": "Allow",
        "Action": ["kafka:DescribeClusterV2", "kafka:GetBootstrapBrokers"] if granted else "kafka:ListTopics",
        "Resource": cluster,
    }
    stack = f"topic-{str(granted).lower()}"
    resources = {
        "Cluster": resource(
            "AWS::MSK::ServerlessCluster",
            ClusterName=stack,
            VpcConfigs=[{"SubnetIds": SUBNETS}],
            ClientAuthentication={"Sasl": {"Iam": {"Enabled": True}}},
        ),
        "Role": resource(
            "AWS::IAM::Role",
            AssumeRolePolicyDocument={"Version": "2012-10-17", "Statement": [trust]},
            Policies=[
                {"PolicyName": "look", "PolicyDocument": {"Version": "2012-10-17", "Statement": [looking]}}
            ],
        ),
        "Function": resource(
            "AWS::Lambda::Function",
            Runtime="python3.13",
            Handler="index.handler",
            Role={"Fn::GetAtt": ["Role", "Arn"]},
            Code={"ZipFile": "def handler(event, context): return 1"},
        ),
        "Mapping": resource(
            "AWS::Lambda::EventSourceMapping",
            FunctionName={"Ref": "Function"},
            EventSourceArn=cluster,
            Topics=["parcels"],
            StartingPosition="TRIM_HORIZON",
        ),
    }
    client("cloudformation").create_stack(
        StackName=stack, TemplateBody=json.dumps({"Resources": resources}), Capabilities=["CAPABILITY_IAM"]
    )
    assert settled(client, stack)["StackStatus"] == status, reasons(client, stack)
    if granted:
        kinds = {e["kind"] for e in server.control("GET", "/ledger?outcome=recorded")["entries"]}
        assert "event-source-mapping" in kinds
    else:
        refused = "does not have permissions to call DescribeClusterV2 on Kafka"
        assert any(refused in reason for reason in reasons(client, stack))
