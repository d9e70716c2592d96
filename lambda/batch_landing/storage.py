"""S3 as landing uses it; errors of AWS become the function's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from batch_landing.errors import told_apart

__all__ = ["Content", "Store", "Stored"]

_CHUNK = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One version of an object."""

    key: str
    version: str | None
    etag: str
    size: int
    #: ISO 8601, UTC, milliseconds.
    modified: str


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a downloaded file holds, by its digests.

    S3's own ETag does not tell: of an object under a KMS key it is another one for each upload (Amazon S3 API
    reference, "Object", ETag).
    """

    blake2b: str
    sha256: str


class Store:
    """Objects of one bucket."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client = client
        self.bucket = bucket

    def look(self, key: str, version: str | None = None) -> Stored | None:
        """The object's version, None when it is not there."""
        which = {"VersionId": version} if version is not None else {}
        try:
            found = self._client.head_object(Bucket=self.bucket, Key=key, **which)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return None
            raise told_apart(error) from error
        except BotoCoreError as error:
            raise told_apart(error) from error
        modified = found["LastModified"].strftime("%Y-%m-%dT%H:%M:%S.000Z")
        return Stored(
            key=key,
            version=found.get("VersionId", version),
            etag=found["ETag"].strip('"'),
            size=found["ContentLength"],
            modified=modified,
        )

    def download(self, stored: Stored, path: Path) -> Content:
        """Write the version to ``path`` in chunks; return its digests."""
        which = {"VersionId": stored.version} if stored.version is not None else {}
        ours, theirs = blake2b(digest_size=16), sha256()
        with _told_apart(), path.open("wb") as file:
            body = self._client.get_object(Bucket=self.bucket, Key=stored.key, **which)["Body"]
            for chunk in body.iter_chunks(_CHUNK):
                file.write(chunk)
                ours.update(chunk)
                theirs.update(chunk)
        return Content(blake2b=ours.hexdigest(), sha256=theirs.hexdigest())

    def read(self, key: str, version: str | None = None, *, most: int) -> bytes | None:
        """The first ``most`` bytes of an object, None when it is not there."""
        which = {"VersionId": version} if version is not None else {}
        try:
            body = self._client.get_object(Bucket=self.bucket, Key=key, **which)["Body"]
            found: bytes = body.read(most)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return None
            raise told_apart(error) from error
        except BotoCoreError as error:
            raise told_apart(error) from error
        return found

    def read_json(self, key: str) -> Any:
        """A small JSON object of our own, None when it is not there."""
        found = self.read(key, most=_CHUNK)
        return None if found is None else json.loads(found)

    def upload(self, path: Path, key: str) -> None:
        """Store a file; a large one in parts."""
        with _told_apart():
            self._client.upload_file(str(path), self.bucket, key)

    def write(self, key: str, body: bytes) -> None:
        """Store bytes."""
        with _told_apart():
            self._client.put_object(Bucket=self.bucket, Key=key, Body=body)

    def claim(self, key: str, value: dict[str, Any]) -> dict[str, Any]:
        """Store JSON unless the key has some already; return what the key holds then.

        Of those who ask at once, one is first (Amazon S3, "Conditional writes").
        """
        body = json.dumps(value, sort_keys=True).encode()
        try:
            self._client.put_object(
                Bucket=self.bucket, Key=key, Body=body, ContentType="application/json", IfNoneMatch="*"
            )
        except ClientError as error:
            # 409: somebody else is writing it at this moment.
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 412:
                found: dict[str, Any] = self.read_json(key)
                return found
            raise told_apart(error) from error
        except BotoCoreError as error:
            raise told_apart(error) from error
        return value


@contextmanager
def _told_apart() -> Iterator[None]:
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise told_apart(error) from error
