"""Pictures of a video stream: which minute, every page, the same names each time, what there is none of."""

from __future__ import annotations

import base64
import datetime as dt
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st
from video_frames import handler as module
from video_frames.handler import handler, key_of, span

EVENT = {"until": "2026-03-01T10:05:00Z"}
SINCE = dt.datetime(2026, 3, 1, 10, 3, tzinfo=dt.UTC)
UNTIL = dt.datetime(2026, 3, 1, 10, 4, tzinfo=dt.UTC)


def image(second: float, *, error: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"TimeStamp": SINCE + dt.timedelta(seconds=second)}
    if error is None:
        return {**found, "ImageContent": base64.b64encode(f"jpeg {second}".encode()).decode()}
    return {**found, "Error": error}


class Cloud:
    """Kinesis Video Streams and S3 in one."""

    def __init__(self, *pages: list[dict[str, Any]], code: str | None = None) -> None:
        self.pages = pages
        self.code = code
        self.asked: list[dict[str, Any]] = []
        self.objects: dict[str, bytes] = {}

    def client(self, service: str, **options: str) -> Cloud:
        if service == "kinesis-video-archived-media":
            assert options == {"endpoint_url": "https://media"}
        return self

    def get_data_endpoint(self, **asked: str) -> dict[str, str]:
        assert asked == {"StreamName": "gate", "APIName": "GET_IMAGES"}
        return {"DataEndpoint": "https://media"}

    def get_images(self, **asked: Any) -> dict[str, Any]:
        self.asked.append(asked)
        if self.code is not None:
            raise ClientError({"Error": {"Code": self.code, "Message": "no"}}, "GetImages")
        page = int(asked.get("NextToken", "0"))
        more = {"NextToken": str(page + 1)} if page + 1 < len(self.pages) else {}
        return {"Images": self.pages[page] if self.pages else [], **more}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, ContentType: str) -> None:  # noqa: N803
        assert (Bucket, ContentType) == ("raw", "image/jpeg")
        self.objects[Key] = Body


def run(cloud: Cloud, patch: pytest.MonkeyPatch, event: dict[str, str] = EVENT) -> dict[str, int]:
    patch.setattr(module.boto3, "client", cloud.client)
    variables = {
        "STREAM_NAME": "gate",
        "BUCKET": "raw",
        "PREFIX": "video/",
        "INTERVAL_MILLISECONDS": "3000",
    }
    for name, value in variables.items():
        patch.setenv(name, value)
    return handler(event, None)


def test_should_bring_every_page_of_the_minute_before_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = Cloud([image(0), image(3)], [image(6.5)])
    assert run(cloud, monkeypatch) == {"written": 3, "no_media": 0, "media_errors": 0}
    assert cloud.objects == {
        "video/gate/date=2026-03-01/20260301T100300000Z.jpg": b"jpeg 0",
        "video/gate/date=2026-03-01/20260301T100303000Z.jpg": b"jpeg 3",
        "video/gate/date=2026-03-01/20260301T100306500Z.jpg": b"jpeg 6.5",
    }
    first, second = cloud.asked
    assert (first["StartTimestamp"], first["EndTimestamp"]) == (SINCE, UNTIL)
    assert (first["SamplingInterval"], first["Format"]) == (3000, "JPEG")
    assert "NextToken" not in first
    assert second["NextToken"] == "1"


def test_should_count_what_there_is_no_picture_of(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = Cloud([image(0), image(3, error="NO_MEDIA"), image(6, error="MEDIA_ERROR")])
    assert run(cloud, monkeypatch) == {"written": 1, "no_media": 1, "media_errors": 1}
    assert len(cloud.objects) == 1


def test_should_bring_none_of_a_minute_without_fragments(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = {"written": 0, "no_media": 0, "media_errors": 0}
    assert run(Cloud(), monkeypatch) == nothing
    assert run(Cloud(code="ResourceNotFoundException"), monkeypatch) == nothing


@pytest.mark.parametrize("code", ["ClientLimitExceededException", "NotAuthorizedException"])
def test_should_fail_with_the_client_s_error_so_that_the_schedule_calls_again(
    code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ClientError, match=code):
        run(Cloud(code=code), monkeypatch)


def test_should_write_the_same_objects_when_called_again(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = Cloud([image(0), image(3)])
    run(cloud, monkeypatch)
    before = dict(cloud.objects)
    run(cloud, monkeypatch, {"until": "2026-03-01T11:05:59+01:00"})
    assert cloud.objects == before


@settings(max_examples=200, deadline=None)
@given(st.datetimes(min_value=dt.datetime(2020, 1, 1), max_value=dt.datetime(2035, 1, 1)))
def test_should_bring_each_minute_once(moment: dt.datetime) -> None:
    due = moment.replace(tzinfo=dt.UTC)
    since, until = span(due.isoformat())
    assert until - since == dt.timedelta(minutes=1)
    assert (until.second, until.microsecond) == (0, 0)
    assert dt.timedelta(minutes=1) <= due - until < dt.timedelta(minutes=2)
    # The next call begins where this one ended.
    assert span((due + dt.timedelta(minutes=1)).isoformat())[0] == until


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 86_400_000 * 3), min_size=2, max_size=20, unique=True))
def test_should_name_pictures_by_their_time_and_in_its_order(offsets: list[int]) -> None:
    moments = [SINCE + dt.timedelta(milliseconds=offset) for offset in sorted(offsets)]
    keys = [key_of("video/", "gate", moment) for moment in moments]
    assert keys == sorted(set(keys))
    elsewhere = dt.timezone(dt.timedelta(hours=9))
    assert [key_of("video/", "gate", moment.astimezone(elsewhere)) for moment in moments] == keys
