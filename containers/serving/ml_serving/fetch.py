"""The model where SageMaker mounts none: Lambda and ECS fetch it from S3, a device has it as a file."""

from __future__ import annotations

import pathlib
import tempfile
from urllib.parse import urlsplit

from ml_runtime.archive import SIZE_LIMIT, unpack
from ml_runtime.job import BadInputError, base_folder

__all__ = ["model_folder"]


def model_folder(url: str | None) -> pathlib.Path:
    """Return the folder of the model: SageMaker's mount, or what ``url`` was unpacked to.

    Raises:
        BadInputError: there is no such object, it may not be read, it is too large or no sound archive.
    """
    if url is None:
        return base_folder() / "model"
    parts = urlsplit(url)
    # Only here may anything be written: the rest of the file system is read-only.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="model-"))
    if parts.scheme == "file":
        unpack(pathlib.Path(parts.path), folder / "model")
        return folder / "model"
    archive = folder / "model.tar.gz"
    _download(url, archive)
    unpack(archive, folder / "model")
    archive.unlink()
    return folder / "model"


def _download(url: str, archive: pathlib.Path) -> None:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    parts = urlsplit(url)
    place = {"Bucket": parts.netloc, "Key": parts.path.lstrip("/")}
    try:
        s3 = boto3.client("s3")
        size = s3.head_object(**place)["ContentLength"]
        if size > SIZE_LIMIT:
            raise BadInputError(f"{url} has {size} bytes, allowed are {SIZE_LIMIT}")
        s3.download_file(place["Bucket"], place["Key"], str(archive))
    except (BotoCoreError, ClientError) as error:
        raise BadInputError(f"{url} cannot be read: {error}") from error
