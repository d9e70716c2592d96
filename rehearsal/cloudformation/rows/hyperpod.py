"""Row of HyperPod."""

# ruff: noqa: ARG005 - the functions of a row share one signature
from __future__ import annotations

from rehearsal.cloudformation.rows.base import Row

__all__ = ["TABLE"]

TABLE = {
    "AWS::SageMaker::Cluster": Row(
        service="sagemaker",
        create="CreateCluster",
        delete="DeleteCluster",
        name="ClusterName",
        identify=lambda p, output: {"ClusterName": p["ClusterName"]},
        ref=lambda p, output, found: str(output["ClusterArn"]),
        attributes=lambda p, output, found: {"ClusterArn": str(output["ClusterArn"])},
    ),
}
