"""The delivery pipeline: stages and waves in order, what a person sees before they approve, sources."""

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
    Wave,
)

ROLES = {name: f"arn:aws:iam::123456789012:role/ml-lifecycle-{name}-checks" for name in ("dev", "prod")}
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
        environments=[
            Delivered(stage=stages[0], checks_role_arn=ROLES["dev"]),
            Delivered(stage=stages[1], approval=True, checks_role_arn=ROLES["prod"]),
        ],
        **options,
    )
    pipeline.on_failed("Broken", target=targets.SnsTopic(sns.Topic(stack, "Topic", enforce_ssl=True)))
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
    names = ["Source", "Build", "UpdatePipeline", "Rehearsal", "Dev", "ApproveProd", "Prod"]
    assert list(found) == names
    assert found["Build"] == ["Synth"]
    assert found["UpdatePipeline"] == ["SelfMutate"]
    assert found["Rehearsal"] == ["Rehearse"]


def test_should_ask_a_person_before_production_and_only_there(template: Template) -> None:
    found = stages(template)
    # A stage of its own: whoever says no fails nothing that could be rolled back.
    assert found["ApproveProd"] == ["WhatChangesProd", "ApproveProd"]
    asked = [name for actions in found.values() for name in actions if name.startswith("Approve")]
    assert asked == ["ApproveProd"]


def action(template: Template, name: str) -> dict[str, Any]:
    every = [a for s in only(template, "AWS::CodePipeline::Pipeline")["Stages"] for a in s["Actions"]]
    found: dict[str, Any] = next(a for a in every if a["Name"] == name)
    return found


def test_should_show_what_changes_before_a_person_is_asked(template: Template) -> None:
    told, asked = action(template, "WhatChangesProd"), action(template, "ApproveProd")
    assert told["RunOrder"] < asked["RunOrder"]
    # The link names the page that the build of this very execution has written.
    written = json.dumps(told["Configuration"]["EnvironmentVariables"])
    linked = json.dumps(asked["Configuration"]["ExternalEntityLink"])
    folder = "/what-changes/#{codepipeline.PipelineExecutionId}/Prod"
    assert folder in written
    assert f"{folder}/what-changes.html".removeprefix("/") in linked
    [build] = commands(template, "make what-changes")
    assert build["phases"]["build"]["commands"] == ["make setup", "make what-changes"]


def test_should_ask_the_endpoints_after_each_deploy(template: Template) -> None:
    found = stages(template)
    assert found["Dev"][-1] == "SmokeDev"
    assert found["Prod"][-1] == "SmokeProd"
    last = action(template, "SmokeProd")
    deploys = [a for a in only(template, "AWS::CodePipeline::Pipeline")["Stages"][-1]["Actions"] if a != last]
    assert last["RunOrder"] > max(a["RunOrder"] for a in deploys)


def test_should_let_only_the_builds_that_compare_and_ask_take_on_the_environments_roles(
    template: Template,
) -> None:
    taking = [
        (name, statement["Resource"])
        for name, policy in resources(template, "AWS::IAM::Policy").items()
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if ROLES["prod"] in json.dumps(statement)
    ]
    assert taking == [(next(iter(dict(taking))), [ROLES["dev"], ROLES["prod"]])]
    assert taking[0][0].startswith("PipelineChecksRole")


def test_should_roll_back_a_wave_that_fails_and_no_other_stage(template: Template) -> None:
    declared = only(template, "AWS::CodePipeline::Pipeline")["Stages"]
    assert {s["Name"]: s["OnFailure"] for s in declared if "OnFailure" in s} == {
        "Dev": {"Result": "ROLLBACK"},
        "Prod": {"Result": "ROLLBACK"},
    }


def test_should_neither_compare_nor_ask_nor_roll_back_when_told_so(tmp_path: Path) -> None:
    built = app_with(tmp_path, CodeCommitSource(repository_name="r"), difference=[], smoke=[], rollback=False)
    assert stages(built)["ApproveProd"] == ["ApproveProd"]
    assert not [name for actions in stages(built).values() for name in actions if name.startswith("Smoke")]
    assert "OnFailure" not in json.dumps(only(built, "AWS::CodePipeline::Pipeline"))
    assert not [name for name in resources(built, "AWS::IAM::Role") if "ChecksRole" in name]


def test_should_tell_of_approvals_that_wait_and_of_failures(tmp_path: Path) -> None:
    built = app_with(tmp_path, CodeCommitSource(repository_name="r"), email="platform@example.com")
    topic = action(built, "ApproveProd")["Configuration"]["NotificationArn"]["Ref"]
    [subscription] = resources(built, "AWS::SNS::Subscription").values()
    assert subscription["Properties"]["Endpoint"] == "platform@example.com"
    assert subscription["Properties"]["TopicArn"] == {"Ref": topic}
    failed = [r for r in resources(built, "AWS::Events::Rule").values() if "FAILED" in json.dumps(r)]
    assert {"Ref": topic} in [target["Arn"] for rule in failed for target in rule["Properties"]["Targets"]]


def test_should_deploy_the_environments_of_a_wave_side_by_side(tmp_path: Path) -> None:
    app = cdk.App(context=cdk_context(), outdir=str(tmp_path))
    made = {}
    for name in ("Dev", "Eu", "Us"):
        made[name] = cdk.Stage(app, name)
        sns.Topic(cdk.Stack(made[name], "Alone"), "Topic", enforce_ssl=True)
    DeliveryPipeline(
        cdk.Stack(app, "Delivery"),
        "Pipeline",
        source=CodeCommitSource(repository_name="r"),
        environments=[
            Delivered(stage=made["Dev"]),
            Wave(
                name="Live",
                environments=[Delivered(stage=made["Eu"], approval=True), Delivered(stage=made["Us"])],
            ),
        ],
    )
    app.synth()
    built = json.loads((tmp_path / "Delivery.template.json").read_text())
    live = next(s for s in only(built, "AWS::CodePipeline::Pipeline")["Stages"] if s["Name"] == "Live")
    order = {a["Name"]: a["RunOrder"] for a in live["Actions"]}
    assert order["Eu.Alone.Prepare"] == order["Us.Alone.Prepare"]
    assert order["Eu.Alone.Deploy"] == order["Us.Alone.Deploy"] > order["Eu.Alone.Prepare"]
    assert live["OnFailure"] == {"Result": "ROLLBACK"}
    assert stages(built)["ApproveLive"] == ["ApproveLive"]


def test_should_refuse_waves_that_cannot_be() -> None:
    stage = cdk.Stage(cdk.App(), "Dev")
    with pytest.raises(ValueError, match=r"name of a wave .* got 'a b'; wave 'a b' must hold at least one"):
        Wave(name="a b", environments=[])
    with pytest.raises(ValueError, match="wave 'Dev' is there 2 times; stage 'Dev' is there 2 times"):
        DeliveryPipeline(
            cdk.Stack(),
            "Pipeline",
            source=CodeCommitSource(repository_name="r"),
            environments=[Delivered(stage=stage), Delivered(stage=stage)],
        )


def test_should_run_the_checks_before_anything_else(template: Template) -> None:
    [build] = commands(template, "make synth")
    assert build["phases"]["build"]["commands"] == [
        *("make setup", "make lint", "make test", "make audit"),
        "make synth",
    ]
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
    failed = next(r["Properties"] for name, r in rules.items() if name.startswith("PipelineBroken"))
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


def test_should_begin_with_a_tag_where_releases_are_tagged(tmp_path: Path) -> None:
    source = ConnectionSource(connection_arn=CONNECTION, repository="owner/name", tags=["v*", "release-*"])
    built = only(app_with(tmp_path, source), "AWS::CodePipeline::Pipeline")
    first = built["Stages"][0]["Actions"][0]
    assert first["Configuration"]["DetectChanges"] is False
    [trigger] = built["Triggers"]
    assert trigger["GitConfiguration"] == {
        "SourceActionName": first["Name"],
        "Push": [{"Tags": {"Includes": ["v*", "release-*"]}}],
    }


def test_should_begin_when_a_new_version_of_the_object_is_there(tmp_path: Path) -> None:
    built = app_with(tmp_path, S3Source(bucket_name="source-bucket", key="code/app.zip"))
    action = only(built, "AWS::CodePipeline::Pipeline")["Stages"][0]["Actions"][0]
    assert action["Configuration"]["PollForSourceChanges"] is False
    [rule] = [
        r["Properties"] for r in resources(built, "AWS::Events::Rule").values() if "aws.s3" in json.dumps(r)
    ]
    assert rule["EventPattern"] == {
        "source": ["aws.s3"],
        "detail-type": ["Object Created"],
        "detail": {"bucket": {"name": ["source-bucket"]}, "object": {"key": ["code/app.zip"]}},
    }
    [target] = rule["Targets"]
    [pipeline] = resources(built, "AWS::CodePipeline::Pipeline")
    assert {"Ref": pipeline} in target["Arn"]["Fn::Join"][1]


def test_should_read_a_source_under_its_key(tmp_path: Path) -> None:
    key = "arn:aws:kms:eu-central-1:123456789012:key/0a1b2c3d"
    built = app_with(tmp_path, S3Source(bucket_name="source-bucket", kms_key_arn=key))
    reading = [
        statement["Action"]
        for policy in resources(built, "AWS::IAM::Policy").values()
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if statement["Resource"] == key
    ]
    assert reading
    assert all("kms:Decrypt" in actions for actions in reading)


def test_should_begin_with_a_push_to_codecommit(template: Template) -> None:
    rules = resources(template, "AWS::Events::Rule").values()
    [rule] = [r["Properties"] for r in rules if "aws.codecommit" in json.dumps(r)]
    assert rule["EventPattern"]["detail"]["referenceName"] == ["main"]


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
        (lambda: S3Source(bucket_name="fine", kms_key_arn="alias/x"), "kms_key_arn must be the ARN of a key"),
        (
            lambda: ConnectionSource(connection_arn=CONNECTION, repository="a/b", tags="v*"),
            "tags must be a list of at most 8 patterns, got 'v\\*'",
        ),
        (
            lambda: ConnectionSource(connection_arn=CONNECTION, repository="a/b", tags=["a b"]),
            "tags must hold patterns .* got 'a b'",
        ),
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


# --- one build deploys an environment -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Template:
    folder = tmp_path_factory.mktemp("built")
    return app_with(folder, CodeCommitSource(repository_name="lifecycle"), deploys_by="build")


def test_should_deploy_an_environment_by_one_build_and_ask_it_then(built: Template) -> None:
    found = stages(built)
    assert found["Dev"] == ["DeployDev", "SmokeDev"]
    assert found["Prod"] == ["DeployProd", "SmokeProd"]
    assert found["ApproveProd"] == ["WhatChangesProd", "ApproveProd"]
    assert action(built, "DeployProd")["RunOrder"] < action(built, "SmokeProd")["RunOrder"]
    dev, _ = commands(built, "make deploy")
    assert dev["phases"]["build"]["commands"] == ["make setup", "make deploy"]
    # What was synthesised and compared is what is deployed.
    assert "Synth_Output" in json.dumps(dev["phases"]["install"])
    given = json.dumps(resources(built, "AWS::CodeBuild::Project"))
    assert '{"Name": "ASSEMBLY", "Type": "PLAINTEXT", "Value": "cdk.out"}' in given


def test_should_roll_back_a_wave_that_a_build_deploys(built: Template) -> None:
    declared = only(built, "AWS::CodePipeline::Pipeline")["Stages"]
    assert [s["Name"] for s in declared if "OnFailure" in s] == ["Dev", "Prod"]


def test_should_let_a_build_deploy_through_the_bootstraps_roles_alone(built: Template) -> None:
    assumed = {
        name: statement
        for name, policy in resources(built, "AWS::IAM::Policy").items()
        if "Deploy" in name.removeprefix("PipelineDelivery")
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if statement["Action"] == "sts:AssumeRole"
    }
    assert len(assumed) == 2
    for statement in assumed.values():
        [(operator, condition)] = statement["Condition"].items()
        assert operator == "ForAnyValue:StringEquals"
        assert condition == {
            "iam:ResourceTag/aws-cdk:bootstrap-role": ["deploy", "file-publishing", "image-publishing"]
        }


def test_should_refuse_a_pipeline_that_is_over_the_quotas(tmp_path: Path) -> None:
    def pipeline(deploys_by: str) -> None:
        app = cdk.App(context=cdk_context(), outdir=str(tmp_path / deploys_by))
        stage = cdk.Stage(app, "Dev")
        for number in range(250):
            stack = cdk.Stack(stage, f"Stack{number}")
            cdk.CfnWaitConditionHandle(stack, "Nothing")
        DeliveryPipeline(
            cdk.Stack(app, "Delivery"),
            "Pipeline",
            source=CodeCommitSource(repository_name="lifecycle"),
            environments=[Delivered(stage=stage)],
            deploys_by=deploys_by,  # type: ignore[arg-type]
        )

    with pytest.raises(ValueError, match=r"at most 50 stages and 500 actions .*got 14 and 504.*\"build\""):
        pipeline("actions")
    pipeline("build")
    with pytest.raises(ValueError, match="deploys_by must be actions or build, got 'hand'"):
        pipeline("hand")
