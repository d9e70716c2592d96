"""Lambda entry point: ``span_forwarder.handler.handler``, for a subscription of log groups."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from function_log import log

__all__ = ["SendError", "handler", "spans_in"]

_SECONDS = 10
#: AWS X-Ray Developer Guide, "OTLP endpoint": requests are signed for the service xray.
_XRAY = re.compile(r"https://xray\.([a-z0-9-]+)\.amazonaws\.com")


class SendError(Exception):
    """The collector did not take the spans; Lambda tries the batch again."""


def spans_in(event: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The ``resourceSpans`` of every line of a CloudWatch Logs delivery; other lines hold none."""
    data = json.loads(gzip.decompress(base64.b64decode(event["awslogs"]["data"])))
    found: list[dict[str, Any]] = []
    for entry in data.get("logEvents", ()):
        try:
            line = json.loads(entry["message"])
        except ValueError:
            continue  # a line in words that has the filter's word in it
        if isinstance(line, dict) and isinstance(line.get("otlp"), dict):
            found += line["otlp"].get("resourceSpans", ())
    return found


def handler(event: Mapping[str, Any], context: object) -> dict[str, int]:
    """Send the spans of a batch of lines, all in one request."""
    request = getattr(context, "aws_request_id", None)
    spans = spans_in(event)
    if spans:
        _send(os.environ["OTLP_ENDPOINT"], json.dumps({"resourceSpans": spans}).encode())
    log("INFO", "forwarded", spans=len(spans), request=request)
    return {"spans": len(spans)}


def _send(endpoint: str, body: bytes) -> None:
    url = f"{endpoint}/v1/traces"
    headers = {"Content-Type": "application/json"}
    xray = _XRAY.fullmatch(endpoint)
    if xray is not None:
        signed = AWSRequest(method="POST", url=url, data=body, headers=headers)
        credentials = boto3.Session().get_credentials()
        if credentials is None:
            raise SendError("the function has no credentials to sign with")
        SigV4Auth(credentials, "xray", xray[1]).add_auth(signed)
        headers = dict(signed.headers.items())
    # The endpoint is the environment's own, http or https.
    sent = urllib.request.Request(url, data=body, headers=headers, method="POST")  # noqa: S310
    try:
        with urllib.request.urlopen(sent, timeout=_SECONDS) as answer:  # noqa: S310
            answer.read()
    except (urllib.error.URLError, TimeoutError) as error:
        raise SendError(f"{url}: {error}") from error
