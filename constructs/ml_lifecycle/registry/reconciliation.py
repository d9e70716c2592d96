"""What makes the promotion look for what no event has told it."""

from __future__ import annotations

import json

from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_sqs as sqs

from constructs import Construct
from ml_lifecycle.registry.queue_role import queue_role

__all__ = ["Reconciliation"]


class Reconciliation(Construct):
    """Define a message to the promotion's queue every hour, that asks what is open.

    SageMaker sends events as best effort: an approval may never become one (Amazon EventBridge Events
    Reference, "Delivery level for AWS service events").

    Args:
        scope: where it belongs.
        construct_id: its id there.
        group_name: group of versions, for people.
        queue: where the message goes; its key is used as the schedule's role.
    """

    #: The event's ``detail-type``, which ``lambda/model_promotion`` reads.
    KIND = "Promotion Reconciliation"

    def __init__(self, scope: Construct, construct_id: str, *, group_name: str, queue: sqs.Queue) -> None:
        super().__init__(scope, construct_id)
        about = f"Looks for open approvals of {group_name}"
        self.role = queue_role(self, "Role", description=about, queue=queue)
        self.schedule = scheduler.CfnSchedule(
            self,
            "Schedule",
            description=about,
            schedule_expression="rate(1 hour)",
            # Nobody waits for it to the minute.
            flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(
                mode="FLEXIBLE", maximum_window_in_minutes=15
            ),
            target=scheduler.CfnSchedule.TargetProperty(
                arn=queue.queue_arn,
                role_arn=self.role.role_arn,
                input=json.dumps(
                    {
                        "id": "<aws.scheduler.execution-id>",
                        "source": "ml-lifecycle.schedule",
                        "detail-type": self.KIND,
                        "time": "<aws.scheduler.scheduled-time>",
                        "detail": {},
                    }
                ),
                # An hour that is missed is the next one's.
                retry_policy=scheduler.CfnSchedule.RetryPolicyProperty(
                    maximum_event_age_in_seconds=1_800, maximum_retry_attempts=5
                ),
            ),
        )
        self.schedule.node.add_dependency(self.role)
