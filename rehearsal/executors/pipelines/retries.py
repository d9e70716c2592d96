"""Which failures of a step are tried again, and when ("Retry Policy for Pipeline Steps", developer guide)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = [
    "EXCEPTIONS",
    "SERVICE_FAULT",
    "RetryPolicy",
    "exception_of_call",
    "exception_of_job",
    "policy_for",
    "read_policies",
]

SERVICE_FAULT: Final = "Step.SERVICE_FAULT"
THROTTLING: Final = "Step.THROTTLING"
INTERNAL_ERROR: Final = "SageMaker.JOB_INTERNAL_ERROR"
CAPACITY_ERROR: Final = "SageMaker.CAPACITY_ERROR"
RESOURCE_LIMIT: Final = "SageMaker.RESOURCE_LIMIT"
EXCEPTIONS: Final = (SERVICE_FAULT, THROTTLING, INTERNAL_ERROR, CAPACITY_ERROR, RESOURCE_LIMIT)
#: Types of steps that take a policy.
_TYPES: Final = frozenset(
    {"Processing", "Training", "Tuning", "AutoML", "Model", "RegisterModel", "Transform", "NotebookJob"}
)
#: Jobs inside these are tried again by themselves; a policy does not do it.
_OWN_RETRIES: Final = frozenset({"Tuning", "AutoML"})
#: What a throttled call is told, by service.
_THROTTLED: Final = frozenset(
    {"Throttling", "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded", "SlowDown"}
)
#: How the failure reason of a job begins, and what that is.
_REASONS: Final[Mapping[str, str]] = {
    "InternalServerError": INTERNAL_ERROR,
    "CapacityError": CAPACITY_ERROR,
    "ResourceLimitExceeded": RESOURCE_LIMIT,
}
_MEMBERS: Final = frozenset(
    {"ExceptionType", "IntervalSeconds", "BackoffRate", "MaxAttempts", "ExpireAfterMin"}
)
_MOST_ATTEMPTS: Final = 20
_MOST_SECONDS: Final = 43_200


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """After which exceptions a step is tried again: at most so often, each time after a longer while."""

    exceptions: frozenset[str]
    interval_seconds: float = 1.0
    backoff_rate: float = 2.0
    max_attempts: int = 5
    expire_after_minutes: float | None = None

    def wait_seconds(self, retry: int) -> float:
        """Seconds until the retry of this number, from 1."""
        return min(float(self.interval_seconds * self.backoff_rate ** (retry - 1)), float(_MOST_SECONDS))

    def allows(self, retry: int, seconds: float) -> bool:
        """Whether the retry of this number may begin so many seconds after the step's first failure."""
        in_time = self.expire_after_minutes is None or seconds < 60 * self.expire_after_minutes
        return retry <= self.max_attempts and in_time


#: "Pipelines retries on this type of error automatically."
_ALWAYS: Final = RetryPolicy(exceptions=frozenset({SERVICE_FAULT, THROTTLING}))


def policy_for(policies: Sequence[RetryPolicy], step_type: str, exception: str | None) -> RetryPolicy | None:
    """The policy for what a step failed with; None: it is not tried again."""
    if exception is None or (exception == INTERNAL_ERROR and step_type in _OWN_RETRIES):
        return None
    found = next((policy for policy in policies if exception in policy.exceptions), None)
    return found or (_ALWAYS if exception in _ALWAYS.exceptions else None)


def exception_of_call(code: str, status: int) -> str | None:
    """What the refusal of a call is, by its code and HTTP status."""
    if code in _THROTTLED:
        return THROTTLING
    if code in ("ResourceLimitExceeded", "LimitExceededException"):
        return RESOURCE_LIMIT
    return SERVICE_FAULT if status >= 500 else None


def exception_of_job(reason: str) -> str | None:
    """What the failure of a job is, by its reason."""
    return next((kind for text, kind in _REASONS.items() if reason.startswith(text)), None)


def read_policies(step: str, step_type: str, given: Any, problems: list[str]) -> tuple[RetryPolicy, ...]:
    """Read the policies of a step; what CreatePipeline refuses goes to ``problems``."""
    if not given:
        return ()
    if step_type not in _TYPES:
        problems.append(f"Step {step}: a {step_type} step takes no RetryPolicies")
        return ()
    found: list[RetryPolicy] = []
    for number, item in enumerate(given):
        place = f"Step {step}: RetryPolicies[{number}]"
        unknown = set(item) - _MEMBERS
        kinds = item.get("ExceptionType") or []
        before = len(problems)
        problems += [f"{place}.{key} is not a member that SageMaker knows" for key in sorted(unknown)]
        problems += [
            f"{place}.ExceptionType must be of {', '.join(EXCEPTIONS)}, got {kind!r}"
            for kind in kinds or [None]
            if kind not in EXCEPTIONS
        ]
        twice = sorted({kind for kind in kinds for policy in found if kind in policy.exceptions})
        problems += [f"{place}: {kind} stands in two policies" for kind in twice]
        for key, least, most in (
            ("IntervalSeconds", 1, _MOST_SECONDS),
            ("BackoffRate", 1, None),
            ("MaxAttempts", 0, _MOST_ATTEMPTS),
            ("ExpireAfterMin", 1, None),
        ):
            value = item.get(key)
            if value is not None and not (least <= value and (most is None or value <= most)):
                most_text = "" if most is None else f" and at most {most}"
                problems.append(f"{place}.{key} must be at least {least}{most_text}, got {value!r}")
        if len(problems) == before:
            found.append(
                RetryPolicy(
                    exceptions=frozenset(kinds),
                    interval_seconds=float(item.get("IntervalSeconds") or 1),
                    backoff_rate=float(item.get("BackoffRate") or 2),
                    max_attempts=5 if item.get("MaxAttempts") is None else int(item["MaxAttempts"]),
                    expire_after_minutes=item.get("ExpireAfterMin"),
                )
            )
    return tuple(found)
