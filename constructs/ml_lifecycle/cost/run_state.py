"""The parameter that says whether a workload's running parts run."""

from __future__ import annotations

from typing import cast

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms

from constructs import Construct
from ml_lifecycle.pseudo import arn
from ml_lifecycle.zip_function import zip_function

__all__ = ["RUNNING", "STOPPED", "RunState"]

RUNNING, STOPPED = "running", "stopped"


class RunState(Construct):
    """Define an SSM parameter that holds ``running`` or ``stopped``; a deploy never writes over it.

    Stacks read it as a parameter of their own (``condition``), so that stopping and starting are updates of
    those stacks: CloudFormation stays the owner of what it made, and the next deploy leaves what is stopped
    stopped. The parameter is made as ``running`` and goes with its stack.

    Example::

        state = RunState(self, "RunState", name="/ml-lifecycle/dev/claims/run-state", log_key=keys.logs)
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        log_key: kms.IKey,
        log_retention_days: int = 90,
    ) -> None:
        super().__init__(scope, construct_id)
        if not name.startswith("/"):
            raise ValueError(f"name must be a path that starts with a slash, got {name!r}")
        self.parameter_name = name
        function = zip_function(
            self,
            "Function",
            package="approval_parameter",
            description=f"Creates {name}",
            log_key=log_key,
            log_retention_days=log_retention_days,
            timeout=cdk.Duration.minutes(2),
        )
        iam.Grant.add_to_principal(
            grantee=function,
            actions=["ssm:PutParameter"],
            resource_arns=[self.parameter_arn],
            conditions={"StringNotEqualsIgnoreCase": {"ssm:Overwrite": "true"}},
        )
        iam.Grant.add_to_principal(
            grantee=function, actions=["ssm:DeleteParameter"], resource_arns=[self.parameter_arn]
        )
        self.resource = cdk.CustomResource(
            self,
            "Parameter",
            service_token=function.function_arn,
            resource_type="Custom::RunState",
            properties={"Name": name, "InitialValue": RUNNING, "OnDelete": "delete"},
            service_timeout=cdk.Duration.minutes(3),
        )
        if function.role is not None:
            self.resource.node.add_dependency(function.role)

    @property
    def parameter_arn(self) -> str:
        """ARN of the parameter."""
        return arn("ssm", f"parameter/{self.parameter_name.lstrip('/')}")

    def condition(self, scope: Construct) -> cdk.CfnCondition:
        """Define, once in the stack of ``scope``, the condition that the parts run."""
        stack = cdk.Stack.of(scope)
        found = stack.node.try_find_child("IsRunning")
        if found is not None:
            return cast(cdk.CfnCondition, found)
        state = cdk.CfnParameter(
            stack,
            "RunState",
            type="AWS::SSM::Parameter::Value<String>",
            default=self.parameter_name,
            description="Name of the parameter that says running or stopped.",
        )
        return cdk.CfnCondition(
            stack, "IsRunning", expression=cdk.Fn.condition_equals(state.value_as_string, RUNNING)
        )

    def narrow(self, condition: cdk.CfnCondition) -> None:
        """Let ``condition`` hold only while the parts run."""
        if condition.expression is None:
            raise ValueError(f"condition must have an expression, got {condition.node.path} without one")
        condition.expression = cdk.Fn.condition_and(
            condition.expression, cast(cdk.ICfnConditionExpression, self.condition(condition))
        )

    def grant_read(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant what CloudFormation needs of who updates a stack that reads the parameter."""
        return iam.Grant.add_to_principal(
            grantee=grantee, actions=["ssm:GetParameters"], resource_arns=[self.parameter_arn]
        )

    def grant_change(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant reading and writing the state."""
        return iam.Grant.add_to_principal(
            grantee=grantee,
            actions=["ssm:GetParameter", "ssm:GetParameters", "ssm:PutParameter"],
            resource_arns=[self.parameter_arn],
        )
