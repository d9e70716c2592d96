"""The role by which EventBridge Scheduler sends messages to a queue."""

from __future__ import annotations

from aws_cdk import aws_iam as iam
from aws_cdk import aws_sqs as sqs

from constructs import Construct
from ml_lifecycle.pseudo import service_principal

__all__ = ["queue_role"]


def queue_role(scope: Construct, role_id: str, *, description: str, queue: sqs.Queue) -> iam.Role:
    """Define a role that schedules of this account may take, and that may send to ``queue``, no more."""
    role = iam.Role(
        scope,
        role_id,
        assumed_by=service_principal("scheduler", own_account=True),
        description=description,
    )
    # By hand: the queue's own grant has wildcards of KMS actions that SendMessage does not need (Amazon
    # SQS Developer Guide, "Key management", "Configure KMS permissions for producers").
    iam.Grant.add_to_principal(grantee=role, actions=["sqs:SendMessage"], resource_arns=[queue.queue_arn])
    if queue.encryption_master_key is not None:
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["kms:Decrypt", "kms:GenerateDataKey"],
            resource_arns=[queue.encryption_master_key.key_arn],
        )
    return role
