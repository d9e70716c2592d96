"""What the environment says, read once and checked as a whole."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from ml_runtime.job import BadInputError

__all__ = ["Settings"]

_ARCHIVE = re.compile(r"(s3://[^/]+|file://)/.+\.tar\.gz")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the container was told to serve.

    ===============================  =========================================================================
    variable                         meaning
    ===============================  =========================================================================
    SAGEMAKER_BIND_TO_PORT           where to listen; 8080
    SAGEMAKER_MODEL_SERVER_WORKERS   processes; one per vCPU, and always one where models come and go
    SAGEMAKER_MULTI_MODEL            ``true``: models are loaded and unloaded by request
    SERVING_HOST                     address to listen on; all
    MODEL_PACKAGE                    ARN of the model package; answers then name their model
    MODEL_PACKAGE_GROUP              multi-model: group of the models, or an ARN that ends with it; their file
                                     names are their versions
    MODEL_DATA_URL                   ``s3://.../model.tar.gz`` or ``file:///...``, where no SageMaker mounts
                                     the model
    DECISION_THRESHOLD               positive from this score on; takes the place of the contract's; ``none``:
                                     the contract's
    ===============================  =========================================================================
    """

    host: str
    port: int
    workers: int
    multi_model: bool
    served_as: str | None
    group: str | None
    model_data_url: str | None
    threshold: float | None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Read the environment. Raises BadInputError that names every wrong variable."""
        problems: list[str] = []

        def whole(name: str, default: int, maximum: int) -> int:
            text = environment.get(name, str(default))
            if text.isdecimal() and 1 <= int(text) <= maximum:
                return int(text)
            problems.append(f"{name} must be an integer from 1 to {maximum}, got {text!r}")
            return default

        workers = whole("SAGEMAKER_MODEL_SERVER_WORKERS", len(os.sched_getaffinity(0)), 256)
        port = whole("SAGEMAKER_BIND_TO_PORT", 8080, 65_535)
        multi = environment.get("SAGEMAKER_MULTI_MODEL", "false").lower()
        if multi not in ("true", "false"):
            problems.append(f"SAGEMAKER_MULTI_MODEL must be true or false, got {multi!r}")
        url = environment.get("MODEL_DATA_URL") or None
        if url is not None and not _ARCHIVE.fullmatch(url):
            problems.append(
                f"MODEL_DATA_URL must look like s3://bucket/key.tar.gz or file:///path.tar.gz, got {url!r}"
            )
        threshold = None
        text = environment.get("DECISION_THRESHOLD", "none")
        # A pipeline step can name no variable that may be missing: what was not chosen is said so.
        if text != "none":
            threshold = _share(text)
            if threshold is None:
                problems.append(
                    f"DECISION_THRESHOLD must be a number above 0 and below 1 or none, got {text!r}"
                )
        if problems:
            raise BadInputError("; ".join(problems))
        # arn:{partition}:sagemaker:{region}:{account}:model-package/{group}/{version}
        package = "/".join(environment.get("MODEL_PACKAGE", "").split("/")[-2:])
        return cls(
            host=environment.get("SERVING_HOST", "0.0.0.0"),  # noqa: S104 - SageMaker calls from outside the container
            port=port,
            # A model that one process has loaded is not there for another.
            workers=1 if multi == "true" else workers,
            multi_model=multi == "true",
            served_as=package or None,
            group=environment.get("MODEL_PACKAGE_GROUP", "").rpartition("/")[2] or None,
            model_data_url=url,
            threshold=threshold,
        )


def _share(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 < value < 1 else None
