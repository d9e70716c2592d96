"""Managed Airflow deploys, is checked and is taken away; no Airflow runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from rehearsal.server import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.rehearsal]


def template(**changes: Any) -> str:
    properties = {
        "Name": "test-training",
        "AirflowVersion": "2.10.3",
        "ExecutionRoleArn": "arn:aws:iam::123456789012:role/any",
        "SourceBucketArn": "arn:aws:s3:::dags",
        "DagS3Path": "airflow/1",
        "WebserverAccessMode": "PRIVATE_ONLY",
        "AirflowConfigurationOptions": {"training.pipelines": '["a"]'},
        "NetworkConfiguration": {"SubnetIds": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]},
    }
    airflow = {"Type": "AWS::MWAA::Environment", "Properties": properties | changes}
    outputs = {"Name": {"Value": {"Ref": "Airflow"}}, "Arn": {"Value": {"Fn::GetAtt": ["Airflow", "Arn"]}}}
    return json.dumps({"Resources": {"Airflow": airflow}, "Outputs": outputs})


def airflow(server: ServerProcess) -> Any:
    import boto3

    environment = server.environment()
    make: Callable[..., Any] = boto3.client
    return make(
        "mwaa",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        config=Config(inject_host_prefix=False, proxies={}),
    )


def test_should_keep_an_environment_of_airflow(server: ServerProcess, client: Callable[[str], Any]) -> None:
    stacks = client("cloudformation")
    stacks.create_stack(StackName="airflow", TemplateBody=template())
    stacks.get_waiter("stack_create_complete").wait(
        StackName="airflow", WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    (stack,) = stacks.describe_stacks(StackName="airflow")["Stacks"]
    outputs = {o["OutputKey"]: o["OutputValue"] for o in stack["Outputs"]}
    assert outputs["Name"] == "test-training"
    assert outputs["Arn"].endswith(":environment/test-training")
    assert ":airflow:" in outputs["Arn"]
    found = airflow(server).get_environment(Name="test-training")["Environment"]
    assert found["AirflowConfigurationOptions"] == {"training.pipelines": '["a"]'}
    entries = server.control("GET", "/ledger?outcome=recorded&kind=mwaa")["entries"]
    assert [entry["why"] for entry in entries] == ["no Airflow runs"]
    stacks.delete_stack(StackName="airflow")
    stacks.get_waiter("stack_delete_complete").wait(
        StackName="airflow", WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    with pytest.raises(ClientError):
        airflow(server).get_environment(Name="test-training")
