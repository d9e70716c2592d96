"""All models of an account on one page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest
from botocore.exceptions import ClientError

from rehearsal.models import collect, page

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
GROUP = "dev-trips"


def arn(number: int) -> str:
    return f"arn:aws:sagemaker:us-east-1:1:model-package/{GROUP}/{number}"


def package(number: int, **more: Any) -> dict[str, Any]:
    return {
        "ModelPackageVersion": number,
        "ModelPackageArn": arn(number),
        "CreationTime": NOW,
        "ModelApprovalStatus": "Approved",
        **more,
    }


WHOLE = {
    "ApprovalDescription": "ann: good on <old> claims too",
    "ModelCard": {"ModelCardStatus": "Approved", "ModelCardContent": "{}"},
    "ModelLifeCycle": {"Stage": "Production"},
    "DriftCheckBaselines": {"ModelDataQuality": {"Statistics": {"S3Uri": "s3://b/s.json"}}},
    "CustomerMetadataProperties": {"Lineage": "s3://b/l.json"},
}


def evaluated(key: str) -> dict[str, Any]:
    return {"ModelMetrics": {"ModelQuality": {"Statistics": {"S3Uri": f"s3://b/{key}"}}}}


class Account:
    """SageMaker and S3, as far as the page asks them."""

    class exceptions:  # noqa: N801 - as boto3 has it
        ClientError = ClientError

    packages: ClassVar[dict[int, dict[str, Any]]] = {
        1: package(1),
        2: package(2, **WHOLE, **evaluated("2.json")),
        10: package(10, **evaluated("x")),
    }

    def client(self, service: str) -> Account:
        assert service in ("sagemaker", "s3")
        return self

    def get_paginator(self, operation: str) -> Any:
        answers = {
            "list_model_package_groups": {
                "ModelPackageGroupSummaryList": [
                    {"ModelPackageGroupName": GROUP, "ModelPackageGroupDescription": "Trips <b>"},
                    {"ModelPackageGroupName": "a-new-one"},
                ]
            },
            "list_endpoints": {"Endpoints": [{"EndpointName": "dev-trips"}, {"EndpointName": "failed"}]},
        }

        class Pages:
            @staticmethod
            def paginate(**arguments: str) -> Iterator[dict[str, Any]]:
                if operation == "list_model_packages":
                    own = arguments["ModelPackageGroupName"] == GROUP
                    numbers = list(Account.packages) if own else []
                    for number in numbers:
                        yield {"ModelPackageSummaryList": [{"ModelPackageArn": arn(number)}]}
                else:
                    yield answers[operation]

        return Pages()

    def describe_model_package(self, **arguments: str) -> dict[str, Any]:
        return self.packages[int(arguments["ModelPackageName"].rpartition("/")[2])]

    def describe_endpoint(self, **arguments: str) -> dict[str, Any]:
        return {} if arguments["EndpointName"] == "failed" else {"EndpointConfigName": "c"}

    def describe_endpoint_config(self, **_: str) -> dict[str, Any]:
        return {"ProductionVariants": [{"ModelName": "m"}, {"VariantName": "fleet"}]}

    def describe_model(self, **_: str) -> dict[str, Any]:
        return {"Containers": [{"ModelPackageName": arn(2)}]}

    def get_object(self, **arguments: str) -> dict[str, Any]:
        if arguments["Key"] != "2.json":
            raise ClientError({"Error": {"Code": "NoSuchKey", "Message": "gone"}}, "GetObject")

        class Body:
            @staticmethod
            def read() -> bytes:
                return json.dumps({"metrics": {"auc": {"value": 0.8765}, "note": "text"}}).encode()

        return {"Body": Body()}


@pytest.fixture
def groups() -> list[Any]:
    return collect(Account().client)


def test_should_know_every_version_newest_first_and_which_one_serves(groups: list[Any]) -> None:
    assert [group.name for group in groups] == ["a-new-one", GROUP]
    own = groups[1]
    assert [version.number for version in own.versions] == [10, 2, 1]
    assert own.serving.number == 2
    assert own.serving.serves == ("dev-trips",)
    assert own.serving.metrics == {"auc": 0.8765}
    assert groups[0].serving is None


def test_should_say_what_a_version_lacks(groups: list[Any]) -> None:
    lacks = {version.number: version.missing for version in groups[1].versions}
    assert lacks[2] == ()
    assert lacks[1] == ("evaluation", "model card", "drift baseline", "lineage")
    assert "evaluation" not in lacks[10]
    assert groups[1].versions[0].metrics == {}


def test_should_write_a_page_that_shows_it(groups: list[Any]) -> None:
    text = page(groups, when=NOW)
    for part in (
        "good on &lt;old&gt; claims",
        "Trips &lt;b&gt;",
        "auc 0.876",
        "In service: version 2",
        "2 groups",
    ):
        assert part in text, part
    assert "Nothing is in service." in text
    assert "No version is registered." in text
    assert 'src="' not in text
