"""What an environment may cost a month."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from aws_cdk import aws_budgets as budgets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns

from constructs import Construct
from ml_lifecycle.acknowledge import acknowledge
from ml_lifecycle.pseudo import ACCOUNT, PARTITION, service_principal

#: What starts something that is billed by the hour.
STARTS: Final = (
    "glue:StartJobRun",
    "glue:StartWorkflowRun",
    "sagemaker:CreateAutoMLJobV2",
    "sagemaker:CreateEndpoint",
    "sagemaker:CreateHyperParameterTuningJob",
    "sagemaker:CreateProcessingJob",
    "sagemaker:CreateTrainingJob",
    "sagemaker:CreateTransformJob",
    "sagemaker:StartPipelineExecution",
)


class MonthlyBudget(Construct):
    """Define a monthly cost budget for what carries one tag.

    It tells ``topic`` when 80 % is spent and when the forecast exceeds it.

    ``deny_roles`` (default: none) are names of roles that may start no job any more when ``deny_percent`` is
    spent: AWS Budgets attaches a policy to them, after somebody has approved it (``deny_approval`` MANUAL,
    the default) or by itself, and takes it away with the next month.

    A budget is free; one with such an action costs 0.10 USD a day beyond an account's first two (AWS Budgets
    pricing).
    Costs carry the tag only after it was activated once as a cost allocation tag in the payer account.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        limit_usd: int,
        tag_key: str,
        tag_value: str,
        topic: sns.ITopic,
        deny_roles: Sequence[str] = (),
        deny_percent: int = 100,
        deny_approval: Literal["MANUAL", "AUTOMATIC"] = "MANUAL",
    ) -> None:
        super().__init__(scope, construct_id)
        if limit_usd < 1:
            raise ValueError(f"limit_usd must be at least 1, got {limit_usd}")
        subscriber = budgets.CfnBudget.SubscriberProperty(subscription_type="SNS", address=topic.topic_arn)

        def notice(kind: str, percent: int) -> budgets.CfnBudget.NotificationWithSubscribersProperty:
            return budgets.CfnBudget.NotificationWithSubscribersProperty(
                notification=budgets.CfnBudget.NotificationProperty(
                    comparison_operator="GREATER_THAN",
                    notification_type=kind,
                    threshold=percent,
                    threshold_type="PERCENTAGE",
                ),
                subscribers=[subscriber],
            )

        self.budget = budgets.CfnBudget(
            self,
            "Budget",
            budget=budgets.CfnBudget.BudgetDataProperty(
                budget_type="COST",
                time_unit="MONTHLY",
                budget_limit=budgets.CfnBudget.SpendProperty(amount=limit_usd, unit="USD"),
                # AWS Budgets writes a user-defined tag as "user:<key>$<value>".
                cost_filters={"TagKeyValue": [f"user:{tag_key}${tag_value}"]},
            ),
            notifications_with_subscribers=[notice("ACTUAL", 80), notice("FORECASTED", 100)],
        )
        self.action: budgets.CfnBudgetsAction | None = None
        if deny_roles:
            self.action = self._action(deny_roles, deny_percent, deny_approval, topic)

    def _action(
        self, roles: Sequence[str], percent: int, approval: str, topic: sns.ITopic
    ) -> budgets.CfnBudgetsAction:
        denies = iam.CfnManagedPolicy(
            self,
            "NoMoreJobs",
            description="Attached by AWS Budgets when the budget is spent: nothing is started any more",
            policy_document=iam.PolicyDocument(
                statements=[
                    iam.PolicyStatement(
                        sid="BudgetIsSpent", effect=iam.Effect.DENY, actions=list(STARTS), resources=["*"]
                    )
                ]
            ),
        )
        role = iam.Role(
            self,
            "ActionRole",
            description="AWS Budgets: attaches the policy that denies further jobs, and takes it away",
            assumed_by=service_principal("budgets", own_account=True),
        )
        named = [f"arn:{PARTITION}:iam::{ACCOUNT}:role/{name}" for name in roles]
        # Which policy it may attach is said by condition (Service Authorization Reference, iam:PolicyARN).
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["iam:AttachRolePolicy", "iam:DetachRolePolicy"],
            resource_arns=named,
            conditions={"ArnEquals": {"iam:PolicyARN": denies.ref}},
        )
        part = budgets.CfnBudgetsAction
        action = part(
            self,
            "Action",
            budget_name=self.budget.ref,
            action_type="APPLY_IAM_POLICY",
            approval_model=approval,
            notification_type="ACTUAL",
            action_threshold=part.ActionThresholdProperty(type="PERCENTAGE", value=percent),
            definition=part.DefinitionProperty(
                iam_action_definition=part.IamActionDefinitionProperty(
                    policy_arn=denies.ref, roles=list(roles)
                )
            ),
            execution_role_arn=role.role_arn,
            subscribers=[part.SubscriberProperty(type="SNS", address=topic.topic_arn)],
        )
        action.node.add_dependency(role)
        acknowledge(denies, "IAM5[Resource::*]", "The policy only denies: a wider resource makes it stricter")
        return action
