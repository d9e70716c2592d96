"""Another account takes a role as its trust policy says, and may then do what the role may."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError
from core_support import client_of

from rehearsal.server import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.rehearsal]

STRANGER = "210987654321"


@pytest.fixture(scope="module")
def role(client: Callable[[str], Any]) -> str:
    """A role for the stranger that writes below one prefix."""
    client("s3").create_bucket(Bucket="dropped")
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{STRANGER}:root"},
                "Action": "sts:AssumeRole",
                "Condition": {"StringEquals": {"sts:ExternalId": "agreed-upon"}},
            }
        ],
    }
    made = client("iam").create_role(RoleName="sender", AssumeRolePolicyDocument=json.dumps(trust))
    allowed = {"Effect": "Allow", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::dropped/sender/*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    client("iam").put_role_policy(RoleName="sender", PolicyName="own", PolicyDocument=document)
    return str(made["Role"]["Arn"])


def _stranger(server: ServerProcess, account: str = STRANGER) -> Any:
    return client_of(server, "sts", aws_access_key_id=account, aws_secret_access_key="x")


@pytest.mark.parametrize(
    ("account", "given"),
    [(STRANGER, {}), (STRANGER, {"ExternalId": "guessed"}), ("999999999999", {"ExternalId": "agreed-upon"})],
)
def test_should_refuse_who_is_not_meant(
    server: ServerProcess, role: str, account: str, given: dict[str, str]
) -> None:
    with pytest.raises(ClientError, match="not authorized to perform: sts:AssumeRole"):
        _stranger(server, account).assume_role(RoleArn=role, RoleSessionName="sender", **given)


def test_should_let_the_stranger_do_what_the_role_may_and_no_more(server: ServerProcess, role: str) -> None:
    answer = _stranger(server).assume_role(RoleArn=role, RoleSessionName="sender", ExternalId="agreed-upon")
    given = answer["Credentials"]
    s3 = client_of(
        server,
        "s3",
        aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"],
        aws_session_token=given["SessionToken"],
    )
    s3.put_object(Bucket="dropped", Key="sender/a", Body=b"x")
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.put_object(Bucket="dropped", Key="other/a", Body=b"x")
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.get_object(Bucket="dropped", Key="sender/a")
