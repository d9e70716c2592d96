"""What an environment may cost a month."""

from __future__ import annotations

from aws_cdk import aws_budgets as budgets
from aws_cdk import aws_sns as sns

from constructs import Construct


class MonthlyBudget(Construct):
    """Define a monthly cost budget for what carries one tag.

    It tells ``topic`` when 80 % is spent and when the forecast exceeds it.

    The first two budgets of an account are free, a further one costs 0.02 USD a day (AWS Budgets pricing).
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
