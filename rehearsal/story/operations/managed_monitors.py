"""The same four monitors by SageMaker Model Monitor: the operations stack is deployed once more with it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from ml_contract.load import load_workload

from rehearsal.cdk import Cdk
from rehearsal.story import deployment
from rehearsal.story.operations import monitors
from rehearsal.story.operations.cells import Cell
from rehearsal.story.operations.ground import operations_app
from rehearsal.story.telling import Evidence, require

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["CELLS", "ORDER", "WORKLOAD"]

CHAPTER = "Monitoring"
#: After the cells of the other engine: what they look at is replaced here.
#: After the monitors of our own engine, and before a model is trained on the changed world.
ORDER = 45
WORKLOAD = monitors.WORKLOAD
ENGINE: Mapping[str, Any] = {"monitoring": {"engine": "model_monitor"}}
#: Where the tale keeps the workload as the other cells know it.
OWN_ENGINE = "workload with the engine of the project"
#: MonitoringType of each kind (SageMaker API reference, MonitoringScheduleConfig).
TYPES: Mapping[str, str] = {
    "data": "DataQuality",
    "quality": "ModelQuality",
    "bias": "ModelBias",
    "attribution": "ModelExplainability",
}
#: Why an execution fails whose window holds nothing.
NO_DATA = "Job inputs had no data"


def _deploy(tale: Tale, evidence: Evidence) -> None:
    """Deploy the operations stack with the other engine; the endpoint stays."""
    if "managed monitors" in tale.known:
        return
    tale.known[OWN_ENGINE] = tale.loaded
    folder = tale.out / "operations-managed"
    app = operations_app(tale.app.resolve(), folder, tale.loaded.path.parent, [ENGINE])
    tale.loaded = load_workload(app / "workloads" / tale.loaded.path.parent.name)
    assembly = folder / "cdk.out"
    deployment.synthesize(app, assembly)
    cdk = Cdk.of(tale.app, assembly, tale.cloud.server, progress=tale.note)
    cdk.deploy([f"{tale.stage}/{tale.workload.id}Operations"], exclusively=True)
    tale.forget_outputs()
    tale.known["managed monitors"] = True
    sagemaker = tale.cloud.client("sagemaker")
    schedules = {}
    for prefix in monitors.PREFIXES.values():
        name = tale.outputs("Operations")[f"{prefix}MonitorScheduleName"]
        described = sagemaker.describe_monitoring_schedule(MonitoringScheduleName=name)
        schedules[name] = described["MonitoringScheduleConfig"]["MonitoringType"]
    evidence["schedules"] = schedules
    found = set(schedules.values())
    require(found == set(TYPES.values()), f"there are schedules of {', '.join(sorted(found))} only")


def _deploy_back(tale: Tale) -> None:
    """Deploy the operations stack with the engine that the other cells know."""
    tale.loaded = tale.known.pop(OWN_ENGINE)
    tale.cdk.deploy([f"{tale.stage}/{tale.workload.id}Operations"], exclusively=True)
    tale.forget_outputs()
    del tale.known["managed monitors"]


def _executions(tale: Tale, kind: str) -> list[dict[str, Any]]:
    name = tale.outputs("Operations")[f"{monitors.PREFIXES[kind]}MonitorScheduleName"]
    found: list[dict[str, Any]] = tale.cloud.client("sagemaker").list_monitoring_executions(
        MonitoringScheduleName=name
    )["MonitoringExecutionSummaries"]
    return found


def _usual(tale: Tale, evidence: Evidence) -> None:
    """Usual traffic, with labels: every kind completes and finds nothing."""
    _deploy(tale, evidence)
    hour = monitors.usual_hour(tale, evidence, 1)
    for kind, managed in TYPES.items():
        uri, report = monitors.verdict(tale, kind, hour.start)
        last = _executions(tale, kind)[0]
        evidence[kind] = {
            "type": managed,
            "status": last["MonitoringExecutionStatus"],
            "report": uri,
            "records_judged": report.get("records_judged"),
            "violations": len(report.get("violations", ())),
        }
        require(report["judged"], f"the {kind} monitor judged nothing: {report.get('reason')}")
        require(not report["violations"], f"the {kind} monitor finds that usual traffic violates")
    merged = [entry for entry in tale.cloud.ledger() if entry["kind"] == "ground-truth-merge"]
    evidence["merges"] = len(merged)
    require(merged, "labels were never merged with the capture")


def _changed(tale: Tale, evidence: Evidence) -> None:
    """Traffic of a changed world, with labels: data and model quality complete with violations."""
    _deploy(tale, evidence)
    hour = monitors.changed_hour(tale, evidence, 1)
    for kind in ("data", "quality"):
        uri, report = monitors.verdict(tale, kind, hour.start)
        require(report["judged"] and report["violations"], f"the {kind} monitor found nothing in {uri}")
        evidence[kind] = [one["description"] for one in report["violations"]][:3]
        statuses = {one["MonitoringExecutionStatus"] for one in _executions(tale, kind)}
        require("CompletedWithViolations" in statuses, f"executions of {kind} ended as {sorted(statuses)}")
        monitors.alarm_state(tale, kind, "Drift", "ALARM", evidence)


def _nothing(tale: Tale, evidence: Evidence) -> None:
    """Nobody asks for hours: executions fail for want of data, and the alarm is left without any."""
    _deploy(tale, evidence)
    try:
        _hours_without_traffic(tale, evidence)
    finally:
        _deploy_back(tale)


def _hours_without_traffic(tale: Tale, evidence: Evidence) -> None:
    start = monitors.next_hour(tale)
    for _ in range(monitors.MOST_HOURS):
        last = monitors.next_hour(tale)
    require(last - start == timedelta(hours=monitors.MOST_HOURS), "the clock did not run hour by hour")
    for kind in TYPES:
        newest = _executions(tale, kind)[0]
        evidence[kind] = f"{newest['MonitoringExecutionStatus']}: {newest.get('FailureReason')}"
        require(
            newest.get("FailureReason") == NO_DATA and _scheduled(newest) > start,
            f"an hour without traffic ended as {evidence[kind]}",
        )
        monitors.alarm_state(tale, kind, "Unjudged", "INSUFFICIENT_DATA", evidence)


def _scheduled(execution: Mapping[str, Any]) -> datetime:
    found: datetime = execution["ScheduledTime"]
    return found


CELLS = (
    Cell(
        id="monitor.managed.quiet",
        title="Model Monitor, all four kinds, on usual traffic: labels merged, nothing found",
        chapter=CHAPTER,
        run=_usual,
        capabilities=("monitor.managed", "monitor.model", "monitor.bias", "monitor.attribution"),
    ),
    Cell(
        id="monitor.managed.heard",
        title="Model Monitor on a changed world: completed with violations, alarms go off",
        chapter=CHAPTER,
        run=_changed,
        capabilities=("monitor.managed",),
    ),
    Cell(
        id="monitor.managed.nothing",
        title="Model Monitor on hours without traffic: no data is told, not taken for health",
        chapter=CHAPTER,
        run=_nothing,
        capabilities=("monitor.managed",),
    ),
)
