"""Alarms that a person can act on: what happened, what it means, and the page that says what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_sns as sns

from constructs import Construct

__all__ = ["RUNBOOK_FOLDER", "Comparison", "Missing", "alarm", "described"]

#: Where the pages lie in the project. An alarm ends with the path of its page.
RUNBOOK_FOLDER = "docs/runbooks"
#: CloudWatch API Reference, PutMetricAlarm: AlarmDescription.
_MOST_CHARACTERS = 1_024

Comparison = Literal[
    "GreaterThanThreshold",
    "GreaterThanOrEqualToThreshold",
    "LessThanThreshold",
    "LessThanOrEqualToThreshold",
]
Missing = Literal["missing", "notBreaching", "breaching", "ignore"]


def described(what: str, *, runbook: str) -> str:
    """Return the description of an alarm: ``what`` happened and means, and the path of its runbook.

    ``runbook`` is the name of a page in ``docs/runbooks`` without its ending.

    Raises:
        ValueError: a name that is no page's, or more text than CloudWatch keeps.
    """
    problems = []
    if not re.fullmatch(r"[a-z][a-z0-9-]*", runbook):
        problems.append(f"runbook must be the name of a page such as dead-letters, got {runbook!r}")
    text = f"{what.rstrip('.')}. Runbook: {RUNBOOK_FOLDER}/{runbook}.md"
    # A name that only the deployment knows is a short token until then.
    if len(text) > _MOST_CHARACTERS:
        problems.append(f"an alarm's description has at most {_MOST_CHARACTERS} characters, got {len(text)}")
    if problems:
        raise ValueError("; ".join(problems))
    return text


def alarm(
    scope: Construct,
    construct_id: str,
    *,
    what: str,
    runbook: str,
    namespace: str,
    metric: str,
    dimensions: Mapping[str, str],
    topic: sns.ITopic | None,
    threshold: float = 0,
    statistic: str = "Sum",
    period_seconds: int = 300,
    periods: int = 1,
    comparison: Comparison = "GreaterThanThreshold",
    missing: Missing = "notBreaching",
) -> cloudwatch.CfnAlarm:
    """Define an alarm that tells ``topic`` when it begins and when it is over.

    By default it fires when the sum of five minutes is above 0; no data is no trouble.
    """
    actions = [] if topic is None else [topic.topic_arn]
    return cloudwatch.CfnAlarm(
        scope,
        construct_id,
        alarm_description=described(what, runbook=runbook),
        namespace=namespace,
        metric_name=metric,
        dimensions=[
            cloudwatch.CfnAlarm.DimensionProperty(name=name, value=value)
            for name, value in dimensions.items()
        ],
        statistic=statistic,
        period=period_seconds,
        evaluation_periods=periods,
        threshold=threshold,
        comparison_operator=comparison,
        treat_missing_data=missing,
        alarm_actions=actions,
        ok_actions=actions,
    )
