"""The generic engine keeps records as the services do, and hooks change what it does."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from rehearsal.ministack_bridge import Check
from rehearsal.services import engine
from rehearsal.services.engine import ApiError, Call, Service, after, hooked_operations, instead
from rehearsal.services.permissions import checks_of_call


@pytest.fixture(autouse=True)
def _only_own_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test starts without hooks: those of other modules must not decide it."""
    monkeypatch.setattr(engine, "_INSTEAD", {})
    monkeypatch.setattr(engine, "_AFTER", {})


def _service(name: str = "sagemaker") -> Service:
    runtime: Any = SimpleNamespace(clock=SimpleNamespace(now=lambda: datetime(2026, 1, 1, tzinfo=UTC)))
    return Service(name, account="123456789012", region="eu-west-1", runtime=runtime)


def test_should_keep_describe_and_delete_a_resource() -> None:
    service = _service()
    made = service.call(
        "CreateModelPackageGroup", ModelPackageGroupName="g", ModelPackageGroupDescription="d"
    )
    arn = "arn:aws:sagemaker:eu-west-1:123456789012:model-package-group/g"
    assert made == {"ModelPackageGroupArn": arn}
    found = service.call("DescribeModelPackageGroup", ModelPackageGroupName=arn)
    assert found["ModelPackageGroupDescription"] == "d"
    assert found["ModelPackageGroupStatus"] == "Completed"
    assert found["CreationTime"] == datetime(2026, 1, 1, tzinfo=UTC)
    service.call("DeleteModelPackageGroup", ModelPackageGroupName="g")
    with pytest.raises(ApiError, match="Could not find model package group"):
        service.call("DescribeModelPackageGroup", ModelPackageGroupName="g")


def test_should_refuse_to_make_a_resource_twice() -> None:
    service = _service()
    service.call("CreateModelPackageGroup", ModelPackageGroupName="g")
    with pytest.raises(ApiError, match="already exists"):
        service.call("CreateModelPackageGroup", ModelPackageGroupName="g")


def test_should_update_what_is_registered_again_where_the_service_does() -> None:
    scaling = _service("application-autoscaling")
    target = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": "endpoint/e/variant/v",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    scaling.call("RegisterScalableTarget", **target, MinCapacity=1, MaxCapacity=2)
    scaling.call("RegisterScalableTarget", **target, MinCapacity=1, MaxCapacity=4)
    (found,) = scaling.call("DescribeScalableTargets", ServiceNamespace="sagemaker")["ScalableTargets"]
    assert found["MaxCapacity"] == 4


def test_should_replace_the_behaviour_of_an_operation() -> None:
    @instead("sagemaker", "DescribeEndpoint")
    def describe(service: Service, call: Call) -> dict[str, Any]:
        return {"EndpointName": call.params["EndpointName"], "EndpointStatus": service.region}

    assert _service().call("DescribeEndpoint", EndpointName="e")["EndpointStatus"] == "eu-west-1"
    assert hooked_operations() == {"sagemaker": frozenset({"DescribeEndpoint"})}


def test_should_follow_an_operation() -> None:
    seen: list[tuple[str, Any]] = []

    @after("sagemaker", "CreateModelPackageGroup")
    def follow(service: Service, call: Call, output: dict[str, Any]) -> None:
        del service
        seen.append((call.operation, output["ModelPackageGroupArn"]))

    service = _service()
    service.call("CreateModelPackageGroup", ModelPackageGroupName="g")
    assert seen == [("CreateModelPackageGroup", service.arn("ModelPackageGroup", "g"))]


def test_should_refuse_a_second_replacement_and_an_unknown_operation() -> None:
    instead("sagemaker", "DescribeEndpoint")(lambda service, call: {})
    with pytest.raises(ValueError, match="already replaced"):
        instead("sagemaker", "DescribeEndpoint")(lambda service, call: {})
    with pytest.raises(ValueError, match="no operation 'DescribeEnpoint'"):
        instead("sagemaker", "DescribeEnpoint")


def test_should_refuse_an_answer_that_the_model_does_not_know() -> None:
    instead("sagemaker", "DescribeEndpoint")(lambda service, call: {"Colour": 1})
    with pytest.raises(TypeError, match="answers no Colour"):
        _service().call("DescribeEndpoint", EndpointName="e")


def test_should_never_make_up_an_answer() -> None:
    with pytest.raises(ApiError) as caught:
        _service().call("Search", Resource="Pipeline")
    assert (caught.value.code, caught.value.status) == ("NotImplemented", 501)
    with pytest.raises(ApiError, match="sagemaker has no operation DoNothing"):
        _service().call("DoNothing")


def test_should_validate_internal_calls_too() -> None:
    with pytest.raises(ApiError, match="Missing required parameter"):
        _service().call("DescribeEndpoint")


# -- permissions --------------------------------------------------------------------------------------------


def _checks(service: str, operation: str, **params: Any) -> list[Check]:
    owner = _service(service)
    return checks_of_call(owner, Call(operation=operation, params=params, principal="p", region="eu-west-1"))


@pytest.mark.parametrize(
    ("service", "operation", "params", "action", "resource"),
    [
        ("sagemaker", "DescribeEndpoint", {"EndpointName": "e"}, "sagemaker:DescribeEndpoint", "endpoint/e"),
        (
            "sagemaker",
            "StartPipelineExecution",
            {"PipelineName": "p"},
            "sagemaker:StartPipelineExecution",
            "pipeline/p",
        ),
        (
            "sagemaker-runtime",
            "InvokeEndpoint",
            {"EndpointName": "e"},
            "sagemaker:InvokeEndpoint",
            "endpoint/e",
        ),
        (
            "sagemaker-featurestore-runtime",
            "PutRecord",
            {"FeatureGroupName": "g"},
            "sagemaker:PutRecord",
            "feature-group/g",
        ),
        ("glue", "StartWorkflowRun", {"Name": "w"}, "glue:StartWorkflowRun", "workflow/w"),
        ("glue", "StartJobRun", {"JobName": "j"}, "glue:StartJobRun", "job/j"),
    ],
)
def test_should_know_the_resource_of_a_call(
    service: str, operation: str, params: dict[str, Any], action: str, resource: str
) -> None:
    (check,) = _checks(service, operation, **params)
    assert check.action == action
    namespace = action.split(":", maxsplit=1)[0]
    assert check.resource == f"arn:aws:{namespace}:eu-west-1:123456789012:{resource}"


def test_should_ask_for_passing_every_role_of_a_call() -> None:
    role = "arn:aws:iam::123456789012:role/j"
    checks = _checks("sagemaker", "CreateProcessingJob", ProcessingJobName="j", RoleArn=role)
    (passing,) = [check for check in checks if check.action == "iam:PassRole"]
    assert passing.resource == role
    assert passing.context == {"iam:PassedToService": "sagemaker.amazonaws.com"}


def test_should_ask_for_tagging_when_a_call_sets_tags() -> None:
    tags = [{"Key": "a", "Value": "1"}]
    checks = _checks("sagemaker", "CreateModelPackageGroup", ModelPackageGroupName="g", Tags=tags)
    assert [check.action for check in checks] == ["sagemaker:CreateModelPackageGroup", "sagemaker:AddTags"]
    assert checks[0].context == {"aws:RequestTag/a": "1"}


def test_should_ask_for_everything_where_no_resource_is_named() -> None:
    (check,) = _checks("sagemaker", "ListEndpoints")
    assert check.resource == "*"
