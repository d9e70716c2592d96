"""Spans as lines of the log: what OpenTelemetry's own messages read from them, and who gets one at all."""

from __future__ import annotations

import base64
import gzip
import json
from types import SimpleNamespace
from typing import Any

import pytest
from function_log.spans import SERVER, Context, context_in, ended, traced
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from span_forwarder import handler as forwarder

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def spans(text: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, text.splitlines()) if line["message"] == "span"]


def test_should_write_what_opentelemetry_reads(capsys: pytest.CaptureFixture[str]) -> None:
    header = ended(
        "POST /invocations",
        Context(TRACE, PARENT),
        service="ml-serving",
        seconds=0.25,
        kind=SERVER,
        failed=True,
        attributes={"http.response.status_code": 500, "share": 0.5, "who": "me"},
        correlation_id="claim-1",
    )
    (line,) = spans(capsys.readouterr().out)
    assert line["correlation_id"] == "claim-1"
    # The JSON encoding writes ids in hex, where protobuf's own would have base64.
    given = json.loads(json.dumps(line["otlp"]))
    body = given["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    for name in ("traceId", "spanId", "parentSpanId"):
        body[name] = base64.b64encode(bytes.fromhex(body[name])).decode()
    read = json_format.ParseDict(given, ExportTraceServiceRequest())
    span = read.resource_spans[0].scope_spans[0].spans[0]
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert span.end_time_unix_nano - span.start_time_unix_nano == 250_000_000
    assert (span.name, span.kind, span.status.code) == ("POST /invocations", 2, 2)
    assert {a.key: a.value.WhichOneof("value") for a in span.attributes} == {
        "http.response.status_code": "int_value",
        "share": "double_value",
        "who": "string_value",
    }
    assert header == f"00-{TRACE}-{span.span_id.hex()}-01"


@pytest.mark.parametrize(
    ("text", "context"),
    [
        (f"traceparent=00-{TRACE}-{PARENT}-01", Context(TRACE, PARENT)),
        (f"tenant=a, traceparent=00-{TRACE}-{PARENT}-03, b=c", Context(TRACE, PARENT)),
        (f"traceparent=00-{TRACE}-{PARENT}-00", None),
        (f"traceparent=00-{'0' * 32}-{PARENT}-01", None),
        (f"traceparent=00-{TRACE}-{'0' * 16}-01", None),
        (f"traceparent=00-{TRACE[1:]}-{PARENT}-01", None),
        (f"traceparent=00-{TRACE}-{PARENT}-01ff", None),
        ("", None),
    ],
)
def test_should_take_a_sampled_context_and_no_other(text: str, context: Context | None) -> None:
    assert context_in(text) == context


@pytest.mark.parametrize(("ratio", "made"), [(None, 0), ("0", 0), ("1", 1)])
def test_should_trace_a_handler_for_the_share_that_the_environment_says(
    ratio: str | None,
    made: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("TRACE_SAMPLE_RATIO", raising=False)
    if ratio is not None:
        monkeypatch.setenv("TRACE_SAMPLE_RATIO", ratio)

    @traced("decide")
    def handler(event: object, context: object) -> object:
        del context
        return event

    assert handler(7, SimpleNamespace(aws_request_id="r")) == 7
    assert len(spans(capsys.readouterr().out)) == made


def test_should_say_that_a_traced_handler_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRACE_SAMPLE_RATIO", "1")

    @traced("decide")
    def handler(event: object, context: object) -> object:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        handler(None, None)
    (line,) = spans(capsys.readouterr().out)
    assert line["failed"] is True


def delivery(*messages: str) -> dict[str, Any]:
    data = {"logEvents": [{"message": message} for message in messages]}
    return {"awslogs": {"data": base64.b64encode(gzip.compress(json.dumps(data).encode())).decode()}}


def test_should_send_the_spans_of_a_delivery_in_one_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setenv("OTLP_ENDPOINT", "http://collector:4318")
    monkeypatch.setattr(forwarder, "_send", lambda url, body: sent.append((url, json.loads(body))))
    for name in ("one", "two"):
        ended(name, Context(TRACE), service="s", seconds=0)
    lines = capsys.readouterr().out.splitlines()
    assert forwarder.handler(delivery(*lines, "otlp in words", '{"otlp": 3}', "[]"), None) == {"spans": 2}
    ((endpoint, body),) = sent
    assert endpoint == "http://collector:4318"
    names = [s["scopeSpans"][0]["spans"][0]["name"] for s in body["resourceSpans"]]
    assert names == ["one", "two"]


def test_should_ask_nobody_when_there_is_no_span(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTLP_ENDPOINT", raising=False)
    assert forwarder.handler(delivery("otlp in words"), None) == {"spans": 0}


def test_should_fail_when_the_collector_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setenv("OTLP_ENDPOINT", "http://collector:4318")
    monkeypatch.setattr(forwarder.urllib.request, "urlopen", refused)
    ended("one", Context(TRACE), service="s", seconds=0)
    lines = capsys.readouterr().out.splitlines()
    with pytest.raises(forwarder.SendError, match="http://collector:4318/v1/traces: timed out"):
        forwarder.handler(delivery(*lines), None)


@pytest.mark.parametrize(
    ("endpoint", "signed"),
    [("https://xray.eu-central-1.amazonaws.com", True), ("http://collector:4318", False)],
)
def test_should_sign_for_xray_and_nobody_else(
    endpoint: str,
    signed: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[Any] = []

    class Answer:
        def __enter__(self) -> Answer:
            return self

        def __exit__(self, *_: object) -> None:
            """Close nothing."""

        def read(self) -> bytes:
            return b"{}"

    def urlopen(request: Any, timeout: float) -> Answer:
        del timeout
        asked.append(request)
        return Answer()

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "AKIAEXAMPLE")
    monkeypatch.setenv("OTLP_ENDPOINT", endpoint)
    monkeypatch.setattr(forwarder.urllib.request, "urlopen", urlopen)
    ended("one", Context(TRACE), service="s", seconds=0)
    assert forwarder.handler(delivery(*capsys.readouterr().out.splitlines()), None) == {"spans": 1}
    (request,) = asked
    assert request.full_url == f"{endpoint}/v1/traces"
    authorization = request.get_header("Authorization", "")
    assert ("/eu-central-1/xray/aws4_request" in authorization) is signed
