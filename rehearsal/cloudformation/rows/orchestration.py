"""The row of managed Airflow."""

# ruff: noqa: ARG005 - the functions of a row share one signature
from __future__ import annotations

from rehearsal.cloudformation.rows.base import Row, by

__all__ = ["TABLE"]

TABLE = {
    "AWS::MWAA::Environment": Row(
        service="mwaa",
        create="CreateEnvironment",
        update="UpdateEnvironment",
        delete="DeleteEnvironment",
        name="Name",
        identify=by("Name"),
        ref=lambda p, output, found: str(p["Name"]),
        attributes=lambda p, output, found: {"Arn": str(output["Arn"])},
    ),
}
