"""The function's environment, typed and checked when the first event arrives."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

from retrain_trigger.errors import MisconfiguredError

__all__ = ["CHAMPION_PARAMETERS", "Budget", "NewData", "Settings", "Telling"]

#: What a training pipeline may be told of the approved model.
CHAMPION_PARAMETERS = ("ChampionModel", "ChampionTest")

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What the trainings of a calendar month may cost, or how many there may be: one of the two."""

    usd: float | None = None
    runs: int | None = None
    #: Prices of one's own by instance type, before those of the table.
    usd_per_hour: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class NewData:
    """How many rows are worth a training, and where it is said how many there are and were.

    ``note_uri`` is the note of the job that builds features, ``training_uri`` the folder that holds one for
    each execution of the pipeline.
    """

    minimum_records: int
    note_uri: str
    training_uri: str


@dataclass(frozen=True, kw_only=True)
class Telling:
    """Who is told that nothing starts, and the parameter that keeps that from being told twice."""

    topic_arn: str
    environment: str
    told_parameter: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the template tells the function."""

    pipeline_name: str
    workload: str
    cooldown: timedelta
    #: Name of the parameter that holds the approved model package; None when the pipeline asks for none.
    approved_parameter: str | None = None
    #: Parameters by which the pipeline is told of the approved model.
    champion_parameters: tuple[str, ...] = ()
    budget: Budget | None = None
    new_data: NewData | None = None
    telling: Telling | None = None
    #: Names of the alarms whose drift starts a training.
    drift_alarms: tuple[str, ...] = ()
    region: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the variables; every problem is reported at once."""
        problems = [
            f"{name} is not set"
            for name in ("PIPELINE_NAME", "WORKLOAD")
            if not environment.get(name, "").strip()
        ]
        text = environment.get("COOLDOWN_HOURS", "")
        hours = _number(text, float)
        if hours is None or not 0 <= hours <= 24 * 366:
            problems.append(f"COOLDOWN_HOURS must be a number of hours between 0 and 8784, got {text!r}")
        approved = environment.get("APPROVED_PARAMETER", "").strip() or None
        named = tuple(name for name in environment.get("CHAMPION_PARAMETERS", "").split(",") if name)
        unknown = [name for name in named if name not in CHAMPION_PARAMETERS]
        if unknown or (approved is None) != (not named):
            problems.append(
                "APPROVED_PARAMETER goes with CHAMPION_PARAMETERS, some of "
                f"{', '.join(CHAMPION_PARAMETERS)}; got {approved!r} and {named!r}"
            )
        budget = _budget(environment, problems)
        new_data = _new_data(environment, problems)
        telling = _telling(environment, problems)
        if problems:
            raise MisconfiguredError("; ".join(problems))
        return cls(
            pipeline_name=environment["PIPELINE_NAME"].strip(),
            workload=environment["WORKLOAD"].strip(),
            cooldown=timedelta(hours=hours or 0),
            approved_parameter=approved,
            champion_parameters=named,
            budget=budget,
            new_data=new_data,
            telling=telling,
            drift_alarms=tuple(name for name in environment.get("DRIFT_ALARMS", "").split(",") if name),
            region=environment.get("AWS_REGION", ""),
        )


def _number(text: str, kind: Callable[[str], _T]) -> _T | None:
    try:
        return kind(text)
    except ValueError:
        return None


def _budget(environment: Mapping[str, str], problems: list[str]) -> Budget | None:
    usd_text = environment.get("BUDGET_USD", "").strip()
    runs_text = environment.get("BUDGET_RUNS", "").strip()
    if not usd_text and not runs_text:
        return None
    usd = _number(usd_text, float) if usd_text else None
    runs = _number(runs_text, int) if runs_text else None
    if (usd_text != "" and (usd is None or not math.isfinite(usd) or usd <= 0)) or (
        runs_text != "" and (runs is None or runs < 1)
    ):
        problems.append(
            f"BUDGET_USD and BUDGET_RUNS must be positive numbers, got {usd_text!r} and {runs_text!r}"
        )
    if usd_text and runs_text:
        problems.append("one of BUDGET_USD and BUDGET_RUNS may be set, got both")
    prices: dict[str, float] = {}
    try:
        for name, value in json.loads(environment.get("USD_PER_HOUR", "{}")).items():
            prices[str(name)] = float(value)
    except (ValueError, AttributeError, TypeError):
        problems.append("USD_PER_HOUR must be a JSON object of prices by instance type")
    return Budget(usd=usd, runs=runs, usd_per_hour=prices)


def _new_data(environment: Mapping[str, str], problems: list[str]) -> NewData | None:
    text = environment.get("MINIMUM_RECORDS", "").strip()
    if not text:
        return None
    note, training = environment.get("FEATURES_NOTE_URI", ""), environment.get("TRAINING_URI", "")
    records = _number(text, int)
    if records is None or records < 1 or not note.startswith("s3://") or not training.startswith("s3://"):
        problems.append(
            "MINIMUM_RECORDS must be a positive integer, FEATURES_NOTE_URI and TRAINING_URI be S3 URIs, "
            f"got {text!r}, {note!r} and {training!r}"
        )
        return None
    return NewData(minimum_records=records, note_uri=note, training_uri=training.rstrip("/"))


def _telling(environment: Mapping[str, str], problems: list[str]) -> Telling | None:
    names = ("TOPIC_ARN", "ENVIRONMENT", "TOLD_PARAMETER")
    texts = {name: environment.get(name, "").strip() for name in names}
    if not any(texts.values()):
        return None
    problems += [f"{name} is not set, which telling people needs" for name, text in texts.items() if not text]
    return Telling(
        topic_arn=texts["TOPIC_ARN"], environment=texts["ENVIRONMENT"], told_parameter=texts["TOLD_PARAMETER"]
    )
