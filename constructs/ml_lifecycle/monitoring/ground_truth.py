"""How labels that arrive after the prediction reach the monitors that need them."""

from __future__ import annotations

import json
from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lakeformation as lakeformation
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_sns as sns
from ml_contract.compiled import CompiledContract

from constructs import Construct
from ml_lifecycle.alarms import alarm
from ml_lifecycle.code import lake_lambda_context
from ml_lifecycle.data_lake import IcebergTable, Zone
from ml_lifecycle.dead_letters import DeadLetterQueue
from ml_lifecycle.foundation import log_group
from ml_lifecycle.monitoring.job import GROUND_TRUTH
from ml_lifecycle.monitoring.own_engine import HOURS, cron
from ml_lifecycle.pseudo import ACCOUNT, service_principal

__all__ = ["GroundTruth"]

#: Column that delivery adds to every record (``CompiledContract.glue_columns``).
_RECEIVED = "received_at"
_TIMEOUT_MINUTES = 10


class GroundTruth(Construct):
    """Define what writes labels as ground-truth files, in SageMaker Model Monitor's format.

    The function ``lambda/ground_truth`` runs when ``started_by`` happens (the end of a batch run:
    ``new_data_event`` of an engine) and, where people label (``labels``), each ``every_hours``. For each
    record that arrived within ``lookback_hours`` and has a label it writes a line below
    ``<artifacts>/<slug>/ground-truth/yyyy/mm/dd/hh/``, unless one stands there already; what people said
    goes before the record's own label. A prediction is known by its InferenceId: callers pass the record's
    identifier (64 ASCII characters at most). What people label is known by the id that the capture gave it.

    Defaults: three days back, every hour. A person looks further back by invoking the function with
    ``{"hours": 720}``. An event that fails three times waits in ``dead_letters``; ``alarm`` tells.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        contract: CompiledContract,
        curated_table: IcebergTable,
        artifacts: Zone,
        message_key: kms.IKey,
        log_key: kms.IKey,
        started_by: Mapping[str, object] | None = None,
        labels: IcebergTable | None = None,
        every_hours: int = 1,
        lookback_hours: int = 72,
        log_retention_days: int = 90,
        alarm_topic: sns.ITopic | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        problems = []
        # Labels older than a year say nothing of the model that serves now.
        if not 1 <= lookback_hours <= 24 * 366:
            problems.append(f"lookback_hours must be between 1 and 8784, got {lookback_hours}")
        if every_hours not in HOURS:
            problems.append(f"every_hours must be one of {', '.join(map(str, HOURS))}, got {every_hours}")
        if started_by is None and labels is None:
            problems.append("started_by or labels must be given, got None for both: nothing would start it")
        if problems:
            raise ValueError("ground truth: " + "; ".join(problems))
        self.prefix = f"{contract.slug}/{GROUND_TRUTH}/"
        self.uri = artifacts.uri(self.prefix.rstrip("/"))
        self._artifacts = artifacts
        self.dead_letters = DeadLetterQueue(self, "DeadLetters", key=message_key)
        group = log_group(self, "Logs", key=log_key, retention_days=log_retention_days)
        self.role = iam.Role(
            self,
            "Role",
            description=f"Reads labels of {contract.name}, writes ground truth",
            assumed_by=service_principal("lambda"),
        )
        group.grant_write(self.role)
        self.dead_letters.grant_send(self.role)
        curated_table.grant_read(self.role)
        if labels is not None:
            self._grant_labels(labels)
        artifacts.grant_read(self.role, self.prefix)
        artifacts.grant_write(self.role, self.prefix)
        self.function = lambda_.DockerImageFunction(
            self,
            "Function",
            description=f"Writes labels of {contract.name} as ground truth",
            code=lambda_.DockerImageCode.from_image_asset(
                str(lake_lambda_context("ground_truth")), platform=ecr_assets.Platform.LINUX_AMD64
            ),
            architecture=lambda_.Architecture.X86_64,
            # pyarrow alone takes half a GB; a label that is known takes about 300 bytes.
            memory_size=2_048,
            timeout=cdk.Duration.minutes(_TIMEOUT_MINUTES),
            role=self.role,
            log_group=group,
            dead_letter_queue=self.dead_letters.queue,
            environment={
                "CURATED_TABLE": f"{curated_table.database_name}.{curated_table.name}",
                **({} if labels is None else {"LABELS_TABLE": f"{labels.database_name}.{labels.name}"}),
                "IDENTIFIER": contract.identifier,
                "LABEL": contract.label.field,
                "RECEIVED": _RECEIVED,
                "GROUND_TRUTH_URI": self.uri,
                "LOOKBACK_HOURS": str(lookback_hours),
            },
        )
        if started_by is not None:
            self._start_on(dict(started_by))
        if labels is not None:
            self._start_every(every_hours)
        self.alarm = alarm(
            self,
            "GivenUp",
            what=f"Labels of {contract.name} did not become ground truth; the event waits to be redriven",
            runbook="dead-letters",
            namespace="AWS/SQS",
            metric="ApproximateNumberOfMessagesVisible",
            dimensions={"QueueName": self.dead_letters.queue.queue_name},
            topic=alarm_topic,
            statistic="Maximum",
        )

    def grant_invoke(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant asking for a run, of as many hours as the event says."""
        return iam.Grant.add_to_principal(
            grantee=grantee, actions=["lambda:InvokeFunction"], resource_arns=[self.function.function_arn]
        )

    def grant_write(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant writing ground truth from elsewhere: files in the same format below ``uri``."""
        return self._artifacts.grant_write(grantee, self.prefix)

    def metric_dead_letters(
        self, *, period: cdk.Duration | None = None, statistic: str = "Maximum"
    ) -> cloudwatch.Metric:
        """Events that were given up; five minutes unless ``period`` says otherwise."""
        return self.dead_letters.queue.metric_approximate_number_of_messages_visible(
            period=cdk.Duration.minutes(5) if period is None else period, statistic=statistic
        )

    def _grant_labels(self, labels: IcebergTable) -> None:
        """Grant reading the second table of a zone; in Lake Formation a role has one such grant a zone."""
        zone = labels.zone
        zone.grant_read(self.role, labels.prefix)
        zone.grant_query_table(self.role, labels.name, in_lake_formation=False)
        if not zone.governed:
            return
        name = lakeformation.CfnPrincipalPermissions
        name(
            self,
            "LabelsPermissions",
            principal=name.DataLakePrincipalProperty(data_lake_principal_identifier=self.role.role_arn),
            resource=name.ResourceProperty(
                table=name.TableResourceProperty(
                    catalog_id=ACCOUNT, database_name=labels.database_name, name=labels.name
                )
            ),
            permissions=["SELECT", "DESCRIBE"],
            permissions_with_grant_option=[],
        )

    def _start_on(self, pattern: dict[str, object]) -> None:
        rule = events.CfnRule(
            self,
            "Rule",
            description="New curated records may bring labels",
            event_pattern=pattern,
            state="ENABLED",
            targets=[
                events.CfnRule.TargetProperty(
                    id="GroundTruth",
                    arn=self.function.function_arn,
                    dead_letter_config=events.CfnRule.DeadLetterConfigProperty(
                        arn=self.dead_letters.queue.queue_arn
                    ),
                    retry_policy=events.CfnRule.RetryPolicyProperty(
                        maximum_event_age_in_seconds=21_600, maximum_retry_attempts=20
                    ),
                )
            ],
        )
        self.dead_letters.allow_rules([rule.attr_arn])
        self.function.add_permission(
            "AllowRule", principal=service_principal("events"), source_arn=rule.attr_arn
        )

    def _start_every(self, hours: int) -> None:
        role = iam.Role(
            self,
            "ScheduleRole",
            description="Looks for labels that people gave",
            assumed_by=service_principal("scheduler", own_account=True),
        )
        self.grant_invoke(role)
        self.dead_letters.grant_send(role)
        schedule = scheduler.CfnSchedule(
            self,
            "Schedule",
            description="Labels that people gave become ground truth",
            # Before the monitors, which look from 20 minutes past the hour.
            schedule_expression=cron(5, hours),
            flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
            target=scheduler.CfnSchedule.TargetProperty(
                arn=self.function.function_arn,
                role_arn=role.role_arn,
                input=json.dumps({"time": "<aws.scheduler.scheduled-time>"}),
                dead_letter_config=scheduler.CfnSchedule.DeadLetterConfigProperty(
                    arn=self.dead_letters.queue.queue_arn
                ),
                retry_policy=scheduler.CfnSchedule.RetryPolicyProperty(
                    maximum_event_age_in_seconds=3_600, maximum_retry_attempts=10
                ),
            ),
        )
        schedule.node.add_dependency(role)
