"""``s3://`` paths of Spark readers and writers, through boto3 instead of a Hadoop file system.

``install`` wraps the path methods of ``DataFrameReader`` and ``DataFrameWriter``. A read fetches the objects
first and hands Spark a local folder; a write lets Spark write a local folder and then does to the bucket what
the save mode says. Other paths pass unchanged.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrameReader, DataFrameWriter

SCHEMES = ("s3://", "s3a://", "s3n://")
TRANSFERS = 8
_DELETE_BATCH = 1_000
_GLOB = set("*?[{")


def is_s3(path: object) -> bool:
    """Whether a path is in S3."""
    return isinstance(path, str) and path.startswith(SCHEMES)


def _visible(key: str, folder: str) -> bool:
    """Whether Spark sees this object of a folder: names that begin with ``_`` or ``.`` are hidden."""
    parts = key.removeprefix(folder).split("/")
    hidden = any(part.startswith(("_", ".")) and "=" not in part for part in parts)
    return key.startswith(folder) and not key.endswith("/") and not hidden


class Mirror:
    """Local copies of objects, for the life of the process."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._numbers = itertools.count(1)
        self._client: Any = None

    @property
    def s3(self) -> Any:
        """The client; it acts as the job's role, whose credentials stand in the environment."""
        if self._client is None:
            settings = Config(s3={"addressing_style": "path"}, max_pool_connections=TRANSFERS)
            self._client = boto3.client("s3", config=settings)
        return self._client

    def pull(self, uri: str) -> str:
        """Fetch an object, or the visible objects of a folder; returns the local path."""
        bucket, key = _split(uri)
        self._status(bucket, key.rstrip("/"))
        if _GLOB & set(key):
            raise NotImplementedError(f"globs are not expanded here, got {uri!r}; name the folder")
        target = self._root / f"read-{next(self._numbers)}" / bucket
        folder = key if key.endswith("/") or not key else f"{key}/"
        wanted = [found for found in self._list(bucket, key) if found == key or _visible(found, folder)]
        if not wanted:
            raise AnalysisException(f"[PATH_NOT_FOUND] Path does not exist: {uri}.")
        for found in wanted:
            (target / found).parent.mkdir(parents=True, exist_ok=True)

        def fetch(item: str) -> None:
            body = self.s3.get_object(Bucket=bucket, Key=item)["Body"].read()
            (target / item).write_bytes(body)

        with ThreadPoolExecutor(TRANSFERS) as pool:
            list(pool.map(fetch, wanted))
        # As a URI "=" would be escaped, and Hadoop does not read it back.
        return f"file://{target / key}"

    def new_output(self) -> Path:
        """A folder that does not exist yet, for Spark to write."""
        return self._root / f"write-{next(self._numbers)}"

    def holds_anything(self, uri: str) -> bool:
        """Whether a folder of the bucket has an object."""
        bucket, key = _split(uri)
        return next(iter(self._list(bucket, _folder(key))), None) is not None

    def push(self, local: Path, uri: str, *, replace: str) -> None:
        """Put what Spark wrote. ``replace``: ``nothing``, ``everything``, or ``partitions`` that it wrote."""
        bucket, key = _split(uri)
        folder = _folder(key)
        self._make_folders(bucket, key.strip("/"))
        files = [
            path
            for path in sorted(local.rglob("*"))
            if path.is_file() and not path.name.startswith(".") and not path.name.endswith(".crc")
        ]
        names = {path: path.relative_to(local).as_posix() for path in files}
        if replace == "everything":
            self._delete(bucket, self._list(bucket, folder))
        elif replace == "partitions":
            for parent in sorted({name.rpartition("/")[0] for name in names.values() if "=" in name}):
                self._delete(bucket, self._list(bucket, f"{folder}{parent}/"))

        def store(path: Path) -> None:
            self.s3.put_object(Bucket=bucket, Key=folder + names[path], Body=path.read_bytes())

        with ThreadPoolExecutor(TRANSFERS) as pool:
            list(pool.map(store, files))

    def _status(self, bucket: str, path: str) -> bool:
        """Ask whether a path is there as Hadoop's file systems do: for the key itself, then below it.

        A 403 is an error to them, as it is to S3's caller who may not list the bucket.
        """
        if not path:
            return True
        try:
            self.s3.head_object(Bucket=bucket, Key=path)
        except ClientError as error:
            if error.response["Error"]["Code"] != "404":
                raise PermissionError(f"{error} on s3://{bucket}/{path}") from error
        else:
            return True
        return next(iter(self._list(bucket, f"{path}/")), None) is not None

    def _make_folders(self, bucket: str, path: str) -> None:
        """Make the folders above what is written: an empty object stands for each, and is not left here."""
        parts = path.split("/")
        for count in range(1, len(parts) + 1):
            folder = "/".join(parts[:count])
            if not self._status(bucket, folder):
                marker = f"{folder}_$folder$"
                self.s3.put_object(Bucket=bucket, Key=marker, Body=b"")
                self.s3.delete_object(Bucket=bucket, Key=marker)

    def _list(self, bucket: str, prefix: str) -> Iterable[str]:
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", ()):
                yield item["Key"]

    def _delete(self, bucket: str, keys: Iterable[str]) -> None:
        waiting = iter(list(keys))
        while batch := list(itertools.islice(waiting, _DELETE_BATCH)):
            wanted = {"Objects": [{"Key": key} for key in batch], "Quiet": True}
            errors = self.s3.delete_objects(Bucket=bucket, Delete=wanted).get("Errors")
            if errors:
                raise PermissionError(f"{bucket}: {errors[0].get('Key')}: {errors[0].get('Message')}")


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.split("://", 1)[1].partition("/")
    return bucket, key


def _folder(key: str) -> str:
    return key if key.endswith("/") or not key else f"{key}/"


@functools.cache
def mirror() -> Mirror:
    """The process's mirror, in ``GLUE_LOCAL_ROOT`` or, if that is not set, in the temporary folder."""
    root = os.environ.get("GLUE_LOCAL_ROOT")
    if root is not None:
        Path(root).mkdir(parents=True, exist_ok=True)
    return Mirror(Path(tempfile.mkdtemp(prefix="s3-", dir=root)))


def _localised(path: Any) -> Any:
    if isinstance(path, (list, tuple)):
        return [_localised(one) for one in path]
    return mirror().pull(path) if is_s3(path) else path


def _reading(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def read(self: DataFrameReader, *args: Any, **kwargs: Any) -> Any:
        for name in ("path", "paths"):
            if name in kwargs:
                kwargs[name] = _localised(kwargs[name])
        return original(self, *(_localised(one) for one in args), **kwargs)

    return read


def _writing(original: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def write(self: Any, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(self, *args, **kwargs)
        uri: Any = bound.arguments.get("path")
        if not is_s3(uri):
            return original(self, *args, **kwargs)
        mode = bound.arguments.get("mode") or getattr(self, "_s3_mode", None) or "error"
        partitioned = bool(bound.arguments.get("partitionBy") or getattr(self, "_s3_partitions", None))
        if mode in ("error", "errorifexists", "default") and mirror().holds_anything(uri):
            raise AnalysisException(f"[PATH_ALREADY_EXISTS] Path {uri} already exists.")
        if mode == "ignore" and mirror().holds_anything(uri):
            return None
        local = mirror().new_output()
        bound.arguments["path"] = f"file://{local}"
        bound.arguments["mode"] = "error"
        original(*bound.args, **bound.kwargs)
        mirror().push(local, uri, replace=_replaced(self, mode, partitioned))
        return None

    return write


def _replaced(writer: Any, mode: str, partitioned: bool) -> str:
    if mode != "overwrite":
        return "nothing"
    setting = getattr(writer, "_s3_overwrite_mode", None)
    if setting is None:
        setting = writer._spark.conf.get("spark.sql.sources.partitionOverwriteMode", "static")
    return "partitions" if partitioned and setting.lower() == "dynamic" else "everything"


def _remembering(original: Callable[..., Any], attribute: str) -> Callable[..., Any]:
    @functools.wraps(original)
    def remember(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = [*args, *kwargs.values()]
        if given and given[0] is not None:
            setattr(self, attribute, given[0])
        return original(self, *args, **kwargs)

    return remember


def _remembering_option(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def option(self: Any, key: str, value: Any) -> Any:
        if key.lower() == "partitionoverwritemode":
            self._s3_overwrite_mode = str(value)
        return original(self, key, value)

    return option


def _remembering_options(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def options(self: Any, **given: Any) -> Any:
        for key, value in given.items():
            if key.lower() == "partitionoverwritemode":
                self._s3_overwrite_mode = str(value)
        return original(self, **given)

    return options


def install() -> None:
    """Wrap Spark's readers and writers, once."""
    if getattr(DataFrameReader, "_s3_installed", False):
        return
    for name in ("parquet", "orc", "json", "csv", "text", "load"):
        setattr(DataFrameReader, name, _reading(getattr(DataFrameReader, name)))
    for name in ("parquet", "orc", "json", "csv", "text", "save"):
        setattr(DataFrameWriter, name, _writing(getattr(DataFrameWriter, name)))
    wrapped: Any = DataFrameWriter
    wrapped.mode = _remembering(DataFrameWriter.mode, "_s3_mode")
    wrapped.partitionBy = _remembering(DataFrameWriter.partitionBy, "_s3_partitions")
    wrapped.option = _remembering_option(DataFrameWriter.option)
    wrapped.options = _remembering_options(DataFrameWriter.options)
    marked: Any = DataFrameReader
    marked._s3_installed = True
