"""The own engine: a table of items, a state machine that waits for votes, a page, a landing."""

from __future__ import annotations

import json

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_sns as sns
from aws_cdk import aws_stepfunctions as stepfunctions
from ml_contract.extracts.label_rules import label_rules
from ml_contract.load import LoadedWorkload

from constructs import Construct
from ml_lifecycle.acknowledge import acknowledge
from ml_lifecycle.alarms import alarm
from ml_lifecycle.code import lambda_folder
from ml_lifecycle.data_lake import Zone, labels_place
from ml_lifecycle.foundation import grant_logs_and_traces, log_group, logging_to
from ml_lifecycle.labelling.items import ItemTable
from ml_lifecycle.labelling.landing import LabelLanding
from ml_lifecycle.labelling.review_site import ReviewSite
from ml_lifecycle.labelling.routing import CaptureRouter
from ml_lifecycle.labelling.steps import definition
from ml_lifecycle.pseudo import service_principal
from ml_lifecycle.zip_function import zip_function

__all__ = ["NAMESPACE", "OwnLabelling"]

#: Namespace of the metrics, one per kind of thing that is measured, so that a policy can name it.
NAMESPACE = "MLLifecycle/Labels"
_PACKAGE = "label_tasks"


class OwnLabelling(Construct):
    """Define labelling that any account can run: no service but serverless ones.

    A prediction that data capture wrote and that the model is not sure of becomes an item (``router``). Per
    item one execution of ``state_machine`` waits until ``labellers_per_item`` people have labelled it on the
    page, asks more when they disagree and an adjudicator in the end, and lands the label. Nobody labels an
    item twice.

    ``alarms``: an item waits longer than half its time, executions fail, an event or a label is given up.
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
        spec = workload.workload
        rules = spec.labelling
        if rules is None or rules.engine != "own":
            raise ValueError(f"{spec.name} must have labelling with engine own, got {rules!r}")
        self._folder = lambda_folder(_PACKAGE, {"label_rules.json": label_rules(spec)})
        self._log_key, self._log_retention_days = log_key, log_retention_days
        self._workload = spec.name
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
        self.rounds = self._function(
            "Rounds", "rounds", "Opens, decides and closes rounds of votes", {"NAMESPACE": NAMESPACE}
        )
        self.items.grant(self.rounds, "GetItem", "UpdateItem", index=True)
        self._grant_metrics()
        self.state_machine = self._state_machine(rules.expires_hours)
        self.routing = CaptureRouter(
            self,
            "Routing",
            workload_name=spec.name,
            folder=self._folder,
            items=self.items,
            artifacts=artifacts,
            capture_prefix=capture_prefix,
            environment={"ENGINE": "own", "STATE_MACHINE": self.state_machine.attr_arn},
            message_key=message_key,
            log_key=log_key,
            log_retention_days=log_retention_days,
        )
        self.router = self.routing.function
        iam.Grant.add_to_principal(
            grantee=self.router,
            actions=["states:StartExecution"],
            resource_arns=[self.state_machine.attr_arn],
        )
        self.site = ReviewSite(
            self,
            "Site",
            name=name_prefix,
            log_key=log_key,
            log_retention_days=log_retention_days,
            removal_policy=removal_policy,
        )
        self.review = self._function(
            "Review",
            "review",
            "Page of the labellers and its API",
            {
                "SIGN_IN_URL": self.site.sign_in_url,
                "CLIENT_ID": self.site.client.ref,
                "SCOPE": self.site.oauth_scope,
            },
        )
        self.items.grant(self.review, "GetItem", "UpdateItem", index=True)
        self._let_signal()
        self.site.answer_with(self.review)
        self.schedule = self._schedule()
        self.alarms = self._alarms(alarm_topic, rules.expires_hours)

    @property
    def label_table_name(self) -> str:
        """``database.table`` of the labels."""
        return self.landing.table_name

    def grant_request(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant asking for labels of records that nobody has labelled: invoke the router with them."""
        return self.routing.grant_request(grantee)

    def grant_read_labels(self, grantee: iam.Role) -> iam.Grant:
        """Grant reading the table of labels: its entry in the catalog and its files."""
        return self.landing.table.grant_read(grantee)

    def metric_oldest_item(self, *, period: cdk.Duration | None = None) -> cloudwatch.Metric:
        """Seconds that the oldest item has waited, measured every hour."""
        return self._metric("OldestItemAge", "Maximum", period)

    def metric_waiting_items(self, *, period: cdk.Duration | None = None) -> cloudwatch.Metric:
        """Items that wait for people, measured every hour."""
        return self._metric("WaitingItems", "Maximum", period)

    def _metric(self, name: str, statistic: str, period: cdk.Duration | None) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace=NAMESPACE,
            metric_name=name,
            dimensions_map={"Workload": self._workload},
            statistic=statistic,
            period=cdk.Duration.hours(1) if period is None else period,
        )

    # --- parts ----------------------------------------------------------------------------------------------

    def _function(
        self,
        construct_id: str,
        module: str,
        description: str,
        environment: dict[str, str],
    ) -> lambda_.Function:
        return zip_function(
            self,
            construct_id,
            package=_PACKAGE,
            handler=f"{_PACKAGE}.{module}.handler",
            folder=self._folder,
            description=description,
            log_key=self._log_key,
            log_retention_days=self._log_retention_days,
            environment={"TABLE": self.items.name, **environment},
        )

    def _grant_metrics(self) -> None:
        iam.Grant.add_to_principal(
            grantee=self.rounds,
            actions=["cloudwatch:PutMetricData"],
            resource_arns=["*"],
            conditions={"StringEquals": {"cloudwatch:namespace": NAMESPACE}},
        )
        if self.rounds.role is not None:
            acknowledge(
                self.rounds.role,
                "IAM5[Resource::*]",
                "PutMetricData knows no resource (Service Authorization Reference); the namespace is named.",
            )

    def _let_signal(self) -> None:
        # A policy of its own: in the roles' own ones it would tie function and state machine in a circle.
        roles = [self.landing.role, self.rounds.role, self.review.role]
        iam.Policy(
            self,
            "Signal",
            roles=[role for role in roles if role is not None],
            statements=[
                iam.PolicyStatement(
                    actions=["states:SendTaskSuccess"], resources=[self.state_machine.attr_arn]
                )
            ],
        )

    def _state_machine(self, expires_hours: int) -> stepfunctions.CfnStateMachine:
        role = iam.Role(
            self,
            "StepsRole",
            description="Waits for the votes of an item",
            assumed_by=service_principal("states", own_account=True),
        )
        iam.Grant.add_to_principal(
            grantee=role, actions=["lambda:InvokeFunction"], resource_arns=[self.rounds.function_arn]
        )
        self.landing.grant_send(role)
        logs = log_group(self, "StepsLogs", key=self._log_key, retention_days=self._log_retention_days)
        grant_logs_and_traces(role)
        machine = stepfunctions.CfnStateMachine(
            self,
            "Steps",
            role_arn=role.role_arn,
            state_machine_type="STANDARD",
            # Not Stack.to_json_string: it leaves nulls out, and a null ResultPath keeps a state's input.
            definition_string=json.dumps(
                definition(
                    function_arn=self.rounds.function_arn,
                    queue_url=self.landing.queue.queue_url,
                    expires_hours=expires_hours,
                )
            ),
            logging_configuration=logging_to(logs),
            tracing_configuration=stepfunctions.CfnStateMachine.TracingConfigurationProperty(enabled=True),
        )
        machine.node.add_dependency(role)
        return machine

    def _schedule(self) -> scheduler.CfnSchedule:
        role = iam.Role(
            self,
            "MeasureRole",
            description="Measures how long items wait",
            assumed_by=service_principal("scheduler", own_account=True),
        )
        iam.Grant.add_to_principal(
            grantee=role, actions=["lambda:InvokeFunction"], resource_arns=[self.rounds.function_arn]
        )
        schedule = scheduler.CfnSchedule(
            self,
            "Measure",
            description="Measures how long items wait",
            schedule_expression="rate(1 hour)",
            flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
            target=scheduler.CfnSchedule.TargetProperty(
                arn=self.rounds.function_arn, role_arn=role.role_arn, input=json.dumps({"step": "measure"})
            ),
        )
        schedule.node.add_dependency(role)
        return schedule

    def _alarms(self, topic: sns.ITopic | None, expires_hours: int) -> tuple[cloudwatch.CfnAlarm, ...]:
        waiting = alarm(
            self,
            "ItemsWait",
            what=f"An item has waited longer than half of its {expires_hours} h: nobody labels, or too few",
            runbook="labelling",
            namespace=NAMESPACE,
            metric="OldestItemAge",
            dimensions={"Workload": self._workload},
            threshold=expires_hours * 3_600 / 2,
            statistic="Maximum",
            period_seconds=3_600,
            topic=topic,
        )
        failing = alarm(
            self,
            "StepsFail",
            what="An execution that waits for votes has failed: its item is not labelled",
            runbook="labelling",
            namespace="AWS/States",
            metric="ExecutionsFailed",
            dimensions={"StateMachineArn": self.state_machine.attr_arn},
            topic=topic,
        )
        given_up = [
            alarm(
                self,
                construct_id,
                what=what,
                runbook="dead-letters",
                namespace="AWS/SQS",
                metric="ApproximateNumberOfMessagesVisible",
                dimensions={"QueueName": queue.queue_name},
                statistic="Maximum",
                topic=topic,
            )
            for construct_id, what, queue in (
                ("EventsGivenUp", "A capture file was not read for items", self.routing.dead_letters.queue),
                ("LabelsGivenUp", "A label did not land", self.landing.dead_letters.queue),
            )
        ]
        return (waiting, failing, *given_up)
