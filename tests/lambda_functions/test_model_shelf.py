"""The shelf: approved models by their number, the newest ones, nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from model_shelf.handler import apply
from moto import mock_aws

GROUP = "arn:aws:sagemaker:us-east-1:123456789012:model-package/parcels"
BUCKET = "artifacts"
PREFIX = "parcel-delay/served/"


class Registry:
    """Packages whose model data stands in the bucket, or nowhere."""

    def describe_model_package(self, *, ModelPackageName: str) -> dict[str, Any]:  # noqa: N803
        version = ModelPackageName.rsplit("/", 1)[1]
        url = {} if version == "99" else {"ModelDataUrl": f"s3://{BUCKET}/training/{version}/model.tar.gz"}
        chosen = {"Environment": {"DECISION_THRESHOLD": "0.31"}} if version == "5" else {}
        return {"InferenceSpecification": {"Containers": [{"Image": "stand-in", **url, **chosen}]}}


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket=BUCKET)
        for version in range(1, 8):
            client.put_object(
                Bucket=BUCKET, Key=f"training/{version}/model.tar.gz", Body=f"model {version}".encode()
            )
        yield client


def request(kind: str, version: int, keep: int = 2, before: int | None = None) -> dict[str, Any]:
    properties = {
        "ModelPackage": f"{GROUP}/{version}",
        "Bucket": BUCKET,
        "Prefix": PREFIX,
        "Keep": str(keep),
    }
    old = {} if before is None else {"OldResourceProperties": {"ModelPackage": f"{GROUP}/{before}"}}
    return {"RequestType": kind, "ResourceProperties": properties, **old}


def shelf(s3: Any) -> dict[str, str]:
    listed = s3.list_objects_v2(Bucket=BUCKET, Prefix=PREFIX).get("Contents", [])
    return {
        item["Key"].removeprefix(PREFIX): s3.get_object(Bucket=BUCKET, Key=item["Key"])["Body"]
        .read()
        .decode()
        for item in listed
    }


def test_should_put_the_approved_model_under_its_number(s3: Any) -> None:
    made = apply(request("Create", 3), Registry(), s3)
    assert shelf(s3) == {"3.tar.gz": "model 3"}
    assert made.attributes == {
        "Uri": f"s3://{BUCKET}/{PREFIX}3.tar.gz",
        "Target": "3.tar.gz",
        "Version": "3",
        "DecisionThreshold": "none",
    }


def test_should_hand_on_the_threshold_that_was_chosen_for_the_version(s3: Any) -> None:
    assert apply(request("Create", 5), Registry(), s3).attributes["DecisionThreshold"] == "0.31"


def test_should_keep_the_newest_and_the_one_that_answers_until_now(s3: Any) -> None:
    resource = apply(request("Create", 1, keep=3), Registry(), s3).id
    for version in (2, 5, 6, 7):
        before = {2: 1, 5: 2, 6: 5, 7: 6}[version]
        made = apply(request("Update", version, keep=3, before=before), Registry(), s3)
        # Another id would make CloudFormation delete the folder after the update.
        assert made.id == resource
    assert set(shelf(s3)) == {"5.tar.gz", "6.tar.gz", "7.tar.gz"}
    # An older one is approved again: it comes back, and what answers until now stays.
    apply(request("Update", 2, keep=2, before=7), Registry(), s3)
    assert set(shelf(s3)) == {"2.tar.gz", "7.tar.gz"}


def test_should_keep_what_answers_even_when_only_one_is_wanted(s3: Any) -> None:
    apply(request("Create", 4, keep=1), Registry(), s3)
    apply(request("Update", 5, keep=1, before=4), Registry(), s3)
    assert set(shelf(s3)) == {"4.tar.gz", "5.tar.gz"}


def test_should_change_nothing_when_it_is_asked_twice(s3: Any) -> None:
    first = apply(request("Create", 3), Registry(), s3)
    assert apply(request("Create", 3), Registry(), s3) == first
    assert shelf(s3) == {"3.tar.gz": "model 3"}


def test_should_leave_alone_what_is_no_model(s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}notes.txt", Body=b"by hand")
    apply(request("Create", 3, keep=1), Registry(), s3)
    apply(request("Update", 4, keep=1), Registry(), s3)
    assert set(shelf(s3)) == {"4.tar.gz", "notes.txt"}


def test_should_empty_the_folder_with_the_stack(s3: Any) -> None:
    apply(request("Create", 3), Registry(), s3)
    apply(request("Delete", 3), Registry(), s3)
    assert shelf(s3) == {}


def test_should_say_when_a_package_has_no_model(s3: Any) -> None:
    with pytest.raises(ValueError, match="names no model data"):
        apply(request("Create", 99), Registry(), s3)
