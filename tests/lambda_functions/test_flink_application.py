"""The custom resource that keeps a Flink application running while its stack stands."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from flink_application import handler as module

NAME = "dev-hotline-windows"


class Flink:
    """One application, as the API shows it."""

    def __init__(self, status: str | None, *, refusals: int = 0) -> None:
        self.status, self.refusals = status, refusals
        self.calls: list[str] = []

    def _error(self, code: str, operation: str) -> ClientError:
        return ClientError({"Error": {"Code": code, "Message": code}}, operation)

    def start_application(self, *, ApplicationName: str) -> None:  # noqa: N803
        assert ApplicationName == NAME
        self.calls.append("start")
        if self.refusals:
            self.refusals -= 1
            raise self._error("AccessDeniedException", "StartApplication")
        if self.status == "RUNNING":
            raise self._error("ResourceInUseException", "StartApplication")
        self.status = "RUNNING"

    def stop_application(self, *, ApplicationName: str) -> None:  # noqa: N803
        assert ApplicationName == NAME
        self.calls.append("stop")
        self.status = "STOPPING"

    def describe_application(self, *, ApplicationName: str) -> dict[str, Any]:  # noqa: N803
        assert ApplicationName == NAME
        if self.status is None:
            raise self._error("ResourceNotFoundException", "DescribeApplication")
        shown, self.status = self.status, "READY" if self.status == "STOPPING" else self.status
        return {"ApplicationDetail": {"ApplicationStatus": shown}}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "sleep", lambda _seconds: None)


def request(kind: str) -> dict[str, Any]:
    return {"RequestType": kind, "ResourceProperties": {"ApplicationName": NAME}}


@pytest.mark.parametrize("kind", ["Create", "Update"])
@pytest.mark.parametrize("status", ["READY", "RUNNING"])
def test_should_leave_the_application_running(kind: str, status: str) -> None:
    flink = Flink(status)
    assert module.apply(request(kind), flink) == f"running-{NAME}"
    assert flink.status == "RUNNING"


def test_should_wait_until_its_own_permission_is_in_force() -> None:
    flink = Flink("READY", refusals=3)
    module.apply(request("Create"), flink)
    assert flink.calls == ["start"] * 4


def test_should_stop_it_before_it_is_deleted() -> None:
    flink = Flink("RUNNING")
    module.apply(request("Delete"), flink)
    assert (flink.calls, flink.status) == (["stop"], "READY")


@pytest.mark.parametrize("status", [None, "READY"])
def test_should_have_nothing_to_stop(status: str | None) -> None:
    flink = Flink(status)
    module.apply(request("Delete"), flink)
    assert flink.calls == []
