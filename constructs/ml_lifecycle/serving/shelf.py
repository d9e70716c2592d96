"""The approved model as a file in a known place, for servers that take no model package."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms

from constructs import Construct
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.pseudo import arn
from ml_lifecycle.serving.approved import Approved
from ml_lifecycle.training.wildcards import acknowledge_wildcards
from ml_lifecycle.zip_function import zip_function

__all__ = ["ModelShelf"]


class ModelShelf(Construct):
    """Define what copies the approved ``model.tar.gz`` to ``<artifacts>/<slug>/<folder>/<version>.tar.gz``.

    ``uri`` is the approved one's place and ``target`` its name there (``3.tar.gz``); ``folder_uri`` is the
    folder, which keeps the ``keep`` latest approved versions (default 3; the one that was
    approved before stays in any case, for it answers while traffic moves). Nothing but approved versions
    stands there. The folder is emptied when the stack goes.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        slug: str,
        model_package_group_name: str,
        approved: Approved,
        artifacts: Zone,
        log_key: kms.IKey,
        log_retention_days: int = 90,
        keep: int = 3,
        folder: str = "served",
    ) -> None:
        super().__init__(scope, construct_id)
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}")
        self.prefix = f"{slug}/{folder}/"
        self.folder_uri = artifacts.uri(self.prefix)
        self._artifacts = artifacts
        self._package = approved.package
        self.function = zip_function(
            self,
            "Function",
            package="model_shelf",
            description=f"Puts approved models of {slug} where they are served from",
            log_key=log_key,
            log_retention_days=log_retention_days,
            # A model of some gigabytes takes minutes to copy.
            timeout=cdk.Duration.minutes(10),
        )
        artifacts.grant_read(self.function, f"{slug}/training/")
        artifacts.grant_read(self.function, self.prefix)
        artifacts.grant_write(self.function, self.prefix, delete=True)
        versions = arn("sagemaker", f"model-package/{model_package_group_name}/*")
        iam.Grant.add_to_principal(
            grantee=self.function, actions=["sagemaker:DescribeModelPackage"], resource_arns=[versions]
        )
        self.resource = cdk.CustomResource(
            self,
            "Approved",
            service_token=self.function.function_arn,
            resource_type="Custom::ModelShelf",
            properties={
                "ModelPackage": approved.package,
                "Bucket": artifacts.bucket.bucket_name,
                "Prefix": self.prefix,
                "Keep": str(keep),
            },
            service_timeout=cdk.Duration.minutes(12),
        )
        if self.function.role is not None:
            acknowledge_wildcards(
                self.function.role,
                "A version's number is not known before it is registered; the group is one.",
                resources=[versions],
            )
            # The policy is a resource beside the role; without it the function is refused.
            self.resource.node.add_dependency(self.function.role)
        resource = self.resource.node.default_child
        if isinstance(resource, cdk.CfnResource):
            resource.cfn_options.condition = approved.condition

    @property
    def uri(self) -> str:
        """Where the approved model stands."""
        return self.resource.get_att_string("Uri")

    @property
    def target(self) -> str:
        """Name of the approved model in the folder."""
        return self.resource.get_att_string("Target")

    @property
    def environment(self) -> dict[str, str]:
        """What a container that fetches its model itself is told."""
        return {
            "MODEL_DATA_URL": self.uri,
            "MODEL_PACKAGE": self._package,
            # The package's own; no number where none was chosen for this version.
            "DECISION_THRESHOLD": self.resource.get_att_string("DecisionThreshold"),
        }

    def grant_read(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant reading the models."""
        return self._artifacts.grant_read(grantee, self.prefix)
