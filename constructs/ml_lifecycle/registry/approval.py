"""The parameter that says which model is approved."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms

from constructs import Construct
from ml_lifecycle.pseudo import arn
from ml_lifecycle.zip_function import zip_function

__all__ = ["CHALLENGER_NAME", "NONE_APPROVED", "ApprovalParameter"]

#: Value of the parameter until a model is approved for the first time.
NONE_APPROVED = "none"
#: The variant of the model that is being tried: it shares traffic (ab) or gets copies of it (shadow).
CHALLENGER_NAME = "Challenger"


class ApprovalParameter(Construct):
    """Define an SSM parameter that starts as ``none``, holds the approved model package's ARN, and survives
    every deploy.

    It is a custom resource, for a reason: CloudFormation's own ``AWS::SSM::Parameter`` writes the template's
    value again with *any* update of the resource, a new tag or description included, and would undo the
    promotion and delete the endpoint. This one is created when it does not exist and never written by a
    deploy again; it is kept when its stack is deleted, unless ``removal_policy`` is ``DESTROY``.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        log_key: kms.IKey,
        log_retention_days: int = 90,
        removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.RETAIN,
    ) -> None:
        super().__init__(scope, construct_id)
        if not name.startswith("/"):
            raise ValueError(f"name must be a path that starts with a slash, got {name!r}")
        self.parameter_name = name
        self._destroy = removal_policy == cdk.RemovalPolicy.DESTROY
        self.function = zip_function(
            self,
            "Function",
            package="approval_parameter",
            description=f"Creates {name}",
            log_key=log_key,
            log_retention_days=log_retention_days,
            timeout=cdk.Duration.minutes(2),
        )
        self.resource = self._parameter("Parameter", name)

    def _parameter(self, construct_id: str, name: str) -> cdk.CustomResource:
        parameter = _arn(name)
        iam.Grant.add_to_principal(
            grantee=self.function,
            actions=["ssm:PutParameter"],
            resource_arns=[parameter],
            # It may create the parameter, and has no way to write over it.
            conditions={"StringNotEqualsIgnoreCase": {"ssm:Overwrite": "true"}},
        )
        if self._destroy:
            iam.Grant.add_to_principal(
                grantee=self.function, actions=["ssm:DeleteParameter"], resource_arns=[parameter]
            )
        resource = cdk.CustomResource(
            self,
            construct_id,
            service_token=self.function.function_arn,
            resource_type="Custom::ApprovalParameter",
            properties={
                "Name": name,
                "InitialValue": NONE_APPROVED,
                "OnDelete": "delete" if self._destroy else "keep",
            },
            service_timeout=cdk.Duration.minutes(3),
        )
        # The policy is a resource beside the role; without it the function is refused.
        if self.function.role is not None:
            resource.node.add_dependency(self.function.role)
        return resource

    def challenger(self, name: str) -> cdk.CustomResource:
        """Define a second parameter of the same kind: the model package that is being tried, or ``none``."""
        return self._parameter("Challenger", name)

    @property
    def parameter_arn(self) -> str:
        """ARN of the parameter."""
        return _arn(self.parameter_name)

    def grant_read(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant reading which model is approved."""
        return iam.Grant.add_to_principal(
            grantee=grantee, actions=["ssm:GetParameter"], resource_arns=[self.parameter_arn]
        )

    def grant_promote(self, grantee: iam.IGrantable, *, challenger: str | None = None) -> iam.Grant:
        """Grant writing which model is approved, seeing what was, and letting CloudFormation read it for the
        grantee; the same for the parameter ``challenger``.
        """
        further = [] if challenger is None else [_arn(challenger)]
        return iam.Grant.add_to_principal(
            grantee=grantee,
            actions=["ssm:GetParameterHistory", "ssm:GetParameters", "ssm:PutParameter"],
            resource_arns=[self.parameter_arn, *further],
        )


def _arn(name: str) -> str:
    return arn("ssm", f"parameter/{name.lstrip('/')}")
