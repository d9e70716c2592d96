"""The pipeline that delivers everything, itself included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_codepipeline as codepipeline
from aws_cdk import aws_events as events
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import pipelines

from constructs import Construct
from ml_lifecycle.delivery.sources import Source
from ml_lifecycle.training.wildcards import acknowledge_wildcards

__all__ = ["Delivered", "DeliveryPipeline"]


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """One environment in the pipeline: the app's own ``Stage``, and whether a person must agree first."""

    stage: cdk.Stage
    approval: bool = False


class DeliveryPipeline(Construct):
    """Define a self-mutating CodePipeline that checks a commit, rehearses it and deploys it, environment by
    environment.

    Stages: source; ``Synth`` (lint, tests with the security packs, synthesis); the pipeline updates itself;
    assets; ``Rehearsal`` (the whole lifecycle on an AWS embedded in the build machine: what fails there
    reaches no account); then one stage per environment in the given order, behind a manual approval where
    ``approval`` says so.

    Artifacts are encrypted with a key of their own (rotated yearly), versioned and deleted after 30 days.
    Build machines have no credentials but their role's; only the one that publishes images runs privileged,
    since it builds them.

    CDK Pipelines synthesises a stage when it is added: create this last.

    Example::

        DeliveryPipeline(
            self, "Pipeline",
            source=CodeCommitSource(repository_name="ml-lifecycle"),
            environments=[Delivered(stage=dev), Delivered(stage=prod, approval=True)],
        )
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        source: Source,
        environments: Sequence[Delivered],
        checks: Sequence[str] = ("make setup", "make lint", "make test"),
        synth: Sequence[str] = ("make synth",),
        rehearsal: Sequence[str] = ("make rehearse RECORDS=1000",),
        cdk_cli_version: str = "2.1148.1",
        python_version: str = "3.12",
        timeout: cdk.Duration | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        if not environments:
            raise ValueError("environments must name at least one stage, got none")
        self.key = kms.Key(
            self, "Key", description="Artifacts of the delivery pipeline", enable_key_rotation=True
        )
        self.artifacts = self._artifact_bucket()
        self.pipeline = codepipeline.Pipeline(
            self,
            "CodePipeline",
            artifact_bucket=self.artifacts,
            pipeline_type=codepipeline.PipelineType.V2,
            # A pipeline that changed itself must start again with its new self.
            restart_execution_on_update=True,
            # Two commits at once would deploy over each other.
            execution_mode=codepipeline.ExecutionMode.QUEUED,
        )
        wait = cdk.Duration.hours(1) if timeout is None else timeout
        machine = codebuild.BuildEnvironment(
            build_image=codebuild.LinuxBuildImage.STANDARD_7_0, compute_type=codebuild.ComputeType.MEDIUM
        )
        python = codebuild.BuildSpec.from_object(
            {"phases": {"install": {"runtime-versions": {"python": python_version}}}}
        )
        code = source.input(self)
        self.delivery = pipelines.CodePipeline(
            self,
            "Delivery",
            code_pipeline=self.pipeline,
            synth=pipelines.CodeBuildStep(
                "Synth",
                input=code,
                commands=[*checks, *synth],
                primary_output_directory="cdk.out",
                build_environment=machine,
                partial_build_spec=python,
                timeout=wait,
            ),
            # The CLI that npm calls latest fails with a cloud-assembly schema error; package.json pins this
            # one.
            cli_version=cdk_cli_version,
            # One project for all files and one for all images, in place of one for each.
            publish_assets_in_parallel=False,
            use_change_sets=True,
            code_build_defaults=pipelines.CodeBuildOptions(timeout=wait),
        )
        self.delivery.add_wave(
            "Rehearsal",
            pre=[
                pipelines.CodeBuildStep(
                    "Rehearse",
                    input=code,
                    commands=["make setup", *rehearsal],
                    build_environment=machine,
                    partial_build_spec=python,
                    timeout=wait,
                )
            ],
        )
        for environment in environments:
            self.delivery.add_stage(
                environment.stage,
                pre=[pipelines.ManualApprovalStep(f"Approve{environment.stage.stage_name}")]
                if environment.approval
                else None,
            )
        self.delivery.build_pipeline()
        self._acknowledge()

    def on_failed(self, rule_id: str, *, target: events.IRuleTarget) -> events.Rule:
        """Send an event to ``target`` when an execution of the pipeline fails."""
        rule = events.Rule(
            self,
            rule_id,
            description="The delivery pipeline failed",
            event_pattern=events.EventPattern(
                source=["aws.codepipeline"],
                detail_type=["CodePipeline Pipeline Execution State Change"],
                detail={"pipeline": [self.pipeline.pipeline_name], "state": ["FAILED"]},
            ),
        )
        rule.add_target(target)
        return rule

    def _acknowledge(self) -> None:
        """Acknowledge the wildcards that CDK Pipelines writes, each where it stands."""
        stack = cdk.Stack.of(self)
        acknowledge_wildcards(
            self,
            "CDK Pipelines shortens the actions on its own artifact bucket and key, and on nothing else; "
            "objects are named by each execution.",
            resources=[self.artifacts.arn_for_objects("*")],
            actions=[
                "kms:GenerateDataKey*",
                "kms:ReEncrypt*",
                "s3:Abort*",
                "s3:DeleteObject*",
                "s3:GetBucket*",
                "s3:GetObject*",
                "s3:List*",
            ],
        )

        def arn(service: str, resource: str, name: str, form: cdk.ArnFormat) -> str:
            return stack.format_arn(service=service, resource=resource, resource_name=name, arn_format=form)

        for project in self.node.find_all():
            if isinstance(project, codebuild.Project):
                acknowledge_wildcards(
                    project,
                    "Streams and reports are named by each build; the wildcard ends at the project's own.",
                    resources=[
                        arn(
                            "logs",
                            "log-group",
                            f"/aws/codebuild/{project.project_name}:*",
                            cdk.ArnFormat.COLON_RESOURCE_NAME,
                        ),
                        arn(
                            "codebuild",
                            "report-group",
                            f"{project.project_name}-*",
                            cdk.ArnFormat.SLASH_RESOURCE_NAME,
                        ),
                    ],
                )
        mutation = self.delivery.node.find_child("UpdatePipeline")
        acknowledge_wildcards(
            mutation,
            "The pipeline updates itself through the bootstrap roles alone: a condition limits which it may "
            "assume; describing stacks and listing buckets tells which there are.",
            resources=["*", f"arn:*:iam::{stack.account}:role/*"],
        )
        assets = self.delivery.node.try_find_child("Assets")
        if assets is None:  # no stage has any
            return
        acknowledge_wildcards(
            assets,
            "One project publishes every asset, so its name is not known to its role; a registry's token has "
            "no resource type.",
            resources=[
                "*",
                arn("logs", "log-group", "/aws/codebuild/*", cdk.ArnFormat.COLON_RESOURCE_NAME),
                arn("codebuild", "report-group", "*", cdk.ArnFormat.SLASH_RESOURCE_NAME),
            ],
        )

    def _artifact_bucket(self) -> s3.Bucket:
        logs = s3.Bucket(
            self,
            "AccessLogs",
            # Log delivery writes to a bucket with SSE-S3 only (Amazon S3, "Enabling server access logging").
            encryption=s3.BucketEncryption.S3_MANAGED,
            enforce_ssl=True,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            lifecycle_rules=[s3.LifecycleRule(expiration=cdk.Duration.days(90))],
        )
        return s3.Bucket(
            self,
            "Artifacts",
            encryption=s3.BucketEncryption.KMS,
            encryption_key=self.key,
            bucket_key_enabled=True,
            enforce_ssl=True,
            versioned=True,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            server_access_logs_bucket=logs,
            lifecycle_rules=[
                s3.LifecycleRule(
                    expiration=cdk.Duration.days(30),
                    noncurrent_version_expiration=cdk.Duration.days(30),
                    abort_incomplete_multipart_upload_after=cdk.Duration.days(1),
                )
            ],
        )
