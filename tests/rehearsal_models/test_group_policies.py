"""Another account sees the versions of a group as the group's policy says."""

import json
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from .conftest import Rehearsal, allow

pytestmark = [pytest.mark.rehearsal, pytest.mark.slow]

READER, STRANGER = "210987654321", "999999999999"
OWNED = "arn:aws:sagemaker:us-east-1:123456789012"


def client_of(rehearsal: Rehearsal, account: str, service: str, **keys: str) -> Any:
    """A client of another account's operator, or of a session there."""
    given = keys or {"aws_access_key_id": account, "aws_secret_access_key": "x"}
    make: Any = boto3.client
    return make(
        service,
        endpoint_url=rehearsal.server.endpoint,
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1}, proxies={}),
        **given,
    )


def reader(rehearsal: Rehearsal, account: str) -> Any:
    """SageMaker as a role of another account which that account lets read everything."""
    iam = client_of(rehearsal, account, "iam")
    trust = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{account}:root"}}
    document = {"Version": "2012-10-17", "Statement": [{**trust, "Action": "sts:AssumeRole"}]}
    arn = iam.create_role(RoleName="reader", AssumeRolePolicyDocument=json.dumps(document))["Role"]["Arn"]
    own = {"Version": "2012-10-17", "Statement": [allow("sagemaker:DescribeModelPackage")]}
    iam.put_role_policy(RoleName="reader", PolicyName="own", PolicyDocument=json.dumps(own))
    sts = client_of(rehearsal, account, "sts")
    given = sts.assume_role(RoleArn=arn, RoleSessionName="reads")["Credentials"]
    return client_of(
        rehearsal,
        account,
        "sagemaker",
        aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"],
        aws_session_token=given["SessionToken"],
    )


def test_should_show_versions_to_the_accounts_that_the_policy_names(rehearsal: Rehearsal) -> None:
    sagemaker = rehearsal.client("sagemaker")
    sagemaker.create_model_package_group(ModelPackageGroupName="lent")
    arn = sagemaker.create_model_package(
        ModelPackageGroupName="lent",
        InferenceSpecification={
            "Containers": [{"Image": rehearsal.server_image}],
            "SupportedContentTypes": ["text/csv"],
            "SupportedResponseMIMETypes": ["text/csv"],
        },
    )["ModelPackageArn"]
    with pytest.raises(ClientError, match="Cannot find resource policy for"):
        sagemaker.get_model_package_group_policy(ModelPackageGroupName="lent")
    named, unnamed = reader(rehearsal, READER), reader(rehearsal, STRANGER)
    with pytest.raises(ClientError, match="AccessDenied"):
        named.describe_model_package(ModelPackageName=arn)
    statement = {
        **allow("sagemaker:DescribeModelPackage", on=f"{OWNED}:model-package/lent/*"),
        "Principal": {"AWS": f"arn:aws:iam::{READER}:root"},
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    sagemaker.put_model_package_group_policy(ModelPackageGroupName="lent", ResourcePolicy=policy)
    found = sagemaker.get_model_package_group_policy(ModelPackageGroupName="lent")["ResourcePolicy"]
    assert json.loads(found) == json.loads(policy)
    assert named.describe_model_package(ModelPackageName=arn)["ModelPackageVersion"] == 1
    with pytest.raises(ClientError, match="AccessDenied"):
        unnamed.describe_model_package(ModelPackageName=arn)
    sagemaker.delete_model_package_group_policy(ModelPackageGroupName="lent")
    with pytest.raises(ClientError, match="AccessDenied"):
        named.describe_model_package(ModelPackageName=arn)
    other = policy.replace("lent", "other")
    with pytest.raises(ClientError, match="names another resource"):
        sagemaker.put_model_package_group_policy(ModelPackageGroupName="lent", ResourcePolicy=other)
