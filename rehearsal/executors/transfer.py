"""How SageMaker moves data between S3 and a container: under the job's role, so that its policies count."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rehearsal import ministack_bridge as bridge
from rehearsal.iam import AccessDeniedError

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = [
    "TransferError",
    "download",
    "download_tar",
    "fetch",
    "listed",
    "pack",
    "relative",
    "split_uri",
    "upload",
    "upload_file",
]


class TransferError(Exception):
    """Data that could not be moved; the text is what a job gives as its failure reason."""


def split_uri(uri: str) -> tuple[str, str]:
    """The bucket and the key of an S3 URI.

    :raises TransferError: it is not one
    """
    parts = urlsplit(uri)
    if parts.scheme != "s3" or not parts.netloc:
        raise TransferError(f"ClientError: {uri!r} is not an S3 URI such as s3://bucket/prefix/")
    return parts.netloc, parts.path.removeprefix("/")


def _client(runtime: Runtime, role: str, region: str) -> Any:
    return runtime.client("s3", role=role, region=region)


def _keys(client: Any, bucket: str, prefix: str) -> Iterator[str]:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", ()):
            if not item["Key"].endswith("/"):
                yield item["Key"]


def listed(runtime: Runtime, uri: str, *, role: str, region: str) -> list[str]:
    """The URIs of all objects below an S3 prefix, in order.

    :raises TransferError: the role may not list them
    """
    from botocore.exceptions import ClientError

    bucket, prefix = split_uri(uri)
    try:
        return [f"s3://{bucket}/{key}" for key in _keys(_client(runtime, role, region), bucket, prefix)]
    except ClientError as error:
        raise TransferError(f"ClientError: {uri}: {error}") from error


def relative(key: str, prefix: str) -> str:
    """Where a key stands below a prefix; the prefix itself is a file of its name."""
    folder = prefix.rstrip("/") + "/"
    if key == prefix:
        return key.rsplit("/", 1)[-1]
    if key.startswith(folder):
        return key[len(folder) :]
    return key[prefix.rfind("/") + 1 :]


def download(runtime: Runtime, uri: str, to: Path, *, role: str, region: str) -> int:
    """Copy every object below an S3 prefix into a folder; the number of files.

    :raises TransferError: nothing is there, or the role may not read it
    """
    from botocore.exceptions import ClientError

    bucket, prefix = split_uri(uri)
    client = _client(runtime, role, region)
    to.mkdir(parents=True, exist_ok=True)
    count = 0
    try:
        for key in _keys(client, bucket, prefix):
            target = to / relative(key, prefix)
            if not target.resolve().is_relative_to(to.resolve()):
                raise TransferError(f"ClientError: the key {key!r} leads out of the folder of its input")
            target.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, key, str(target))
            count += 1
    except ClientError as error:
        raise TransferError(f"ClientError: Data download failed: {uri}: {error}") from error
    if not count:
        raise TransferError(f"ClientError: Data download failed: no S3 objects found under {uri}")
    return count


def fetch(runtime: Runtime, uri: str, *, role: str, region: str) -> bytes:
    """The content of one object.

    :raises TransferError: it is not there, or the role may not read it
    """
    from botocore.exceptions import ClientError

    bucket, key = split_uri(uri)
    try:
        content: bytes = _client(runtime, role, region).get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        raise TransferError(f"ClientError: {uri}: {error}") from error
    return content


def upload_file(
    runtime: Runtime, file: Path, uri: str, *, role: str, region: str, kms_key: str | None = None
) -> None:
    """Put one file at an S3 URI.

    :raises TransferError: the role may not write it
    """
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import ClientError

    bucket, key = split_uri(uri)
    if kms_key is not None:
        _require_encrypt(runtime, kms_key, uri, role=role, region=region)
    extra = {} if kms_key is None else {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key}
    try:
        _client(runtime, role, region).upload_file(str(file), bucket, key, ExtraArgs=extra)
    except (ClientError, S3UploadFailedError) as error:
        raise TransferError(f"ClientError: Data upload failed: {uri}: {error}") from error


def _require_encrypt(runtime: Runtime, kms_key: str, uri: str, *, role: str, region: str) -> None:
    """Ask for the permission that SageMaker asks for beside S3's own (OutputDataConfig, KmsKeyId)."""
    principal = runtime.identities.principal(runtime.identities.for_role(role).access_key_id)
    if principal is None:
        return  # a role of the CDK's own
    arn = bridge.kms_key_arn(kms_key, account=principal.account, region=region)
    if arn is None:
        raise TransferError(f"ClientError: Data upload failed: {uri}: there is no key {kms_key}")
    try:
        check = bridge.Check(action="kms:Encrypt", resource=arn)
        runtime.authorizer.require(principal, "kms", [check], region)
    except AccessDeniedError as denied:
        raise TransferError(f"ClientError: Data upload failed: {uri}: {denied}") from denied


def upload(
    runtime: Runtime, folder: Path, uri: str, *, role: str, region: str, kms_key: str | None = None
) -> int:
    """Put every file of a folder below an S3 prefix; the number of files.

    :raises TransferError: the role may not write there
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for file in files:
        target = f"{uri.rstrip('/')}/{file.relative_to(folder).as_posix()}"
        upload_file(runtime, file, target, role=role, region=region, kms_key=kms_key)
    return len(files)


def pack(folder: Path, archive: Path) -> int:
    """Write the content of a folder as a gzipped tar, as SageMaker packs a model; the number of files."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with tarfile.open(archive, "w:gz") as tar:
        for file in files:
            tar.add(file, arcname=file.relative_to(folder).as_posix(), recursive=False)
    return len(files)


def download_tar(runtime: Runtime, uri: str, to: Path, *, role: str, region: str) -> None:
    """Unpack a `model.tar.gz` into a folder.

    :raises TransferError: it is not there, is no tar, or the role may not read it
    """
    from botocore.exceptions import ClientError

    bucket, key = split_uri(uri)
    to.mkdir(parents=True, exist_ok=True)
    archive = to.parent / f"{to.name}.tar.gz"
    try:
        _client(runtime, role, region).download_file(bucket, key, str(archive))
    except ClientError as error:
        raise TransferError(f"The model data {uri} could not be downloaded: {error}") from error
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(to, filter="data")
    except tarfile.TarError as error:
        raise TransferError(f"The model data {uri} is no tar archive: {error}") from error
    finally:
        archive.unlink()
