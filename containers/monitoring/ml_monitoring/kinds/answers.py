"""Predictions of a run's window, with the labels that have arrived for them."""

from __future__ import annotations

import pathlib
from typing import Any

import boto3
import numpy as np
import numpy.typing as npt
from ml_judging.bias import favourable

from ml_monitoring.capture import hour_prefixes, read_bucket, read_folder
from ml_monitoring.evidence import Approved, UnjudgedError, bucket_and_key, read_document
from ml_monitoring.outcome import Run
from ml_monitoring.predictions import (
    PREDICTIONS_LIMIT,
    Predictions,
    read_ground_truth,
    read_predictions,
    truth_keys,
)
from ml_monitoring.settings import ModelMonitorEngine

__all__ = ["approved_of", "delay_of", "enough", "good", "mounted_constraints", "predictions_of"]


def delay_of(run: Run) -> int:
    """Hours between a prediction and its verdict: labels are waited for where somebody brings some."""
    block = run.contract.monitoring.get("quality")
    waits = run.settings.kind == "quality" or (run.settings.kind == "bias" and block is not None)
    return int(block["delay_hours"]) if waits and block is not None else 0


def predictions_of(run: Run, *, limit: int = PREDICTIONS_LIMIT) -> Predictions:
    """Return the answered records of the window. Raises UnjudgedError when nothing was captured."""
    settings, contract = run.settings, run.contract
    if isinstance(settings, ModelMonitorEngine):
        where = settings.dataset_source
        found = read_predictions(read_folder(pathlib.Path(where)), contract, limit=limit)
    else:
        client = boto3.client("s3")
        window = settings.window.earlier(delay_of(run))
        truths, damaged = dict[str, str](), dict[str, int]()
        if settings.ground_truth_uri is not None and settings.kind in ("quality", "bias"):
            bucket, key = bucket_and_key(settings.ground_truth_uri)
            keys = truth_keys(client, bucket, key, window.start, settings.window.end)
            truths, damaged = read_ground_truth(
                client.get_object(Bucket=bucket, Key=one)["Body"].read() for one in keys
            )
        bucket, key = bucket_and_key(settings.capture_uri)
        prefix = f"{key.rstrip('/')}/{settings.endpoint}/".lstrip("/")
        folders = hour_prefixes(client, bucket, prefix, window.hours())
        found = read_predictions(
            read_bucket(client, bucket, folders), contract, truths=truths, limit=limit, damaged=damaged
        )
        where = f"{settings.capture_uri} from {window}"
    if not found.files:
        raise UnjudgedError(f"nothing was captured in {where}")
    return found


def enough(found: Predictions, minimum: int) -> None:
    """Raise UnjudgedError when fewer predictions were captured than a verdict needs."""
    if found.frame.height < minimum:
        unread = f"; {sum(found.damaged.values())} could not be read" if found.damaged else ""
        raise UnjudgedError(
            f"{found.frame.height} predictions were captured, at least {minimum} are needed to judge{unread}"
        )


def approved_of(run: Run) -> Approved:
    """Return the approved package."""
    parameter = run.settings.approved_model_parameter
    if parameter is None:
        raise UnjudgedError("no baseline is mounted, and APPROVED_MODEL_PARAMETER names no package")
    return Approved.named_by(parameter)


def mounted_constraints(run: Run) -> tuple[dict[str, Any], str] | None:
    """Return what Model Monitor's job definition says the window is held against, where it says so."""
    settings = run.settings
    if not isinstance(settings, ModelMonitorEngine) or settings.mounted_constraints is None:
        return None
    file = pathlib.Path(settings.mounted_constraints)
    if not file.is_file():
        raise UnjudgedError(f"the baseline {file} is not mounted")
    return read_document(file.read_bytes(), str(file)), str(file)


def good(run: Run, values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Whether decisions or labels are good for whom they are about."""
    numbers = run.contract.label.values is None
    return favourable(run.contract, values if numbers else values.astype(np.int64))
