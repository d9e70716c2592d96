"""Which rows a training set holds, and what they were made from: for whoever asks it of a prediction later.

``lineage.json`` says of what the set was made: the features' place and files (each with the hash of its
content, so that its version in the bucket can be found again), the snapshot of the curated rows behind them,
the contract, the split. ``records.parquet`` names every record with its event time and its part.

A record is named by its identifier, unless that is personal data: then by
``ml_contract.records.lineage.record_key``.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from typing import Any

import polars as pl
from ml_contract.compiled import CompiledContract
from ml_contract.records.lineage import record_key
from ml_runtime.job import BadInputError
from ml_runtime.tables import parquet_files, write_table

__all__ = ["require_whole", "write_lineage"]

FILE = "lineage.json"
RECORDS = "records.parquet"
#: What the job that built the features says of the rows it built them from.
SNAPSHOT_FILE = "_snapshot.json"
_CHUNK = 1 << 20


def write_lineage(
    parts: dict[str, pl.DataFrame],
    contract: CompiledContract,
    *,
    features: pathlib.Path,
    config: pathlib.Path,
    target: pathlib.Path,
) -> None:
    """Write both files below ``target``.

    Args:
        parts: the rows of each part.
        contract: the workload's.
        features: the folder that the features were read from.
        config: SageMaker's folder of the job's own description; without one nothing is said of the job.
        target: where they go.
    """
    identifier = contract.by_name[contract.identifier]
    hashed = identifier.sensitive == "pii"
    tables = []
    for name, part in parts.items():
        texts = part[contract.identifier].cast(pl.String)
        if hashed:
            texts = pl.Series([record_key(contract.name, text) for text in texts], dtype=pl.String)
        tables.append(
            pl.DataFrame({"record": texts, "event_time": part[contract.event_time]}).with_columns(
                pl.lit(name).alias("part")
            )
        )
    write_table(pl.concat(tables).sort("part", "record", "event_time"), target / RECORDS)
    snapshot = features / SNAPSHOT_FILE
    document = {
        "version": 1,
        "workload": contract.name,
        "contract": hashlib.sha256(contract.to_json().encode()).hexdigest(),
        "records": RECORDS,
        "named_by": "record_key" if hashed else contract.identifier,
        "rows": {name: part.height for name, part in parts.items()},
        "split": contract.split,
        "features": {
            "columns": [name for name, _ in contract.feature_columns()],
            "snapshot": json.loads(snapshot.read_text()) if snapshot.is_file() else None,
            "files": [
                {"file": path.relative_to(features).as_posix(), "sha256": _sha256(path)}
                for path in parquet_files(features)
            ],
        },
        "job": _job(config / "processingjobconfig.json"),
    }
    (target / FILE).write_text(json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n")


def require_whole(features: pathlib.Path, rows: int) -> None:
    """Refuse feature rows that the job which writes them has not ended with, by its note beside them.

    Args:
        features: the folder that they were read from.
        rows: how many were read.

    Raises:
        BadInputError: they are being written, or their writer died; a model would learn from a part of them,
            or from some twice.
    """
    note = features / SNAPSHOT_FILE
    told = json.loads(note.read_text()) if note.is_file() else {}
    noted = told.get("rows")
    if told.get("writing") or (isinstance(noted, int) and noted != rows):
        wanted = "" if noted is None else f" of {noted}"
        raise BadInputError(
            f"the features under {features} are not whole, {rows} rows{wanted} are there: "
            "the job that builds them is at it, or died; run it to its end, then train"
        )


def _sha256(path: pathlib.Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _job(file: pathlib.Path) -> dict[str, Any] | None:
    """Name of the job and where its inputs lie, as SageMaker says it inside the container."""
    if not file.is_file():
        return None
    config = json.loads(file.read_text())
    return {
        "name": config.get("ProcessingJobName"),
        "arn": config.get("ProcessingJobArn"),
        "inputs": {
            item["InputName"]: (item.get("S3Input") or {}).get("S3Uri")
            for item in config.get("ProcessingInputs") or ()
        },
    }
