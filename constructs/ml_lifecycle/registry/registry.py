"""Model package group, approval, promotion."""

from __future__ import annotations

import json

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_lambda_event_sources as event_sources
from aws_cdk import aws_sagemaker as sagemaker
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs
from ml_contract.load import LoadedWorkload

from constructs import Construct
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.dead_letters import DeadLetterQueue, allow_rules
from ml_lifecycle.foundation import grant_publish
from ml_lifecycle.pseudo import PARTITION, arn
from ml_lifecycle.registry.approval import CHALLENGER_NAME, ApprovalParameter
from ml_lifecycle.registry.archive import ModelArchive
from ml_lifecycle.registry.reconciliation import Reconciliation
from ml_lifecycle.registry.trials import TrialSchedules
from ml_lifecycle.training.wildcards import acknowledge_wildcards
from ml_lifecycle.zip_function import zip_function

__all__ = ["ModelRegistry"]

#: Lambda asks for six times the function's timeout (Lambda, "Using Lambda with Amazon SQS").
_VISIBILITY = cdk.Duration.minutes(6)
#: A day of attempts, one every six minutes: as long as the slowest rollout may keep the serving stack busy.
_ATTEMPTS = 240


class ModelRegistry(Construct):
    """Define where a workload's models are registered, and the way from an approval to the endpoint.

    A model package group (retained), the approval parameter, and the promotion: approving a version raises an
    event; it waits in a queue until ``lambda/model_promotion`` has checked the version, written the parameter
    and updated the serving stack with its previous template. A busy stack is no error: the event is tried
    again for a day, then kept in ``dead_letters`` for 14. When CloudFormation rolls the serving stack back,
    the same function writes the parameter back to what the endpoint serves and rejects the version. Every
    hour it looks for what no event has told it: an approval whose event was lost, a stack that does not
    follow the parameter (``Reconciliation``).

    Example::

        registry = ModelRegistry(
            self, "Registry",
            workload=workload, group_name="dev-claims-fraud",
            approval_parameter_name="/ml-lifecycle/dev/claims-fraud/approved-model-package",
            serving_stack_name="Dev-ClaimsFraudServing",
            artifacts=lake.artifacts, message_key=keys.messages, log_key=keys.logs,
        )
        registry.grant_approve(data_scientist)

    Args:
        scope: where it belongs.
        construct_id: its id there.
        workload: whose models; its acceptance is what a promotion checks once more.
        group_name: name of the model package group; forced, since pipelines and events name it.
        approval_parameter_name: path of the SSM parameter.
        serving_stack_name: stack that a promotion updates, by name, so that neither stack refers to the
        other.
        artifacts: zone that holds the evaluations.
        message_key: key that EventBridge may use for a queue.
        log_key: key that CloudWatch Logs may use.
        log_retention_days: how long logs are kept.
        challenger_parameter_name: path of a second SSM parameter, for a workload that tries an approved model
        beside the old one first (``rollout.strategy`` ab or shadow); then ``endpoint_name`` is needed too.
        endpoint_name: endpoint whose challenger's metrics and alarms the promotion reads.
        readers: accounts that may see the group's versions and deploy them: their model's files in
        ``artifacts`` are opened to them too, their images lie in the repository of this account's CDK
        bootstrap, which its owner has to open.
        removal_policy: of group and parameter; SageMaker refuses to delete a group that has versions.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        workload: LoadedWorkload,
        group_name: str,
        approval_parameter_name: str,
        serving_stack_name: str,
        artifacts: Zone,
        message_key: kms.IKey,
        log_key: kms.IKey,
        log_retention_days: int = 90,
        removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.RETAIN,
        challenger_parameter_name: str | None = None,
        endpoint_name: str | None = None,
        readers: tuple[str, ...] = (),
    ) -> None:
        super().__init__(scope, construct_id)
        spec = workload.workload
        tried = spec.serving.rollout.strategy in ("ab", "shadow")
        if tried != (challenger_parameter_name is not None) or tried != (endpoint_name is not None):
            raise ValueError(
                "challenger_parameter_name and endpoint_name go with rollout.strategy ab and shadow, got "
                f"{challenger_parameter_name!r} and {endpoint_name!r} with {spec.serving.rollout.strategy}"
            )
        self.challenger_parameter_name = challenger_parameter_name
        self.group_name = group_name
        self.serving_stack_name = serving_stack_name
        self.group = sagemaker.CfnModelPackageGroup(
            self,
            "Group",
            model_package_group_name=group_name,
            model_package_group_description=spec.title,
            model_package_group_policy=self._shared_with(readers) if readers else None,
        )
        if readers:
            artifacts.share_read(readers, f"{spec.slug}/training/")
        self.group.apply_removal_policy(removal_policy)
        self.approval = ApprovalParameter(
            self,
            "Approval",
            name=approval_parameter_name,
            log_key=log_key,
            log_retention_days=log_retention_days,
            removal_policy=removal_policy,
        )
        if challenger_parameter_name is not None:
            self.approval.challenger(challenger_parameter_name)
        self.dead_letters = DeadLetterQueue(self, "DeadLetters", key=message_key)
        self.queue = sqs.Queue(
            self,
            "Events",
            encryption=sqs.QueueEncryption.KMS,
            encryption_master_key=self.dead_letters.key,
            enforce_ssl=True,
            visibility_timeout=_VISIBILITY,
            retention_period=cdk.Duration.days(14),
            dead_letter_queue=sqs.DeadLetterQueue(queue=self.dead_letters.queue, max_receive_count=_ATTEMPTS),
        )
        self.approved_rule = self._rule(
            "Approved",
            description=f"A version of {group_name} was approved",
            pattern={
                "source": ["aws.sagemaker"],
                "detail-type": ["SageMaker Model Package State Change"],
                "detail": {"ModelPackageGroupName": [group_name], "ModelApprovalStatus": ["Approved"]},
            },
        )
        self.rolled_back_rule = self._rule(
            "RolledBack",
            description=f"{serving_stack_name} went back to what it served before",
            pattern={
                "source": ["aws.cloudformation"],
                "detail-type": ["CloudFormation Stack Status Change"],
                "detail": {
                    "stack-id": [{"prefix": self._stack_arn("")}],
                    "status-details": {"status": ["UPDATE_ROLLBACK_COMPLETE"]},
                },
            },
        )
        rules = [self.approved_rule.attr_arn, self.rolled_back_rule.attr_arn]
        if tried:
            rules.append(self._challenged().attr_arn)
        allow_rules(self.queue, rules)
        self.dead_letters.allow_rules(rules)
        self.promotion = self._promotion(workload, log_key, log_retention_days)
        if challenger_parameter_name is not None and endpoint_name is not None:
            self._try_challengers(workload, challenger_parameter_name, endpoint_name)
        artifacts.grant_read(self.promotion, f"{spec.slug}/training/")
        self.reconciliation = Reconciliation(self, "Reconciliation", group_name=group_name, queue=self.queue)
        self._list_versions(self.promotion)
        self.archive: ModelArchive | None = None
        if spec.registry.archive is not None:
            named = (approval_parameter_name, challenger_parameter_name)
            self.archive = ModelArchive(
                self,
                "Archive",
                rule=spec.registry.archive,
                group_name=group_name,
                parameter_names=tuple(name for name in named if name is not None),
                dead_letters=self.dead_letters,
                log_key=log_key,
                log_retention_days=log_retention_days,
            )

    @property
    def approval_parameter_name(self) -> str:
        """Name of the SSM parameter that holds the approved model package's ARN, or ``none``."""
        return self.approval.parameter_name

    @property
    def group_arn(self) -> str:
        """ARN of the model package group."""
        return arn("sagemaker", f"model-package-group/{self.group_name}")

    @property
    def versions_arn(self) -> str:
        """ARN of every version in the group; ends with a wildcard."""
        return arn("sagemaker", f"model-package/{self.group_name}/*")

    def tell(self, topic: sns.ITopic, *, workload: LoadedWorkload, environment_name: str) -> None:
        """Have promotions, refusals and rollbacks told to ``topic``; the registry's message key opens it."""
        for name, value in (
            ("TOPIC_ARN", topic.topic_arn),
            ("WORKLOAD", workload.name),
            ("ENVIRONMENT", environment_name),
        ):
            self.promotion.add_environment(name, value)
        grant_publish(self.promotion, topic, self.dead_letters.key)

    def grant_approve(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant seeing the group's versions and approving or rejecting them."""
        self._list_versions(grantee)
        return self._on_versions(grantee, ["sagemaker:DescribeModelPackage", "sagemaker:UpdateModelPackage"])

    def grant_read(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant describing the group's versions and reading which one is approved."""
        self.approval.grant_read(grantee)
        return self._on_versions(grantee, ["sagemaker:DescribeModelPackage"])

    def metric_dead_letters(
        self, *, period: cdk.Duration | None = None, statistic: str = "Maximum"
    ) -> cloudwatch.Metric:
        """Promotions that were given up; five minutes unless ``period`` says otherwise."""
        return self.dead_letters.queue.metric_approximate_number_of_messages_visible(
            period=cdk.Duration.minutes(5) if period is None else period, statistic=statistic
        )

    def on_version_registered(self, rule_id: str, *, target: events.IRuleTarget) -> events.Rule:
        """Send an event to ``target`` when a version waits for an approval."""
        rule = events.Rule(
            self,
            rule_id,
            description=f"A version of {self.group_name} waits for an approval",
            event_pattern=events.EventPattern(
                source=["aws.sagemaker"],
                detail_type=["SageMaker Model Package State Change"],
                detail={
                    "ModelPackageGroupName": [self.group_name],
                    "ModelApprovalStatus": ["PendingManualApproval"],
                },
            ),
        )
        rule.add_target(target)
        return rule

    def _shared_with(self, accounts: tuple[str, ...]) -> dict[str, object]:
        """Resource policy of the group (SageMaker Developer Guide, "Deploy a model version from a different
        account").
        """
        principals = {"AWS": [f"arn:{PARTITION}:iam::{account}:root" for account in accounts]}
        return {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Sid": "SeeTheGroup",
                    "Effect": "Allow",
                    "Principal": principals,
                    "Action": ["sagemaker:DescribeModelPackageGroup", "sagemaker:ListModelPackages"],
                    "Resource": self.group_arn,
                },
                {
                    "Sid": "DeployItsVersions",
                    "Effect": "Allow",
                    "Principal": principals,
                    "Action": ["sagemaker:CreateModel", "sagemaker:DescribeModelPackage"],
                    "Resource": self.versions_arn,
                },
            ],
        }

    def _list_versions(self, grantee: iam.IGrantable) -> None:
        # Service Authorization Reference, "Amazon SageMaker": listing model packages has no resource type.
        iam.Grant.add_to_principal(
            grantee=grantee, actions=["sagemaker:ListModelPackages"], resource_arns=["*"]
        )
        principal = grantee.grant_principal
        if isinstance(principal, Construct):
            acknowledge_wildcards(
                principal,
                "Listing model packages has no resource type; it reads names only.",
                resources=["*"],
            )

    def _on_versions(self, grantee: iam.IGrantable, actions: list[str]) -> iam.Grant:
        grant = iam.Grant.add_to_principal(
            grantee=grantee, actions=actions, resource_arns=[self.versions_arn]
        )
        principal = grantee.grant_principal
        if isinstance(principal, Construct):
            acknowledge_wildcards(
                principal,
                "A version's number is not known before it is registered; the group is one.",
                resources=[self.versions_arn],
            )
        return grant

    def _rule(self, rule_id: str, *, description: str, pattern: dict[str, object]) -> events.CfnRule:
        # The L2 target would open the queue to every rule of EventBridge, whoever owns it.
        return events.CfnRule(
            self,
            rule_id,
            description=description,
            event_pattern=pattern,
            state="ENABLED",
            targets=[
                events.CfnRule.TargetProperty(
                    id="Queue",
                    arn=self.queue.queue_arn,
                    dead_letter_config=events.CfnRule.DeadLetterConfigProperty(
                        arn=self.dead_letters.queue.queue_arn
                    ),
                )
            ],
        )

    def _challenged(self) -> events.CfnRule:
        """An alarm of the serving stack ends a test before its time."""
        return self._rule(
            "Challenged",
            description=f"An alarm of {self.serving_stack_name} is on",
            pattern={
                "source": ["aws.cloudwatch"],
                "detail-type": ["CloudWatch Alarm State Change"],
                "resources": [{"prefix": arn("cloudwatch", f"alarm:{self.serving_stack_name}-")}],
                "detail": {"state": {"value": ["ALARM"]}},
            },
        )

    def _try_challengers(self, workload: LoadedWorkload, parameter_name: str, endpoint_name: str) -> None:
        """Tell the promotion how challengers are tried, and let it see how they do."""
        function = self.promotion
        rollout = workload.workload.serving.rollout
        trials = TrialSchedules(self, "Trials", name=f"{self.group_name}-tests", queue=self.queue)
        trials.grant_plan(function)
        for name, value in {
            **trials.environment(),
            "CHALLENGER_PARAMETER_NAME": parameter_name,
            "CHALLENGER_VARIANT": CHALLENGER_NAME,
            "ENDPOINT_NAME": endpoint_name,
            "TEST_MINUTES": str(rollout.test_minutes),
        }.items():
            function.add_environment(name, value)
        alarms = arn("cloudwatch", f"alarm:{self.serving_stack_name}-*")
        # Which alarms there are stands in the stack: CloudWatch lists by name or all of the account.
        iam.Grant.add_to_principal(
            grantee=function,
            actions=["cloudformation:ListStackResources"],
            resource_arns=[self._stack_arn("*")],
        )
        iam.Grant.add_to_principal(
            grantee=function, actions=["cloudwatch:DescribeAlarms"], resource_arns=[alarms]
        )
        iam.Grant.add_to_principal(
            grantee=function,
            actions=["cloudwatch:GetMetricStatistics"],
            # Service Authorization Reference, "Amazon CloudWatch": reading metrics has no resource type.
            resource_arns=["*"],
        )
        if function.role is not None:
            acknowledge_wildcards(
                function.role,
                "CloudFormation makes up the end of an alarm's name; the stack is one. Metrics have no "
                "resource type.",
                resources=[alarms, "*"],
            )

    def _stack_arn(self, suffix: str) -> str:
        return arn("cloudformation", f"stack/{self.serving_stack_name}/{suffix}")

    def _promotion(
        self, workload: LoadedWorkload, log_key: kms.IKey, log_retention_days: int
    ) -> lambda_.Function:
        acceptance = workload.workload.acceptance
        bound = (
            {"ACCEPT_AT_LEAST": json.dumps(acceptance.at_least)}
            if acceptance.at_most is None
            else {"ACCEPT_AT_MOST": json.dumps(acceptance.at_most)}
        )
        function = zip_function(
            self,
            "Promotion",
            package="model_promotion",
            description=f"Brings approved versions of {self.group_name} into service",
            log_key=log_key,
            log_retention_days=log_retention_days,
            environment={
                "PARAMETER_NAME": self.approval_parameter_name,
                "SERVING_STACK_NAME": self.serving_stack_name,
                "MODEL_PACKAGE_GROUP_NAME": self.group_name,
                "ACCEPT_METRIC": acceptance.metric,
                **bound,
            },
        )
        function.add_event_source(
            event_sources.SqsEventSource(
                self.queue,
                # One at a time: of two approvals the later must be the one that stays.
                batch_size=1,
                report_batch_item_failures=True,
                # Two is the least that Lambda takes (ScalingConfig, MaximumConcurrency).
                max_concurrency=2,
            )
        )
        self._on_versions(function, ["sagemaker:DescribeModelPackage", "sagemaker:UpdateModelPackage"])
        self.approval.grant_promote(function, challenger=self.challenger_parameter_name)
        self._grant_update_stack(function)
        return function

    def _grant_update_stack(self, function: lambda_.Function) -> None:
        stacks = self._stack_arn("*")
        iam.Grant.add_to_principal(
            grantee=function,
            actions=[
                # Which alarm turned a rollout back stands in the stack's events.
                "cloudformation:DescribeStackEvents",
                "cloudformation:DescribeStacks",
                "cloudformation:UpdateStack",
            ],
            resource_arns=[stacks],
        )
        if function.role is not None:
            acknowledge_wildcards(
                function.role,
                "A stack's ARN ends with an id that CloudFormation makes up; its name is one.",
                resources=[stacks],
            )
        synthesizer = cdk.Stack.of(self).synthesizer
        if isinstance(synthesizer, cdk.DefaultStackSynthesizer):
            qualifier = synthesizer.bootstrap_qualifier or cdk.DefaultStackSynthesizer.DEFAULT_QUALIFIER
            # Every stack of the CDK reads the bootstrap's version as a parameter too.
            iam.Grant.add_to_principal(
                grantee=function,
                actions=["ssm:GetParameters"],
                resource_arns=[arn("ssm", f"parameter/cdk-bootstrap/{qualifier}/version")],
            )
