"""What scaling policies want: target tracking and steps, as pure functions.

Source: "Target tracking scaling policies" and "Step scaling policies", Application Auto Scaling user guide.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["COOLDOWN_SECONDS", "IN_MINUTES", "OUT_MINUTES", "desired_count", "stepped", "steps_problem"]

# Target tracking's own alarms: 3 data points of a minute above the target, 15 below 90 percent of it.
OUT_MINUTES, IN_MINUTES = 3, 15
_IN_SHARE = 0.9
#: The default of SageMaker's variants and components (PutScalingPolicy, Cooldown).
COOLDOWN_SECONDS = 300


def desired_count(
    values: Sequence[float | None], *, current: int, target: float, minimum: int, maximum: int
) -> int:
    """The count that target tracking wants, given the metric per minute, oldest first.

    `values` is the metric per instance. None is a minute without data, which counts as no load.
    """
    recent = [0.0 if value is None else value for value in values]
    out, slow = recent[-OUT_MINUTES:], recent[-IN_MINUTES:]
    wanted = current
    if len(out) == OUT_MINUTES and all(value > target for value in out):
        # At zero the metric stands for one instance that is not there.
        wanted = max(current + 1, math.ceil(max(current, 1) * out[-1] / target))
    elif len(slow) == IN_MINUTES and all(value < target * _IN_SHARE for value in slow):
        wanted = min(current, math.ceil(current * max(slow) / target))
    return max(minimum, min(maximum, wanted))


def steps_problem(config: Mapping[str, Any]) -> str | None:
    """What is wrong with the steps of a policy, None when nothing is."""
    steps = config.get("StepAdjustments", ())
    if not steps:
        return "StepAdjustments is required for step scaling"
    if "AdjustmentType" not in config:
        return "AdjustmentType is required for step scaling"
    spans = sorted(_span(step) for step in steps)
    if any(low >= high for low, high in spans):
        return "the lower bound of a step must be below its upper bound"
    if any(a[1] != b[0] for a, b in itertools.pairwise(spans)):
        return f"steps must neither overlap nor leave a gap, got {spans}"
    return None


def _span(step: Mapping[str, Any]) -> tuple[float, float]:
    low = step.get("MetricIntervalLowerBound")
    high = step.get("MetricIntervalUpperBound")
    return -math.inf if low is None else float(low), math.inf if high is None else float(high)


def stepped(config: Mapping[str, Any], *, breach: float, current: int, minimum: int, maximum: int) -> int:
    """The count that a step policy wants.

    :param breach: the metric less the alarm's threshold
    """
    step = next((s for s in config["StepAdjustments"] if _holds(_span(s), breach)), None)
    if step is None:
        return current
    change = int(step["ScalingAdjustment"])
    kind = config["AdjustmentType"]
    if kind == "ExactCapacity":
        wanted = change
    elif kind == "PercentChangeInCapacity":
        by = current * change / 100
        # Rounded away from nothing below one, towards zero above it ("Step adjustments").
        whole = math.trunc(by) if abs(by) >= 1 else int(math.copysign(1, by)) if by else 0
        least = int(config.get("MinAdjustmentMagnitude", 0))
        wanted = current + int(math.copysign(max(abs(whole), least), change)) if change else current
    else:
        wanted = current + change
    return max(minimum, min(maximum, wanted))


def _holds(span: tuple[float, float], breach: float) -> bool:
    """Below the threshold the upper bound belongs to a step, above it the lower one."""
    low, high = span
    return low < breach <= high if breach < 0 else low <= breach < high
