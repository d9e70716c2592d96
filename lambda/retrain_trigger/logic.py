"""Whether to train again, and the one call that does it.

Triggers come twice, late, in any order and at once. Three things keep that from starting two trainings:

* a trigger that happened before the latest execution started has been answered by it;
* the client token of a start is made from the latest execution that was seen (compare and set): of all
  triggers that saw the same state, SageMaker starts one execution and answers the others with it;
* while an execution runs, and for the cooldown after its start, nothing is started.

A trigger can also get lost on its way, or come while nothing may be started. A schedule therefore asks every
hour whether an alarm of drift is on that no execution has answered: one that began before the latest
execution started has been answered, however long it stays on.

Two more are about money: new data counts only when there is enough of it, and over the budget of the month
nothing is started; people are told of that once a month.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from retrain_trigger.budget import Job, Spent, month_of, objection, spent
from retrain_trigger.errors import BadEventError
from retrain_trigger.settings import NewData, Settings

__all__ = [
    "RECONCILIATION",
    "Champion",
    "Execution",
    "Pipelines",
    "Refusal",
    "Trigger",
    "decide",
    "retrain",
    "token_of",
]

#: States in which an execution still uses its pipeline (DescribePipelineExecution, PipelineExecutionStatus).
RUNNING = frozenset({"Executing", "Stopping"})
#: States of an execution whose model, if it made one, has not seen the data.
WITHOUT_MODEL = frozenset({"Failed", "Stopped"})
NEW_DATA: Final = "new data"
#: Our own schedule, in the form of an event.
RECONCILIATION: Final = "Retraining Reconciliation"
#: What says that there are new features, by engine: the names of its job and of its state, and the good one.
FEATURE_JOBS: Final[Mapping[str, tuple[str, str, str]]] = {
    "Glue Job State Change": ("jobName", "state", "SUCCEEDED"),
    "SageMaker Processing Job State Change": ("ProcessingJobName", "ProcessingJobStatus", "Completed"),
    "EMR Serverless Job Run State Change": ("jobRunName", "state", "SUCCESS"),
}


@dataclass(frozen=True, kw_only=True)
class Execution:
    """One run of the pipeline."""

    arn: str
    status: str
    started: datetime


@dataclass(frozen=True, kw_only=True)
class Champion:
    """The approved model, as a new one is trained from it and judged beside it."""

    arn: str
    #: Its ``model.tar.gz``.
    model_uri: str
    #: Folder of the held-out rows that it was judged by; None for a version that does not say.
    test_uri: str | None

    def parameters(self, wanted: Sequence[str]) -> dict[str, str]:
        """Values of those pipeline parameters that the pipeline has."""
        known = {"ChampionModel": self.model_uri, "ChampionTest": self.test_uri}
        return {name: value for name in wanted if (value := known[name]) is not None}


class Pipelines(Protocol):
    """The part of SageMaker that this function needs."""

    def latest(self, pipeline_name: str) -> Sequence[Execution]:
        """Latest executions of the pipeline, newest first."""

    def champion(self, parameter_name: str) -> Champion | None:
        """The approved model; None when nobody has approved one, or its version is gone."""

    def alarms_on(self, names: Sequence[str]) -> Mapping[str, datetime]:
        """Those of the alarms that are in ALARM, and since when."""

    def since(self, pipeline_name: str, moment: datetime) -> Sequence[Execution]:
        """Every execution that was started at ``moment`` or later."""

    def jobs(self, execution_arn: str) -> Sequence[Job]:
        """Jobs of an execution that have run, those of a search each by itself."""

    def rows(self, note_uri: str) -> int | None:
        """Rows of features by the note of the job that builds them; None when there is no such note."""

    def learned_rows(self, training_uri: str, execution_arn: str) -> int | None:
        """Rows of the features that an execution read, by its lineage; None when it says nothing of them."""

    def start(self, pipeline_name: str, *, token: str, reason: str, parameters: Mapping[str, str]) -> str:
        """Start the pipeline and return the execution's ARN; the same token starts once."""


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """Why, and when."""

    reason: str
    time: datetime
    new_data: bool = False
    #: Set when the event needs no training at all, e.g. an alarm that went back to OK.
    ignored_because: str | None = None
    #: When it is asked about, where that is later than what happened; the cool-down is over by then or not.
    asked: datetime | None = None

    @classmethod
    def from_event(cls, event: object, *, now: datetime) -> Trigger:
        """Read an EventBridge event, or ``{"reason": "..."}`` from a person.

        Args:
            event: what Lambda was invoked with.
            now: used when the event carries no ``time``.

        Raises:
            BadEventError: nothing of what this function is subscribed to.
        """
        if not isinstance(event, Mapping):
            raise BadEventError(f"the event must be a JSON object, got {type(event).__name__}")
        time = _time(event.get("time"), now)
        kind = event.get("detail-type")
        raw = event.get("detail")
        detail: Mapping[str, object] = raw if isinstance(raw, Mapping) else {}
        if kind == "CloudWatch Alarm State Change":
            alarm = detail.get("alarmName")
            state = detail.get("state")
            value = state.get("value") if isinstance(state, Mapping) else None
            if not isinstance(alarm, str) or not isinstance(value, str):
                raise BadEventError("the alarm event has no detail.alarmName or detail.state.value")
            ignored = None if value == "ALARM" else f"alarm {alarm} is {value}"
            return cls(reason=f"drift: alarm {alarm}", time=time, ignored_because=ignored)
        if isinstance(kind, str) and kind in FEATURE_JOBS:
            name, state_name, good = FEATURE_JOBS[kind]
            job, value = detail.get(name), detail.get(state_name)
            if not isinstance(job, str) or not isinstance(value, str):
                raise BadEventError(f"{kind!r} has no detail.{name} or detail.{state_name}")
            ignored = None if value == good else f"job {job} is {value}"
            return cls(reason=f"{NEW_DATA}: job {job}", time=time, new_data=True, ignored_because=ignored)
        if kind in ("Scheduled Event", "Scheduled"):
            return cls(reason="schedule", time=time)
        if kind is None and isinstance(event.get("reason"), str) and event["reason"].strip():
            return cls(reason=f"on demand: {event['reason'].strip()}", time=time)
        raise BadEventError(
            f"cannot read detail-type {kind!r}; known are 'CloudWatch Alarm State Change', "
            f"{', '.join(map(repr, FEATURE_JOBS))}, 'Scheduled Event', {RECONCILIATION!r}, "
            'and {"reason": "..."} without a detail-type'
        )


def _time(value: object, now: datetime) -> datetime:
    if value is None:
        return now
    try:
        time = datetime.fromisoformat(str(value))
    except ValueError:
        raise BadEventError(f"the event's time must be ISO 8601, got {value!r}") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def token_of(pipeline_name: str, latest: Execution | None) -> str:
    """Idempotency token of the start that follows ``latest``: 64 hexadecimal digits (32 to 128 fit)."""
    return hashlib.sha256(f"{pipeline_name}\n{latest.arn if latest else ''}".encode()).hexdigest()


def decide(trigger: Trigger, executions: Sequence[Execution], settings: Settings) -> str | None:
    """Return why nothing is to be started, or ``None`` when the pipeline should start."""
    if trigger.ignored_because is not None:
        return trigger.ignored_because
    running = next((e for e in executions if e.status in RUNNING), None)
    if running is not None:
        return f"execution {running.arn} is {running.status}"
    latest = max(executions, key=lambda e: e.started, default=None)
    if latest is None:
        return None
    # EventBridge's time has whole seconds.
    if trigger.time < latest.started.replace(microsecond=0):
        return f"execution {latest.arn} started after this trigger and answers it"
    ready = latest.started + settings.cooldown
    if (trigger.asked or trigger.time) < ready:
        return f"cooldown until {ready.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ} after execution {latest.arn}"
    return None


def unanswered(asked: datetime, pipelines: Pipelines, settings: Settings) -> Trigger:
    """The alarm of drift that went on last and is on still, as a trigger."""
    found = pipelines.alarms_on(settings.drift_alarms) if settings.drift_alarms else {}
    if not found:
        return Trigger(reason="drift", time=asked, ignored_because="no alarm of drift is on")
    name, since = max(found.items(), key=lambda item: (item[1], item[0]))
    reason = f"drift: alarm {name} on since {since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return Trigger(reason=reason, time=since, asked=asked)


def too_few(
    trigger: Trigger, wanted: NewData, executions: Sequence[Execution], pipelines: Pipelines
) -> str | None:
    """Return why new data is not worth a training, or ``None`` when it is; the rows are counted."""
    if not trigger.new_data:
        return None
    now = pipelines.rows(wanted.note_uri)
    if now is None:
        return f"there is no {wanted.note_uri}, so nobody can say how much is new"
    learned = sorted((e for e in executions if e.status not in WITHOUT_MODEL), key=lambda e: e.started)
    # One whose preparation was taken from a cache has no lineage of its own: the one before has it.
    known = ((e, pipelines.learned_rows(wanted.training_uri, e.arn)) for e in reversed(learned))
    last, rows = next(((e, rows) for e, rows in known if rows is not None), (None, 0))
    new = now - rows
    if new >= wanted.minimum_records:
        return None
    since = "in all" if last is None else f"since {last.arn} learned from {rows}"
    return f"{new} new rows {since}, a training is worth {wanted.minimum_records}"


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """That the budget is used up, for people."""

    why: str
    time: datetime
    reason: str
    spent: Spent


def retrain(event: object, pipelines: Pipelines, settings: Settings, *, now: datetime) -> dict[str, object]:
    """Start the pipeline if the event calls for it.

    Returns:
        ``{"started": True, "execution": arn, "reason": ...}`` or
        ``{"started": False, "why": ..., "reason": ...}``; with ``champion``, the approved model package or
        None, where the pipeline is told of it; with ``refusal`` where the budget is why.
    """
    if isinstance(event, Mapping) and event.get("detail-type") == RECONCILIATION:
        trigger = unanswered(_time(event.get("time"), now), pipelines, settings)
    else:
        trigger = Trigger.from_event(event, now=now)

    def refused(why: str, **more: object) -> dict[str, object]:
        return {"started": False, "why": why, "reason": trigger.reason, **more}

    if trigger.ignored_because is not None:
        return refused(trigger.ignored_because)
    executions = pipelines.latest(settings.pipeline_name)
    why = decide(trigger, executions, settings)
    if why is None and settings.new_data is not None:
        why = too_few(trigger, settings.new_data, executions, pipelines)
    if why is not None:
        return refused(why)
    refusal = _over_budget(trigger, pipelines, settings, now)
    if refusal is not None:
        return refused(refusal.why, refusal=refusal)
    latest = max(executions, key=lambda e: e.started, default=None)
    champion = None
    if settings.approved_parameter is not None:
        champion = pipelines.champion(settings.approved_parameter)
    arn = pipelines.start(
        settings.pipeline_name,
        token=token_of(settings.pipeline_name, latest),
        reason=trigger.reason,
        parameters={} if champion is None else champion.parameters(settings.champion_parameters),
    )
    result: dict[str, object] = {"started": True, "execution": arn, "reason": trigger.reason}
    if settings.approved_parameter is not None:
        result["champion"] = None if champion is None else champion.arn
    return result


def _over_budget(trigger: Trigger, pipelines: Pipelines, settings: Settings, now: datetime) -> Refusal | None:
    """What the budget has against one more training; the month is that of the later of trigger and now."""
    if settings.budget is None:
        return None
    month = month_of(max(trigger.time, now))
    found = spent(
        [execution.arn for execution in pipelines.since(settings.pipeline_name, month)],
        pipelines,
        settings.budget,
        month=month,
        region=settings.region,
    )
    why = objection(found, settings.budget)
    return None if why is None else Refusal(why=why, time=trigger.time, reason=trigger.reason, spent=found)
