"""Data capture of an endpoint: lines as SageMaker writes them, buffered, one object per hour and flush.

The layout is `{destination}/{endpoint}/{variant}/yyyy/mm/dd/hh/{minutes-seconds-milliseconds}-{uuid}.jsonl`,
with the time of the inference on the rehearsal's clock.
"""

from __future__ import annotations

import base64
import json
import random
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

__all__ = ["Capture", "Captured", "capture_line", "encode_body"]

# Lines kept back before an object is written, and for how many seconds at most.
FLUSH_LINES = 500
FLUSH_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Captured:
    """One side of an inference."""

    content_type: str | None
    body: bytes


def encode_body(
    body: bytes, content_type: str | None, header: Mapping[str, list[str]] | None
) -> tuple[str, str]:
    """The captured text of a body and its encoding: CSV or JSON for the listed types, else BASE64."""
    if content_type is not None and header is not None:
        kind = content_type.split(";", 1)[0].strip().lower()
        for key, encoding in (("CsvContentTypes", "CSV"), ("JsonContentTypes", "JSON")):
            if kind in (item.lower() for item in header.get(key, ())):
                try:
                    return body.decode("utf-8"), encoding
                except UnicodeDecodeError:
                    break
    return base64.b64encode(body).decode("ascii"), "BASE64"


def capture_line(
    *,
    config: Mapping[str, Any],
    request: Captured,
    response: Captured | None,
    inference_time: datetime,
    event_id: str,
    inference_id: str | None,
    custom_attributes: str | None = None,
) -> str:
    """One line of a capture file."""
    modes = {option["CaptureMode"] for option in config["CaptureOptions"]}
    header = config.get("CaptureContentTypeHeader")
    data: dict[str, Any] = {}
    for mode, key, side in (("Input", "endpointInput", request), ("Output", "endpointOutput", response)):
        if side is None or not modes & {mode, "InputAndOutput"}:
            continue
        text, encoding = encode_body(side.body, side.content_type, header)
        data[key] = {
            "observedContentType": side.content_type,
            "mode": mode.upper(),
            "data": text,
            "encoding": encoding,
        }
    metadata: dict[str, Any] = {"eventId": event_id}
    if custom_attributes is not None:
        metadata["customAttributes"] = [custom_attributes]
    if inference_id is not None:
        metadata["inferenceId"] = inference_id
    metadata["inferenceTime"] = inference_time.strftime("%Y-%m-%dT%H:%M:%SZ")
    return json.dumps({"captureData": data, "eventMetadata": metadata, "eventVersion": "0"})


@dataclass(kw_only=True)
class Capture:
    """The capture of one variant.

    `write(uri, content)` puts an object. When it raises, the lines are lost, as they would be on AWS, and
    `on_error` hears of it.
    """

    config: Mapping[str, Any]
    endpoint: str
    variant: str
    write: Callable[[str, bytes], object]
    on_error: Callable[[Exception], object]
    sample: Callable[[], float] = random.random
    _lines: dict[str, list[tuple[datetime, str]]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _writing: threading.Lock = field(default_factory=threading.Lock)
    lines_written: int = 0

    @property
    def enabled(self) -> bool:
        """Whether the configuration asks for capture at all."""
        return bool(self.config.get("EnableCapture", True))

    def sampled(self) -> bool:
        """Whether this inference is among the percentage that is captured."""
        return self.enabled and self.sample() * 100 < self.config["InitialSamplingPercentage"]

    def add(self, line: str, inference_time: datetime) -> bool:
        """Keep a line; True when the buffer is full and should be flushed."""
        with self._lock:
            self._lines.setdefault(f"{inference_time:%Y/%m/%d/%H}", []).append((inference_time, line))
            return sum(map(len, self._lines.values())) >= FLUSH_LINES

    def flush(self) -> int:
        """Write what is buffered, one object per hour; the number of lines written.

        Whoever flushes waits for a flush that is under way: afterwards all lines kept before are written.
        """
        with self._writing:
            return self._flush()

    def _flush(self) -> int:
        with self._lock:
            lines, self._lines = self._lines, {}
        written = 0
        for hour, items in lines.items():
            first = items[0][0]
            name = f"{first:%M-%S}-{first.microsecond // 1000:03d}-{uuid.uuid4()}.jsonl"
            uri = (
                f"{self.config['DestinationS3Uri'].rstrip('/')}/{self.endpoint}/{self.variant}/{hour}/{name}"
            )
            try:
                self.write(uri, "".join(f"{line}\n" for _, line in items).encode())
            except Exception as error:  # noqa: BLE001 - capture never fails an inference; the ledger hears of it
                self.on_error(error)
                continue
            written += len(items)
        self.lines_written += written
        return written
