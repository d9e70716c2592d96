"""The destroy says what stays and why, and deletes it with two consents only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from cdk_support import Assembly
from moto import mock_aws
from small_assembly import resource, write

from cost import announce, read_stacks
from tools import destroy

CONSENT = {"Metadata": {"ml-lifecycle:destroy-data": True}}
DATA = {
    "Bucket": resource("AWS::S3::Bucket", DeletionPolicy="Retain"),
    "Key": resource("AWS::KMS::Key", DeletionPolicy="Retain"),
    "Approved": resource("Custom::ApprovalParameter", OnDelete="keep"),
    "Queue": resource("AWS::SQS::Queue"),
}


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        yield


def test_should_say_what_stays_why_and_what_that_costs(assembly: Assembly) -> None:
    announced = announce([s for s in read_stacks(assembly.folder) if s.stage == "Dev"])
    kinds = {one.type for one in announced.stays}
    assert {"AWS::S3::Bucket", "AWS::KMS::Key", "AWS::Kinesis::Stream", "Custom::ApprovalParameter"} <= kinds
    assert kinds <= destroy.DELETERS.keys(), "the tool cannot delete what a template retains"
    assert announced.consented
    assert announced.protected == []
    assert all(one.why != "its template retains it" for one in announced.stays)
    assert 0 < announced.after < announced.before
    assert "without it nobody can read the data" in announced.text()
    production = announce([s for s in read_stacks(assembly.folder) if s.stage == "Prod"])
    assert not production.consented
    assert "Prod/DataLake" in production.protected


@pytest.mark.parametrize(
    ("arguments", "consent", "why"),
    [
        (["--data", "prod"], True, "--data must be the environment's name, 'dev', got 'prod'"),
        (["--data", "dev"], False, "dev gives no first consent"),
    ],
)
def test_should_need_both_consents_before_data_goes(
    arguments: list[str], consent: bool, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path, {"Dev/Data": DATA}, **(CONSENT if consent else {}))
    assert destroy.main(["dev", "--assembly", str(folder), *arguments, "--yes"]) == 2
    assert why in capsys.readouterr().err


def test_should_ask_for_the_name_and_do_nothing_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path, {"Dev/Data": DATA}, **CONSENT)
    monkeypatch.setattr(destroy.subprocess, "run", lambda *a, **k: pytest.fail("something was destroyed"))
    monkeypatch.setattr("builtins.input", lambda _: "staging")
    assert destroy.main(["dev", "--assembly", str(folder)]) == 1
    assert "nothing was done" in capsys.readouterr().out
    assert destroy.main(["dev", "--assembly", str(folder), "--list", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {one["logical_id"] for one in said["stays"]} == {"Bucket", "Key", "Approved"}
    assert said["goes"] == {"AWS::SQS::Queue": 1}


def test_should_delete_what_stayed_and_say_what_it_could_not(account: None, tmp_path: Path) -> None:
    s3, kms, ssm = (boto3.client(name) for name in ("s3", "kms", "ssm"))
    s3.create_bucket(Bucket="raw")
    s3.put_bucket_versioning(Bucket="raw", VersioningConfiguration={"Status": "Enabled"})
    for _ in range(2):
        s3.put_object(Bucket="raw", Key="record", Body=b"1")
    s3.delete_object(Bucket="raw", Key="record")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    ssm.put_parameter(Name="/approved", Value="none", Type="String")
    resources = DATA | {
        "Gone": resource("AWS::S3::Bucket", DeletionPolicy="Retain"),
        "Strange": resource("AWS::Brand::New", DeletionPolicy="Retain"),
    }
    announced = announce(read_stacks(write(tmp_path, {"Dev/Data": resources}, **CONSENT)))
    names = {"Bucket": "raw", "Key": key, "Approved": "/approved", "Gone": "never-made", "Strange": "x"}
    said = list(
        destroy.delete(boto3.client, announced, {("Dev-Data", logical): n for logical, n in names.items()})
    )
    assert [line for line in said if line.startswith("left")] == [
        "left: AWS::Brand::New x: this program cannot delete it"
    ]
    assert s3.list_buckets()["Buckets"] == []
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "PendingDeletion"
    assert ssm.describe_parameters()["Parameters"] == []
    # Who can read is deleted after what is read.
    assert said.index(f"deleted: AWS::KMS::Key {key}") > said.index("deleted: AWS::S3::Bucket raw")


class Deployed:
    """CloudFormation with one stack; any other one does not exist."""

    def __call__(self, service: str) -> Deployed:
        assert service == "cloudformation"
        return self

    def get_paginator(self, operation: str) -> Deployed:
        assert operation == "list_stack_resources"
        return self

    def paginate(self, *, StackName: str) -> Iterator[dict[str, Any]]:  # noqa: N803 - boto3's name
        if StackName != "Dev-Data":
            error = {"Code": "ValidationError", "Message": f"Stack with id {StackName} does not exist"}
            raise ClientError({"Error": error}, "ListStackResources")  # type: ignore[typeddict-item]
        made = {"LogicalResourceId": "Bucket", "PhysicalResourceId": "raw"}
        other = {"LogicalResourceId": "Queue", "PhysicalResourceId": "queue"}
        yield {"StackResourceSummaries": [made, other, {"LogicalResourceId": "Key"}]}


def test_should_find_names_of_deployed_stacks_only(tmp_path: Path) -> None:
    announced = announce(read_stacks(write(tmp_path, {"Dev/Data": DATA, "Dev/Never": DATA})))
    assert destroy.physical_ids(Deployed(), announced) == {("Dev-Data", "Bucket"): "raw"}
