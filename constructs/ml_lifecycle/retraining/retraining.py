"""What starts the training pipeline, and what keeps it from starting too often."""

from __future__ import annotations

import json
from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_sns as sns
from aws_cdk import aws_ssm as ssm
from ml_contract.load import ContractError, LoadedWorkload
from ml_contract.spec.retraining import NewData, drift_monitors

from constructs import Construct
from ml_lifecycle.code import code_root
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.dead_letters import DeadLetterQueue
from ml_lifecycle.foundation import grant_publish
from ml_lifecycle.pseudo import arn, service_principal
from ml_lifecycle.registry import ModelRegistry
from ml_lifecycle.retraining.notices import target_with_dead_letters
from ml_lifecycle.training.wildcards import acknowledge_wildcards
from ml_lifecycle.zip_function import zip_function

__all__ = ["Retraining"]

#: Of the features zone: what the job that builds them says of them, below the workload's prefix.
_NOTE = "data/_snapshot.json"
#: Every job that an execution starts begins so (SageMaker Pipelines: ``pipelines-<execution>-<step>-...``).
_JOBS = "pipelines-*"


class Retraining(Construct):
    """Define the triggers of a workload's training pipeline and the function that answers them.

    Triggers, each as the workload's ``retraining`` says: an alarm of a monitor that goes to ALARM
    (``on_drift``; ``alarms`` by the monitors' kinds, of which ``on`` names those that count), a schedule
    (``every_days``), an event that says there are new features (``on_new_data``; with ``minimum_records``
    only when that many came since the last training). All reach ``lambda/retrain_trigger``, which starts the
    pipeline unless an execution runs or started within ``cooldown_hours``; of triggers that come at once, one
    starts it. An event that fails three times, or cannot be delivered for six hours, is kept in
    ``dead_letters`` for 14 days; ``python -m tools.redrive`` hands it to the function again.

    Where drift counts, a schedule asks every hour whether one of its alarms is on that no training has
    answered: an event that was lost, or that came within the cool-down, is made up for.

    ``budget`` counts the month's executions, or what their jobs were billed for by the price of an hour: the
    workload's own prices, else the dated table beside the function. Over it nothing starts, and ``topic`` is
    told once a month.

    Where the workload trains from the approved model (``training.parent``) or judges beside it
    (``evaluation.champion``), the function tells the pipeline which one it is; that takes ``registry``.

    ``grant_request`` lets a person or a program ask for a training: invoke the function with ``{"reason":
    "..."}``.

    Example::

        Retraining(
            self, "Retraining",
            workload=workload, pipeline_name="dev-claims-fraud", alarms={"data": monitor.drift_alarm},
            message_key=keys.messages, log_key=keys.logs,
        )

    ``features`` and ``artifacts`` are needed with ``minimum_records``: there stand how many rows there are
    and what the last training learned from. ``topic``, encrypted with ``message_key``, goes with
    ``environment_name``.

    Raises:
        ValueError: something that the workload's block needs is missing; all that is.
        ContractError: a budget in USD, and an instance type that has no price.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        workload: LoadedWorkload,
        pipeline_name: str,
        message_key: kms.IKey,
        log_key: kms.IKey,
        alarms: Mapping[str, cloudwatch.IAlarm] | None = None,
        new_data_event: Mapping[str, object] | None = None,
        registry: ModelRegistry | None = None,
        features: Zone | None = None,
        artifacts: Zone | None = None,
        topic: sns.ITopic | None = None,
        environment_name: str | None = None,
        log_retention_days: int = 90,
    ) -> None:
        super().__init__(scope, construct_id)
        spec = workload.workload
        rules = spec.retraining
        problems = []
        # What is not captured is not watched: the default of on_drift means nothing there.
        kinds = drift_monitors(rules, spec.monitoring) if spec.serving.captures else ()
        given = {} if alarms is None else alarms
        problems += [
            f"alarms must hold {kind!r}, whose drift starts a training (retraining.on_drift), "
            f"got {', '.join(sorted(given)) or 'none'}"
            for kind in kinds
            if kind not in given
        ]
        if rules.on_new_data and new_data_event is None:
            problems.append("new_data_event must be given when retraining.on_new_data is true, got None")
        counted = rules.on_new_data if isinstance(rules.on_new_data, NewData) else None
        if counted is not None and (features is None or artifacts is None):
            problems.append(
                "features and artifacts must be given when retraining.on_new_data has minimum_records, "
                "got None"
            )
        if (topic is None) != (environment_name is None):
            problems.append(f"topic and environment_name go together, got {topic} and {environment_name!r}")
        told = [
            *(["ChampionModel"] if spec.training.parent or spec.evaluation.champion else []),
            *(["ChampionTest"] if spec.evaluation.champion else []),
        ]
        if told and registry is None:
            problems.append(
                "registry must be given when training.parent or evaluation.champion is set, got None"
            )
        if problems:
            raise ValueError("; ".join(problems))
        champion = {}
        if told and registry is not None:
            champion = {
                "APPROVED_PARAMETER": registry.approval_parameter_name,
                "CHAMPION_PARAMETERS": ",".join(told),
            }
        _check_prices(workload)
        self._workload = workload
        self._schedule_role: iam.Role | None = None
        self.dead_letters = DeadLetterQueue(self, "DeadLetters", key=message_key)
        self.function = zip_function(
            self,
            "Trigger",
            package="retrain_trigger",
            description=f"Starts {pipeline_name} when there is a reason to",
            log_key=log_key,
            log_retention_days=log_retention_days,
            environment={
                "PIPELINE_NAME": pipeline_name,
                "WORKLOAD": spec.name,
                "COOLDOWN_HOURS": str(rules.cooldown_hours),
                **champion,
            },
            # Counting what a month has cost takes two calls a job.
            timeout=cdk.Duration.minutes(1 if rules.budget is None else 5),
            dead_letters=self.dead_letters,
        )
        iam.Grant.add_to_principal(
            grantee=self.function,
            actions=["sagemaker:ListPipelineExecutions", "sagemaker:StartPipelineExecution"],
            resource_arns=[arn("sagemaker", f"pipeline/{pipeline_name}")],
        )
        if told and registry is not None:
            registry.grant_read(self.function)
        if counted is not None and features is not None and artifacts is not None:
            self._count_rows(counted, features, artifacts)
        self._keep_budget(pipeline_name, topic, environment_name)
        self.rules: list[events.CfnRule] = []
        if kinds:
            self._rule(
                "Drift",
                description=f"Drift of {spec.name}",
                pattern={
                    "source": ["aws.cloudwatch"],
                    "detail-type": ["CloudWatch Alarm State Change"],
                    "resources": [given[kind].alarm_arn for kind in kinds],
                    "detail": {"state": {"value": ["ALARM"]}},
                },
            )
            self._watch({given[kind].alarm_name: given[kind].alarm_arn for kind in kinds})
        if rules.on_new_data and new_data_event is not None:
            self._rule(
                "NewData",
                description=f"New features of {spec.name}",
                pattern=dict(new_data_event),
            )
        if self.rules:
            self.dead_letters.allow_rules([rule.attr_arn for rule in self.rules])
        self.reconciliation = (
            self._schedule("Reconciliation", "Retraining Reconciliation", "rate(1 hour)", "Looks for drift")
            if kinds
            else None
        )
        days = rules.every_days
        self.schedule = (
            None
            if days is None
            else self._schedule(
                "Schedule",
                "Scheduled Event",
                f"rate({days} {'day' if days == 1 else 'days'})",
                "Asks for a training",
            )
        )

    def grant_request(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant asking for a training by invoking the function."""
        return self.function.grant_invoke(grantee)

    def metric_dead_letters(
        self, *, period: cdk.Duration | None = None, statistic: str = "Maximum"
    ) -> cloudwatch.Metric:
        """Triggers that were given up; five minutes unless ``period`` says otherwise."""
        return self.dead_letters.queue.metric_approximate_number_of_messages_visible(
            period=cdk.Duration.minutes(5) if period is None else period, statistic=statistic
        )

    def _count_rows(self, wanted: NewData, features: Zone, artifacts: Zone) -> None:
        """Let the function compare how many rows of features there are with what was learned from."""
        slug = self._workload.workload.slug
        for name, value in (
            ("MINIMUM_RECORDS", str(wanted.minimum_records)),
            ("FEATURES_NOTE_URI", features.uri(f"{slug}/{_NOTE}")),
            ("TRAINING_URI", artifacts.uri(f"{slug}/training")),
        ):
            self.function.add_environment(name, value)
        features.grant_read(self.function, f"{slug}/{_NOTE}")
        artifacts.grant_read(self.function, f"{slug}/training/")

    def _keep_budget(
        self, pipeline_name: str, topic: sns.ITopic | None, environment_name: str | None
    ) -> None:
        """Let the function see what the month's trainings were billed for, and tell people."""
        budget = self._workload.workload.retraining.budget
        if budget is None:
            return
        if budget.usd_per_month is not None:
            self.function.add_environment("BUDGET_USD", repr(budget.usd_per_month))
            self.function.add_environment("USD_PER_HOUR", json.dumps(budget.usd_per_hour, sort_keys=True))
            self._see_jobs(pipeline_name)
        else:
            self.function.add_environment("BUDGET_RUNS", str(budget.runs_per_month))
        if topic is None or environment_name is None:
            return
        # What was said last; a deploy that writes it anew lets it be said once more.
        name = f"/ml-lifecycle/{environment_name}/{self._workload.workload.slug}/refused-trainings"
        ssm.CfnParameter(
            self,
            "Told",
            # By name: the ARN of one that CloudFormation names begins with a slash or does not.
            name=name,
            type="String",
            value="nothing",
            description=f"Refused trainings of {pipeline_name} that people were told of",
        )
        for variable, value in (
            ("TOPIC_ARN", topic.topic_arn),
            ("ENVIRONMENT", environment_name),
            ("TOLD_PARAMETER", name),
        ):
            self.function.add_environment(variable, value)
        iam.Grant.add_to_principal(
            grantee=self.function,
            actions=["ssm:GetParameterHistory", "ssm:PutParameter"],
            resource_arns=[arn("ssm", f"parameter{name}")],
        )
        grant_publish(self.function, topic, self.dead_letters.key)

    def _see_jobs(self, pipeline_name: str) -> None:
        executions = arn("sagemaker", f"pipeline/{pipeline_name}/execution/*")
        # A search and its trials have names without a prefix (TrainingPipeline). Those of the month count,
        # also where the workload searches no more.
        search = arn("sagemaker", "hyper-parameter-tuning-job/*-Tune-*")
        grants = [
            ("sagemaker:ListPipelineExecutionSteps", executions),
            ("sagemaker:DescribeTrainingJob", arn("sagemaker", f"training-job/{_JOBS}")),
            ("sagemaker:DescribeProcessingJob", arn("sagemaker", f"processing-job/{_JOBS}")),
            ("sagemaker:ListTrainingJobsForHyperParameterTuningJob", search),
            ("sagemaker:DescribeTrainingJob", arn("sagemaker", "training-job/*-Tune-*")),
        ]
        for action, resource in grants:
            iam.Grant.add_to_principal(grantee=self.function, actions=[action], resource_arns=[resource])
        if self.function.role is not None:
            acknowledge_wildcards(
                self.function.role,
                "SageMaker makes up the names of executions and of their jobs; they are only described.",
                resources=[resource for _, resource in grants],
            )

    def _rule(self, rule_id: str, *, description: str, pattern: dict[str, object]) -> None:
        rule = events.CfnRule(
            self,
            rule_id,
            description=description,
            event_pattern=pattern,
            state="ENABLED",
            targets=[target_with_dead_letters(self.function, self.dead_letters)],
        )
        self.function.add_permission(
            f"Allow{rule_id}",
            principal=service_principal("events"),
            source_arn=rule.attr_arn,
        )
        self.rules.append(rule)

    def _watch(self, alarms: Mapping[str, str]) -> None:
        """Let the function see whether an alarm is on; ``alarms`` are ARNs by name."""
        self.function.add_environment("DRIFT_ALARMS", ",".join(alarms))
        iam.Grant.add_to_principal(
            grantee=self.function,
            actions=["cloudwatch:DescribeAlarms"],
            resource_arns=list(alarms.values()),
        )

    def _schedule(
        self, schedule_id: str, kind: str, expression: str, description: str
    ) -> scheduler.CfnSchedule:
        """Invoke the function by the clock with an event of ``kind``, its ``detail-type``."""
        if self._schedule_role is None:
            self._schedule_role = self._role_of_schedules()
        schedule = scheduler.CfnSchedule(
            self,
            schedule_id,
            description=description,
            schedule_expression=expression,
            # Nobody waits for it to the minute.
            flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(
                mode="FLEXIBLE", maximum_window_in_minutes=15
            ),
            target=scheduler.CfnSchedule.TargetProperty(
                arn=self.function.function_arn,
                role_arn=self._schedule_role.role_arn,
                input=json.dumps(
                    {
                        "source": "ml-lifecycle.schedule",
                        "detail-type": kind,
                        "time": "<aws.scheduler.scheduled-time>",
                        "detail": {},
                    }
                ),
                dead_letter_config=scheduler.CfnSchedule.DeadLetterConfigProperty(
                    arn=self.dead_letters.queue.queue_arn
                ),
                retry_policy=scheduler.CfnSchedule.RetryPolicyProperty(
                    maximum_event_age_in_seconds=21_600, maximum_retry_attempts=20
                ),
            ),
        )
        schedule.node.add_dependency(self._schedule_role)
        return schedule

    def _role_of_schedules(self) -> iam.Role:
        role = iam.Role(
            self,
            "ScheduleRole",
            description="Asks for a training on a schedule",
            assumed_by=service_principal("scheduler", own_account=True),
        )
        # Function.grant_invoke gives every version and alias too, by a wildcard.
        iam.Grant.add_to_principal(
            grantee=role, actions=["lambda:InvokeFunction"], resource_arns=[self.function.function_arn]
        )
        self.dead_letters.grant_send(role)
        return role


def _check_prices(workload: LoadedWorkload) -> None:
    """Refuse a budget in USD whose instances nobody can price: what one costs is in no region of the table.

    Raises:
        ContractError: with the line of the instance type.
    """
    spec = workload.workload
    budget = spec.retraining.budget
    if budget is None or budget.usd_per_month is None:
        return
    path = code_root("lambda") / "retrain_trigger" / "prices.json"
    table = json.loads(path.read_text(encoding="utf-8"))
    problems = [
        workload.problem(
            f"training.{name}",
            f"{kind} has no price of {table['date']}; add it to retraining.budget.usd_per_hour, "
            "or give runs_per_month",
        )
        for name, kind in (
            ("instance_type", spec.training.instance_type),
            ("processing_instance_type", spec.training.processing_instance_type),
        )
        if kind not in table["usd_per_hour"] and kind not in budget.usd_per_hour
    ]
    if problems:
        raise ContractError(problems)
