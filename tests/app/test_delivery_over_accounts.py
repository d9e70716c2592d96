"""The example over three accounts and two Regions: synthesised, judged by the pack, trusted one by one."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from cdk_nag import AwsSolutionsChecks
from cdk_support import ROOT, Assembly, Template, cdk_context, only, resources
from ml_contract.load import load_workload

from environments.delivery import CodeCommitSource, Delivery

EXAMPLE = ROOT / "examples/delivery"
TOOLING, WORK, LIVE = "111111111111", "222222222222", "333333333333"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    """The example with one workload; synthesis fails on any finding that nobody has acknowledged."""
    sys.path.insert(0, str(EXAMPLE))
    try:
        found = importlib.util.spec_from_file_location("example_of_delivery", EXAMPLE / "app.py")
        assert found is not None
        assert found.loader is not None
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
    finally:
        sys.path.remove(str(EXAMPLE))
    folder = tmp_path_factory.mktemp("accounts")
    app = cdk.App(context=cdk_context(), outdir=str(folder))
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    module.build(app, (load_workload(ROOT / "workloads/machine_health"),)).synth()
    return Assembly(folder)


@pytest.fixture(scope="module")
def delivery(example: Assembly) -> Template:
    return example.template("Delivery")


def declared(template: Template) -> list[dict[str, Any]]:
    stages: list[dict[str, Any]] = only(template, "AWS::CodePipeline::Pipeline")["Stages"]
    return stages


def test_should_deliver_in_waves_region_by_region(delivery: Template) -> None:
    names = [stage["Name"] for stage in declared(delivery)]
    assert names[names.index("Work") :] == ["Work", "ApproveEurope", "Prodeu", "ApproveAmerica", "Produs"]


def test_should_deploy_as_the_roles_of_each_account_and_region(delivery: Template) -> None:
    places = {
        stage["Name"]: {
            (action["RoleArn"]["Fn::Join"][1][-1].split("::")[-1], action.get("Region"))
            for action in stage["Actions"]
            if action["ActionTypeId"]["Provider"] == "CloudFormation"
        }
        for stage in declared(delivery)
    }
    role = "{0}:role/cdk-hnb659fds-deploy-role-{0}-{1}"
    assert {name: found for name, found in places.items() if found} == {
        "Work": {(role.format(WORK, "eu-central-1"), None)},
        "Prodeu": {(role.format(LIVE, "eu-central-1"), None)},
        "Produs": {(role.format(LIVE, "us-east-1"), "us-east-1")},
    }


def test_should_keep_artifacts_in_both_regions_under_a_key_that_the_accounts_may_use(
    example: Assembly, delivery: Template
) -> None:
    stores = only(delivery, "AWS::CodePipeline::Pipeline")["ArtifactStores"]
    assert {store["Region"] for store in stores} == {"eu-central-1", "us-east-1"}
    assert all(store["ArtifactStore"]["EncryptionKey"]["Type"] == "KMS" for store in stores)
    support = next(t for name, t in example.templates().items() if name.startswith("cross-region-stack"))
    assert f"{LIVE}-us-east-1" in json.dumps(resources(support, "AWS::KMS::Key"))
    assert f"{LIVE}-us-east-1" in json.dumps(resources(support, "AWS::S3::BucketPolicy"))
    assert f"{WORK}-eu-central-1" in json.dumps(resources(delivery, "AWS::S3::BucketPolicy"))


@pytest.mark.parametrize("stage", ["Dev", "Staging", "Prodeu", "Produs"])
def test_should_let_the_pipeline_of_the_tooling_account_alone_read_and_ask(
    stage: str, example: Assembly
) -> None:
    template = example.template(f"{stage}/Foundation")
    [(name, role)] = [
        (name, role["Properties"])
        for name, role in resources(template, "AWS::IAM::Role").items()
        if name.startswith("DeliveryAccess")
    ]
    assert role["RoleName"] == f"ml-lifecycle-{stage.lower()}-checks"
    [trust] = role["AssumeRolePolicyDocument"]["Statement"]
    assert TOOLING in json.dumps(trust["Principal"])
    assert f"{TOOLING}:role/ml-lifecycle-checks" in json.dumps(trust["Condition"]["ArnEquals"])
    [policy] = [
        p["Properties"]["PolicyDocument"]["Statement"]
        for p in resources(template, "AWS::IAM::Policy").values()
        if p["Properties"]["Roles"] == [{"Ref": name}]
    ]
    assert {action for s in policy for action in s["Action"]} == {
        *("cloudformation:DescribeStacks", "cloudformation:GetTemplate"),
        *("sagemaker:DescribeEndpoint", "sagemaker:InvokeEndpoint"),
        *("lambda:InvokeFunction", "lambda:ListAliases"),
    }


def test_should_refuse_waves_that_leave_an_environment_out_or_name_a_stranger() -> None:
    delivery = Delivery(source=CodeCommitSource(repository_name="r"), waves={"One": ["dev", "other"]})
    with pytest.raises(
        ValueError, match=r"'prod' is in none; waves name 'other'; the environments are dev, prod"
    ):
        delivery.order(["dev", "prod"])
    with pytest.raises(ValueError, match="waves must name an environment once, got 'dev' 2 times"):
        Delivery(source=CodeCommitSource(repository_name="r"), waves={"One": ["dev"], "Two": ["dev"]})


def test_should_refuse_a_delivery_that_cannot_be() -> None:
    with pytest.raises(
        ValueError,
        match=r"account and region go together, .*region must look like .*name must be .*rehearsal_records "
        r"must be at least 1, got 0; checks must be a list .*email must be an address",
    ):
        Delivery(
            source=CodeCommitSource(repository_name="r"),
            region="somewhere",
            name="Ours",
            rehearsal_records=0,
            checks=[],
            email="nobody",
        )


def test_should_deliver_each_environment_by_itself_without_waves() -> None:
    delivery = Delivery(source=CodeCommitSource(repository_name="r"))
    assert dict(delivery.order(["dev", "prod"])) == {"Dev": ("dev",), "Prod": ("prod",)}


def test_should_know_the_accounts_of_the_example() -> None:
    said = (Path(EXAMPLE) / "environments_of_example.py").read_text()
    assert all(account in said for account in (TOOLING, WORK, LIVE))


def test_should_refuse_another_way_to_deploy() -> None:
    with pytest.raises(ValueError, match="deploys_by must be actions or build, got 'hand'"):
        Delivery(source=CodeCommitSource(repository_name="r"), deploys_by="hand")  # type: ignore[arg-type]
