"""DMS and DataSync deploy and are taken away; what they would read from is not there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from rehearsal.server import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.rehearsal]

ROLE = "arn:aws:iam::123456789012:role/any"
AGENT = "arn:aws:datasync:us-east-1:123456789012:agent/agent-0123456789abcdef0"
TEMPLATE = {
    "Resources": {
        "Group": {
            "Type": "AWS::DMS::ReplicationSubnetGroup",
            "Properties": {
                "ReplicationSubnetGroupDescription": "where",
                "ReplicationSubnetGroupIdentifier": "where",
                "SubnetIds": ["subnet-1", "subnet-2"],
            },
        },
        "Source": {
            "Type": "AWS::DMS::Endpoint",
            "Properties": {
                "EndpointType": "source",
                "EngineName": "postgres",
                "DatabaseName": "parcels",
                "SslMode": "require",
                "PostgreSqlSettings": {
                    "SecretsManagerAccessRoleArn": ROLE,
                    "SecretsManagerSecretId": "login",
                },
            },
        },
        "Target": {
            "Type": "AWS::DMS::Endpoint",
            "Properties": {
                "EndpointType": "target",
                "EngineName": "s3",
                "S3Settings": {
                    "BucketName": "drop",
                    "BucketFolder": "drop/ledger",
                    "ServiceAccessRoleArn": ROLE,
                    "DataFormat": "parquet",
                    "IncludeOpForFullLoad": True,
                },
            },
        },
        "Replication": {
            "Type": "AWS::DMS::ReplicationConfig",
            "Properties": {
                "ReplicationConfigIdentifier": "ledger",
                "ReplicationType": "full-load-and-cdc",
                "SourceEndpointArn": {"Ref": "Source"},
                "TargetEndpointArn": {"Ref": "Target"},
                "TableMappings": {"rules": []},
                "ComputeConfig": {"MaxCapacityUnits": 4, "ReplicationSubnetGroupId": {"Ref": "Group"}},
            },
        },
        "Files": {
            "Type": "AWS::DataSync::LocationNFS",
            "Properties": {
                "ServerHostname": "files.example.com",
                "Subdirectory": "/out",
                "OnPremConfig": {"AgentArns": [AGENT]},
            },
        },
        "Drop": {
            "Type": "AWS::DataSync::LocationS3",
            "Properties": {
                "S3BucketArn": "arn:aws:s3:::drop",
                "Subdirectory": "/drop/share/",
                "S3Config": {"BucketAccessRoleArn": ROLE},
            },
        },
        "Task": {
            "Type": "AWS::DataSync::Task",
            "Properties": {
                "SourceLocationArn": {"Ref": "Files"},
                "DestinationLocationArn": {"Ref": "Drop"},
                "Schedule": {"ScheduleExpression": "rate(1 day)"},
                "Options": {"VerifyMode": "ONLY_FILES_TRANSFERRED"},
            },
        },
    },
    "Outputs": {
        "Replication": {"Value": {"Ref": "Replication"}},
        "Task": {"Value": {"Ref": "Task"}},
    },
}


def _settled(client: Callable[[str], Any], stack: str) -> dict[str, Any]:
    for _ in range(100):
        found: dict[str, Any] = client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
        if not found["StackStatus"].endswith("IN_PROGRESS"):
            return found
        time.sleep(0.1)
    raise AssertionError("the stack does not settle")


def test_should_record_replications_and_transfers(
    client: Callable[[str], Any], server: ServerProcess
) -> None:
    cloudformation = client("cloudformation")
    cloudformation.create_stack(StackName="moves", TemplateBody=json.dumps(TEMPLATE))
    found = _settled(client, "moves")
    assert found["StackStatus"] == "CREATE_COMPLETE", cloudformation.describe_stack_events(StackName="moves")
    outputs = {o["OutputKey"]: o["OutputValue"] for o in found["Outputs"]}
    assert outputs["Replication"].startswith("arn:aws:dms:")
    assert ":task/task-" in outputs["Task"]
    entries = server.control("GET", "/ledger?outcome=recorded")["entries"]
    assert {"dms", "datasync"} <= {e["kind"] for e in entries}
    cloudformation.delete_stack(StackName="moves")


def test_should_refuse_a_task_between_places_that_are_not_there(client: Callable[[str], Any]) -> None:
    datasync = client("datasync")
    arn = "arn:aws:datasync:us-east-1:123456789012:location/loc-0123456789abcdef0"
    with pytest.raises(datasync.exceptions.InvalidRequestException, match="there is no"):
        datasync.create_task(SourceLocationArn=arn, DestinationLocationArn=arn)


def test_should_refer_to_a_secret_by_its_arn(client: Callable[[str], Any]) -> None:
    def template(description: str) -> str:
        generated = {"SecretStringTemplate": '{"username": "u"}', "GenerateStringKey": "password"}
        properties = {"Description": description, "GenerateSecretString": generated}
        secret = {"Type": "AWS::SecretsManager::Secret", "Properties": properties}
        output = {"Secret": {"Value": {"Ref": "Login"}}}
        return json.dumps({"Resources": {"Login": secret}, "Outputs": output})

    cloudformation, secrets = client("cloudformation"), client("secretsmanager")
    cloudformation.create_stack(StackName="login", TemplateBody=template("one"))
    (output,) = _settled(client, "login")["Outputs"]
    arn = output["OutputValue"]
    assert arn.startswith("arn:aws:secretsmanager:")
    assert json.loads(secrets.get_secret_value(SecretId=arn)["SecretString"])["username"] == "u"
    cloudformation.update_stack(StackName="login", TemplateBody=template("two"))
    assert _settled(client, "login")["Outputs"][0]["OutputValue"] == arn
    assert secrets.describe_secret(SecretId=arn)["Description"] == "two"
    cloudformation.delete_stack(StackName="login")
    time.sleep(1)
    assert arn not in [s["ARN"] for s in secrets.list_secrets()["SecretList"]]
