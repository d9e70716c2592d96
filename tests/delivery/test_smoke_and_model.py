"""After a deploy: endpoints are asked; a model is approved by its tag."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cdk_support import ROOT
from ml_contract.load import load_workload

from delivery.accounts import Accounts
from delivery.assemblies import Stack
from delivery.model import ModelError, approve
from delivery.smoke import Asked, ask_all, made_up_record

WORKLOADS = ROOT / "workloads"


def serving(**outputs: str) -> Stack:
    return Stack(id="Dev/Serving", name="Dev-Serving", template={"Outputs": {key: {} for key in outputs}})


class Aws:
    """One client for every service, with the answers that a test gives."""

    def __init__(self, outputs: dict[str, str], status: str | None = "InService", answer: Any = None) -> None:
        self.outputs, self.status, self.answer = outputs, status, answer
        self.asked: list[dict[str, Any]] = []

    def describe_stacks(self, **asked: str) -> Any:
        outputs = [{"OutputKey": k, "OutputValue": v} for k, v in self.outputs.items()]
        return {"Stacks": [{"Outputs": outputs}]}

    def describe_endpoint(self, **asked: str) -> Any:
        if self.status is None:
            raise ClientError(
                {"Error": {"Code": "ValidationException", "Message": "Could not find endpoint"}}, "D"
            )
        return {"EndpointStatus": self.status}

    def invoke_endpoint(self, **asked: Any) -> Any:
        self.asked.append(asked)
        return {"Body": io.BytesIO(json.dumps(self.answer).encode())}


OUTPUTS = {"Workload": "machine_health", "EndpointName": "dev-machine-health"}
GOOD = {"predictions": [{"score": 0.25}], "model": "dev-machine-health/3"}


def smoke(aws: Aws) -> Asked:
    [asked] = ask_all([serving(**aws.outputs)], WORKLOADS, lambda service, stack: aws)
    return asked


def test_should_ask_the_endpoint_that_the_outputs_name_about_a_record_of_the_contract() -> None:
    aws = Aws(OUTPUTS, answer=GOOD)
    asked = smoke(aws)
    assert (asked.outcome, asked.workload) == ("passed", "machine_health")
    assert asked.why == "score 0.2500 of model dev-machine-health/3 (InService)"
    [request] = aws.asked
    assert request["EndpointName"] == "dev-machine-health"
    contract = load_workload(WORKLOADS / "machine_health").compiled
    record = json.loads(request["Body"])
    assert contract.label_column.source not in record
    assert {c.source for c in contract.columns} - {contract.label_column.source} <= set(record)


def test_should_pass_where_no_model_is_approved_yet_and_say_so() -> None:
    asked = smoke(Aws(OUTPUTS, status=None))
    assert (asked.outcome, asked.ok) == ("no endpoint yet", True)


@pytest.mark.parametrize(
    ("aws", "why"),
    [
        (Aws(OUTPUTS, status="Failed"), "the endpoint is Failed"),
        (Aws(OUTPUTS, answer={"predictions": [{"score": float("nan")}]}), "ValueError: the score is nan"),
        (Aws(OUTPUTS, answer={"predictions": []}), "IndexError"),
        (Aws(OUTPUTS, answer={"message": "no"}), "KeyError"),
        (Aws({**OUTPUTS, "Workload": "unknown"}, answer=GOOD), "has no workload 'unknown'"),
    ],
)
def test_should_fail_on_what_is_no_answer(aws: Aws, why: str) -> None:
    asked = smoke(aws)
    assert not asked.ok
    assert why in asked.why


def test_should_say_which_ways_to_serve_it_does_not_ask() -> None:
    asked = smoke(Aws({**OUTPUTS, "ServingStyle": "ecs"}))
    assert (asked.outcome, asked.ok) == ("not asked", True)
    assert asked.why == "serving.style ecs: only its VPC reaches it"


def test_should_ask_a_component_of_a_shared_fleet() -> None:
    aws = Aws({**OUTPUTS, "ServingStyle": "inference_components", "InferenceComponentName": "c"}, answer=GOOD)
    assert smoke(aws).ok
    assert aws.asked[0]["InferenceComponentName"] == "c"


def test_should_leave_stacks_alone_that_serve_nothing() -> None:
    stack = Stack(id="Dev/Lake", name="Dev-Lake", template={"Outputs": {"Bucket": {}}})
    assert ask_all([stack], WORKLOADS, lambda service, stack: Aws({})) == []


@pytest.mark.parametrize("workload", sorted(p.parent.name for p in Path(WORKLOADS).glob("*/workload.yaml")))
def test_should_make_up_a_record_for_every_workload(workload: str) -> None:
    contract = load_workload(WORKLOADS / workload).compiled
    record = json.loads(made_up_record(contract))
    if contract.windows is not None:
        assert all(record[window.name] is None for window in contract.windows.windows)
    assert record


def test_should_take_on_the_role_of_each_stage_in_its_account() -> None:
    class Session:
        region_name = "eu-central-1"
        taken: tuple[str, ...] = ()

        def client(self, service: str, **_: Any) -> Any:
            return self

        def get_caller_identity(self) -> Any:
            return {"Arn": "arn:aws:sts::111111111111:assumed-role/x/y"}

        def assume_role(self, RoleArn: str, **_: str) -> Any:  # noqa: N803 - as boto3 has it
            self.taken = (*self.taken, RoleArn)
            return {"Credentials": dict.fromkeys(("AccessKeyId", "SecretAccessKey", "SessionToken"), "x")}

    session = Session()
    accounts = Accounts(session, role_name="ours-{stage}-checks")
    for stack in (
        Stack(id="Dev/A", name="a"),
        Stack(id="Prodeu/A", name="b", account="2" * 12),
        Stack(id="Dev/B", name="c"),
    ):
        accounts.client("cloudformation", stack)
    assert session.taken == (
        "arn:aws:iam::111111111111:role/ours-dev-checks",
        "arn:aws:iam::222222222222:role/ours-prodeu-checks",
    )


# -- a model by its tag --------------------------------------------------------------------------------------

GROUP = "arn:aws:sagemaker:eu-central-1:111111111111:model-package/claims"


class Registry:
    """Versions 1 to 3, the second tagged; an approval is taken up at once."""

    def __init__(self, *approved: int, takes_up: bool = True) -> None:
        self.history = ["none", *(f"{GROUP}/{n}" for n in approved)]
        self.status = {f"{GROUP}/{n}": "PendingManualApproval" for n in (1, 2, 3)}
        self.status |= {f"{GROUP}/{n}": "Approved" for n in approved}
        self.calls: list[tuple[str, str]] = []
        self.takes_up = takes_up

    def get_paginator(self, operation: str) -> Any:
        page = (
            {"ModelPackageSummaryList": [{"ModelPackageArn": f"{GROUP}/{n}"} for n in (3, 2, 1)]}
            if operation == "list_model_packages"
            else {"Parameters": [{"Value": value} for value in self.history]}
        )

        class Paginator:
            def paginate(self, **_: str) -> Any:
                return [page]

        return Paginator()

    def describe_model_package(self, ModelPackageName: str) -> Any:  # noqa: N803 - as boto3 has it
        tagged = {"CustomerMetadataProperties": {"tag": "spring"}} if ModelPackageName.endswith("/2") else {}
        return {
            "ModelPackageStatus": "Completed",
            "ModelApprovalStatus": self.status[ModelPackageName],
            **tagged,
        }

    def update_model_package(self, ModelPackageArn: str, ModelApprovalStatus: str, **_: str) -> None:  # noqa: N803
        self.calls.append((ModelPackageArn.rpartition("/")[2], ModelApprovalStatus))
        self.status[ModelPackageArn] = ModelApprovalStatus
        if ModelApprovalStatus == "Approved" and self.takes_up:
            self.history.append(ModelPackageArn)

    def get_parameter(self, **_: str) -> Any:
        return {"Parameter": {"Value": self.history[-1]}}


def by_tag(registry: Registry, tag: str, wait_seconds: float = 1) -> str:
    done = approve(
        registry, registry, group="claims", parameter="/p", tag=tag, reason="test", wait_seconds=wait_seconds
    )
    assert done.now == done.package
    return done.package.rpartition("/")[2]


@pytest.mark.parametrize(("tag", "version"), [("v3", "3"), ("spring", "2"), (f"{GROUP}/1", "1")])
def test_should_approve_the_version_that_a_tag_names(tag: str, version: str) -> None:
    registry = Registry()
    assert by_tag(registry, tag) == version
    assert registry.calls == [(version, "Approved")]


def test_should_go_back_to_the_version_before() -> None:
    registry = Registry(1, 2)
    assert by_tag(registry, "previous") == "1"
    # An approval is a change of status: it was approved already.
    assert registry.calls == [("1", "PendingManualApproval"), ("1", "Approved")]


def test_should_leave_alone_what_serves_already() -> None:
    registry = Registry(3)
    assert by_tag(registry, "v3") == "3"
    assert registry.calls == []


@pytest.mark.parametrize(
    ("tag", "why"),
    [("v9", "no versions of claims are 'v9'; there are v3, v2, v1"), ("previous", "never named")],
)
def test_should_refuse_a_tag_that_names_nothing(tag: str, why: str) -> None:
    with pytest.raises(ModelError, match=why):
        by_tag(Registry(), tag)


def test_should_say_when_an_approval_is_not_taken_up() -> None:
    with pytest.raises(ModelError, match=r"after 0.05 s /p says none"):
        by_tag(Registry(takes_up=False), "v1", wait_seconds=0.05)
