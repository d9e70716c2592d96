"""Lambda entry point: ``model_dashboard.handler.handler``, every hour."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from function_log import log

from model_dashboard.collect import collect
from model_dashboard.page import page
from model_dashboard.settings import Settings

__all__ = ["handler"]


@cache
def _clients() -> dict[str, Any]:
    config = Config(retries={"mode": "standard", "total_max_attempts": 5}, connect_timeout=3, read_timeout=10)
    return {name: boto3.client(name, config=config) for name in ("sagemaker", "ssm", "cloudwatch", "s3")}


def handler(event: Any, _context: object) -> dict[str, Any]:
    """Write the page and what it is made of; where they stand is returned and logged."""
    settings = Settings.read(os.environ)
    time = event.get("time") if isinstance(event, Mapping) else None
    now = datetime.now(UTC) if time is None else datetime.fromisoformat(str(time))
    clients = _clients()
    models = collect(clients, settings, now=now)
    files = {
        "index.html": (page(models, environment=settings.environment, now=now), "text/html; charset=utf-8"),
        "models.json": (
            json.dumps([model.document() for model in models], default=str, indent=1),
            "application/json",
        ),
    }
    for name, (text, kind) in files.items():
        clients["s3"].put_object(
            Bucket=settings.bucket, Key=f"{settings.prefix}{name}", Body=text.encode(), ContentType=kind
        )
    told = {
        "page": f"s3://{settings.bucket}/{settings.prefix}index.html",
        "models": {model.name: model.state for model in models},
    }
    log("INFO", "models", **told)
    return told
