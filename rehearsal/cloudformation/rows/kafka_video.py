"""Rows of sources that only an account runs: MSK Serverless and Kinesis Video Streams."""

# ruff: noqa: ARG005 - the functions of a row share one signature
from __future__ import annotations

from rehearsal.cloudformation.rows.base import Context, Properties, Row, by

__all__ = ["TABLE"]


def _cluster(p: Properties, context: Context) -> Properties:
    """The API has serverless clusters beside provisioned ones, and its own name for security groups."""
    del context
    places = [
        {"SecurityGroupIds" if key == "SecurityGroups" else key: value for key, value in place.items()}
        for place in p["VpcConfigs"]
    ]
    rest: Properties = {key: p[key] for key in ("ClusterName", "Tags") if key in p}
    return {**rest, "Serverless": {"VpcConfigs": places, "ClientAuthentication": p["ClientAuthentication"]}}


TABLE = {
    "AWS::MSK::ServerlessCluster": Row(
        service="kafka",
        create="CreateClusterV2",
        read="DescribeClusterV2",
        delete="DeleteCluster",
        identify=by("ClusterArn"),
        convert=_cluster,
        ref=lambda p, output, found: str(output["ClusterArn"]),
        attributes=lambda p, output, found: {"Arn": str(output["ClusterArn"])},
    ),
    "AWS::KinesisVideo::Stream": Row(
        service="kinesisvideo",
        create="CreateStream",
        delete="DeleteStream",
        name="Name",
        identify=by("StreamARN"),
        convert=lambda p, c: {"StreamName" if key == "Name" else key: value for key, value in p.items()},
        ref=lambda p, output, found: str(p["StreamName"]),
        attributes=lambda p, output, found: {"Arn": str(output["StreamARN"])},
    ),
}
