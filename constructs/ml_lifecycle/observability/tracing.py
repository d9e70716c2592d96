"""Spans leave by the log: a container without a network writes them, a function sends them on."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs

from constructs import Construct
from ml_lifecycle.pseudo import arn
from ml_lifecycle.training.wildcards import acknowledge_wildcards
from ml_lifecycle.zip_function import zip_function

__all__ = ["SpanForwarder"]

#: Lines of functions and images that hold a span (``function_log.spans``).
_FILTER = '"otlp"'


class SpanForwarder(Construct):
    """Define what sends the spans in log lines to an OpenTelemetry collector, by OTLP over HTTP.

    ``endpoint`` is the collector's base URL; ``None`` is X-Ray's own OTLP endpoint of the Region, asked with
    the function's signature (it needs Transaction Search, which is switched on once per account and Region).
    ``subscribe`` a log group whose spans it shall send; ``sample`` a function whose calls begin traces. A
    model's endpoint traces the requests that carry a sampled ``traceparent`` in their CustomAttributes.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        log_key: kms.IKey,
        endpoint: str | None = None,
        sample_ratio: float = 0.05,
        log_retention_days: int = 90,
    ) -> None:
        super().__init__(scope, construct_id)
        if not 0 < sample_ratio <= 1:
            raise ValueError(f"sample_ratio must be above 0 and at most 1, got {sample_ratio}")
        self._ratio = sample_ratio
        self.function = zip_function(
            self,
            "Function",
            package="span_forwarder",
            description="Sends spans of log lines to a collector",
            log_key=log_key,
            log_retention_days=log_retention_days,
            environment={
                "OTLP_ENDPOINT": f"https://xray.{cdk.Aws.REGION}.amazonaws.com"
                if endpoint is None
                else endpoint
            },
        )
        if endpoint is None:
            # Service Authorization Reference, "AWS X-Ray": the action has no resource type.
            iam.Grant.add_to_principal(
                grantee=self.function, actions=["xray:PutTraceSegments"], resource_arns=["*"]
            )
            if self.function.role is not None:
                acknowledge_wildcards(
                    self.function.role, "Sending spans to X-Ray has no resource type.", resources=["*"]
                )

    def subscribe(self, construct_id: str, group: logs.ILogGroup) -> logs.CfnSubscriptionFilter:
        """Send the spans that are written to ``group``."""
        allowed = lambda_.CfnPermission(
            self,
            f"{construct_id}May",
            action="lambda:InvokeFunction",
            function_name=self.function.function_name,
            principal="logs.amazonaws.com",
            source_account=cdk.Aws.ACCOUNT_ID,
            source_arn=arn("logs", f"log-group:{group.log_group_name}:*"),
        )
        subscription = logs.CfnSubscriptionFilter(
            self,
            construct_id,
            log_group_name=group.log_group_name,
            filter_pattern=_FILTER,
            destination_arn=self.function.function_arn,
        )
        # CloudWatch Logs tries the function when the filter is made.
        subscription.node.add_dependency(allowed)
        return subscription

    def sample(self, function: lambda_.Function) -> None:
        """Let the sampled share of a function's calls begin a trace."""
        function.add_environment("TRACE_SAMPLE_RATIO", str(self._ratio))
