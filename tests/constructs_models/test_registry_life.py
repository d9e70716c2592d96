"""Whom a registry is shared with, and how its versions grow old."""

from __future__ import annotations

import json
from pathlib import Path

import aws_cdk as cdk
import pytest
from cdk_nag import AwsSolutionsChecks
from cdk_support import Template, cdk_context, only, resources, statements
from ml_contract.load import ContractError
from model_support import NAME, PARAMETER, Around, flat, parcels

BLOCK = """
registry:
  risk_rating: High
  intended_use: Tells a depot which parcels to hurry.
  out_of_scope: Judging drivers.
  archive: {keep_versions: 4, after_days: 90}
"""
OTHER = "210987654321"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A registry that is shared and archives; cdk-nag has passed when it is there."""
    folder = tmp_path_factory.mktemp("registry")
    app = cdk.App(context=cdk_context(), outdir=str(folder / "out"))
    stack = cdk.Stack(app, "Registry")
    around = Around(stack)
    around.registry(parcels(folder, BLOCK), readers=(OTHER,))
    for key in ("DataKey", "LogKey", "MessageKey"):
        cdk.Validations.of(stack.node.find_child(key)).acknowledge(
            cdk.Acknowledgment(id="AwsSolutions::AwsSolutions-KMS5", reason="Stands around the test")
        )
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    app.synth()
    found: Template = json.loads((folder / "out" / "Registry.template.json").read_text())
    return found


def test_should_let_the_other_account_see_and_deploy_versions_and_nothing_else(template: Template) -> None:
    policy = only(template, "AWS::SageMaker::ModelPackageGroup")["ModelPackageGroupPolicy"]
    allowed = {action for statement in policy["Statement"] for action in statement["Action"]}
    assert allowed == {
        "sagemaker:CreateModel",
        "sagemaker:DescribeModelPackage",
        "sagemaker:DescribeModelPackageGroup",
        "sagemaker:ListModelPackages",
    }
    for statement in policy["Statement"]:
        assert [flat(p).rpartition("::")[2] for p in statement["Principal"]["AWS"]] == [f"{OTHER}:root"]
        assert NAME in flat(statement["Resource"])


def test_should_open_the_models_files_to_it_through_s3_only(template: Template) -> None:
    shared = [
        statement
        for policy in resources(template, "AWS::S3::BucketPolicy").values()
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if OTHER in json.dumps(statement["Principal"])
    ]
    assert [(s["Action"], flat(s["Resource"]).rpartition(">")[2]) for s in shared] == [
        ("s3:GetObject", "/parcel-delay/training/*")
    ]
    [opened] = [
        statement
        for key in resources(template, "AWS::KMS::Key").values()
        for statement in key["Properties"]["KeyPolicy"]["Statement"]
        if OTHER in json.dumps(statement["Principal"])
    ]
    assert opened["Action"] == "kms:Decrypt"
    assert "kms:ViaService" in opened["Condition"]["StringEquals"]


def test_should_archive_by_the_workloads_rule(template: Template) -> None:
    [function] = [
        f["Properties"]
        for f in resources(template, "AWS::Lambda::Function").values()
        if f["Properties"]["Handler"].startswith("model_archive")
    ]
    variables = function["Environment"]["Variables"]
    assert variables["KEEP_VERSIONS"] == "4"
    assert variables["AFTER_DAYS"] == "90"
    assert variables["PARAMETER_NAMES"] == PARAMETER
    actions = {
        action
        for statement in statements(template, "RegistryArchiveFunctionRole")
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    }
    assert {a for a in actions if a.startswith("sagemaker:")} == {
        "sagemaker:DescribeModelPackage",
        "sagemaker:ListModelPackages",
        "sagemaker:UpdateModelPackage",
    }
    (schedule,) = (
        found["Properties"]
        for name, found in resources(template, "AWS::Scheduler::Schedule").items()
        if "Archive" in name
    )
    assert schedule["ScheduleExpression"] == "rate(1 day)"


def test_should_share_with_nobody_and_archive_nothing_by_itself(tmp_path: Path) -> None:
    stack = cdk.Stack(cdk.App(context=cdk_context()), "Plain")
    Around(stack).registry(parcels(tmp_path))
    from aws_cdk.assertions import Template as Synthesised

    found = Synthesised.from_stack(stack).to_json()
    assert "ModelPackageGroupPolicy" not in only(found, "AWS::SageMaker::ModelPackageGroup")
    assert not [name for name in resources(found, "AWS::Scheduler::Schedule") if "Archive" in name]


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("registry: {risk_rating: High}\n", "needs intended_use"),
        ("registry: {risk_rating: huge}\n", "risk_rating"),
        ("registry: {archive: {keep_versions: 0}}\n", "keep_versions"),
    ],
)
def test_should_say_what_is_wrong_with_the_block(tmp_path: Path, block: str, said: str) -> None:
    with pytest.raises(ContractError, match=said):
        parcels(tmp_path, block)
