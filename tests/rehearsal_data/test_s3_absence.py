"""What S3 says of an object that is not there depends on who asks."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

import rehearsal
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


def test_should_let_spark_read_and_write_only_with_leave_to_ask_for_folders(
    acting: Callable[..., Any],
    client: Callable[[str], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a data lake's Zone grants by prefix is not enough for Hadoop's file systems; its folders are."""

    monkeypatch.syspath_prepend(str(Path(rehearsal.__file__).parent / "glue_shim"))
    local_s3 = importlib.import_module("awsglue.local_s3")

    def objects(actions: list[str], *keys: str) -> dict[str, Any]:
        return {"Action": actions, "Resource": [f"arn:aws:s3:::{BUCKET}/{key}" for key in keys]}

    listing = {"Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{BUCKET}"}
    writing = objects(["s3:PutObject", "s3:DeleteObject"], "zone/out/*")
    (tmp_path / "written").mkdir()
    (tmp_path / "written" / "part-0.parquet").write_bytes(b"2")

    def spark(name: str, *statements: dict[str, Any]) -> Any:
        mirror = local_s3.Mirror(tmp_path / name)
        mirror._client = acting(name, *statements)
        return mirror

    by_prefix = spark(
        "absence-prefix", {**listing, "Condition": {"StringLike": {"s3:prefix": "zone/*"}}}, writing
    )
    with pytest.raises(PermissionError, match="403"):
        by_prefix.pull(f"s3://{BUCKET}/zone/")
    with pytest.raises(PermissionError, match="403"):
        by_prefix.push(tmp_path / "written", f"s3://{BUCKET}/zone/out/", replace="nothing")

    by_folder = spark(
        "absence-folder",
        listing,
        writing,
        objects(["s3:GetObject"], "zone"),
        objects(["s3:PutObject", "s3:DeleteObject"], "zone_$folder$", "zone/out_$folder$"),
    )
    assert Path(by_folder.pull(f"s3://{BUCKET}/zone/").removeprefix("file://"), "here").read_bytes() == b"1"
    by_folder.push(tmp_path / "written", f"s3://{BUCKET}/zone/out/", replace="nothing")
    keys = [item["Key"] for item in client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert keys == ["zone/here", "zone/out/part-0.parquet"]
