"""Warm pools: instances that stay after a job, for the next that matches.

("Train using SageMaker AI managed warm pools", developer guide.) Here they save no time; what is emulated is
their life: Available, Reused or Terminated, and for how long they were paid.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from rehearsal.services.engine import ApiError

if TYPE_CHECKING:
    from rehearsal.services.engine import Record, Service

__all__ = ["check", "claim", "keep"]

_SINCE = "_WarmPoolSince"


def check(params: dict[str, Any]) -> None:
    """Refuse what SageMaker refuses.

    :raises ApiError: a pool of spot instances
    """
    if _seconds(params) and params.get("EnableManagedSpotTraining"):
        raise ApiError(
            "ValidationException",
            "KeepAlivePeriodInSeconds is not supported with EnableManagedSpotTraining",
        )


def claim(service: Service, record: Record) -> None:
    """Give a job the pool that matches it, if there is one; its own pool is in use from now on."""
    now = service.runtime.clock.now()
    with service.lock:
        others = list(service.records.get("TrainingJob", {}).values())
    for other in others:
        status = other.data.get("WarmPoolStatus", {})
        if status.get("Status") == "Available" and _likeness(other.data) == _likeness(record.data):
            _set(service, other, "Reused", ReusedByJob=record.name, **_retained(other, now))
            break
    if _seconds(record.data):
        _set(service, record, "InUse")


def keep(service: Service, record: Record) -> None:
    """Keep a job's instances after its end for as long as it asked for."""
    seconds = _seconds(record.data)
    if not seconds:
        return
    now = service.runtime.clock.now()
    with service.lock:
        record.data[_SINCE] = now
    _set(service, record, "Available", ResourceRetainedBillableTimeInSeconds=0)

    def terminate() -> None:
        if record.data["WarmPoolStatus"]["Status"] == "Available":
            _set(service, record, "Terminated", **_retained(record, service.runtime.clock.now()))

    service.runtime.clock.at(now + timedelta(seconds=seconds), f"warm pool of {record.name}", terminate)


def _seconds(data: dict[str, Any]) -> int:
    found: int = data.get("ResourceConfig", {}).get("KeepAlivePeriodInSeconds", 0)
    return found


def _retained(record: Record, now: datetime) -> dict[str, int]:
    seconds = int((now - record.data[_SINCE]).total_seconds())
    return {"ResourceRetainedBillableTimeInSeconds": min(seconds, _seconds(record.data))}


def _likeness(data: dict[str, Any]) -> tuple[str, ...]:
    """What must be the same ("Matching training jobs")."""
    resources = data["ResourceConfig"]
    return tuple(
        repr(value)
        for value in (
            data["RoleArn"],
            *(
                resources.get(key)
                for key in ("InstanceCount", "InstanceType", "VolumeSizeInGB", "VolumeKmsKeyId")
            ),
            data.get("VpcConfig"),
            data.get("EnableInterContainerTrafficEncryption", False),
            data.get("EnableNetworkIsolation", False),
        )
    )


def _set(service: Service, record: Record, status: str, **more: Any) -> None:
    service.update(record, WarmPoolStatus={"Status": status, **more})
