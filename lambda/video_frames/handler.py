"""Lambda entry point ``video_frames.handler.handler``: pictures of a Kinesis video stream to S3.

A schedule calls it with ``{"until": "<ISO time>"}``, the time that the schedule fired; the pictures of the
minute that ended a minute before are brought, so that late fragments are there. Their names follow from the
stream and their time: a call that comes again writes the same objects. A minute without fragments brings
none.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

import boto3
from botocore.exceptions import ClientError

__all__ = ["handler", "key_of", "pictures", "span"]

log = logging.getLogger()
log.setLevel(logging.INFO)

#: Fragments of a minute may still arrive in the next one.
_DELAY = dt.timedelta(minutes=1)
_SPAN = dt.timedelta(minutes=1)
#: Amazon Kinesis Video Streams, GetImages: MaxResults.
_PAGE = 100


def handler(event: Mapping[str, Any], _context: object) -> dict[str, int]:
    """Bring the pictures of one minute; return how many there were, and how many could not be made."""
    stream = os.environ["STREAM_NAME"]
    since, until = span(event["until"])
    video = boto3.client("kinesisvideo")
    endpoint = video.get_data_endpoint(StreamName=stream, APIName="GET_IMAGES")["DataEndpoint"]
    archive = boto3.client("kinesis-video-archived-media", endpoint_url=endpoint)
    s3 = boto3.client("s3")
    counts = {"written": 0, "no_media": 0, "media_errors": 0}
    interval = int(os.environ["INTERVAL_MILLISECONDS"])
    for moment, picture in pictures(archive, stream, since, until, interval):
        if isinstance(picture, str):
            counts["no_media" if picture == "NO_MEDIA" else "media_errors"] += 1
            continue
        s3.put_object(
            Bucket=os.environ["BUCKET"],
            Key=key_of(os.environ["PREFIX"], stream, moment),
            Body=picture,
            ContentType="image/jpeg",
        )
        counts["written"] += 1
    log.info(json.dumps({"message": "pictures", "stream": stream, **counts}))
    return counts


def span(until: str) -> tuple[dt.datetime, dt.datetime]:
    """The minute to bring: whole, and a minute behind ``until``."""
    end = dt.datetime.fromisoformat(until).astimezone(dt.UTC).replace(second=0, microsecond=0) - _DELAY
    return end - _SPAN, end


def pictures(
    archive: Any, stream: str, since: dt.datetime, until: dt.datetime, interval: int
) -> Iterator[tuple[dt.datetime, bytes | str]]:
    """Time and JPEG of each sample; ``NO_MEDIA`` or ``MEDIA_ERROR`` where there is none (GetImages)."""
    token: dict[str, str] = {}
    while True:
        try:
            answer = archive.get_images(
                StreamName=stream,
                ImageSelectorType="PRODUCER_TIMESTAMP",
                StartTimestamp=since,
                EndTimestamp=until,
                SamplingInterval=interval,
                Format="JPEG",
                MaxResults=_PAGE,
                **token,
            )
        except ClientError as error:
            # No fragment in this span.
            if error.response["Error"]["Code"] == "ResourceNotFoundException":
                return
            raise
        for image in answer["Images"]:
            content = image.get("ImageContent")
            yield image["TimeStamp"], base64.b64decode(content) if content else image.get("Error", "NO_MEDIA")
        if "NextToken" not in answer:
            return
        token = {"NextToken": answer["NextToken"]}


def key_of(prefix: str, stream: str, moment: dt.datetime) -> str:
    """Key of a picture: by day, named by its time in UTC to the millisecond."""
    utc = moment.astimezone(dt.UTC)
    name = f"{utc:%Y%m%dT%H%M%S}{utc.microsecond // 1000:03d}Z.jpg"
    return f"{prefix}{stream}/date={utc:%Y-%m-%d}/{name}"
