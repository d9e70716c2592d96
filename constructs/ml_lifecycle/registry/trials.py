"""Where the ends of challengers' tests are planned."""

from __future__ import annotations

from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_sqs as sqs

from constructs import Construct
from ml_lifecycle.pseudo import arn
from ml_lifecycle.registry.queue_role import queue_role
from ml_lifecycle.training.wildcards import acknowledge_wildcards

__all__ = ["TrialSchedules"]


class TrialSchedules(Construct):
    """Define a group of schedules, each of which sends one message to a queue and is gone.

    The promotion makes a schedule when a challenger's test begins; EventBridge Scheduler sends its message to
    ``queue`` when the test is over and deletes the schedule.

    Args:
        scope: where it belongs.
        construct_id: its id there.
        name: name of the group, at most 64 characters; forced, since a schedule's ARN holds it.
        queue: where the messages go; its key is used as the schedules' role.
    """

    #: What every schedule's name begins with; the rest says whose test ends.
    PREFIX = "test"

    def __init__(self, scope: Construct, construct_id: str, *, name: str, queue: sqs.Queue) -> None:
        super().__init__(scope, construct_id)
        if len(name) > 64:
            raise ValueError(
                f"name of a schedule group must have at most 64 characters, got {len(name)}: {name}"
            )
        self.queue = queue
        self.group = scheduler.CfnScheduleGroup(self, "Group", name=name)
        self.role = queue_role(self, "Role", description=f"Schedules of {name}", queue=queue)

    @property
    def schedules_arn(self) -> str:
        """ARN of every schedule in the group; ends with a wildcard."""
        return arn("scheduler", f"schedule/{self.group.name}/{self.PREFIX}-*")

    def environment(self) -> dict[str, str]:
        """What a function needs to know to plan in the group."""
        return {
            "SCHEDULE_GROUP": str(self.group.name),
            "SCHEDULE_PREFIX": self.PREFIX,
            "SCHEDULE_ROLE_ARN": self.role.role_arn,
            "QUEUE_ARN": self.queue.queue_arn,
        }

    def grant_plan(self, function: lambda_.Function) -> iam.Grant:
        """Grant making schedules in the group that send messages to the queue."""
        iam.Grant.add_to_principal(
            grantee=function,
            actions=["iam:PassRole"],
            resource_arns=[self.role.role_arn],
            conditions={"StringEquals": {"iam:PassedToService": "scheduler.amazonaws.com"}},
        )
        if function.role is not None:
            acknowledge_wildcards(
                function.role,
                "A schedule is named after the version whose test it ends; the group is one.",
                resources=[self.schedules_arn],
            )
        return iam.Grant.add_to_principal(
            grantee=function, actions=["scheduler:CreateSchedule"], resource_arns=[self.schedules_arn]
        )
