"""Templates are judged by the registry's schemas, properties mapped onto parameters or refused."""

from __future__ import annotations

from typing import Any

import pytest

from rehearsal.cloudformation import judge
from rehearsal.cloudformation.buckets import apply_bucket_properties
from rehearsal.cloudformation.fitting import PropertyError, fitted
from rehearsal.cloudformation.rows import ROWS
from rehearsal.cloudformation.schemas import UnknownTypeError, problems, schema_of
from rehearsal.services.engine import service_model


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"BucketNme": "b"}, ["#: extraneous key [BucketNme] is not permitted"]),
        ({"Tags": [{"Key": "a"}]}, ["#/Tags/0: required key [Value] not found"]),
        (
            {"VersioningConfiguration": {"Status": "On"}},
            ["#/VersioningConfiguration/Status: On is not a valid enum value, allowed: [Enabled, Suspended]"],
        ),
        ({"Tags": "a"}, ["#/Tags: expected type: array, found: str"]),
        ({"Arn": "a"}, ["#: extraneous key [Arn] is not permitted (read-only)"]),
    ],
)
def test_should_say_what_is_wrong_as_cloudformation_does(
    properties: dict[str, Any], expected: list[str]
) -> None:
    assert problems("AWS::S3::Bucket", properties) == expected


@pytest.mark.parametrize(
    "properties",
    [
        {"BucketName": {"Ref": "Name"}},
        {"VersioningConfiguration": {"Status": {"Fn::If": ["A", "Enabled", {"Ref": "AWS::NoValue"}]}}},
        {"Tags": [{"Key": "a", "Value": {"Fn::Sub": "${A}"}}]},
        {"ObjectLockEnabled": "true"},
        {"BucketName": {"Ref": "AWS::NoValue"}},
    ],
)
def test_should_take_intrinsic_functions_for_fitting_values(properties: dict[str, Any]) -> None:
    assert problems("AWS::S3::Bucket", properties) == []


def test_should_count_what_novalue_removes_as_missing() -> None:
    found = problems("AWS::SageMaker::Endpoint", {"EndpointConfigName": {"Ref": "AWS::NoValue"}})
    assert found == ["#: required key [EndpointConfigName] not found"]


def test_should_refuse_an_unknown_type() -> None:
    with pytest.raises(UnknownTypeError, match=r"Unrecognized resource types: \[AWS::S3::Pail\]"):
        schema_of("AWS::S3::Pail")


def test_should_judge_a_type_that_is_not_emulated() -> None:
    (reason,) = judge("AWS::AppRunner::VpcConnector", {"Subnets": ["s"]}, frozenset())
    assert "is not emulated by the rehearsal" in reason


def test_should_leave_the_apps_own_types_alone() -> None:
    assert judge("Custom::Anything", {"ServiceToken": "t", "x": 1}, frozenset()) == []


@pytest.mark.parametrize("resource_type", sorted(ROWS))
def test_should_name_operations_and_properties_that_exist(resource_type: str) -> None:
    row, schema = ROWS[resource_type], schema_of(resource_type)
    operations = service_model(row.service).operation_names
    for operation in (row.create, row.read, row.update, row.delete):
        assert operation is None or operation in operations
    assert row.name is None or row.name in schema.properties
    assert row.beside <= set(schema.properties)


# -- fitting ------------------------------------------------------------------------------------------------


def _fit(service: str, operation: str, **properties: Any) -> dict[str, Any]:
    return fitted(service_model(service).operation_model(operation).input_shape, properties, operation)


def test_should_map_names_whatever_their_case_and_values_whatever_their_kind() -> None:
    params = _fit(
        "codepipeline",
        "CreatePipeline",
        pipeline={"Name": "p", "RoleArn": "r", "Stages": [{"Name": "s", "Actions": []}], "Version": "3"},
    )
    assert params == {
        "pipeline": {"name": "p", "roleArn": "r", "stages": [{"name": "s", "actions": []}], "version": 3}
    }


def test_should_take_tags_as_a_list_or_a_map() -> None:
    assert _fit("glue", "CreateWorkflow", Name="w", Tags=[{"Key": "a", "Value": "1"}])["Tags"] == {"a": "1"}
    assert _fit("glue", "CreateWorkflow", Name="w", Tags={"a": 1})["Tags"] == {"a": "1"}


def test_should_refuse_a_property_that_no_parameter_takes() -> None:
    with pytest.raises(PropertyError, match=r"CreateEndpoint: property Colour is taken by no parameter"):
        _fit("sagemaker", "CreateEndpoint", EndpointName="e", Colour="red")


def test_should_refuse_a_value_of_the_wrong_kind() -> None:
    with pytest.raises(PropertyError, match="property MaxCapacity must be a integer, got 'many'"):
        _fit("application-autoscaling", "RegisterScalableTarget", MaxCapacity="many")


# -- buckets ------------------------------------------------------------------------------------------------


class _Recorder:
    """A client that remembers its calls."""

    def __init__(self) -> None:
        self.calls: dict[str, dict[str, Any]] = {}

    def __getattr__(self, name: str) -> Any:
        return lambda **params: self.calls.setdefault(name, params)


def test_should_translate_every_kind_of_lifecycle_rule() -> None:
    client = _Recorder()
    rule = {
        "Id": "r",
        "Status": "Enabled",
        "Prefix": "a/",
        "TagFilters": [{"Key": "k", "Value": "v"}],
        "ExpirationInDays": "7",
        "NoncurrentVersionTransitions": [{"StorageClass": "GLACIER", "TransitionInDays": 3}],
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
    }
    apply_bucket_properties(client, "b", {"LifecycleConfiguration": {"Rules": [rule]}})
    (sent,) = client.calls["put_bucket_lifecycle_configuration"]["LifecycleConfiguration"]["Rules"]
    assert sent["Filter"] == {"And": {"Prefix": "a/", "Tags": [{"Key": "k", "Value": "v"}]}}
    assert sent["Expiration"] == {"Days": 7}
    assert sent["NoncurrentVersionTransitions"] == [{"NoncurrentDays": 3, "StorageClass": "GLACIER"}]
    assert sent["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}


def test_should_translate_notifications() -> None:
    client = _Recorder()
    rules = [{"Name": "prefix", "Value": "x"}]
    configuration = {
        "EventBridgeConfiguration": {"EventBridgeEnabled": "true"},
        "QueueConfigurations": [
            {"Queue": "q", "Event": "s3:ObjectCreated:*", "Filter": {"S3Key": {"Rules": rules}}}
        ],
    }
    apply_bucket_properties(client, "b", {"NotificationConfiguration": configuration})
    sent = client.calls["put_bucket_notification_configuration"]["NotificationConfiguration"]
    assert sent["EventBridgeConfiguration"] == {}
    assert sent["QueueConfigurations"][0]["Filter"] == {"Key": {"FilterRules": rules}}
