"""The table of the items that people label."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms

from constructs import Construct
from ml_lifecycle.acknowledge import COMPLIANCE, acknowledge

__all__ = ["ItemTable"]

#: The index by which items that wait are found (``label_tasks.tasks.INDEX``).
INDEX = "queue-created"


class ItemTable(Construct):
    """Define a DynamoDB table of items: on demand, encrypted with ``key``, 35 days of point-in-time recovery.

    An item leaves by itself (``ttl``) long after its time is over. The table is retained, and protected from
    deletion, unless ``removal_policy`` says otherwise.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        key: kms.IKey,
        removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.RETAIN,
    ) -> None:
        super().__init__(scope, construct_id)
        self.key = key
        attribute = dynamodb.CfnTable.AttributeDefinitionProperty
        schema = dynamodb.CfnTable.KeySchemaProperty
        self.table = dynamodb.CfnTable(
            self,
            "Table",
            attribute_definitions=[
                attribute(attribute_name=name, attribute_type="S") for name in ("task", "queue", "created")
            ],
            key_schema=[schema(attribute_name="task", key_type="HASH")],
            global_secondary_indexes=[
                dynamodb.CfnTable.GlobalSecondaryIndexProperty(
                    index_name=INDEX,
                    key_schema=[
                        schema(attribute_name="queue", key_type="HASH"),
                        schema(attribute_name="created", key_type="RANGE"),
                    ],
                    projection=dynamodb.CfnTable.ProjectionProperty(projection_type="ALL"),
                )
            ],
            billing_mode="PAY_PER_REQUEST",
            sse_specification=dynamodb.CfnTable.SSESpecificationProperty(
                sse_enabled=True, sse_type="KMS", kms_master_key_id=key.key_arn
            ),
            point_in_time_recovery_specification=dynamodb.CfnTable.PointInTimeRecoverySpecificationProperty(
                point_in_time_recovery_enabled=True, recovery_period_in_days=35
            ),
            time_to_live_specification=dynamodb.CfnTable.TimeToLiveSpecificationProperty(
                attribute_name="ttl", enabled=True
            ),
            deletion_protection_enabled=removal_policy == cdk.RemovalPolicy.RETAIN,
        )
        self.table.apply_removal_policy(removal_policy)
        acknowledge(
            self.table,
            "DynamoDBInBackupPlan",
            "Point-in-time recovery gives back any second of the last 35 days, which no backup plan does.",
            packs=COMPLIANCE,
        )

    @property
    def name(self) -> str:
        """Name of the table."""
        return self.table.ref

    def grant(self, grantee: iam.IGrantable, *actions: str, index: bool = False) -> iam.Grant:
        """Grant ``dynamodb`` actions on the table, ``index`` adds reading its index; and its key.

        DynamoDB decrypts with the caller's permission (Developer Guide, "Using customer managed keys").
        """
        grant = iam.Grant.add_to_principal(
            grantee=grantee,
            actions=[f"dynamodb:{action}" for action in actions],
            resource_arns=[self.table.attr_arn],
        )
        if index:
            iam.Grant.add_to_principal(
                grantee=grantee,
                actions=["dynamodb:Query"],
                resource_arns=[f"{self.table.attr_arn}/index/{INDEX}"],
            )
        iam.Grant.add_to_principal(grantee=grantee, actions=["kms:Decrypt"], resource_arns=[self.key.key_arn])
        return grant
