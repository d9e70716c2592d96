"""What the delivery pipeline may do in an environment beside deploying it: read it and ask it."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_iam as iam

from constructs import Construct
from ml_lifecycle.pseudo import ACCOUNT
from ml_lifecycle.training.wildcards import acknowledge_wildcards

__all__ = ["DeliveryAccess", "access_role_name", "checks_role_name"]


def checks_role_name(delivery: str) -> str:
    """Name of the role of the build machines that compare and ask, in the pipeline's account.

    Both names are fixed: each account's policy names a role of the other account, which is there first in
    neither.
    """
    return f"{delivery}-checks"


def access_role_name(delivery: str, environment: str) -> str:
    """Name of the role that those machines take on in an environment's account."""
    return f"{delivery}-{environment}-checks"


class DeliveryAccess(Construct):
    """Define the role by which the delivery pipeline reads what an environment has deployed, and asks it.

    Only the role ``checks_role_name(delivery)`` of ``account`` may take it on. It may read the templates and
    outputs of the environment's stacks (the difference that a person approves) and ask its endpoints
    (the smoke test), nothing else: it changes nothing and reads no data.

    ``account`` is the pipeline's; ``None`` (the default): the one of the stack.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        delivery: str,
        environment: str,
        stage: str,
        account: str | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        trusted = ACCOUNT if account is None else account
        caller = f"arn:{cdk.Aws.PARTITION}:iam::{trusted}:role/{checks_role_name(delivery)}"
        self.role = iam.Role(
            self,
            "Role",
            role_name=access_role_name(delivery, environment),
            description=f"The delivery pipeline compares and asks {environment}",
            # The account, narrowed to one role: a policy that names a role which is not there yet is refused.
            assumed_by=iam.AccountPrincipal(trusted).with_conditions(
                {"ArnEquals": {"aws:PrincipalArn": caller}}
            ),
        )
        stack = cdk.Stack.of(self)

        def arn(service: str, resource: str, form: cdk.ArnFormat = cdk.ArnFormat.SLASH_RESOURCE_NAME) -> str:
            kind, _, name = resource.partition("/")
            return stack.format_arn(service=service, resource=kind, resource_name=name, arn_format=form)

        stacks = [arn("cloudformation", f"stack/{stage}-*/*")]
        endpoints = [
            arn("sagemaker", f"{kind}/{environment}-*") for kind in ("endpoint", "inference-component")
        ]
        functions = [
            arn("lambda", f"function/{environment}-*", cdk.ArnFormat.COLON_RESOURCE_NAME),
        ]
        self._allow(stacks, "cloudformation:DescribeStacks", "cloudformation:GetTemplate")
        self._allow(endpoints, "sagemaker:DescribeEndpoint", "sagemaker:InvokeEndpoint")
        self._allow(functions, "lambda:InvokeFunction", "lambda:ListAliases")
        acknowledge_wildcards(
            self.role,
            "Stacks, endpoints and functions of one environment share the beginning of their names; which "
            "there are is for its workloads to say.",
            resources=[*stacks, *endpoints, *functions],
        )

    def _allow(self, resources: Sequence[str], *actions: str) -> None:
        self.role.add_to_policy(iam.PolicyStatement(actions=list(actions), resources=list(resources)))
