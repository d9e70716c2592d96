"""Log groups: always a retention, always a customer-managed key."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs

from constructs import Construct

_RETENTION = {
    1: logs.RetentionDays.ONE_DAY,
    3: logs.RetentionDays.THREE_DAYS,
    5: logs.RetentionDays.FIVE_DAYS,
    7: logs.RetentionDays.ONE_WEEK,
    14: logs.RetentionDays.TWO_WEEKS,
    30: logs.RetentionDays.ONE_MONTH,
    60: logs.RetentionDays.TWO_MONTHS,
    90: logs.RetentionDays.THREE_MONTHS,
    120: logs.RetentionDays.FOUR_MONTHS,
    150: logs.RetentionDays.FIVE_MONTHS,
    180: logs.RetentionDays.SIX_MONTHS,
    365: logs.RetentionDays.ONE_YEAR,
    400: logs.RetentionDays.THIRTEEN_MONTHS,
    545: logs.RetentionDays.EIGHTEEN_MONTHS,
    731: logs.RetentionDays.TWO_YEARS,
    1096: logs.RetentionDays.THREE_YEARS,
    1827: logs.RetentionDays.FIVE_YEARS,
    2192: logs.RetentionDays.SIX_YEARS,
    2557: logs.RetentionDays.SEVEN_YEARS,
    2922: logs.RetentionDays.EIGHT_YEARS,
    3288: logs.RetentionDays.NINE_YEARS,
    3653: logs.RetentionDays.TEN_YEARS,
}
#: The only retentions that CloudWatch Logs knows (PutRetentionPolicy, retentionInDays).
LOG_RETENTION_DAYS: tuple[int, ...] = tuple(_RETENTION)


def log_group(
    scope: Construct,
    construct_id: str,
    *,
    key: kms.IKey,
    retention_days: int = 90,
    name: str | None = None,
    removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.DESTROY,
) -> logs.LogGroup:
    """Define a log group that is encrypted with ``key`` and forgets after ``retention_days``.

    ``key`` must let CloudWatch Logs use it, as ``Keys.logs`` does. ``name`` is for services that write to a
    fixed name. Logs are no system of record here: they go with their stack unless ``removal_policy`` says
    otherwise.
    """
    if retention_days not in _RETENTION:
        allowed = ", ".join(str(days) for days in LOG_RETENTION_DAYS)
        raise ValueError(f"retention_days must be one of {allowed}, got {retention_days}")
    return logs.LogGroup(
        scope,
        construct_id,
        encryption_key=key,
        retention=_RETENTION[retention_days],
        log_group_name=name,
        removal_policy=removal_policy,
    )
