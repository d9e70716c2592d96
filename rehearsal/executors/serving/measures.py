"""What SageMaker publishes about endpoints, in AWS/SageMaker, on the rehearsal's clock.

Names, units and dimensions: "Amazon SageMaker AI metrics in Amazon CloudWatch", developer guide.
"""

from __future__ import annotations

from collections.abc import Mapping

from rehearsal import ministack_bridge as bridge
from rehearsal.services.engine import Service

__all__ = ["Values", "measure_request", "publish"]

#: Value and unit by metric.
Values = Mapping[str, tuple[float, str]]


def publish(service: Service, dimensions: Mapping[str, str], values: Values) -> None:
    """Publish one value of each metric."""
    now = service.runtime.clock.timestamp()
    for name, (value, unit) in values.items():
        bridge.put_metric(
            account=service.account,
            region=service.region,
            namespace="AWS/SageMaker",
            name=name,
            dimensions=dimensions,
            timestamp=now,
            unit=unit,
            values=[value],
        )


def measure_request(status: int, latency: float, overhead: float) -> dict[str, tuple[float, str]]:
    """The metrics of one request; latencies are given in seconds and published in microseconds."""
    return {
        "Invocations": (1, "None"),
        "Invocation4XXErrors": (float(400 <= status < 500), "None"),
        "Invocation5XXErrors": (float(status >= 500), "None"),
        "InvocationModelErrors": (float(status >= 300), "None"),
        "ModelLatency": (latency * 1e6, "Microseconds"),
        "OverheadLatency": (overhead * 1e6, "Microseconds"),
    }
