"""Metrics that AWS's services publish about themselves: queues, state machines, pipelines.

Names, units and dimensions: "Available CloudWatch metrics for Amazon SQS" (developer guide), "Monitoring Step
Functions metrics using Amazon CloudWatch", "SageMaker AI Pipelines metrics".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from rehearsal import ministack_bridge as bridge
from rehearsal.clock import Due
from rehearsal.control import ControlError, control

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["count"]

_WAITING = "ApproximateNumberOfMessagesVisible"
#: SQS publishes each minute; who waits for it here looks at five minutes.
_EVERY = timedelta(minutes=5)


def count(runtime: Runtime, namespace: str, name: str, dimensions: Mapping[str, str]) -> None:
    """Publish that something happened once, now."""
    bridge.put_metric(
        account=runtime.account,
        region=runtime.region,
        namespace=namespace,
        name=name,
        dimensions=dimensions,
        timestamp=runtime.clock.timestamp(),
        unit="Count",
        values=[1.0],
    )


class WaitingMessages:
    """Due work of the clock: how many messages wait in the queues that an alarm watches, while any do."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._told: dict[str, int] = {}

    def next_due(self, after: datetime) -> Sequence[Due]:
        """The next look, while something waits or what was told is no longer so."""
        if not self._changing():
            return ()
        seconds = _EVERY.total_seconds()
        when = datetime.fromtimestamp(after.timestamp() // seconds * seconds, UTC) + _EVERY
        return [Due(when=when, title="metrics of queues", run=lambda: self.publish(when))]

    def _changing(self) -> bool:
        return any(waiting or self._told.get(name) for name, waiting in self._waiting().items())

    def _waiting(self) -> dict[str, int]:
        watched = {
            str(dimension["Value"])
            for _, _, alarm in bridge.metric_alarms()
            if alarm.get("MetricName") == _WAITING
            for dimension in alarm.get("Dimensions") or ()
        }
        return {name: waiting for name, waiting in bridge.waiting_messages().items() if name in watched}

    def publish(self, at: datetime) -> None:
        """Publish the depth of each queue in which something waits, and 0 once when nothing does any more."""
        for name, waiting in self._waiting().items():
            if waiting or self._told.get(name):
                bridge.put_metric(
                    account=self._runtime.account,
                    region=self._runtime.region,
                    namespace="AWS/SQS",
                    name=_WAITING,
                    dimensions={"QueueName": name},
                    # What was so until now; an alarm looks at the minutes that are over.
                    timestamp=at.timestamp() - 1,
                    unit="Count",
                    values=[float(waiting)],
                )
            self._told[name] = waiting


@control("POST", "/metrics")
def publish(runtime: Runtime, body: dict[str, Any]) -> dict[str, Any]:
    """Publish values of a metric as the service whose namespace it is: one each ``apart_seconds``, the last
    ``ago_seconds`` before now. PutMetricData takes no namespace of AWS's own.
    """
    try:
        namespace, name = str(body["namespace"]), str(body["name"])
        dimensions = {str(key): str(value) for key, value in dict(body.get("dimensions", {})).items()}
        values = [float(value) for value in body["values"]]
        apart, ago = float(body.get("apart_seconds", 60)), float(body.get("ago_seconds", 1))
    except (KeyError, TypeError, ValueError) as error:
        raise ControlError(
            f"namespace, name and values (numbers) are needed, dimensions may be given: {error!r}"
        ) from error
    now = runtime.clock.timestamp() - ago
    for back, value in enumerate(reversed(values)):
        bridge.put_metric(
            account=runtime.account,
            region=runtime.region,
            namespace=namespace,
            name=name,
            dimensions=dimensions,
            timestamp=now - back * apart,
            unit=str(body.get("unit", "None")),
            values=[value],
        )
    return {"published": len(values)}


def install(runtime: Runtime) -> None:
    """Let queues tell what waits in them."""
    runtime.clock.add_source(WaitingMessages(runtime))
