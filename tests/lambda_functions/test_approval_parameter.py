"""The approval parameter's custom resource: created once, never written again, kept unless consented."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import boto3
import pytest
from approval_parameter import handler as module
from botocore.exceptions import ClientError
from moto import mock_aws

NAME = "/ml-lifecycle/test/parcel-delay/approved-model-package"


@pytest.fixture
def ssm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        yield boto3.client("ssm")


def request(kind: str, **changes: Any) -> dict[str, Any]:
    event = {
        "RequestType": kind,
        "RequestId": "request",
        "StackId": "stack",
        "LogicalResourceId": "Parameter",
        "ResponseURL": "http://127.0.0.1:1/",
        "ResourceProperties": {"Name": NAME, "InitialValue": "none", "OnDelete": "keep"},
    }
    if kind != "Create":
        event["PhysicalResourceId"] = NAME
    return event | changes


def value(ssm: Any) -> str:
    return str(ssm.get_parameter(Name=NAME)["Parameter"]["Value"])


def test_should_create_the_parameter_and_name_itself_after_it(ssm: Any) -> None:
    assert module.apply(request("Create"), ssm) == NAME
    assert value(ssm) == "none"


@pytest.mark.parametrize("kind", ["Create", "Update"])
def test_should_never_write_over_a_promotion(ssm: Any, kind: str) -> None:
    module.apply(request("Create"), ssm)
    ssm.put_parameter(Name=NAME, Value="arn:package", Type="String", Overwrite=True)
    module.apply(request(kind), ssm)
    assert value(ssm) == "arn:package"


def test_should_make_it_anew_when_somebody_deleted_it(ssm: Any) -> None:
    module.apply(request("Update"), ssm)
    assert value(ssm) == "none"


def test_should_keep_it_when_the_stack_goes(ssm: Any) -> None:
    module.apply(request("Create"), ssm)
    assert module.apply(request("Delete"), ssm) == NAME
    assert value(ssm) == "none"


def test_should_delete_it_with_consent_and_not_mind_that_it_is_gone(ssm: Any) -> None:
    module.apply(request("Create"), ssm)
    consented = request("Delete")
    consented["ResourceProperties"] |= {"OnDelete": "delete"}
    for _ in range(2):
        module.apply(consented, ssm)
        with pytest.raises(ClientError, match="ParameterNotFound"):
            value(ssm)


class Denied:
    """Parameter Store that refuses for a while, as it does before a new policy is in force."""

    def __init__(self, times: int, code: str = "AccessDeniedException") -> None:
        self.left = times
        self.code = code
        self.written: list[str] = []

    def put_parameter(self, **arguments: Any) -> None:
        if self.left:
            self.left -= 1
            raise ClientError({"Error": {"Code": self.code, "Message": "no"}}, "PutParameter")
        self.written.append(arguments["Value"])


def test_should_wait_until_its_policy_is_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("custom_resource.PAUSE_SECONDS", 0.0)
    store = Denied(3)
    module.apply(request("Create"), store)
    assert store.written == ["none"]


def test_should_give_up_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("custom_resource.PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("custom_resource.PATIENCE_SECONDS", 0.0)
    with pytest.raises(ClientError, match="AccessDenied"):
        module.apply(request("Create"), Denied(1_000_000))


def test_should_not_wait_for_another_error() -> None:
    with pytest.raises(ClientError, match="Throttl"):
        module.apply(request("Create"), Denied(1, "ThrottlingException"))


@pytest.fixture
def cloudformation() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    answers: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            answers.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/answer", answers
        server.shutdown()
        thread.join()


def test_should_answer_cloudformation(
    monkeypatch: pytest.MonkeyPatch, cloudformation: tuple[str, list[dict[str, Any]]]
) -> None:
    url, answers = cloudformation
    monkeypatch.setattr(boto3, "client", lambda _: Denied(0))
    module.handler(request("Create", ResponseURL=url), None)
    assert answers == [
        {
            "Status": "SUCCESS",
            "Reason": "",
            "PhysicalResourceId": NAME,
            "StackId": "stack",
            "RequestId": "request",
            "LogicalResourceId": "Parameter",
            "Data": {},
        }
    ]


def test_should_report_a_failure_with_its_reason_and_raise_it(
    monkeypatch: pytest.MonkeyPatch, cloudformation: tuple[str, list[dict[str, Any]]]
) -> None:
    url, answers = cloudformation
    monkeypatch.setattr(boto3, "client", lambda _: Denied(1, "ThrottlingException"))
    with pytest.raises(ClientError):
        module.handler(request("Create", ResponseURL=url), None)
    [answer] = answers
    assert answer["Status"] == "FAILED"
    assert answer["Reason"].startswith("ClientError: ")
    assert answer["PhysicalResourceId"] == NAME
