"""What a run is to judge, read from the environment: ours, or what SageMaker Model Monitor sets."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping

from ml_runtime.job import BadInputError

HOURS_LIMIT = 24 * 31


@dataclasses.dataclass(frozen=True)
class Window:
    """Whole hours of traffic: from ``start`` up to ``end``, UTC."""

    start: dt.datetime
    end: dt.datetime

    def hours(self) -> list[dt.datetime]:
        """Return the start of each hour."""
        count = int((self.end - self.start) / dt.timedelta(hours=1))
        return [self.start + dt.timedelta(hours=n) for n in range(count)]

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%dT%H:%MZ} to {self.end:%Y-%m-%dT%H:%MZ}"


@dataclasses.dataclass(frozen=True)
class Common:
    """What both engines give.

    Args:
        environment: name of the environment, a dimension of every metric.
        workload: name of the workload, the other one.
        contract_uri: where the contract lies when it is not mounted.
    """

    environment: str
    workload: str
    contract_uri: str | None


@dataclasses.dataclass(frozen=True)
class OwnEngine(Common):
    """SageMaker Processing on a schedule: this container fetches capture and baseline itself."""

    endpoint: str
    capture_uri: str
    approved_model_parameter: str
    window: Window


@dataclasses.dataclass(frozen=True)
class ModelMonitorEngine(Common):
    """SageMaker Model Monitor: the capture is mounted, results are written where it says.

    The baseline is mounted too when the monitor's job definition names one. A template cannot: it does not
    know which model will be approved. Then it is the approved model's, as with our own engine.
    """

    dataset_source: str
    output_path: str
    mounted_baseline: tuple[str, str] | None
    approved_model_parameter: str | None
    start: str | None
    end: str | None


def _moment(name: str, text: str) -> dt.datetime:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise BadInputError(f"{name} must be an ISO 8601 time, got {text!r}") from error
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)


def _window(environment: Mapping[str, str]) -> Window:
    hours = environment["WINDOW_HOURS"]
    if not hours.isdecimal() or not 1 <= int(hours) <= HOURS_LIMIT:
        raise BadInputError(f"WINDOW_HOURS must be an integer from 1 to {HOURS_LIMIT}, got {hours!r}")
    # Whole hours, because capture files lie in folders of hours: no record is judged twice, none falls
    # between two runs.
    end = _moment("SCHEDULED_TIME", environment["SCHEDULED_TIME"]).replace(minute=0, second=0, microsecond=0)
    return Window(end - dt.timedelta(hours=int(hours)), end)


def read_settings(environment: Mapping[str, str]) -> OwnEngine | ModelMonitorEngine:
    """Return the settings. Raises BadInputError naming every variable that is missing."""
    managed = "dataset_source" in environment
    statistics = environment.get("baseline_statistics")
    constraints = environment.get("baseline_constraints")
    mounted = (statistics, constraints) if statistics and constraints else None
    needed = ["ENVIRONMENT", "WORKLOAD"]
    needed += (
        ["output_path"] if managed else ["ENDPOINT_NAME", "CAPTURE_URI", "WINDOW_HOURS", "SCHEDULED_TIME"]
    )
    if not managed or mounted is None:
        needed.append("APPROVED_MODEL_PARAMETER")
    missing = [name for name in needed if not environment.get(name)]
    if missing:
        raise BadInputError(f"environment variables are missing: {', '.join(missing)}")
    name, workload = environment["ENVIRONMENT"], environment["WORKLOAD"]
    contract_uri = environment.get("CONTRACT_URI")
    if managed:
        return ModelMonitorEngine(
            name,
            workload,
            contract_uri,
            dataset_source=environment["dataset_source"],
            output_path=environment["output_path"],
            mounted_baseline=mounted,
            approved_model_parameter=environment.get("APPROVED_MODEL_PARAMETER"),
            start=environment.get("start_time"),
            end=environment.get("end_time"),
        )
    return OwnEngine(
        name,
        workload,
        contract_uri,
        environment["ENDPOINT_NAME"],
        environment["CAPTURE_URI"],
        environment["APPROVED_MODEL_PARAMETER"],
        _window(environment),
    )
