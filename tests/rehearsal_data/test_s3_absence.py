"""What S3 says of an object that is not there depends on who asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import boto3.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from rehearsal.server import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.rehearsal]

BUCKET = "absence"


@pytest.fixture(scope="module", autouse=True)
def bucket(client: Callable[[str], Any]) -> None:
    client("s3").create_bucket(Bucket=BUCKET)
    client("s3").put_object(Bucket=BUCKET, Key="zone/here", Body=b"1")


@pytest.fixture
def acting(server: ServerProcess, client: Callable[[str], Any], role: Any) -> Callable[..., Any]:
    """An S3 client that acts as a role with these statements and leave to read below ``zone/``."""

    def make(name: str, *statements: dict[str, Any]) -> Any:
        reading = {"Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{BUCKET}/zone/*"}
        arn = role(name, "lambda.amazonaws.com", [reading, *statements])
        given = client("sts").assume_role(RoleArn=arn, RoleSessionName="reader")["Credentials"]
        session: Any = boto3.session.Session()
        return session.client(
            "s3",
            endpoint_url=server.endpoint,
            region_name=server.region,
            aws_access_key_id=given["AccessKeyId"],
            aws_secret_access_key=given["SecretAccessKey"],
            aws_session_token=given["SessionToken"],
            config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
        )

    return make


def codes(s3: Any) -> tuple[str, str]:
    assert s3.get_object(Bucket=BUCKET, Key="zone/here")["Body"].read() == b"1"
    found = []
    for call in (s3.get_object, s3.head_object):
        with pytest.raises(ClientError) as refused:
            call(Bucket=BUCKET, Key="zone/nowhere")
        found.append(refused.value.response["Error"]["Code"])
    return found[0], found[1]


def test_should_say_404_to_who_may_list_the_bucket(acting: Callable[..., Any]) -> None:
    listing = {"Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{BUCKET}"}
    assert codes(acting("absence-lists", listing)) == ("NoSuchKey", "404")


def test_should_say_403_to_who_may_list_a_part_or_nothing(acting: Callable[..., Any]) -> None:
    part = {
        "Action": "s3:ListBucket",
        "Resource": f"arn:aws:s3:::{BUCKET}",
        "Condition": {"StringLike": {"s3:prefix": ["zone/", "zone/*"]}},
    }
    s3 = acting("absence-lists-a-part", part)
    assert codes(s3) == ("AccessDenied", "403")
    assert [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET, Prefix="zone/")["Contents"]] == [
        "zone/here"
    ]
    assert codes(acting("absence-lists-nothing")) == ("AccessDenied", "403")
