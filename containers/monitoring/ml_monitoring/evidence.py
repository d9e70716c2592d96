"""What a verdict needs, fetched: objects, the approved model package, the baselines that travel with it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import boto3
import botocore.exceptions
from ml_runtime.archive import unpack
from ml_runtime.job import BadInputError
from ml_runtime.model import Model

__all__ = ["Approved", "UnjudgedError", "bucket_and_key", "read_document", "read_object"]

#: The value of the approval parameter before a first model is approved.
NO_MODEL = "none"


class UnjudgedError(Exception):
    """There is no evidence to judge: no verdict, which is something else than "no drift"."""


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Take an S3 URI apart."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket:
        raise BadInputError(f"expected s3://bucket/key, got {uri!r}")
    return bucket, key


@contextlib.contextmanager
def _absent(*codes: str, because: str) -> Iterator[None]:
    """Turn AWS's ways to say "there is none" into no verdict; anything else stays an error."""
    try:
        yield
    except botocore.exceptions.ClientError as error:
        code = error.response["Error"]["Code"]
        message = error.response["Error"].get("Message", "")
        # SageMaker says ValidationException both for what does not exist and for what is malformed.
        if code in codes and (
            code != "ValidationException" or "not exist" in message or "not found" in message
        ):
            raise UnjudgedError(f"{because} ({code}: {message})") from error
        raise


def read_object(s3: Any, uri: str) -> bytes:
    """Return an object's content; what is not there is no verdict."""
    bucket, key = bucket_and_key(uri)
    with _absent("NoSuchKey", "NoSuchBucket", because=f"{uri} does not exist"):
        try:
            content: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except botocore.exceptions.ClientError as error:
            # To who may list a part of the bucket only, S3 says 403 of what does not exist (GetObject,
            # "Permissions"); the listing of that part tells which it is.
            if error.response["Error"]["Code"] != "AccessDenied":
                raise
            page = s3.list_objects_v2(Bucket=bucket, Prefix=key)
            if any(item["Key"] == key for item in page.get("Contents", ())):
                raise
            raise UnjudgedError(f"{uri} does not exist") from error
    return content


def read_document(text: bytes, source: str) -> dict[str, Any]:
    """Return a JSON object; what is none is no baseline."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UnjudgedError(f"the baseline {source} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise UnjudgedError(f"the baseline {source} is no JSON object")
    return found


@dataclasses.dataclass(frozen=True)
class Approved:
    """The approved model package: what it was judged by travels with it."""

    arn: str
    package: Mapping[str, Any]

    @classmethod
    def named_by(cls, parameter: str) -> Approved:
        """Return the package that an SSM parameter names. Raises UnjudgedError when there is none."""
        with _absent("ParameterNotFound", because=f"the approval parameter {parameter} does not exist"):
            value = boto3.client("ssm").get_parameter(Name=parameter)["Parameter"]["Value"]
        if value == NO_MODEL:
            raise UnjudgedError("no model is approved yet")
        with _absent(
            "ValidationException", "ResourceNotFound", because=f"the model package {value} does not exist"
        ):
            package = boto3.client("sagemaker").describe_model_package(ModelPackageName=value)
        return cls(value, package)

    def baseline(self, kind: str, name: str, *, called: str) -> dict[str, Any]:
        """Return one document of ``DriftCheckBaselines``. Raises UnjudgedError when there is none."""
        uri = self.package.get("DriftCheckBaselines", {}).get(kind, {}).get(name, {}).get("S3Uri")
        if uri is None:
            raise UnjudgedError(f"the model package {self.arn} carries no {called} baseline")
        return read_document(read_object(boto3.client("s3"), uri), uri)

    def model(self, folder: pathlib.Path) -> Model:
        """Fetch and load the model into an empty folder."""
        containers = self.package.get("InferenceSpecification", {}).get("Containers", ())
        uri = next((one["ModelDataUrl"] for one in containers if "ModelDataUrl" in one), None)
        if uri is None:
            raise UnjudgedError(f"the model package {self.arn} has no model")
        archive = folder.with_suffix(".tar.gz")
        archive.write_bytes(read_object(boto3.client("s3"), uri))
        folder.mkdir()
        unpack(archive, folder)
        return Model.load(folder)
