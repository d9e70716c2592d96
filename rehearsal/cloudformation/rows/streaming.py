"""Rows of streaming types."""

# ruff: noqa: ARG005 - the functions of a row share one signature
from __future__ import annotations

from rehearsal.cloudformation.rows.base import Row

__all__ = ["TABLE"]

TABLE = {
    "AWS::Kinesis::StreamConsumer": Row(
        service="kinesis",
        create="RegisterStreamConsumer",
        read="DescribeStreamConsumer",
        delete="DeregisterStreamConsumer",
        identify=lambda p, out: {"ConsumerARN": out["Consumer"]["ConsumerARN"]},
        ref=lambda p, out, found: str(out["Consumer"]["ConsumerARN"]),
        attributes=lambda p, out, found: {
            name: str(out["Consumer"][name])
            for name in ("ConsumerARN", "ConsumerStatus", "ConsumerCreationTimestamp")
        },
    ),
}
