"""Objects under an S3 prefix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

#: DeleteObjects takes at most this many keys (S3 API reference).
DELETE_BATCH = 1_000


@dataclass(frozen=True)
class S3Uri:
    """``s3://bucket/key`` taken apart."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Read ``s3://bucket/key``; the key may be empty."""
        scheme, _, rest = uri.partition("://")
        bucket, _, key = rest.partition("/")
        if scheme not in ("s3", "s3a", "s3n") or not bucket:
            raise ValueError(f"an S3 URI looks like s3://bucket/prefix/, got {uri!r}")
        return cls(bucket, key)

    def __str__(self) -> str:
        """The URI as text."""
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class StoredObject:
    """One object of a listing."""

    uri: str
    key: str
    size: int
    modified: datetime


def hidden(relative_key: str) -> bool:
    """Whether Spark, crawlers and Athena skip this path: a part of it starts with ``_`` or ``.``.

    A part with ``=`` is a partition and is never hidden.
    """
    return any(part.startswith(("_", ".")) and "=" not in part for part in relative_key.split("/"))


def list_objects(s3: Any, uri: str) -> Iterator[StoredObject]:
    """Every visible object under a folder, in key order."""
    folder = S3Uri.parse(uri)
    prefix = folder.key if folder.key.endswith("/") or not folder.key else f"{folder.key}/"
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=folder.bucket, Prefix=prefix):
        for item in page.get("Contents", ()):
            key = item["Key"]
            if key.endswith("/") or hidden(key[len(prefix) :]):
                continue
            yield StoredObject(f"s3://{folder.bucket}/{key}", key, item["Size"], item["LastModified"])


def read_text(s3: Any, uri: str) -> str:
    """The text of one object."""
    where = S3Uri.parse(uri)
    body: bytes = s3.get_object(Bucket=where.bucket, Key=where.key)["Body"].read()
    return body.decode("utf-8")


def write_text(s3: Any, uri: str, text: str, content_type: str = "application/json") -> None:
    """Write one object."""
    where = S3Uri.parse(uri)
    s3.put_object(Bucket=where.bucket, Key=where.key, Body=text.encode("utf-8"), ContentType=content_type)


def delete_objects(s3: Any, bucket: str, keys: Iterable[str]) -> int:
    """Delete keys; raises when S3 keeps one. In a versioned bucket they stay recoverable."""
    doomed = list(keys)
    for start in range(0, len(doomed), DELETE_BATCH):
        part = doomed[start : start + DELETE_BATCH]
        answer = s3.delete_objects(
            Bucket=bucket, Delete={"Objects": [{"Key": key} for key in part], "Quiet": True}
        )
        errors = answer.get("Errors")
        if errors:
            first = errors[0]
            raise RuntimeError(
                f"{len(errors)} of {len(part)} objects of {bucket} were not deleted; "
                f"first: {first.get('Key')}: {first.get('Code')} {first.get('Message')}"
            )
    return len(doomed)


def partition_of(key: str, column: str) -> str | None:
    """Value of a ``column=value`` part of a key."""
    marker = f"{column}="
    return next((part[len(marker) :] for part in key.split("/") if part.startswith(marker)), None)


def remove_other_partitions(s3: Any, uri: str, column: str, keep: Iterable[str]) -> list[str]:
    """Remove the partitions that a full rebuild no longer produces; returns their values.

    Dynamic partition overwrite replaces only what it writes: a month whose last row moved away would stay.
    """
    kept = set(keep)
    stale: dict[str, list[str]] = {}
    for item in list_objects(s3, uri):
        value = partition_of(item.key, column)
        if value is not None and value not in kept:
            stale.setdefault(value, []).append(item.key)
    bucket = S3Uri.parse(uri).bucket
    for keys in stale.values():
        delete_objects(s3, bucket, keys)
    return sorted(stale)
