"""Data capture: the lines and where they go."""

import base64
import json
import re
import threading
from datetime import UTC, datetime
from typing import Any

from rehearsal.executors.serving.capture import Capture, Captured, capture_line

CONFIG: dict[str, Any] = {
    "DestinationS3Uri": "s3://bucket/claims-fraud/capture/",
    "InitialSamplingPercentage": 100,
    "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
    "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"], "JsonContentTypes": ["application/json"]},
}
NOON = datetime(2026, 5, 4, 12, 30, 15, 250000, tzinfo=UTC)


def line(**changes: Any) -> dict[str, Any]:
    """A captured inference."""
    arguments: dict[str, Any] = {
        "config": CONFIG,
        "request": Captured(content_type="text/csv", body=b"1,2"),
        "response": Captured(content_type="application/json; charset=utf-8", body=b'{"p": 0.5}'),
        "inference_time": NOON,
        "event_id": "e-1",
        "inference_id": None,
    }
    found: dict[str, Any] = json.loads(capture_line(**arguments | changes))
    return found


def test_should_write_a_line_as_sagemaker_does() -> None:
    assert line() == {
        "captureData": {
            "endpointInput": {
                "observedContentType": "text/csv",
                "mode": "INPUT",
                "data": "1,2",
                "encoding": "CSV",
            },
            "endpointOutput": {
                "observedContentType": "application/json; charset=utf-8",
                "mode": "OUTPUT",
                "data": '{"p": 0.5}',
                "encoding": "JSON",
            },
        },
        "eventMetadata": {"eventId": "e-1", "inferenceTime": "2026-05-04T12:30:15Z"},
        "eventVersion": "0",
    }


def test_should_encode_what_is_neither_csv_nor_json() -> None:
    request = Captured(content_type="application/x-image", body=b"\xff\x00")
    captured = line(request=request)["captureData"]["endpointInput"]
    assert (base64.b64decode(captured["data"]), captured["encoding"]) == (b"\xff\x00", "BASE64")
    unlisted = line(config={k: v for k, v in CONFIG.items() if k != "CaptureContentTypeHeader"})
    assert unlisted["captureData"]["endpointInput"]["encoding"] == "BASE64"


def test_should_capture_only_the_sides_that_are_asked_for() -> None:
    only = line(config=CONFIG | {"CaptureOptions": [{"CaptureMode": "Output"}]}, inference_id="claim-7")
    assert list(only["captureData"]) == ["endpointOutput"]
    assert only["eventMetadata"]["inferenceId"] == "claim-7"


def capture(**changes: Any) -> tuple[Capture, dict[str, bytes], list[Exception]]:
    """A capture that writes into a dictionary."""
    objects: dict[str, bytes] = {}
    errors: list[Exception] = []
    arguments: dict[str, Any] = {
        "config": CONFIG,
        "endpoint": "dev-claims-fraud",
        "variant": "AllTraffic",
        "write": objects.__setitem__,
        "on_error": errors.append,
    }
    return Capture(**arguments | changes), objects, errors


def test_should_write_one_object_per_hour_below_the_endpoint_and_variant() -> None:
    made, objects, _ = capture()
    made.add("first", NOON)
    made.add("second", NOON)
    made.add("third", NOON.replace(hour=13))
    assert made.flush() == 3
    folder = "s3://bucket/claims-fraud/capture/dev-claims-fraud/AllTraffic/2026/05/04"
    found = sorted(objects.items())
    assert [content for _, content in found] == [b"first\nsecond\n", b"third\n"]
    assert re.fullmatch(rf"{folder}/12/30-15-250-[0-9a-f-]{{36}}\.jsonl", found[0][0])
    assert made.flush() == 0


def test_should_wait_for_a_flush_that_is_under_way() -> None:
    begun, go_on, over = threading.Event(), threading.Event(), threading.Event()

    def write(uri: str, content: bytes) -> None:
        begun.set()
        go_on.wait(10)
        objects[uri] = content

    def second_flush() -> None:
        made.flush()
        seen.update(objects)
        over.set()

    objects, seen = dict[str, bytes](), dict[str, bytes]()
    made, _, _ = capture(write=write)
    made.add("first", NOON)
    threads = [threading.Thread(target=made.flush)]
    threads[0].start()
    assert begun.wait(10)
    threads.append(threading.Thread(target=second_flush))
    threads[1].start()
    assert not over.wait(0.2)
    go_on.set()
    for thread in threads:
        thread.join()
    assert list(seen.values()) == [b"first\n"]


def test_should_sample_the_percentage_that_is_asked_for() -> None:
    draws = iter([0.0, 0.19, 0.2, 0.99])
    made, _, _ = capture(config=CONFIG | {"InitialSamplingPercentage": 20}, sample=lambda: next(draws))
    assert [made.sampled() for _ in range(4)] == [True, True, False, False]
    off, _, _ = capture(config=CONFIG | {"EnableCapture": False})
    assert not off.sampled()


def test_should_tell_when_a_write_is_refused() -> None:
    def refuse(_uri: str, _content: bytes) -> None:
        raise PermissionError("no kms:GenerateDataKey")

    made, _, errors = capture(write=refuse)
    made.add("first", NOON)
    assert made.flush() == 0
    assert [str(error) for error in errors] == ["no kms:GenerateDataKey"]
