"""The quarantine on S3, and which of its errors are worth another try."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from record_transform.errors import MisconfiguredError, TransientError

__all__ = ["Quarantine"]


class Quarantine:
    """Writes refused records below a prefix. Needs ``s3:PutObject`` there and ``kms:GenerateDataKey``."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    def write(self, key: str, lines: bytes) -> str:
        """Store ``lines`` under ``key``, again and again the same; return the object's URI."""
        path = f"{self._prefix}{key}"
        try:
            self._client.put_object(
                Bucket=self._bucket, Key=path, Body=lines, ContentType="application/x-ndjson"
            )
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status >= 500 or status in (408, 409, 429) or error.response["Error"]["Code"] == "SlowDown":
                raise TransientError(str(error)) from error
            raise MisconfiguredError(str(error)) from error
        except BotoCoreError as error:
            raise TransientError(str(error)) from error
        return f"s3://{self._bucket}/{path}"
