"""What people are told by SNS: what happened, its numbers, where to look. JSON for programs, text for people.

A package beside the functions; ``ml_lifecycle.code`` stages it with each function that imports it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

__all__ = ["KINDS", "Notice", "Sns", "alarm_page", "object_page", "publish"]

#: What a notice may be about.
KINDS = (
    "drift.found",
    "retraining.started",
    "retraining.refused",
    "retraining.failed",
    "model.waits",
    "model.refused",
    "model.testing",
    "model.promoted",
    "model.rolled_back",
    "serving.stopped",
)
#: Amazon SNS, "Publish": a message has at most 262,144 bytes, a subject at most 100 characters of ASCII.
_MOST_TEXT = 20_000
_MOST_SUBJECT = 100


class Sns(Protocol):
    """The call that this package makes."""

    def publish(self, **request: Any) -> Mapping[str, Any]:
        """Publish a message."""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One thing that happened.

    ``numbers`` and ``links`` are shown in their order; a number that is none is left out. ``correlation_id``
    is the execution, version or run that the log lines of the functions name too.
    """

    kind: str
    workload: str
    environment: str
    title: str
    why: str
    time: str
    correlation_id: str
    numbers: Mapping[str, object] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")

    def document(self) -> dict[str, object]:
        """The notice for programs."""
        return {
            "notice": self.kind,
            "workload": self.workload,
            "environment": self.environment,
            "title": self.title,
            "why": self.why,
            "time": self.time,
            "correlation_id": self.correlation_id,
            "numbers": {name: value for name, value in self.numbers.items() if _is_known(value)},
            "links": dict(self.links),
        }

    def text(self) -> str:
        """The notice for people."""
        lines = [f"{self.title} ({self.environment}, {self.workload})", "", self.why, ""]
        lines += [f"{name}: {_shown(value)}" for name, value in self.numbers.items() if _is_known(value)]
        lines += ["", *(f"{name}: {link}" for name, link in self.links.items())]
        lines += ["", f"{self.time}, {self.kind}, {self.correlation_id}"]
        return "\n".join(lines)[:_MOST_TEXT]

    def subject(self) -> str:
        """The subject of a mail: one line of printable ASCII that begins with a letter."""
        line = f"{self.environment} {self.workload}: {self.title}"
        return re.sub(r"[^\x20-\x7e]", "-", line)[:_MOST_SUBJECT]


def _is_known(value: object) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(_shown, value)) if isinstance(value, list | tuple) else str(value)


def publish(sns: Sns, topic_arn: str, notice: Notice) -> None:
    """Publish a notice: mail gets the text, everything else the document.

    Subscribers may filter by the attributes ``notice``, ``workload`` and ``environment``.
    """
    document = json.dumps(notice.document(), default=str)
    sns.publish(
        TopicArn=topic_arn,
        Subject=notice.subject(),
        MessageStructure="json",
        Message=json.dumps({"default": document, "email": notice.text()}),
        MessageAttributes={
            name: {"DataType": "String", "StringValue": value}
            for name, value in (
                ("notice", notice.kind),
                ("workload", notice.workload),
                ("environment", notice.environment),
            )
        },
    )


def object_page(uri: str, region: str) -> str:
    """The page of the console that shows an object of S3."""
    parts = urlsplit(uri)
    return (
        f"https://{region}.console.aws.amazon.com/s3/object/{parts.netloc}"
        f"?region={region}&prefix={quote(parts.path.lstrip('/'))}"
    )


def alarm_page(name: str, region: str) -> str:
    """The page of the console that shows an alarm."""
    return (
        f"https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}"
        f"#alarmsV2:alarm/{quote(name, safe='')}"
    )
