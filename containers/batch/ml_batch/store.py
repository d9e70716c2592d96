"""Files between the lake and this machine's disk."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
from botocore.config import Config
from lake_files.objects import S3Uri
from ml_runtime.job import base_folder

#: Files in transfer at once.
PARALLEL = 16


def s3_client() -> Any:
    """Return an S3 client that takes as many calls at once as there are transfers."""
    return boto3.client("s3", config=Config(max_pool_connections=PARALLEL, retries={"mode": "standard"}))


def glue_client(region: str | None) -> Any:
    """Return a client of the Data Catalog. S3 answers without a Region, Glue does not."""
    return boto3.client("glue", region_name=region)


def scratch(name: str) -> pathlib.Path:
    """Return an empty folder on the job's volume."""
    folder = base_folder() / "processing" / "scratch" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def fetch(s3: Any, uris: Sequence[str], folder: pathlib.Path) -> list[pathlib.Path]:
    """Download objects; returns the files in the order of the URIs."""

    def one(numbered: tuple[int, str]) -> pathlib.Path:
        number, uri = numbered
        where = S3Uri.parse(uri)
        path = folder / f"{number:06}.parquet"
        s3.download_file(where.bucket, where.key, str(path))
        return path

    with ThreadPoolExecutor(PARALLEL) as pool:
        return list(pool.map(one, enumerate(uris)))


def store(s3: Any, folder: pathlib.Path, uri: str) -> list[str]:
    """Upload every Parquet file below ``folder`` under its own path; returns the URIs."""
    target = S3Uri.parse(uri)

    def one(path: pathlib.Path) -> str:
        key = f"{target.key}{path.relative_to(folder).as_posix()}"
        s3.upload_file(str(path), target.bucket, key)
        return f"s3://{target.bucket}/{key}"

    with ThreadPoolExecutor(PARALLEL) as pool:
        return list(pool.map(one, sorted(folder.rglob("*.parquet"))))
