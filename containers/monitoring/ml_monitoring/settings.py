"""What a run is to judge, read from the environment: ours, or what SageMaker Model Monitor sets."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import Literal, cast, get_args

from ml_runtime.job import BadInputError

HOURS_LIMIT = 24 * 31
#: What a run judges: the records, the answers by what turned out true, the answers by who they are about, or
#: what the model goes by.
Kind = Literal["data", "quality", "bias", "attribution"]


@dataclasses.dataclass(frozen=True)
class Window:
    """Whole hours of traffic: from ``start`` up to ``end``, UTC."""

    start: dt.datetime
    end: dt.datetime

    def hours(self) -> list[dt.datetime]:
        """Return the start of each hour."""
        count = int((self.end - self.start) / dt.timedelta(hours=1))
        return [self.start + dt.timedelta(hours=n) for n in range(count)]

    def earlier(self, hours: int) -> Window:
        """Return the window of the same length so many hours before."""
        return Window(self.start - dt.timedelta(hours=hours), self.end - dt.timedelta(hours=hours))

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%dT%H:%MZ} to {self.end:%Y-%m-%dT%H:%MZ}"


@dataclasses.dataclass(frozen=True)
class Common:
    """What both engines give.

    Args:
        environment: name of the environment, a dimension of every metric.
        workload: name of the workload, the other one.
        contract_uri: where the contract lies when it is not mounted.
        kind: what is judged.
        reports_uri: where earlier runs of the kind wrote; without it a report knows no "since when".
        ground_truth_uri: where labels arrive; without it nobody but Model Monitor's merged lines brings some.
    """

    environment: str
    workload: str
    contract_uri: str | None
    kind: Kind
    reports_uri: str | None
    ground_truth_uri: str | None


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
    mounted_constraints: str | None
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
    kind = environment.get("KIND", "data")
    if kind not in get_args(Kind):
        raise BadInputError(f"KIND must be one of {', '.join(get_args(Kind))}, got {kind!r}")
    statistics = environment.get("baseline_statistics")
    constraints = environment.get("baseline_constraints")
    mounted = (statistics, constraints) if statistics and constraints else None
    needed = ["ENVIRONMENT", "WORKLOAD"]
    needed += (
        ["output_path"] if managed else ["ENDPOINT_NAME", "CAPTURE_URI", "WINDOW_HOURS", "SCHEDULED_TIME"]
    )
    if not managed or (mounted is None if kind == "data" else kind == "attribution" or not constraints):
        needed.append("APPROVED_MODEL_PARAMETER")
    if not managed and kind == "quality":
        needed.append("GROUND_TRUTH_URI")
    missing = [name for name in needed if not environment.get(name)]
    if missing:
        raise BadInputError(f"environment variables are missing: {', '.join(missing)}")
    common = Common(
        environment["ENVIRONMENT"],
        environment["WORKLOAD"],
        environment.get("CONTRACT_URI"),
        cast(Kind, kind),
        environment.get("REPORTS_URI") or None,
        environment.get("GROUND_TRUTH_URI") or None,
    )
    given = {field.name: getattr(common, field.name) for field in dataclasses.fields(common)}
    if managed:
        return ModelMonitorEngine(
            **given,
            dataset_source=environment["dataset_source"],
            output_path=environment["output_path"],
            mounted_baseline=mounted,
            mounted_constraints=constraints or None,
            approved_model_parameter=environment.get("APPROVED_MODEL_PARAMETER"),
            start=environment.get("start_time"),
            end=environment.get("end_time"),
        )
    return OwnEngine(
        **given,
        endpoint=environment["ENDPOINT_NAME"],
        capture_uri=environment["CAPTURE_URI"],
        approved_model_parameter=environment["APPROVED_MODEL_PARAMETER"],
        window=_window(environment),
    )
