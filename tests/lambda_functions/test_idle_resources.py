"""What nobody uses is stopped once; what somebody uses, changes or starts is left alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from idle_resources.handler import AwsCloud
from idle_resources.logic import RUNNING, STOPPED, Stack, State, handle
from idle_resources.settings import MisconfiguredError, Settings
from moto import mock_aws

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=90)
ENVIRONMENT = {
    "WORKLOAD": "parcels",
    "ENVIRONMENT": "dev",
    "STATE_PARAMETER": "/state",
    "STACKS": '["Serving", "Operations"]',
    "STREAMS": "[]",
    "AFTER_HOURS": "72",
    "TOPIC_ARN": "arn:topic",
    "ENDPOINT_NAME": "dev-parcels",
}
SETTINGS = Settings.from_environment(ENVIRONMENT)


@dataclass
class Account:
    """``Cloud`` in memory. Updates come through at once unless ``refuses`` names the stack."""

    value: str = RUNNING
    since: datetime = LONG_AGO
    status: dict[str, str] = field(default_factory=lambda: dict.fromkeys(SETTINGS.stacks, "UPDATE_COMPLETE"))
    runs: dict[str, str] = field(default_factory=lambda: dict.fromkeys(SETTINGS.stacks, RUNNING))
    changed: datetime = LONG_AGO
    endpoint: datetime | None = LONG_AGO
    asked: float = 0
    sent: float = 0
    refuses: str = ""
    told: list[dict[str, Any]] = field(default_factory=list)
    asked_between: tuple[datetime, datetime] | None = None

    def state(self) -> State:
        return State(value=self.value, since=self.since)

    def set_state(self, value: str, why: str) -> None:
        assert why
        self.value, self.since = value, NOW

    def stack(self, name: str) -> Stack | None:
        if name not in self.status:
            return None
        return Stack(name=name, status=self.status[name], runs=self.runs[name], changed=self.changed)

    def update(self, name: str) -> bool:
        if name == self.refuses:
            raise RuntimeError("throttled")
        self.runs[name] = self.value
        return True

    def endpoint_changed(self, name: str) -> datetime | None:
        assert name == "dev-parcels"
        return self.endpoint

    def requests(self, name: str, since: datetime, until: datetime) -> float:
        self.asked_between = (since, until)
        return self.asked

    def records(self, stream: str, since: datetime, until: datetime) -> float:
        return self.sent

    def tell(self, why: str, numbers: Mapping[str, object]) -> None:
        assert why
        self.told.append(dict(numbers))


def test_should_stop_what_nobody_asked_for_the_hours_and_tell_it() -> None:
    account = Account()
    outcome = handle("look", account, SETTINGS, NOW)
    assert (outcome.action, outcome.stacks) == ("stopped", ("Serving", "Operations"))
    assert account.asked_between == (NOW - timedelta(hours=72), NOW)
    assert account.runs == {"Serving": STOPPED, "Operations": STOPPED}
    (told,) = account.told
    assert told["hours without a request"] == 72
    again = handle("look", account, SETTINGS, NOW + timedelta(hours=1))
    assert (again.action, again.why, len(account.told)) == ("left", "it is stopped", 1)


@pytest.mark.parametrize(
    ("account", "why"),
    [
        (Account(asked=1), "1 requests"),
        (Account(since=NOW - timedelta(hours=71)), "it was started"),
        (Account(changed=NOW - timedelta(hours=1)), "Serving was changed"),
        (Account(endpoint=NOW - timedelta(hours=1)), "the endpoint was changed"),
        (Account(endpoint=None), "there is no endpoint"),
    ],
)
def test_should_leave_alone_what_is_used_was_changed_or_is_not_there(account: Account, why: str) -> None:
    outcome = handle("look", account, SETTINGS, NOW)
    assert outcome.action == "left"
    assert why in outcome.why
    assert (account.value, account.told) == (RUNNING, [])


def test_should_count_records_where_windows_are_computed_from_a_stream() -> None:
    settings = Settings.from_environment(ENVIRONMENT | {"STREAMS": '["records"]'})
    assert handle("look", Account(sent=3), settings, NOW).action == "left"
    # Flink's windows cost without an endpoint too.
    assert handle("look", Account(endpoint=None), settings, NOW).action == "stopped"


def test_should_wait_for_an_update_and_bring_what_is_behind_afterwards() -> None:
    account = Account(value=STOPPED, runs={"Serving": RUNNING, "Operations": STOPPED})
    account.status["Serving"] = "UPDATE_IN_PROGRESS"
    assert handle("look", account, SETTINGS, NOW).action == "waits"
    account.status["Serving"] = "UPDATE_ROLLBACK_COMPLETE"
    outcome = handle("look", account, SETTINGS, NOW)
    assert (outcome.action, outcome.stacks) == ("updated", ("Serving",))


def test_should_start_and_stop_when_asked_to() -> None:
    account = Account()
    assert handle("stop", account, SETTINGS, NOW).action == "stopped"
    assert account.value == STOPPED
    account.status["Operations"] = "UPDATE_IN_PROGRESS"
    outcome = handle("start", account, SETTINGS, NOW)
    assert (outcome.action, outcome.stacks, account.value) == ("started", ("Serving",), RUNNING)
    assert "Operations is being updated" in outcome.why


def test_should_pass_over_stacks_that_are_not_deployed() -> None:
    account = Account()
    del account.status["Operations"]
    assert handle("look", account, SETTINGS, NOW).stacks == ("Serving",)


@given(st.lists(st.sampled_from(["look", "start", "stop", "throttle", "request"]), max_size=12))
def test_should_bring_the_stacks_to_the_state_whatever_fails_on_the_way(steps: list[str]) -> None:
    account, now = Account(), NOW
    for step in steps:
        now += timedelta(hours=1)
        account.refuses = "Operations" if step == "throttle" else ""
        account.asked = 1 if step == "request" else 0
        action = step if step in ("start", "stop") else "look"
        try:
            handle(action, account, SETTINGS, now)
        except RuntimeError:
            assert step == "throttle"
    account.refuses = ""
    handle("look", account, SETTINGS, now)
    handle("look", account, SETTINGS, now)
    assert set(account.runs.values()) == {account.value}


def test_should_refuse_settings_and_actions_that_make_no_sense() -> None:
    with pytest.raises(MisconfiguredError, match="WORKLOAD is not set; AFTER_HOURS must be between"):
        Settings.from_environment(ENVIRONMENT | {"WORKLOAD": " ", "AFTER_HOURS": "0"})
    with pytest.raises(MisconfiguredError, match="action must be look, start or stop, got 'sleep'"):
        handle("sleep", Account(), SETTINGS, NOW)
    with pytest.raises(MisconfiguredError, match="must be running or stopped, got 'none'"):
        handle("look", Account(value="none"), SETTINGS, NOW)


def test_should_write_the_state_and_tell_people_and_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        sns, sqs, ssm = (boto3.client(name) for name in ("sns", "sqs", "ssm"))
        topic = sns.create_topic(Name="stakeholders")["TopicArn"]
        queue = sqs.create_queue(QueueName="reader")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        raw = {"RawMessageDelivery": "true"}
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes=raw)
        ssm.put_parameter(Name="/state", Value=RUNNING, Type="String")
        settings = Settings.from_environment(ENVIRONMENT | {"TOPIC_ARN": topic})
        cloud = AwsCloud(settings, {"sns": sns, "ssm": ssm})
        cloud.set_state(STOPPED, "nobody asks")
        assert cloud.state().value == STOPPED
        cloud.tell("nobody asks", {"hours without a request": 72, "endpoint": None})
        (message,) = sqs.receive_message(QueueUrl=queue)["Messages"]
    notice = json.loads(message["Body"])
    assert (notice["notice"], notice["workload"], notice["why"]) == (
        "serving.stopped",
        "parcels",
        "nobody asks",
    )
    assert notice["numbers"] == {"hours without a request": 72}
    assert set(notice["links"]) == {"Serving", "Operations"}
