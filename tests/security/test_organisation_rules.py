"""An organisation's rules: put on by one Aspect, or refused all at once, each with its path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sagemaker as sagemaker
from aws_cdk import aws_sqs as sqs
from aws_cdk import aws_ssm as ssm
from cdk_support import ROOT, Template, resources
from ml_lifecycle.security import OrganisationRules
from ml_lifecycle.security.organisation import KEEP_TAGS

BOUNDARY = "arn:aws:iam::111122223333:policy/Everyone"


def _app(folder: Path, *, stack_name: str = "acme-one") -> tuple[cdk.App, cdk.Stack]:
    app = cdk.App(outdir=str(folder))
    stack = cdk.Stack(app, "One", stack_name=stack_name)
    role = iam.Role(stack, "Role", assumed_by=iam.AccountRootPrincipal())
    role.add_to_policy(iam.PolicyStatement(actions=["sqs:ListQueues"], resources=["*"]))
    sqs.Queue(stack, "Queue", queue_name="acme-work")
    ssm.StringParameter(stack, "Parameter", parameter_name="/acme/x", string_value="1")
    sagemaker.CfnFeatureGroup(
        stack,
        "Features",
        feature_group_name="acme-features",
        event_time_feature_name="at",
        record_identifier_feature_name="id",
        feature_definitions=[],
    )
    return app, stack


def _template(app: cdk.App) -> Template:
    found: Template = app.synth().get_stack_artifact("One").template
    return found


def test_should_put_boundary_and_tags_on_what_takes_them(tmp_path: Path) -> None:
    app, _ = _app(tmp_path)
    OrganisationRules(boundary_arn=BOUNDARY, tags={"team": "ml"}, required_tags=["team"]).apply(app)
    template = _template(app)
    (role,) = resources(template, "AWS::IAM::Role").values()
    assert role["Properties"]["PermissionsBoundary"] == BOUNDARY
    assert role["Properties"]["Tags"] == [{"Key": "team", "Value": "ml"}]
    (queue,) = resources(template, "AWS::SQS::Queue").values()
    assert queue["Properties"]["Tags"] == [{"Key": "team", "Value": "ml"}]


def test_should_leave_the_tags_of_what_they_would_replace(tmp_path: Path) -> None:
    app, _ = _app(tmp_path)
    OrganisationRules(tags={"team": "ml"}, required_tags=["team"]).apply(app)
    (group,) = resources(_template(app), "AWS::SageMaker::FeatureGroup").values()
    assert "Tags" not in group["Properties"]


def test_should_know_from_the_registry_which_tags_replace() -> None:
    from rehearsal.cloudformation.schemas import schema_of

    for kind in KEEP_TAGS:
        assert ("Tags",) in schema_of(kind).create_only, kind
    assert ("Tags",) not in schema_of("AWS::SQS::Queue").create_only


def test_should_refuse_all_problems_at_once_each_with_its_path(tmp_path: Path) -> None:
    app, stack = _app(tmp_path, stack_name="one")
    sqs.Queue(stack, "Other", queue_name="other")
    iam.CfnRole(
        stack,
        "Bounded",
        assume_role_policy_document={"Version": "2012-10-17", "Statement": []},
        permissions_boundary="arn:aws:iam::111122223333:policy/Mine",
    )
    OrganisationRules(
        boundary_arn=BOUNDARY,
        names={"*": "acme-.*", "AWS::SSM::Parameter": "/other/.*", "AWS::CloudFormation::Stack": "acme-.*"},
        required_tags=["team"],
    ).apply(app)
    with pytest.raises(RuntimeError) as refused:
        app.synth()
    text = str(refused.value)
    for expected in (
        "One: the stack's name must fit acme-.*, got 'one'",
        "One/Other/Resource: the name of AWS::SQS::Queue must fit acme-.*, got 'other'",
        "One/Parameter/Resource: the name of AWS::SSM::Parameter must fit /other/.*, got '/acme/x'",
        "One/Bounded: the role has a permissions boundary of its own",
        "One/Queue/Resource: AWS::SQS::Queue must have the tags team",
    ):
        assert expected in text
    assert "One/Queue/Resource: the name" not in text
    assert "DefaultPolicy" not in text


def test_should_judge_a_name_that_only_a_deployment_knows_by_the_rest(tmp_path: Path) -> None:
    app, stack = _app(tmp_path)
    sqs.Queue(stack, "Regional", queue_name=f"acme-{cdk.Aws.REGION}")
    OrganisationRules(names={"AWS::SQS::Queue": r"acme-\w+"}).apply(app)
    assert _template(app)
    app, stack = _app(tmp_path / "wrong")
    sqs.Queue(stack, "Regional", queue_name=f"{cdk.Aws.REGION}-acme")
    OrganisationRules(names={"AWS::SQS::Queue": r"acme-\w+"}).apply(app)
    with pytest.raises(RuntimeError, match="got '0-acme'"):
        app.synth()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "at least one of boundary_arn, names, tags, required_tags must be given"),
        ({"names": {"*": "("}}, r"names\['\*'\] must be a regular expression, got '\('"),
    ],
)
def test_should_refuse_rules_that_say_nothing(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OrganisationRules(**options)


def test_should_run_the_examples_of_the_page() -> None:
    import re

    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "security.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        made: dict[str, Any] = {}
        exec(compile(block, "security", "exec"), made)
        if "app" in made:
            assert json.dumps(made["app"].synth().get_stack_artifact("acme-queues").template)
