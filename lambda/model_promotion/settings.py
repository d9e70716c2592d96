"""The function's environment, typed and checked when the first message arrives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from model_promotion.errors import MisconfiguredError

__all__ = ["Acceptance", "ChallengerTest", "Settings", "Telling"]


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """When a model is good enough: exactly one of the two bounds is set."""

    metric: str
    at_least: float | None = None
    at_most: float | None = None

    def objection(self, value: float) -> str | None:
        """Return why ``value`` is not good enough, or ``None`` when it is."""
        if not math.isfinite(value):
            return f"{self.metric} is {value}"
        if self.at_least is not None and value < self.at_least:
            return f"{self.metric} {value:.4g} is below {self.at_least:g}"
        if self.at_most is not None and value > self.at_most:
            return f"{self.metric} {value:.4g} is above {self.at_most:g}"
        return None


@dataclass(frozen=True, kw_only=True)
class ChallengerTest:
    """How a challenger is tried beside the champion."""

    parameter_name: str
    minutes: int
    endpoint_name: str
    variant: str
    minimum_requests: int
    #: The end of a test is a schedule of EventBridge Scheduler in this group, sent to the queue as the role.
    schedule_group: str
    schedule_prefix: str
    schedule_role_arn: str
    queue_arn: str


@dataclass(frozen=True, kw_only=True)
class Telling:
    """Who is told of promotions."""

    topic_arn: str
    workload: str
    environment: str
    region: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the template tells the function."""

    parameter_name: str
    stack_name: str
    group_name: str
    acceptance: Acceptance
    #: Refuse an approval that says no reason.
    require_reason: bool = False
    challenger: ChallengerTest | None = None
    telling: Telling | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the variables; every problem is reported at once."""
        names = ("PARAMETER_NAME", "SERVING_STACK_NAME", "MODEL_PACKAGE_GROUP_NAME", "ACCEPT_METRIC")
        texts = {name: environment.get(name, "").strip() for name in names}
        problems = [f"{name} is not set" for name, text in texts.items() if not text]
        bounds = {}
        for name in ("ACCEPT_AT_LEAST", "ACCEPT_AT_MOST"):
            text = environment.get(name, "").strip()
            if not text:
                continue
            try:
                bounds[name] = float(text)
            except ValueError:
                bounds[name] = math.nan
            if not math.isfinite(bounds[name]):
                problems.append(f"{name} must be a number, got {text!r}")
        if len(bounds) != 1:
            problems.append(f"one of ACCEPT_AT_LEAST and ACCEPT_AT_MOST must be set, got {sorted(bounds)}")
        reason = environment.get("REQUIRE_REASON", "false").strip().lower()
        if reason not in ("true", "false"):
            problems.append(f"REQUIRE_REASON must be true or false, got {reason!r}")
        challenger = _challenger(environment, problems)
        telling = _telling(environment, problems)
        if problems:
            raise MisconfiguredError("; ".join(problems))
        return cls(
            parameter_name=texts["PARAMETER_NAME"],
            stack_name=texts["SERVING_STACK_NAME"],
            group_name=texts["MODEL_PACKAGE_GROUP_NAME"],
            acceptance=Acceptance(
                metric=texts["ACCEPT_METRIC"],
                at_least=bounds.get("ACCEPT_AT_LEAST"),
                at_most=bounds.get("ACCEPT_AT_MOST"),
            ),
            require_reason=reason == "true",
            challenger=challenger,
            telling=telling,
        )


def _telling(environment: Mapping[str, str], problems: list[str]) -> Telling | None:
    """Who is told, when the template names a topic; adds what is wrong with it."""
    topic = environment.get("TOPIC_ARN", "").strip()
    if not topic:
        return None
    names = ("WORKLOAD", "ENVIRONMENT", "AWS_REGION")
    texts = {name: environment.get(name, "").strip() for name in names}
    problems += [f"{name} is not set, which telling people needs" for name, text in texts.items() if not text]
    return Telling(
        topic_arn=topic,
        workload=texts["WORKLOAD"],
        environment=texts["ENVIRONMENT"],
        region=texts["AWS_REGION"],
    )


def _challenger(environment: Mapping[str, str], problems: list[str]) -> ChallengerTest | None:
    """The test of challengers, when the template names a parameter for them; adds what is wrong with it."""
    parameter = environment.get("CHALLENGER_PARAMETER_NAME", "").strip()
    if not parameter:
        return None
    names = (
        "ENDPOINT_NAME",
        "CHALLENGER_VARIANT",
        "SCHEDULE_GROUP",
        "SCHEDULE_PREFIX",
        "SCHEDULE_ROLE_ARN",
        "QUEUE_ARN",
    )
    texts = {name: environment.get(name, "").strip() for name in names}
    problems += [
        f"{name} is not set, which trying challengers needs" for name, text in texts.items() if not text
    ]
    numbers = {}
    for name, default in (("TEST_MINUTES", ""), ("MINIMUM_REQUESTS", "100")):
        text = environment.get(name, default).strip()
        if not text.isdecimal() or int(text) < 1:
            problems.append(f"{name} must be a positive integer, got {text!r}")
            continue
        numbers[name] = int(text)
    return ChallengerTest(
        parameter_name=parameter,
        minutes=numbers.get("TEST_MINUTES", 0),
        endpoint_name=texts["ENDPOINT_NAME"],
        variant=texts["CHALLENGER_VARIANT"],
        minimum_requests=numbers.get("MINIMUM_REQUESTS", 0),
        schedule_group=texts["SCHEDULE_GROUP"],
        schedule_prefix=texts["SCHEDULE_PREFIX"],
        schedule_role_arn=texts["SCHEDULE_ROLE_ARN"],
        queue_arn=texts["QUEUE_ARN"],
    )
