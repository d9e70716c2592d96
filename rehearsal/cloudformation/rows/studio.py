"""Rows of Studio: the domain, its profiles, what runs when an app starts."""

# ruff: noqa: ARG005 - the functions of a row share one signature
from __future__ import annotations

from collections.abc import Mapping

from rehearsal.cloudformation.rows.base import Row, by, only, reached

__all__ = ["TABLE"]

_SETTLED = reached("Status", ["InService"], ["Failed"])

TABLE: Mapping[str, Row] = {
    "AWS::SageMaker::Domain": Row(
        service="sagemaker",
        create="CreateDomain",
        read="DescribeDomain",
        update="UpdateDomain",
        delete="DeleteDomain",
        identify=by("DomainId"),
        convert_update=lambda p, c: only(
            p,
            (
                "DefaultUserSettings",
                "DefaultSpaceSettings",
                "AppNetworkAccessType",
                "AppSecurityGroupManagement",
                "HomeEfsFileSystemCreation",
                "SubnetIds",
                "TagPropagation",
                "VpcId",
            ),
        ),
        settled=_SETTLED,
        ref=lambda p, out, found: str(found["DomainId"]),
    ),
    "AWS::SageMaker::UserProfile": Row(
        service="sagemaker",
        create="CreateUserProfile",
        read="DescribeUserProfile",
        delete="DeleteUserProfile",
        identify=by("DomainId", "UserProfileName"),
        settled=_SETTLED,
        ref=lambda p, out, found: str(p["UserProfileName"]),
    ),
    "AWS::SageMaker::StudioLifecycleConfig": Row(
        service="sagemaker",
        create="CreateStudioLifecycleConfig",
        read="DescribeStudioLifecycleConfig",
        delete="DeleteStudioLifecycleConfig",
        identify=by("StudioLifecycleConfigName"),
        ref=lambda p, out, found: str(p["StudioLifecycleConfigName"]),
    ),
}
