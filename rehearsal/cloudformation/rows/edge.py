"""Rows of the edge: component versions of AWS IoT Greengrass."""

# ruff: noqa: ARG005 - the functions of a row share one signature
from __future__ import annotations

from rehearsal.cloudformation.rows.base import Row

__all__ = ["TABLE"]

TABLE = {
    "AWS::GreengrassV2::ComponentVersion": Row(
        service="greengrassv2",
        create="CreateComponentVersion",
        delete="DeleteComponent",
        identify=lambda p, output: {"arn": output["arn"]},
        convert=lambda p, c: {"inlineRecipe": p["InlineRecipe"].encode()},
        ref=lambda p, output, found: str(output["arn"]),
        attributes=lambda p, output, found: {
            "Arn": output["arn"],
            "ComponentName": output["componentName"],
            "ComponentVersion": output["componentVersion"],
        },
    ),
}
