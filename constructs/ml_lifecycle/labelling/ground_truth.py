"""The managed engine: SageMaker Ground Truth, for accounts that have it."""

from __future__ import annotations

import json
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3_assets as s3_assets
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_sns as sns
from aws_cdk import aws_stepfunctions as stepfunctions
from ml_contract.extracts.label_rules import label_rules
from ml_contract.load import LoadedWorkload

from constructs import Construct
from ml_lifecycle.acknowledge import acknowledge
from ml_lifecycle.alarms import alarm
from ml_lifecycle.code import code_root, lambda_folder
from ml_lifecycle.data_lake import Zone, labels_place
from ml_lifecycle.foundation import grant_logs_and_traces, log_group, logging_to
from ml_lifecycle.labelling import labeling_job
from ml_lifecycle.labelling.items import ItemTable
from ml_lifecycle.labelling.landing import LabelLanding
from ml_lifecycle.labelling.routing import PACKAGE, CaptureRouter
from ml_lifecycle.pseudo import arn, service_principal
from ml_lifecycle.training import service_model
from ml_lifecycle.zip_function import zip_function

__all__ = ["GroundTruthLabelling"]

_ACCOUNT = "000000000000"


class GroundTruthLabelling(Construct):
    """Define labelling by SageMaker Ground Truth: closed to accounts that did not use it before 2026-07-30.

    Items come about as with the own engine. Once a day a state machine sends those that wait to a job of the
    private team ``labelling.workforce`` (no CloudFormation type exists for one), waits for its end,
    and sends what people agreed on to the same landing. The request is checked against SageMaker's own
    description when the app is synthesised. Items of a job that fails wait again.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        workload: LoadedWorkload,
        name_prefix: str,
        curated: Zone,
        artifacts: Zone,
        capture_prefix: str,
        data_key: kms.IKey,
        message_key: kms.IKey,
        log_key: kms.IKey,
        log_retention_days: int = 90,
        alarm_topic: sns.ITopic | None = None,
        removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.RETAIN,
    ) -> None:
        super().__init__(scope, construct_id)
        del name_prefix
        spec = workload.workload
        rules = spec.labelling
        if rules is None or rules.engine != "ground_truth":
            raise ValueError(f"{spec.name} must have labelling with engine ground_truth, got {rules!r}")
        self._workload, self._rules = workload, rules
        self._log_key, self._log_retention_days = log_key, log_retention_days
        self._artifacts, self._prefix = artifacts, f"{spec.slug}/labelling/"
        self._folder = lambda_folder(PACKAGE, {"label_rules.json": label_rules(spec)})
        self.items = ItemTable(self, "Items", key=data_key, removal_policy=removal_policy)
        table_name, prefix = labels_place(spec.name, spec.slug)
        self.landing = LabelLanding(
            self,
            "Landing",
            zone=curated,
            table_name=table_name,
            prefix=prefix,
            items=self.items,
            message_key=message_key,
            log_key=log_key,
            log_retention_days=log_retention_days,
        )
        self.routing = CaptureRouter(
            self,
            "Routing",
            workload_name=spec.name,
            folder=self._folder,
            items=self.items,
            artifacts=artifacts,
            capture_prefix=capture_prefix,
            environment={"ENGINE": "ground_truth"},
            message_key=message_key,
            log_key=log_key,
            log_retention_days=log_retention_days,
        )
        self.prepare = self._function("Prepare", "prepare", "Shows an item to a worker", {})
        self.consolidate = self._function("Consolidate", "consolidate", "What workers agreed on", {})
        artifacts.grant_read(self.consolidate, self._prefix)
        self.job_role = self._job_role()
        self.steps = self._steps()
        self.state_machine = self._state_machine()
        self._schedule()
        self.alarm = alarm(
            self,
            "JobsFail",
            what="A labelling job has failed: its items wait again",
            runbook="labelling",
            namespace="AWS/States",
            metric="ExecutionsFailed",
            dimensions={"StateMachineArn": self.state_machine.attr_arn},
            topic=alarm_topic,
        )

    @property
    def label_table_name(self) -> str:
        """``database.table`` of the labels."""
        return self.landing.table_name

    def grant_request(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant asking for labels of records that nobody has labelled: invoke the router with them."""
        return self.routing.grant_request(grantee)

    def _function(
        self, construct_id: str, name: str, description: str, environment: dict[str, str]
    ) -> lambda_.Function:
        return zip_function(
            self,
            construct_id,
            package=PACKAGE,
            handler=f"{PACKAGE}.ground_truth.{name}",
            folder=self._folder,
            description=description,
            log_key=self._log_key,
            log_retention_days=self._log_retention_days,
            environment=environment,
            timeout=cdk.Duration.minutes(5),
        )

    def _job_role(self) -> iam.Role:
        role = iam.Role(
            self,
            "JobRole",
            description="Ground Truth: reads items, writes what workers said",
            assumed_by=service_principal("sagemaker", own_account=True),
        )
        self._artifacts.grant_read(role, self._prefix)
        self._artifacts.grant_write(role, self._prefix)
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["lambda:InvokeFunction"],
            resource_arns=[self.prepare.function_arn, self.consolidate.function_arn],
        )
        return role

    def _steps(self) -> lambda_.Function:
        function = self._function(
            "Steps",
            "handler",
            "Collects items for a labelling job and harvests its labels",
            {
                "TABLE": self.items.name,
                "BUCKET": self._artifacts.bucket.bucket_name,
                "PREFIX": self._prefix,
                "QUEUE": self.landing.queue.queue_url,
            },
        )
        self.items.grant(function, "GetItem", "UpdateItem", index=True)
        self._artifacts.grant_read(function, self._prefix)
        self._artifacts.grant_write(function, self._prefix)
        self.landing.grant_send(function)
        return function

    def _request(self, template: s3_assets.Asset) -> dict[str, Any]:
        """The request with what a job's own execution fills in (``.$``); checked with stand-ins first."""
        title = self._workload.workload.title
        found = service_model.problems(
            "CreateLabelingJob",
            labeling_job.request(
                self._rules,
                title=title,
                job_name="stand-in",
                manifest_uri="s3://stand-in/input.manifest",
                output_uri="s3://stand-in/output",
                output_key="arn:aws:kms:us-east-1:000000000000:key/stand-in",
                template_uri="s3://stand-in/template.html",
                role=f"arn:aws:iam::{_ACCOUNT}:role/stand-in",
                prepare=f"arn:aws:lambda:us-east-1:{_ACCOUNT}:function:stand-in",
                consolidate=f"arn:aws:lambda:us-east-1:{_ACCOUNT}:function:stand-in",
            ),
        )
        if found:
            raise ValueError(
                f"{self._workload.path}: SageMaker would refuse the labelling job:\n" + "\n".join(found)
            )
        request = labeling_job.request(
            self._rules,
            title=title,
            job_name="$.collected.job",
            manifest_uri="$.collected.manifest",
            output_uri="$.collected.output",
            output_key=self._artifacts.key.key_arn,
            template_uri=template.s3_object_url,
            role=self.job_role.role_arn,
            prepare=self.prepare.function_arn,
            consolidate=self.consolidate.function_arn,
        )
        referred: dict[str, Any] = _referred(request)
        return referred

    def _state_machine(self) -> stepfunctions.CfnStateMachine:
        template = s3_assets.Asset(
            self,
            "Template",
            path=str(code_root("lambda") / PACKAGE / "page" / "ground_truth.liquid.html"),
        )
        # Not Asset.grant_read: it lets one read every asset of the account.
        iam.Grant.add_to_principal(
            grantee=self.job_role,
            actions=["s3:GetObject"],
            resource_arns=[template.bucket.arn_for_objects(template.s3_object_key)],
        )
        role = iam.Role(
            self,
            "MachineRole",
            description="Makes labelling jobs and waits for them",
            assumed_by=service_principal("states", own_account=True),
        )
        grant_logs_and_traces(role)
        jobs = arn("sagemaker", "labeling-job/*")
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["sagemaker:CreateLabelingJob", "sagemaker:DescribeLabelingJob"],
            resource_arns=[jobs],
        )
        acknowledge(
            role,
            "IAM5[Resource::arn:<AWS::Partition>:sagemaker:<AWS::Region>:<AWS::AccountId>:labeling-job/*]",
            "A job is named by the execution that makes it; who makes one must be let pass its role too.",
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["iam:PassRole"],
            resource_arns=[self.job_role.role_arn],
            conditions={"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
        )
        iam.Grant.add_to_principal(
            grantee=role, actions=["lambda:InvokeFunction"], resource_arns=[self.steps.function_arn]
        )
        logs = log_group(self, "MachineLogs", key=self._log_key, retention_days=self._log_retention_days)
        machine = stepfunctions.CfnStateMachine(
            self,
            "Machine",
            role_arn=role.role_arn,
            state_machine_type="STANDARD",
            # Not Stack.to_json_string: it leaves nulls out, and a null ResultPath keeps a state's input.
            definition_string=json.dumps(
                labeling_job.definition(self._request(template), function_arn=self.steps.function_arn)
            ),
            logging_configuration=logging_to(logs),
            tracing_configuration=stepfunctions.CfnStateMachine.TracingConfigurationProperty(enabled=True),
        )
        machine.node.add_dependency(role, self.job_role)
        return machine

    def _schedule(self) -> None:
        role = iam.Role(
            self,
            "ScheduleRole",
            description="Starts a labelling job a day",
            assumed_by=service_principal("scheduler", own_account=True),
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["states:StartExecution"],
            resource_arns=[self.state_machine.attr_arn],
        )
        schedule = scheduler.CfnSchedule(
            self,
            "Daily",
            description="Sends the items that wait to a labelling job",
            schedule_expression="rate(1 day)",
            flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
            target=scheduler.CfnSchedule.TargetProperty(
                arn=self.state_machine.attr_arn, role_arn=role.role_arn, input="{}"
            ),
        )
        schedule.node.add_dependency(role)


def _referred(value: Any) -> Any:
    """Members that are paths of the state machine's input, named as the States Language wants it."""
    if isinstance(value, dict):
        return {
            (f"{key}.$" if isinstance(item, str) and item.startswith("$.") else key): _referred(item)
            for key, item in value.items()
        }
    return value
