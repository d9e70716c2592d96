"""The delivery pipeline: stages in order, rehearsal as a gate, approval before production, sources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_sns as sns
from cdk_support import ROOT, Template, cdk_context, only, resources
from ml_lifecycle.delivery import (
    CodeCommitSource,
    ConnectionSource,
    Delivered,
    DeliveryPipeline,
    S3Source,
    Source,
)

CONNECTION = "arn:aws:codeconnections:eu-central-1:123456789012:connection/0a1b2c3d"


def app_with(folder: Path, source: Source, **options: Any) -> Template:
    """An app with two environments of one topic each and a pipeline that delivers them."""
    app = cdk.App(context=cdk_context(), outdir=str(folder))
    stages = []
    for name in ("Dev", "Prod"):
        stage = cdk.Stage(app, name)
        sns.Topic(cdk.Stack(stage, "Alone"), "Topic", enforce_ssl=True)
        stages.append(stage)
    stack = cdk.Stack(app, "Delivery")
    pipeline = DeliveryPipeline(
        stack,
        "Pipeline",
        source=source,
        environments=[Delivered(stage=stages[0]), Delivered(stage=stages[1], approval=True)],
        **options,
    )
    pipeline.on_failed("Failed", target=targets.SnsTopic(sns.Topic(stack, "Topic", enforce_ssl=True)))
    app.synth()
    template: Template = json.loads((folder / "Delivery.template.json").read_text())
    return template


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("delivery")


@pytest.fixture(scope="module")
def template(folder: Path) -> Template:
    return app_with(folder, CodeCommitSource(repository_name="lifecycle"))


def stages(template: Template) -> dict[str, list[str]]:
    return {
        stage["Name"]: [action["Name"] for action in stage["Actions"]]
        for stage in only(template, "AWS::CodePipeline::Pipeline")["Stages"]
    }


def commands(template: Template, text: str) -> list[dict[str, Any]]:
    """Build specifications that hold ``text``."""
    projects = resources(template, "AWS::CodeBuild::Project").values()
    specifications = [project["Properties"]["Source"]["BuildSpec"] for project in projects]
    return [json.loads(s) for s in specifications if isinstance(s, str) and text in s]


def test_should_check_rehearse_and_deploy_in_order(template: Template) -> None:
    found = stages(template)
    assert list(found) == ["Source", "Build", "UpdatePipeline", "Rehearsal", "Dev", "Prod"]
    assert found["Build"] == ["Synth"]
    assert found["UpdatePipeline"] == ["SelfMutate"]
    assert found["Rehearsal"] == ["Rehearse"]


def test_should_ask_a_person_before_production_and_only_there(template: Template) -> None:
    found = stages(template)
    assert found["Prod"][0] == "ApproveProd"
    assert not [name for name in found["Dev"] if name.startswith("Approve")]
    prod = only(template, "AWS::CodePipeline::Pipeline")["Stages"][-1]
    order = {action["Name"]: action["RunOrder"] for action in prod["Actions"]}
    assert order["ApproveProd"] < min(v for name, v in order.items() if name != "ApproveProd")


def test_should_run_the_checks_before_anything_else(template: Template) -> None:
    [build] = commands(template, "make synth")
    assert build["phases"]["build"]["commands"] == ["make setup", "make lint", "make test", "make synth"]
    [rehearsal] = commands(template, "make rehearse")
    assert rehearsal["phases"]["build"]["commands"] == ["make setup", "make rehearse RECORDS=1000"]
    for specification in (build, rehearsal):
        assert specification["phases"]["install"]["runtime-versions"] == {"python": "3.12"}


def test_should_update_itself_with_the_pinned_cli(template: Template) -> None:
    pinned = json.loads((ROOT / "package.json").read_text())["devDependencies"]["aws-cdk"]
    [mutation] = commands(template, "npm install -g aws-cdk")
    assert mutation["phases"]["install"]["commands"] == [f"npm install -g aws-cdk@{pinned}"]


def test_should_deploy_one_commit_at_a_time_and_start_again_when_it_changed_itself(
    template: Template,
) -> None:
    pipeline = only(template, "AWS::CodePipeline::Pipeline")
    assert pipeline["ExecutionMode"] == "QUEUED"
    assert pipeline["RestartExecutionOnUpdate"] is True


def test_should_encrypt_version_and_forget_artifacts(template: Template) -> None:
    key = only(template, "AWS::KMS::Key")
    assert key["EnableKeyRotation"] is True
    [artifacts] = [
        bucket["Properties"]
        for name, bucket in resources(template, "AWS::S3::Bucket").items()
        if name.startswith("PipelineArtifacts")
    ]
    [encryption] = artifacts["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert encryption["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    assert artifacts["VersioningConfiguration"] == {"Status": "Enabled"}
    [rule] = artifacts["LifecycleConfiguration"]["Rules"]
    assert rule["ExpirationInDays"] == 30


def test_should_run_privileged_only_where_images_are_built(template: Template) -> None:
    for project in resources(template, "AWS::CodeBuild::Project").values():
        assert project["Properties"]["Environment"]["PrivilegedMode"] is False


def test_should_tell_of_a_failure(template: Template) -> None:
    rules = resources(template, "AWS::Events::Rule")
    failed = next(r["Properties"] for name, r in rules.items() if name.startswith("PipelineFailed"))
    assert failed["EventPattern"]["detail-type"] == ["CodePipeline Pipeline Execution State Change"]
    assert failed["EventPattern"]["detail"]["state"] == ["FAILED"]


@pytest.mark.parametrize(
    ("source", "provider", "configuration"),
    [
        (
            ConnectionSource(connection_arn=CONNECTION, repository="owner/name", branch="release"),
            "CodeStarSourceConnection",
            {"ConnectionArn": CONNECTION, "FullRepositoryId": "owner/name", "BranchName": "release"},
        ),
        (
            S3Source(bucket_name="source-bucket"),
            "S3",
            {"S3Bucket": "source-bucket", "S3ObjectKey": "source.zip"},
        ),
    ],
)
def test_should_take_code_from_elsewhere(
    tmp_path: Path, source: Source, provider: str, configuration: dict[str, str]
) -> None:
    built = app_with(tmp_path, source, rehearsal=["make rehearse RECORDS=5"])
    action = only(built, "AWS::CodePipeline::Pipeline")["Stages"][0]["Actions"][0]
    assert action["ActionTypeId"]["Provider"] == provider
    assert configuration.items() <= action["Configuration"].items()
    assert commands(built, "RECORDS=5")


def test_should_keep_the_app_s_own_stages(folder: Path, template: Template) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    nested = {name for name, each in manifest["artifacts"].items() if each["type"] == "cdk:cloud-assembly"}
    assert nested == {"assembly-Dev", "assembly-Prod"}
    assert template["Resources"]


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (
            lambda: ConnectionSource(connection_arn="x", repository="y"),
            "connection_arn must be .*; repository must",
        ),
        (
            lambda: ConnectionSource(connection_arn=CONNECTION, repository="a/b", branch="a b"),
            "branch must be",
        ),
        (lambda: CodeCommitSource(repository_name="no spaces"), "repository_name must be"),
        (lambda: S3Source(bucket_name="UPPER", key="/x"), "bucket_name must be .*; key must not"),
    ],
)
def test_should_refuse_a_source_that_cannot_be(make: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()


def test_should_refuse_to_deliver_nothing() -> None:
    with pytest.raises(ValueError, match="environments must name at least one stage, got none"):
        DeliveryPipeline(
            cdk.Stack(), "Pipeline", source=CodeCommitSource(repository_name="r"), environments=[]
        )
