"""The key of the masks is drawn once, and stands nowhere but in its object."""

from __future__ import annotations

import io
import json
import urllib.request
from typing import Any

import pytest
from botocore.exceptions import ClientError
from mask_key import handler as module

PROPERTIES = {"Bucket": "lake", "Object": "governance/mask-key/key.csv"}


class Store:
    """S3 of one bucket, with conditional writes."""

    def __init__(self, *refusals: str) -> None:
        self.objects: dict[str, bytes] = {}
        self.refusals = list(refusals)

    def put_object(self, **call: Any) -> None:
        assert call["IfNoneMatch"] == "*"
        code = self.refusals.pop(0) if self.refusals else None
        if code is None and call["Key"] in self.objects:
            code = "PreconditionFailed"
        if code is not None:
            raise ClientError({"Error": {"Code": code}}, "PutObject")
        self.objects[call["Key"]] = call["Body"]


def event(kind: str, **more: Any) -> dict[str, Any]:
    return {
        "RequestType": kind,
        "ResourceProperties": PROPERTIES,
        "StackId": "s",
        "RequestId": "r",
        "LogicalResourceId": "Key",
        "ResponseURL": "https://example.invalid/",
        **more,
    }


def test_should_draw_a_key_once_and_keep_it_on_updates_and_deletes() -> None:
    store = Store()
    uri = module.apply(event("Create"), store)
    assert uri == "s3://lake/governance/mask-key/key.csv"
    (drawn,) = store.objects.values()
    assert len(bytes.fromhex(drawn.decode().strip())) == module.KEY_BYTES
    module.apply(event("Update", PhysicalResourceId=uri), store)
    module.apply(event("Delete", PhysicalResourceId=uri), store)
    assert list(store.objects.values()) == [drawn]
    other = Store()
    module.apply(event("Create"), other)
    assert list(other.objects.values()) != [drawn]


def test_should_wait_for_a_permission_and_pass_other_errors_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("custom_resource.PAUSE_SECONDS", 0.0)
    store = Store("AccessDenied", "AccessDenied")
    module.apply(event("Create"), store)
    assert store.objects
    with pytest.raises(ClientError, match="NoSuchBucket"):
        module.apply(event("Create"), Store("NoSuchBucket"))


def test_should_answer_cloudformation_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, Any]] = []
    store = Store()

    def urlopen(request: urllib.request.Request, timeout: float) -> io.BytesIO:
        assert isinstance(request.data, bytes)
        sent.append(json.loads(request.data))
        return io.BytesIO()

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(module.boto3, "client", lambda _: store)
    module.handler(event("Create"), None)
    assert sent[0]["Status"] == "SUCCESS"
    (drawn,) = store.objects.values()
    assert drawn.decode().strip() not in json.dumps(sent)
    store.refusals = ["NoSuchBucket"]
    with pytest.raises(ClientError):
        module.handler(event("Create"), None)
    assert sent[1]["Status"] == "FAILED"
