"""The pipeline that delivers everything, itself included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import aws_cdk as cdk
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_codepipeline as codepipeline
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns
from aws_cdk import pipelines

from constructs import Construct
from ml_lifecycle.acknowledge import COMPLIANCE, acknowledge
from ml_lifecycle.delivery.access import checks_role_name
from ml_lifecycle.delivery.sources import Source
from ml_lifecycle.delivery.waves import Delivered, Wave
from ml_lifecycle.foundation.notices import Notices
from ml_lifecycle.pseudo import service_principal
from ml_lifecycle.training.wildcards import acknowledge_wildcards

__all__ = ["DeliveryPipeline"]

#: Where the differences that somebody approved lie in the artifact bucket.
_CHANGES = "what-changes"
#: CodePipeline's own variable: each execution's differences have a folder.
_EXECUTION = "#{codepipeline.PipelineExecutionId}"
#: Days that artifacts are kept; no stage can be rolled back to an execution whose artifacts are gone.
_KEPT_DAYS = 30
#: What one pipeline holds (CodePipeline, "Quotas"; of actions the smallest figure that AWS has published).
_STAGES, _ACTIONS = 50, 500
#: How the bootstrap marks its roles (its template), and those that deploying takes.
_BOOTSTRAP_TAG = "iam:ResourceTag/aws-cdk:bootstrap-role"
_BOOTSTRAP_ROLES = ["deploy", "file-publishing", "image-publishing"]
#: The longest that CodePipeline waits for a build ("Quotas": build actions).
_LONGEST_BUILD = cdk.Duration.hours(8)


class DeliveryPipeline(Construct):
    """Define a self-mutating CodePipeline that checks a commit, rehearses it and deploys it, wave by wave.

    Stages: source; ``Synth`` (lint with static security rules, tests with the security packs, known
    vulnerabilities of what is installed, synthesis); the pipeline updates itself; assets; ``Rehearsal`` (the
    whole lifecycle on an AWS embedded in the build machine: what fails there reaches no account); then for
    each wave ``Approve<wave>`` where one of its environments wants it, and the wave.

    An approval shows what the change does: a build before it compares the templates with those that are
    deployed and keeps the page in the artifact bucket, which the approval's link names. After a wave each
    environment's endpoints are asked. When a wave fails, it is rolled back to the last execution that
    succeeded in it, unless ``rollback`` is ``False``.

    ``deploys_by`` says who asks CloudFormation: ``actions`` (the default) are two for each stack, to be seen
    one by one in the console; ``build`` is one for each environment, in which the CDK CLI deploys the
    synthesised assembly, stacks that do not need each other side by side. A pipeline holds 500 actions: many
    workloads need ``build``. A rollback deploys the earlier assembly in either case.

    Environments may lie in other accounts and Regions; those must be bootstrapped with trust in this one. An
    artifact bucket in each other Region makes itself.

    Artifacts are encrypted with a key of their own (rotated yearly), versioned and deleted after 30 days.
    Build machines have no credentials but their role's; only the one that publishes images runs privileged,
    since it builds them. ``email`` is told of approvals that wait and of failures; ``None`` (the default):
    nobody is, and there is no topic.

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
        environments: Sequence[Delivered | Wave],
        delivery: str = "ml-lifecycle",
        checks: Sequence[str] = ("make setup", "make lint", "make test", "make audit"),
        synth: Sequence[str] = ("make synth",),
        rehearsal: Sequence[str] = ("make rehearse RECORDS=1000",),
        difference: Sequence[str] = ("make what-changes",),
        smoke: Sequence[str] = ("make smoke",),
        deploys_by: Literal["actions", "build"] = "actions",
        deploy: Sequence[str] = ("make deploy",),
        rollback: bool = True,
        email: str | None = None,
        cdk_cli_version: str = "2.1148.1",
        cdk_assets_cli_version: str = "4.7.3",
        python_version: str = "3.12",
        timeout: cdk.Duration | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        self.waves = self._waves(environments)
        if deploys_by not in ("actions", "build"):
            raise ValueError(f"deploys_by must be actions or build, got {deploys_by!r}")
        self._by_build = deploys_by == "build"
        self.key = kms.Key(
            self, "Key", description="Artifacts of the delivery pipeline", enable_key_rotation=True
        )
        self.artifacts = self._artifact_bucket()
        self.pipeline = codepipeline.Pipeline(
            self,
            "CodePipeline",
            artifact_bucket=self.artifacts,
            # Of the artifact buckets in other Regions, which accounts beside this one read.
            cross_account_keys=True,
            enable_key_rotation=True,
            pipeline_type=codepipeline.PipelineType.V2,
            # A pipeline that changed itself must start again with its new self.
            restart_execution_on_update=True,
            # Two commits at once would deploy over each other.
            execution_mode=codepipeline.ExecutionMode.QUEUED,
        )
        self._timeout = cdk.Duration.hours(1) if timeout is None else timeout
        self._machine = codebuild.BuildEnvironment(
            build_image=codebuild.LinuxBuildImage.STANDARD_7_0, compute_type=codebuild.ComputeType.MEDIUM
        )
        self._python = codebuild.BuildSpec.from_object(
            {"phases": {"install": {"runtime-versions": {"python": python_version}}}}
        )
        self._code = source.input(self)
        self._checks_role: iam.Role | None = None
        self._deployed_by: list[tuple[pipelines.CodeBuildStep, str]] = []
        self._delivery = delivery
        self.topic = None if email is None else self._told(email)
        synthesis = pipelines.CodeBuildStep(
            "Synth",
            input=self._code,
            commands=[*checks, *synth],
            primary_output_directory="cdk.out",
            build_environment=self._machine,
            partial_build_spec=self._python,
            timeout=self._timeout,
        )
        self.delivery = pipelines.CodePipeline(
            self,
            "Delivery",
            code_pipeline=self.pipeline,
            synth=synthesis,
            # The CLI that npm calls latest fails with a cloud-assembly schema error; package.json pins this
            # one. What npm calls latest is not pinned by anybody's test either.
            cli_version=cdk_cli_version,
            cdk_assets_cli_version=cdk_assets_cli_version,
            # One project for all files and one for all images, in place of one for each.
            publish_assets_in_parallel=False,
            use_change_sets=True,
            code_build_defaults=pipelines.CodeBuildOptions(timeout=self._timeout),
        )
        self.delivery.add_wave(
            "Rehearsal",
            pre=[
                pipelines.CodeBuildStep(
                    "Rehearse",
                    input=self._code,
                    commands=["make setup", *rehearsal],
                    build_environment=self._machine,
                    partial_build_spec=self._python,
                    timeout=self._timeout,
                )
            ],
        )
        for wave in self.waves:
            if wave.approval:
                self._ask_first(wave, difference)
            smokes = {
                environment.stage.node.path: self._smoke_test(environment, smoke)
                for environment in wave.environments
                if smoke and environment.checks_role_arn is not None
            }
            if self._by_build:
                self.delivery.add_wave(wave.name, pre=list(self._deploys(wave, deploy, smokes)))
                continue
            added = self.delivery.add_wave(wave.name, post=list(smokes.values()))
            for environment in wave.environments:
                added.add_stage(environment.stage)
        self.delivery.build_pipeline()
        self._hold_to_quotas()
        if rollback:
            self._roll_back()
        source.start(self, self.pipeline)
        if self.topic is not None:
            self.on_failed("TellFailed", target=targets.SnsTopic(self.topic))
        self._acknowledge()

    @staticmethod
    def _waves(environments: Sequence[Delivered | Wave]) -> tuple[Wave, ...]:
        if not environments:
            raise ValueError("environments must name at least one stage, got none")
        waves = tuple(
            each if isinstance(each, Wave) else Wave(name=each.stage.stage_name, environments=(each,))
            for each in environments
        )
        names = [wave.name for wave in waves]
        stages = [environment.stage.node.path for wave in waves for environment in wave.environments]
        problems = [
            f"{what} {name!r} is there {given.count(name)} times"
            for what, given in (("wave", names), ("stage", stages))
            for name in dict.fromkeys(given)
            if given.count(name) > 1
        ]
        if problems:
            raise ValueError(f"environments must be delivered once each: {'; '.join(problems)}")
        return waves

    # -- what stands before and after a wave -----------------------------------------------------------------

    def _ask_first(self, wave: Wave, difference: Sequence[str]) -> None:
        """A stage of its own: a "no" must fail nothing that is rolled back."""
        compared = [e for e in wave.environments if e.checks_role_arn is not None] if difference else []
        folder = f"{_CHANGES}/{_EXECUTION}/{wave.name}"
        steps: list[pipelines.Step] = []
        asked = (
            pipelines.ManualApprovalStep(f"Approve{wave.name}", notification_topic=self.topic)
            if not compared
            else pipelines.ManualApprovalStep(
                f"Approve{wave.name}",
                comment=f"What this does to {', '.join(e.environment for e in compared)} is under the link",
                review_url=self._page(f"{folder}/what-changes.html"),
                notification_topic=self.topic,
            )
        )
        if compared:
            step = self._check(
                f"WhatChanges{wave.name}",
                difference,
                environments=compared,
                env={
                    "STAGES": " ".join(e.stage.node.id for e in compared),
                    "CHANGES": f"s3://{self.artifacts.bucket_name}/{folder}",
                },
            )
            asked.add_step_dependency(step)
            steps.append(step)
        self.delivery.add_wave(f"Approve{wave.name}", pre=[*steps, asked])

    def _page(self, key: str) -> str:
        region = cdk.Stack.of(self).region
        # The console shows an object that its caller may read; the bucket itself is nobody's website.
        return f"https://{region}.console.aws.amazon.com/s3/object/{self.artifacts.bucket_name}?prefix={key}"

    def _smoke_test(self, environment: Delivered, smoke: Sequence[str]) -> pipelines.CodeBuildStep:
        return self._check(
            f"Smoke{environment.stage.node.id}",
            smoke,
            environments=[environment],
            env={"ENV": environment.environment},
        )

    def _deploys(
        self, wave: Wave, deploy: Sequence[str], smokes: Mapping[str, pipelines.Step]
    ) -> Iterator[pipelines.Step]:
        """A build for each environment that deploys it, and the smoke test after it."""
        assembly = self.delivery.cloud_assembly_file_set
        stack = cdk.Stack.of(self)
        for environment in wave.environments:
            account = environment.stage.account or stack.account
            step = pipelines.CodeBuildStep(
                f"Deploy{environment.stage.node.id}",
                input=self._code,
                additional_inputs={"cdk.out": assembly},
                commands=["make setup", *deploy],
                env={"ENV": environment.environment, "ASSEMBLY": "cdk.out"},
                # It builds the images as well.
                build_environment=codebuild.BuildEnvironment(
                    build_image=self._machine.build_image,
                    compute_type=self._machine.compute_type,
                    privileged=True,
                ),
                partial_build_spec=self._python,
                timeout=_LONGEST_BUILD,
                # As the CDK's own builds: the bootstrap's roles by their tags, whatever its qualifier.
                role_policy_statements=[
                    iam.PolicyStatement(
                        actions=["sts:AssumeRole"],
                        resources=[f"arn:{stack.partition}:iam::{account}:role/*"],
                        conditions={"ForAnyValue:StringEquals": {_BOOTSTRAP_TAG: _BOOTSTRAP_ROLES}},
                    )
                ],
            )
            self._deployed_by.append((step, f"arn:{stack.partition}:iam::{account}:role/*"))
            yield step
            if (smoke := smokes.get(environment.stage.node.path)) is not None:
                smoke.add_step_dependency(step)
                yield smoke

    def _hold_to_quotas(self) -> None:
        stages = len(self.pipeline.stages)
        actions = sum(len(stage.actions) for stage in self.pipeline.stages)
        if stages > _STAGES or actions > _ACTIONS:
            fix = "deliver fewer environments" if self._by_build else 'set deploys_by="build"'
            raise ValueError(
                f"a pipeline must hold at most {_STAGES} stages and {_ACTIONS} actions (CodePipeline, "
                f"Quotas), got {stages} and {actions}; {fix}"
            )

    def _check(
        self,
        name: str,
        commands: Sequence[str],
        *,
        environments: Sequence[Delivered],
        env: dict[str, str],
    ) -> pipelines.CodeBuildStep:
        """A build that has the commit, the assembly under ``cdk.out`` and the role of each environment."""
        role = self._role_of_checks()
        for environment in environments:
            role.add_to_policy(
                iam.PolicyStatement(actions=["sts:AssumeRole"], resources=[str(environment.checks_role_arn)])
            )
        assembly = self.delivery.cloud_assembly_file_set
        return pipelines.CodeBuildStep(
            name,
            input=self._code,
            additional_inputs={"cdk.out": assembly},
            commands=["make setup", *commands],
            env={"DELIVERY": self._delivery, **env},
            role=role,
            build_environment=self._machine,
            partial_build_spec=self._python,
            timeout=self._timeout,
        )

    def _role_of_checks(self) -> iam.Role:
        if self._checks_role is None:
            self._checks_role = iam.Role(
                self,
                "ChecksRole",
                role_name=checks_role_name(self._delivery),
                description="Compares what is deployed with what will be, and asks endpoints",
                assumed_by=iam.ServicePrincipal("codebuild.amazonaws.com"),
            )
            self.artifacts.grant_put(self._checks_role, f"{_CHANGES}/*")
        return self._checks_role

    def _told(self, email: str) -> sns.Topic:
        """The topic of approvals and failures, under the pipeline's key."""
        self.key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="EventsOfThisAccount",
                principals=[service_principal("events", own_account=True)],
                actions=["kms:Decrypt", "kms:GenerateDataKey"],
                resources=["*"],  # in a key policy: this key
            )
        )
        return Notices(self, "Notices", key=self.key, email=email).topic

    def _roll_back(self) -> None:
        """CDK Pipelines makes the stages itself; the failure condition is added to what it has made."""
        declared = self.pipeline.node.default_child
        assert isinstance(declared, codepipeline.CfnPipeline)
        # A wave of one environment is called as that one.
        waves = {
            wave.name
            if self._by_build or len(wave.environments) > 1
            else wave.environments[0].stage.stage_name
            for wave in self.waves
        }
        for number, stage in enumerate(self.pipeline.stages):
            # A wave of more than 50 actions becomes several stages: Prod.1, Prod.2.
            if stage.stage_name in waves or stage.stage_name.rpartition(".")[0] in waves:
                declared.add_property_override(f"Stages.{number}.OnFailure", {"Result": "ROLLBACK"})

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
            if not isinstance(project, codebuild.Project):
                continue
            own = [
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
            ]
            # The builds that compare and ask share a role, which stands beside them.
            holders = [project] if self._checks_role is None else [project, self._checks_role]
            for holder in holders:
                acknowledge_wildcards(
                    holder,
                    "Streams and reports are named by each build; the wildcard ends at the project's own.",
                    resources=own,
                )
        if self._checks_role is not None:
            acknowledge_wildcards(
                self._checks_role,
                "Each execution of the pipeline has a folder of its own for what it changes.",
                resources=[self.artifacts.arn_for_objects(f"{_CHANGES}/*")],
            )
        for step, roles in self._deployed_by:
            acknowledge_wildcards(
                step.project,
                "An environment is deployed through the roles of its account's bootstrap alone, which their "
                "tags tell from others; the bootstrap's qualifier is the account's own.",
                resources=[roles],
            )
        for support in self.pipeline.cross_region_support.values():
            acknowledge_wildcards(
                self.pipeline,
                "The bucket in another Region holds this pipeline's artifacts alone. Its key is known by its "
                "alias only, so that the CDK grants the use of keys without naming one; a key's own policy "
                "decides, and this key's names the roles of this pipeline.",
                resources=["*", support.replication_bucket.arn_for_objects("*")],
            )
            acknowledge(
                support.stack,
                "S1",
                "Holds copies of what the artifact bucket holds, whose reads are logged; only roles of "
                "CloudFormation read them, which a trail names.",
            )
        acknowledge(
            self,
            "CodeBuildProjectSourceRepoUrl",
            "Projects take their source from the pipeline, which alone reaches the repository.",
            packs=("HIPAA.Security", "PCI.DSS.321"),
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
        acknowledge(
            logs,
            "S3DefaultEncryptionKMS",
            "S3 delivers access logs to buckets with SSE-S3 only (Amazon S3, Enabling server access logging)",
            packs=COMPLIANCE,
        )
        acknowledge(
            logs,
            "S3BucketVersioningEnabled",
            "Access logs are written once under names of their own, by S3 alone, and end after 90 days.",
            packs=COMPLIANCE,
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
                    expiration=cdk.Duration.days(_KEPT_DAYS),
                    noncurrent_version_expiration=cdk.Duration.days(_KEPT_DAYS),
                    abort_incomplete_multipart_upload_after=cdk.Duration.days(1),
                )
            ],
        )
