"""Lambda entry point: ``ground_truth.handler.handler``.

Called by EventBridge when a batch run has made new curated records, by a schedule where people label, or by a
person: ``{"hours": 720}`` looks further back than the function does by itself.

Nothing is remembered between calls: what is known in the tables is compared with what was written lately. So
a lost event is made up for by the next, one that comes twice writes nothing new, and a label that changes is
written again. A label that never comes is no error here: the monitor tells how many predictions have none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from function_log import log
from lake_files.iceberg import glue_catalog

from ground_truth.errors import BadEventError, GroundTruthError, MisconfiguredError, TransientError
from ground_truth.files import collected, line, write
from ground_truth.labels import known_labels
from ground_truth.settings import MOST_HOURS, Settings

__all__ = ["collect", "handler"]

_CONFIG = Config(retries={"mode": "standard", "total_max_attempts": 3}, connect_timeout=3, read_timeout=30)


def collect(catalog: Any, s3: Any, settings: Settings, *, now: datetime, hours: int) -> dict[str, Any]:
    """Write the labels of the last ``hours`` that no file of these hours holds; return what was counted."""
    since = now - timedelta(hours=hours)
    labels, unfit = known_labels(
        catalog,
        curated=settings.curated,
        labels=settings.labels,
        identifier=settings.identifier,
        label=settings.label,
        received=settings.received,
        since=since,
    )
    before = collected(s3, settings.bucket, settings.prefix, since=since, until=now) if labels else {}
    new = {name: label for name, label in labels.items() if before.get(name) != line(name, label)}
    keys = write(s3, settings.bucket, settings.prefix, new, now=now)
    return {
        "labels": len(labels),
        "written": len(new),
        "changed": sum(name in before for name in new),
        "unfit_identifiers": unfit,
        "files": keys,
    }


def _asked(event: object, lookback: int) -> tuple[datetime, int]:
    """Return the moment that the event speaks of and how many hours to look back from it."""
    if not isinstance(event, Mapping):
        raise BadEventError(f"the event must be a JSON object, got {type(event).__name__}")
    hours = event.get("hours", lookback)
    if isinstance(hours, bool) or not isinstance(hours, int) or not 1 <= hours <= MOST_HOURS:
        raise BadEventError(f"hours must be a number from 1 to {MOST_HOURS}, got {hours!r}")
    if event.get("time") is None:
        return datetime.now(UTC), hours
    try:
        time = datetime.fromisoformat(str(event["time"]))
    except ValueError:
        raise BadEventError(f"the event's time must be ISO 8601, got {event['time']!r}") from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC), hours


@cache
def _clients() -> tuple[Any, Any]:
    return boto3.client("glue", config=_CONFIG), boto3.client("s3", config=_CONFIG)


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Write the labels that arrived; what was counted is returned and logged."""
    request = getattr(context, "aws_request_id", None)
    try:
        settings = Settings.from_environment(os.environ)
        now, hours = _asked(event, settings.lookback_hours)
        counts = _collect(settings, now, hours)
    except GroundTruthError as error:
        log("ERROR", "no ground truth", error=type(error).__name__, why=str(error), request=request)
        raise
    log("INFO", "ground truth", request=request, **counts)
    return counts


def _collect(settings: Settings, now: datetime, hours: int) -> dict[str, Any]:
    glue, s3 = _clients()
    try:
        return collect(glue_catalog(glue), s3, settings, now=now, hours=hours)
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500:
            raise TransientError(str(error)) from error
        raise MisconfiguredError(str(error)) from error
    except (BotoCoreError, OSError) as error:
        raise TransientError(str(error)) from error
