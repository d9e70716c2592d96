"""Rows of what stands around a function that serves: how CodeDeploy is told to move its alias."""

# ruff: noqa: ARG005 - the functions of a row share one signature
from __future__ import annotations

from collections.abc import Mapping

from rehearsal.cloudformation.rows.base import Row, by

__all__ = ["TABLE"]

#: What CodeDeploy is told; the alias' own update asks for the deployment.
TABLE: Mapping[str, Row] = {
    "AWS::CodeDeploy::Application": Row(
        service="codedeploy",
        create="CreateApplication",
        read="GetApplication",
        delete="DeleteApplication",
        name="ApplicationName",
        identify=by("applicationName"),
        ref=lambda p, out, found: str(p["applicationName"]),
    ),
    "AWS::CodeDeploy::DeploymentConfig": Row(
        service="codedeploy",
        create="CreateDeploymentConfig",
        read="GetDeploymentConfig",
        delete="DeleteDeploymentConfig",
        name="DeploymentConfigName",
        identify=by("deploymentConfigName"),
        ref=lambda p, out, found: str(p["deploymentConfigName"]),
    ),
    "AWS::CodeDeploy::DeploymentGroup": Row(
        service="codedeploy",
        create="CreateDeploymentGroup",
        read="GetDeploymentGroup",
        delete="DeleteDeploymentGroup",
        name="DeploymentGroupName",
        identify=by("applicationName", "deploymentGroupName"),
        ref=lambda p, out, found: str(p["deploymentGroupName"]),
    ),
}
