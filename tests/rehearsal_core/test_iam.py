"""The deployed policies decide what a function, a job or any other role may do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError
from core_support import Deployed, client_of

pytestmark = [pytest.mark.slow, pytest.mark.rehearsal]


@pytest.fixture(scope="module")
def outputs(deployed: Deployed) -> dict[str, str]:
    return {**deployed.cdk.outputs("CoreStorage"), **deployed.cdk.outputs("CoreWork")}


def _invoke(deployed: Deployed, function: str, service: str, call: str, **params: Any) -> tuple[str, Any]:
    """Let the probe function make a call; return its error text, empty without one, and its answer."""
    event = {"service": service, "call": call, "params": params}
    answer = deployed.client("lambda").invoke(FunctionName=function, Payload=json.dumps(event).encode())
    payload = json.loads(answer["Payload"].read())
    return (payload["errorMessage"], None) if "FunctionError" in answer else ("", payload)


def test_should_run_a_function_as_its_role(deployed: Deployed, outputs: dict[str, str]) -> None:
    _, answer = _invoke(
        deployed,
        outputs["FunctionName"],
        "sagemaker",
        "describe_model_package_group",
        ModelPackageGroupName="core-group",
    )
    role = outputs["FunctionRole"].rsplit("/", 1)[-1]
    account = deployed.server.account
    assert answer["identity"] == f"arn:aws:sts::{account}:assumed-role/{role}/{outputs['FunctionName']}"


def test_should_allow_what_the_policy_grants(deployed: Deployed, outputs: dict[str, str]) -> None:
    error, _ = _invoke(
        deployed,
        outputs["FunctionName"],
        "s3",
        "put_object",
        Bucket=outputs["BucketName"],
        Key="allowed/x",
        Body="1",
    )
    assert error == ""


def test_should_refuse_a_key_outside_of_the_grant(deployed: Deployed, outputs: dict[str, str]) -> None:
    error, _ = _invoke(
        deployed,
        outputs["FunctionName"],
        "s3",
        "put_object",
        Bucket=outputs["BucketName"],
        Key="other/x",
        Body="1",
    )
    role = outputs["FunctionRole"].rsplit("/", 1)[-1]
    assert "AccessDenied" in error
    assert f"assumed-role/{role}/" in error
    assert "is not authorized to perform: s3:PutObject" in error
    assert "because no identity-based policy allows the s3:PutObject action" in error


def test_should_refuse_a_service_that_is_not_granted(deployed: Deployed, outputs: dict[str, str]) -> None:
    error, _ = _invoke(deployed, outputs["FunctionName"], "sagemaker", "list_endpoints")
    assert "AccessDeniedException" in error
    assert "not authorized to perform: sagemaker:ListEndpoints" in error


def test_should_ask_for_the_key_of_an_encrypted_bucket(deployed: Deployed, outputs: dict[str, str]) -> None:
    iam, role = deployed.client("iam"), outputs["FunctionRole"].rsplit("/", 1)[-1]
    (policy,) = iam.list_role_policies(RoleName=role)["PolicyNames"]
    document = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
    without_kms = {
        **document,
        "Statement": [s for s in document["Statement"] if "kms" not in json.dumps(s["Action"])],
    }
    assert without_kms["Statement"] != document["Statement"]
    iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=json.dumps(without_kms))
    try:
        error, _ = _invoke(
            deployed,
            outputs["FunctionName"],
            "s3",
            "put_object",
            Bucket=outputs["BucketName"],
            Key="allowed/y",
            Body="1",
        )
    finally:
        iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=json.dumps(document))
    assert 'not authorized to perform: kms:GenerateDataKey on resource: "arn:aws:kms:' in error


def test_should_ask_for_the_right_to_pass_a_role(deployed: Deployed, outputs: dict[str, str]) -> None:
    iam, role = deployed.client("iam"), outputs["FunctionRole"].rsplit("/", 1)[-1]
    statement = {"Effect": "Allow", "Action": "sagemaker:CreateModel", "Resource": "*"}
    document = {"Version": "2012-10-17", "Statement": [statement]}
    iam.put_role_policy(RoleName=role, PolicyName="create", PolicyDocument=json.dumps(document))
    params = {"ModelName": "passed", "ExecutionRoleArn": outputs["JobRole"]}
    error, _ = _invoke(deployed, outputs["FunctionName"], "sagemaker", "create_model", **params)
    assert f"not authorized to perform: iam:PassRole on resource: {outputs['JobRole']}" in error
    passing = {"Effect": "Allow", "Action": "iam:PassRole", "Resource": outputs["JobRole"]}
    document["Statement"].append(passing)
    iam.put_role_policy(RoleName=role, PolicyName="create", PolicyDocument=json.dumps(document))
    error, _ = _invoke(deployed, outputs["FunctionName"], "sagemaker", "create_model", **params)
    iam.delete_role_policy(RoleName=role, PolicyName="create")
    # The service itself wants a container; IAM has nothing against the call any more.
    assert "iam:PassRole" not in error


def test_should_obey_a_permissions_boundary(deployed: Deployed, outputs: dict[str, str]) -> None:
    iam, role = deployed.client("iam"), outputs["FunctionRole"].rsplit("/", 1)[-1]
    limit = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    arn = iam.create_policy(PolicyName="limit", PolicyDocument=json.dumps(limit))["Policy"]["Arn"]
    iam.put_role_permissions_boundary(RoleName=role, PermissionsBoundary=arn)
    try:
        error, _ = _invoke(
            deployed,
            outputs["FunctionName"],
            "sagemaker",
            "describe_model_package_group",
            ModelPackageGroupName="core-group",
        )
    finally:
        iam.delete_role_permissions_boundary(RoleName=role)
    assert "not authorized to perform: sagemaker:DescribeModelPackageGroup" in error


def test_should_enforce_a_role_that_somebody_assumed(deployed: Deployed, outputs: dict[str, str]) -> None:
    session = deployed.client("sts").assume_role(RoleArn=outputs["JobRole"], RoleSessionName="somebody")
    given = session["Credentials"]
    s3 = client_of(
        deployed.server,
        "s3",
        aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"],
        aws_session_token=given["SessionToken"],
    )
    s3.put_object(Bucket=outputs["BucketName"], Key="job/x", Body=b"1")
    assert s3.get_object(Bucket=outputs["BucketName"], Key="job/x")["Body"].read() == b"1"
    with pytest.raises(ClientError) as caught:
        s3.list_buckets()
    assert caught.value.response["Error"]["Code"] == "AccessDenied"


def test_should_list_used_unused_and_refused_permissions(deployed: Deployed, outputs: dict[str, str]) -> None:
    _invoke(
        deployed,
        outputs["FunctionName"],
        "s3",
        "put_object",
        Bucket=outputs["BucketName"],
        Key="allowed/z",
        Body="1",
    )
    _invoke(
        deployed,
        outputs["FunctionName"],
        "s3",
        "put_object",
        Bucket=outputs["BucketName"],
        Key="other/z",
        Body="1",
    )
    roles = {row["role"]: row for row in deployed.server.control("GET", "/iam")["roles"]}
    grants = {grant["action"]: grant["used"] for grant in roles[outputs["FunctionRole"]]["grants"]}
    assert grants["s3:PutObject"] is True
    assert grants["s3:Abort*"] is False
    refused = {(row["action"], row["resource"]) for row in roles[outputs["FunctionRole"]]["refused"]}
    assert ("s3:PutObject", f"arn:aws:s3:::{outputs['BucketName']}/other/z") in refused
    assert not any("cfn-exec" in role for role in roles)


def test_should_note_that_a_function_ran(deployed: Deployed, outputs: dict[str, str]) -> None:
    entries = deployed.server.control("GET", "/ledger?kind=lambda&outcome=ran")["entries"]
    assert outputs["FunctionName"] in {entry["name"] for entry in entries}


def test_should_hide_the_projects_own_sources_from_functions(deployed: Deployed) -> None:
    import io
    import zipfile

    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr(
            "f.py", "def handler(event, context):\n    import ml_contract\n    return ml_contract.__file__\n"
        )
    role = {"Version": "2012-10-17", "Statement": []}
    arn = deployed.client("iam").create_role(RoleName="lonely", AssumeRolePolicyDocument=json.dumps(role))[
        "Role"
    ]["Arn"]
    deployed.client("lambda").create_function(
        FunctionName="lonely",
        Runtime="python3.13",
        Role=arn,
        Handler="f.handler",
        Code={"ZipFile": data.getvalue()},
    )
    answer = deployed.client("lambda").invoke(FunctionName="lonely")
    assert "No module named 'ml_contract'" in json.loads(answer["Payload"].read())["errorMessage"]
