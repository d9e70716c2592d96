"""A state machine that starts one job of AWS, looks at it until it ends, and ends as it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_stepfunctions as stepfunctions

from constructs import Construct
from ml_lifecycle.foundation.logs import log_group
from ml_lifecycle.foundation.state_machines import grant_logs_and_traces, logging_to
from ml_lifecycle.pseudo import PARTITION, arn, service_principal

__all__ = ["Job", "JobMachine", "name_in", "unique_name"]


def name_in(path: str) -> str:
    """Return the expression of a resource's name in the ARN at ``path``."""
    return f"States.ArrayGetItem(States.StringSplit({path}, '/'), 1)"


def unique_name(prefix: str) -> str:
    """Return the expression of a job's name: ``prefix`` and a number, 32 characters at most."""
    return f"States.Format('{prefix[:21].rstrip('-')}-{{}}', States.MathRandom(100000000, 999999999))"


@dataclass(frozen=True, kw_only=True)
class Job:
    """How a job is started and looked at, in the words of Step Functions' SDK integrations.

    Args:
        start: ``service:action``, e.g. ``sagemaker:startPipelineExecution``.
        given: parameters of ``start``.
        look: ``service:action`` that describes the job.
        by: parameters of ``look``; ``$.started`` holds the answer of ``start``.
        status: path of the status in the answer of ``look``, e.g. ``AutoMLJobStatus``.
        good: status of a job that ended well.
        bad: statuses of a job that did not.
        reason: path of why it failed, in the answer of ``look``.
        before: states that come first, the last of which goes on to ``Start``; the first is begun with.
    """

    start: str
    given: Mapping[str, Any]
    look: str
    by: Mapping[str, Any]
    status: str
    good: str
    bad: Sequence[str]
    reason: str
    before: Mapping[str, Any] = field(default_factory=dict)


class JobMachine(Construct):
    """Define a state machine for one kind of job. Default: looks each minute.

    ``role`` is what the machine acts as: grant it what the job needs. An execution fails when its job does,
    with the job's own reason. ``then`` is a call (``service:action`` and its parameters) that follows a job
    that ended well.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        job: Job,
        description: str,
        log_key: kms.IKey,
        log_retention_days: int = 90,
        every_seconds: int = 60,
        then: tuple[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        problems = []
        # AWS Step Functions API reference, CreateStateMachine: name.
        if not 1 <= len(name) <= 80:
            problems.append(f"name must have 1 to 80 characters, got {len(name)}: {name!r}")
        if not 1 <= every_seconds <= 3600:
            problems.append(f"every_seconds must be between 1 and 3600, got {every_seconds}")
        if problems:
            raise ValueError("job machine: " + "; ".join(problems))
        self.name = name
        self.role = iam.Role(
            self,
            "Role",
            description=description,
            assumed_by=service_principal("states", own_account=True),
        )
        grant_logs_and_traces(self.role)
        group = log_group(self, "Logs", key=log_key, retention_days=log_retention_days)
        self.state_machine = stepfunctions.CfnStateMachine(
            self,
            "StateMachine",
            state_machine_name=name,
            role_arn=self.role.role_arn,
            state_machine_type="STANDARD",
            definition_string=cdk.Stack.of(self).to_json_string(
                _definition(job, description, every_seconds, then)
            ),
            logging_configuration=logging_to(group),
            tracing_configuration=stepfunctions.CfnStateMachine.TracingConfigurationProperty(enabled=True),
        )
        self.state_machine.node.add_dependency(self.role)

    @property
    def state_machine_arn(self) -> str:
        """ARN of the state machine."""
        return arn("states", f"stateMachine:{self.name}")

    def grant_start(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant starting an execution."""
        return iam.Grant.add_to_principal(
            grantee=grantee, actions=["states:StartExecution"], resource_arns=[self.state_machine_arn]
        )

    def grant_pass(self, role: iam.IRole, service: str) -> iam.Grant:
        """Let the machine hand ``role`` to the service that runs the job, e.g. ``bedrock``."""
        return iam.Grant.add_to_principal(
            grantee=self.role,
            actions=["iam:PassRole"],
            resource_arns=[role.role_arn],
            conditions={"StringEquals": {"iam:PassedToService": f"{service}.amazonaws.com"}},
        )


def _task(action: str, parameters: Mapping[str, Any], path: str, following: str) -> dict[str, Any]:
    return {
        "Type": "Task",
        "Resource": f"arn:{PARTITION}:states:::aws-sdk:{action}",
        "Parameters": dict(parameters),
        "ResultPath": path,
        "Retry": [
            {
                # Step Functions Developer Guide, "Error names": what passes by itself.
                "ErrorEquals": [
                    "States.Timeout",
                    "SageMaker.ThrottlingException",
                    "Bedrock.ThrottlingException",
                ],
                "IntervalSeconds": 10,
                "BackoffRate": 2,
                "MaxAttempts": 5,
                "JitterStrategy": "FULL",
            }
        ],
        "Next": following,
    }


def _definition(
    job: Job, comment: str, every_seconds: int, then: tuple[str, Mapping[str, Any]] | None
) -> dict[str, Any]:
    status = f"$.found.{job.status}"
    after = {} if then is None else {"Then": _task(then[0], then[1], "$.then", "Done")}
    return {
        "Comment": comment,
        "StartAt": next(iter(job.before), "Start"),
        "States": {
            **job.before,
            "Start": _task(job.start, job.given, "$.started", "Wait"),
            "Wait": {"Type": "Wait", "Seconds": every_seconds, "Next": "Look"},
            "Look": _task(job.look, job.by, "$.found", "Ended"),
            "Ended": {
                "Type": "Choice",
                "Choices": [
                    {"Variable": status, "StringEquals": job.good, "Next": "Then" if after else "Done"},
                    *(
                        {
                            "And": [
                                {"Variable": status, "StringEquals": bad},
                                {"Variable": f"$.found.{job.reason}", "IsPresent": True},
                            ],
                            "Next": "Failed",
                        }
                        for bad in job.bad
                    ),
                    *({"Variable": status, "StringEquals": bad, "Next": "Stopped"} for bad in job.bad),
                ],
                "Default": "Wait",
            },
            "Failed": {"Type": "Fail", "ErrorPath": status, "CausePath": f"$.found.{job.reason}"},
            "Stopped": {"Type": "Fail", "ErrorPath": status, "Cause": "the job gave no reason"},
            **after,
            "Done": {"Type": "Succeed"},
        },
    }
