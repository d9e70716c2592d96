"""Lambda entry point: ``model_archive.handler.handler``, once a day."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from function_log import log

from model_archive.logic import STAGE, Version, archived, serving
from model_archive.settings import Settings

__all__ = ["archive", "handler"]


@cache
def _clients() -> tuple[Any, Any]:
    config = Config(retries={"mode": "standard", "total_max_attempts": 5}, connect_timeout=3, read_timeout=10)
    return boto3.client("sagemaker", config=config), boto3.client("ssm", config=config)


def handler(event: object, context: object) -> dict[str, object]:
    """Put old versions away; what was done is returned and logged."""
    del event
    settings = Settings.from_environment(os.environ)
    gone = archive(*_clients(), settings, now=datetime.now(UTC))
    log(
        "INFO",
        "archived",
        group=settings.group_name,
        versions=gone,
        request=getattr(context, "aws_request_id", None),
    )
    return {"group": settings.group_name, "archived": gone}


def archive(sagemaker: Any, ssm: Any, settings: Settings, *, now: datetime) -> list[int]:
    """Put old versions away and return their numbers. Done twice, it does the same once."""
    kept: set[str] = set()
    for name in settings.parameters:
        kept |= serving(list(_values(ssm, name)))
    gone = archived(_versions(sagemaker, settings.group_name), kept=kept, rule=settings.rule, now=now)
    for version in gone:
        sagemaker.update_model_package(
            ModelPackageArn=version.arn,
            ModelLifeCycle={
                "Stage": STAGE,
                "StageStatus": "Done",
                "StageDescription": f"Older than the {settings.rule.keep_versions} latest versions",
            },
        )
    return [version.number for version in gone]


def _values(ssm: Any, name: str) -> Iterator[str]:
    for page in ssm.get_paginator("get_parameter_history").paginate(Name=name):
        for version in page["Parameters"]:
            yield version["Value"]


def _versions(sagemaker: Any, group: str) -> Iterator[Version]:
    pages = sagemaker.get_paginator("list_model_packages").paginate(ModelPackageGroupName=group)
    for page in pages:
        for summary in page["ModelPackageSummaryList"]:
            arn = summary["ModelPackageArn"]
            try:
                # The stage stands in the description only.
                package = sagemaker.describe_model_package(ModelPackageName=arn)
            except ClientError as error:
                # Deleted since it was listed.
                if error.response["Error"]["Code"] != "ValidationException":
                    raise
                continue
            yield Version(
                arn=arn,
                number=int(package["ModelPackageVersion"]),
                created=package["CreationTime"],
                approval_status=package.get("ModelApprovalStatus", ""),
                stage=package.get("ModelLifeCycle", {}).get("Stage"),
            )
