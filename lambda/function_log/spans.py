"""Spans of OpenTelemetry without a package and without a network: a line of the log, in OTLP's JSON encoding.

A model's container has no network (its isolation) and a small function no packages, so a span leaves as part
of a log line, ``otlp``; ``lambda/span_forwarder`` sends what such lines hold to a collector. Context comes
and goes by W3C ``traceparent``. Who asks decides: a request that carries a sampled ``traceparent`` is traced;
a trace begins here only with ``TRACE_SAMPLE_RATIO`` in the environment.

Encoding: "OpenTelemetry Protocol Specification", JSON Protobuf Encoding (ids are hex, times are texts).
"""

from __future__ import annotations

import functools
import os
import random
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from function_log import log

__all__ = ["SERVER", "Context", "context_in", "ended", "traced"]

#: ``SpanKind``: the other side has asked; the work is nobody's answer.
SERVER, INTERNAL = 2, 1
_ERROR = 2
#: W3C Trace Context: version, trace id, parent id, flags.
_TRACEPARENT = re.compile(r"(?<![0-9a-f-])00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?![0-9a-f])")
_NOBODY = ("0" * 32, "0" * 16)
_RATIO = "TRACE_SAMPLE_RATIO"

Handler = TypeVar("Handler", bound=Callable[..., object])


@dataclass(frozen=True)
class Context:
    """Whose span a new one is: the trace, and the span above it, "" for none."""

    trace: str
    parent: str = ""


def context_in(text: str) -> Context | None:
    """The context of a sampled ``traceparent`` anywhere in ``text``; None without one.

    In SageMaker's CustomAttributes it may stand among others.
    """
    found = _TRACEPARENT.search(text)
    if found is None or not int(found[3], 16) & 1 or found[1] == _NOBODY[0] or found[2] == _NOBODY[1]:
        return None
    return Context(found[1], found[2])


def ended(
    name: str,
    context: Context,
    *,
    service: str,
    seconds: float,
    kind: int = INTERNAL,
    failed: bool = False,
    attributes: Mapping[str, str | int | float] | None = None,
    correlation_id: str | None = None,
) -> str:
    """Write the line of a span that ends now; return its ``traceparent``, for who is asked next."""
    span, end = secrets.token_hex(8), time.time_ns()
    body: dict[str, object] = {
        "traceId": context.trace,
        "spanId": span,
        "name": name,
        "kind": kind,
        "startTimeUnixNano": str(end - int(seconds * 1e9)),
        "endTimeUnixNano": str(end),
        "attributes": [_attribute(key, value) for key, value in (attributes or {}).items()],
    }
    if context.parent:
        body["parentSpanId"] = context.parent
    if failed:
        body["status"] = {"code": _ERROR}
    otlp = {
        "resourceSpans": [
            {
                "resource": {"attributes": [_attribute("service.name", service)]},
                "scopeSpans": [{"scope": {"name": "ml-lifecycle"}, "spans": [body]}],
            }
        ]
    }
    log(
        "INFO",
        "span",
        name=name,
        correlation_id=correlation_id or context.trace,
        milliseconds=round(seconds * 1000, 3),
        failed=failed,
        otlp=otlp,
    )
    return f"00-{context.trace}-{span}-01"


def traced(name: str) -> Callable[[Handler], Handler]:
    """Make a span of calls of a Lambda handler, for the share that is sampled; none without a ratio."""

    def wrap(handler: Handler) -> Handler:
        @functools.wraps(handler)
        def call(event: object, context: object) -> object:
            ratio = os.environ.get(_RATIO)
            # A share of traffic, no secret.
            if ratio is None or random.random() >= float(ratio):  # noqa: S311
                return handler(event, context)
            started, failed = time.perf_counter(), True
            try:
                answer = handler(event, context)
                failed = False
            finally:
                ended(
                    name,
                    Context(secrets.token_hex(16)),
                    service=os.environ.get("AWS_LAMBDA_FUNCTION_NAME", name),
                    seconds=time.perf_counter() - started,
                    kind=SERVER,
                    failed=failed,
                    correlation_id=getattr(context, "aws_request_id", None),
                )
            return answer

        return call  # type: ignore[return-value]

    return wrap


def _attribute(key: str, value: str | float) -> dict[str, object]:
    if isinstance(value, int):
        return {"key": key, "value": {"intValue": str(value)}}
    if isinstance(value, float):
        return {"key": key, "value": {"doubleValue": value}}
    return {"key": key, "value": {"stringValue": value}}
