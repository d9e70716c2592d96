"""Rows of types for processing: EMR Serverless."""

# ruff: noqa: ARG005 - the functions of a row share one signature
from __future__ import annotations

from rehearsal.cloudformation.rows.base import Row, by, only

__all__ = ["TABLE"]

TABLE = {
    "AWS::EMRServerless::Application": Row(
        service="emr-serverless",
        create="CreateApplication",
        read="GetApplication",
        update="UpdateApplication",
        delete="DeleteApplication",
        identify=by("applicationId"),
        convert_update=lambda p, c: only(
            p,
            (
                "releaseLabel",
                "architecture",
                "imageConfiguration",
                "autoStartConfiguration",
                "autoStopConfiguration",
                "maximumCapacity",
                "networkConfiguration",
                "initialCapacity",
                "runtimeConfiguration",
                "monitoringConfiguration",
                "workerTypeSpecifications",
            ),
        ),
        ref=lambda p, out, found: str(out["applicationId"]),
        attributes=lambda p, out, found: {"ApplicationId": str(out["applicationId"]), "Arn": str(out["arn"])},
    ),
}
