"""What people wrote becomes entities and sentiment: Amazon Comprehend, as a table beside the curated one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sns as sns
from aws_cdk import aws_stepfunctions as stepfunctions
from ml_contract.compiled import HIVE_TYPES, CompiledContract

from constructs import Construct
from ml_lifecycle.acknowledge import acknowledge
from ml_lifecycle.alarms import alarm
from ml_lifecycle.code import lake_lambda_context
from ml_lifecycle.data_lake import DataLake, IcebergTable
from ml_lifecycle.foundation import LAMBDA_KILLED, RETRY_LAMBDA, grant_logs_and_traces, log_group, logging_to
from ml_lifecycle.processing.workflow import turns
from ml_lifecycle.pseudo import PARTITION, arn, service_principal

__all__ = ["TextEnrichment"]

_TIMEOUT_MINUTES = 15
#: BatchDetectSentiment, BatchDetectEntities: LanguageCode (Amazon Comprehend API reference).
_LANGUAGES = ("en", "es", "fr", "de", "it", "pt", "ar", "hi", "ja", "ko", "zh", "zh-TW")
#: The function was killed: what it has committed stays, the next attempt takes the rest.
_KILLED = ["States.Timeout", *LAMBDA_KILLED]


class TextEnrichment(Construct):
    """Define what asks Amazon Comprehend about the texts of a curated table, and the table of the answers.

    When ``started_by`` happens (the end of a batch run: ``new_data_event`` of an engine) a state machine
    calls the function ``lambda/text_enrichment`` until every text of the current snapshot has its row in
    ``<contract>_texts``. A text is known by its identifier and the SHA-256 of its bytes: none is paid for
    twice, and a text that changed has a row of its own. A text that Comprehend refuses has a row with the
    code. What was answered lands every 1,000 texts, so a run that breaks off loses little and the next one
    goes on. One run at a time.

    Defaults: sentiment and entities; 100,000 texts a run at most, because each costs, the next run takes the
    rest; ``alarm`` when a run failed. The table is kept when the stack goes.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        contract: CompiledContract,
        name_prefix: str,
        lake: DataLake,
        curated_table: IcebergTable,
        field: str,
        language: str,
        log_key: kms.IKey,
        sentiment: bool = True,
        entities: bool = True,
        most_texts: int = 100_000,
        started_by: Mapping[str, object] | None = None,
        log_retention_days: int = 90,
        alarm_topic: sns.ITopic | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        name = f"{name_prefix}-texts"
        _check(
            contract, name, field=field, language=language, most_texts=most_texts, asked=sentiment or entities
        )
        identifier = contract.by_name[contract.identifier]
        self.table = IcebergTable(
            self,
            "Texts",
            zone=lake.curated,
            name=f"{contract.name}_texts",
            columns=[
                ("identifier", HIVE_TYPES[identifier.type]),
                ("text_sha256", "string"),
                ("language", "string"),
                ("truncated", "boolean"),
                ("sentiment", "string"),
                ("positive", "double"),
                ("negative", "double"),
                ("neutral", "double"),
                ("mixed", "double"),
                # JSON: an array of {text, type, score, begin, end}.
                ("entities", "string"),
                ("error", "string"),
                ("enriched_at", "timestamp"),
                ("snapshot_id", "bigint"),
            ],
            prefix=f"{contract.slug}/texts/",
            log_key=log_key,
            log_retention_days=log_retention_days,
        )
        kinds = [kind for kind, asked in (("sentiment", sentiment), ("entities", entities)) if asked]
        self.role = self._function_role(lake, curated_table, kinds)
        group = log_group(self, "Logs", key=log_key, retention_days=log_retention_days)
        group.grant_write(self.role)
        self.function = lambda_.DockerImageFunction(
            self,
            "Function",
            description=f"Asks Comprehend about {field} of {contract.name}",
            code=lambda_.DockerImageCode.from_image_asset(
                str(lake_lambda_context("text_enrichment")), platform=ecr_assets.Platform.LINUX_AMD64
            ),
            architecture=lambda_.Architecture.X86_64,
            # It keeps 16 bytes (about 100 in Python) of each text that it knows.
            memory_size=3_008,
            timeout=cdk.Duration.minutes(_TIMEOUT_MINUTES),
            role=self.role,
            log_group=group,
            environment={
                "CURATED_TABLE": f"{curated_table.database_name}.{curated_table.name}",
                "TEXTS_TABLE": f"{self.table.database_name}.{self.table.name}",
                "IDENTIFIER": contract.identifier,
                "FIELD": field,
                "LANGUAGE": language,
                "KINDS": ",".join(kinds),
                "MOST_TEXTS": str(most_texts),
            },
        )
        # A name of its own: the machine asks for its own executions, and its policy comes before it.
        self.state_machine_arn = arn("states", f"stateMachine:{name}")
        self.state_machine = self._machine(name, log_key, log_retention_days)
        if started_by is not None:
            self._start_on(started_by)
        self.alarm = alarm(
            self,
            "Failed",
            what=f"Texts of {contract.name} were not enriched: a run failed",
            runbook="texts-not-enriched",
            namespace="AWS/States",
            metric="ExecutionsFailed",
            dimensions={"StateMachineArn": self.state_machine.ref},
            topic=alarm_topic,
        )

    @property
    def outputs(self) -> dict[str, str]:
        """Names under which an operator finds it."""
        return {"TextsStateMachineArn": self.state_machine.ref, "TextsTable": self.table.name}

    def grant_start(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant starting a run by hand."""
        return iam.Grant.add_to_principal(
            grantee=grantee, actions=["states:StartExecution"], resource_arns=[self.state_machine_arn]
        )

    def grant_read(self, role: iam.Role) -> iam.Grant:
        """Grant reading what was found."""
        return self.table.grant_read(role)

    def metric(
        self,
        metric_name: str = "ExecutionsFailed",
        *,
        period: cdk.Duration | None = None,
        statistic: str = "Sum",
    ) -> cloudwatch.Metric:
        """Return a metric of the runs, e.g. ``ExecutionsFailed`` or ``ExecutionTime`` (milliseconds)."""
        return cloudwatch.Metric(
            namespace="AWS/States",
            metric_name=metric_name,
            dimensions_map={"StateMachineArn": self.state_machine_arn},
            statistic=statistic,
            period=cdk.Duration.minutes(5) if period is None else period,
        )

    def _function_role(self, lake: DataLake, curated: IcebergTable, kinds: list[str]) -> iam.Role:
        role = iam.Role(
            self,
            "FunctionRole",
            description="Reads curated texts, asks Comprehend, commits what it found",
            assumed_by=service_principal("lambda"),
        )
        curated.grant_read(role)
        # Reading rows comes with it; two tables of a zone are not granted alike to one role.
        self.table.grant_commit(role)
        # pyiceberg asks whether a file is there before it writes it: to who may not list, S3 says 403.
        lake.curated.grant_folder(role, self.table.prefix)
        iam.Grant.add_to_principal(
            grantee=role,
            # Service Authorization Reference, "Amazon Comprehend": no resource types for these actions.
            actions=[f"comprehend:BatchDetect{kind.title()}" for kind in kinds],
            resource_arns=["*"],
        )
        acknowledge(
            role,
            "IAM5[Resource::*]",
            "Comprehend's batch operations know no resources; they answer about the text that is sent and "
            "read nothing of the account",
        )
        return role

    def _machine(self, name: str, log_key: kms.IKey, days: int) -> stepfunctions.CfnStateMachine:
        role = iam.Role(
            self,
            "StepsRole",
            description="Calls the function that enriches texts until nothing is left",
            assumed_by=service_principal("states", own_account=True),
        )
        iam.Grant.add_to_principal(
            grantee=role, actions=["lambda:InvokeFunction"], resource_arns=[self.function.function_arn]
        )
        iam.Grant.add_to_principal(
            grantee=role, actions=["states:ListExecutions"], resource_arns=[self.state_machine_arn]
        )
        grant_logs_and_traces(role)
        group = log_group(self, "StepsLogs", key=log_key, retention_days=days)
        machine = stepfunctions.CfnStateMachine(
            self,
            "Steps",
            state_machine_name=name,
            role_arn=role.role_arn,
            state_machine_type="STANDARD",
            definition_string=cdk.Stack.of(self).to_json_string(_definition(self.function.function_arn)),
            logging_configuration=logging_to(group),
            tracing_configuration=stepfunctions.CfnStateMachine.TracingConfigurationProperty(enabled=True),
        )
        machine.node.add_dependency(role)
        return machine

    def _start_on(self, pattern: Mapping[str, object]) -> None:
        role = iam.Role(
            self,
            "StartRole",
            description="Starts the enrichment of texts when a batch run ended",
            assumed_by=service_principal("events", own_account=True),
        )
        self.grant_start(role)
        rule = events.CfnRule(
            self,
            "Start",
            description="A batch run ended: new texts may be there",
            event_pattern=dict(pattern),
            targets=[
                events.CfnRule.TargetProperty(
                    id="Texts", arn=self.state_machine.ref, role_arn=role.role_arn, input="{}"
                )
            ],
        )
        rule.node.add_dependency(role)


def _definition(function_arn: str) -> dict[str, Any]:
    killed = {"ErrorEquals": _KILLED, "IntervalSeconds": 30, "MaxAttempts": 2, "BackoffRate": 2}
    return {
        "Comment": "Asks about texts until none is left",
        "StartAt": "Runs",
        "States": {
            **turns("Begin"),
            "Begin": {"Type": "Pass", "Result": {"done": 0}, "Next": "Enrich"},
            "Enrich": {
                "Type": "Task",
                "Resource": f"arn:{PARTITION}:states:::lambda:invoke",
                "Parameters": {"FunctionName": function_arn, "Payload": {"done.$": "$.done"}},
                "ResultSelector": {
                    "done.$": "$.Payload.done",
                    "more.$": "$.Payload.more",
                    "failed.$": "$.Payload.failed",
                    "reached_most.$": "$.Payload.reached_most",
                },
                "Retry": [killed, *RETRY_LAMBDA],
                "Next": "More",
            },
            "More": {
                "Type": "Choice",
                "Choices": [{"Variable": "$.more", "BooleanEquals": True, "Next": "Enrich"}],
                "Default": "Done",
            },
            "Done": {"Type": "Succeed"},
        },
    }


def _check(
    contract: CompiledContract, name: str, *, field: str, language: str, most_texts: int, asked: bool
) -> None:
    problems = []
    column = contract.by_name.get(field)
    if column is None or column.type != "string":
        texts = ", ".join(one.name for one in contract.columns if one.type == "string")
        problems.append(f"field must be a string of the record ({texts}), got {field!r}")
    if language not in _LANGUAGES:
        problems.append(f"language must be one of {', '.join(_LANGUAGES)}, got {language!r}")
    if most_texts < 1:
        problems.append(f"most_texts must be at least 1, got {most_texts}")
    if not asked:
        problems.append("sentiment or entities must be true, got neither; leave the enrichment out instead")
    # AWS Step Functions API reference, CreateStateMachine: name.
    if len(name) > 80:
        problems.append(f"name_prefix must leave the name 80 characters at most, got {len(name)}: {name!r}")
    if problems:
        raise ValueError("text enrichment: " + "; ".join(problems))
