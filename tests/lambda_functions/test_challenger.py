"""Challengers: tried beside the champion, promoted or rejected; whatever comes twice, late, or is cut off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.stub import Stubber
from hypothesis import given, settings
from hypothesis import strategies as st
from model_promotion.aws import AwsCloud
from model_promotion.challenger import ATTEMPTS
from model_promotion.cloud import NONE
from model_promotion.errors import MisconfiguredError, TransientError
from model_promotion.logic import Event, Package, ParameterVersion, Stack, handle
from model_promotion.settings import Acceptance, ChallengerTest, Settings

T0 = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
GROUP, STACK = "dev-claims-fraud", "Dev-ClaimsFraudServing"
CHAMPION, CHALLENGER = "/a/approved-model-package", "/a/challenger-model-package"
ALARM = "Dev-ClaimsFraudServing-ChallengerErrors"
TEST = ChallengerTest(
    parameter_name=CHALLENGER,
    minutes=60,
    endpoint_name="dev-claims-fraud",
    variant="Challenger",
    minimum_requests=100,
    schedule_group="dev-claims-fraud",
    schedule_prefix="challenger",
    schedule_role_arn="arn:aws:iam::111122223333:role/schedule",
    queue_arn="arn:aws:sqs:us-east-1:111122223333:events",
)
SETTINGS = Settings(
    parameter_name=CHAMPION,
    stack_name=STACK,
    group_name=GROUP,
    acceptance=Acceptance(metric="auc", at_least=0.75),
    challenger=TEST,
)


def arn(version: int) -> str:
    return f"arn:aws:sagemaker:us-east-1:111122223333:model-package/{GROUP}/{version}"


ONE, TWO, THREE = arn(1), arn(2), arn(3)


class CrashedError(Exception):
    """The function died before a call."""


@dataclass
class Fleet:
    """AWS as far as a test of challengers sees it: two parameters, one stack, one update at a time."""

    packages: dict[str, Package] = field(default_factory=dict)
    values: dict[str, list[ParameterVersion]] = field(
        default_factory=lambda: {
            name: [ParameterVersion(value=NONE, modified=T0)] for name in (CHAMPION, CHALLENGER)
        }
    )
    status: str = "CREATE_COMPLETE"
    runs: tuple[str, str] = (NONE, NONE)
    attempted: tuple[str, str] = (NONE, NONE)
    updated: datetime | None = None
    clock: datetime = T0
    planned: dict[str, dict[str, Any]] = field(default_factory=dict)
    ringing: set[str] = field(default_factory=set)
    asked: int = 1_000
    rejections: dict[str, str] = field(default_factory=dict)
    #: The call, counted from here on, before which the function dies.
    crash_at: int | None = None

    def tick(self) -> datetime:
        self.clock += timedelta(minutes=1)
        return self.clock

    def _call(self) -> None:
        if self.crash_at is not None:
            self.crash_at -= 1
            if self.crash_at < 0:
                self.crash_at = None
                raise CrashedError

    def approve(self, package: str) -> dict[str, Any]:
        self.packages[package] = Package(
            arn=package,
            approval_status="Approved",
            evaluation_uri="s3://b/e",
            modified=self.clock + timedelta(minutes=1),
        )
        detail = {
            "ModelPackageGroupName": GROUP,
            "ModelPackageArn": package,
            "ModelApprovalStatus": "Approved",
        }
        return self.event("SageMaker Model Package State Change", detail)

    def event(self, kind: str, detail: dict[str, Any]) -> dict[str, Any]:
        return {"id": "e", "detail-type": kind, "time": self.tick().isoformat(), "detail": detail}

    def ring(self) -> dict[str, Any]:
        self.ringing.add(ALARM)
        return self.event("CloudWatch Alarm State Change", {"alarmName": ALARM, "state": {"value": "ALARM"}})

    def finish(self, *, succeeded: bool = True) -> dict[str, Any]:
        """End the running update; the event that a rollback raises."""
        assert self.status == "UPDATE_IN_PROGRESS"
        if succeeded:
            self.runs, self.status = self.attempted, "UPDATE_COMPLETE"
        else:
            self.status = "UPDATE_ROLLBACK_COMPLETE"
        detail = {
            "stack-id": f"arn:aws:cloudformation:us-east-1:111122223333:stack/{STACK}/0f1e",
            "status-details": {"status": self.status},
        }
        return self.event("CloudFormation Stack Status Change", detail)

    def value(self, name: str) -> str:
        return self.values[name][-1].value

    def ending(self) -> dict[str, Any]:
        """What the latest schedule sends."""
        return list(self.planned.values())[-1]

    # --- the protocol ---

    def package(self, arn: str) -> Package | None:
        self._call()
        return self.packages.get(arn)

    def approved(self, group_name: str) -> Sequence[str]:
        self._call()
        assert group_name == GROUP
        return sorted((a for a, p in self.packages.items() if p.approval_status == "Approved"), reverse=True)

    def reject(self, arn: str, reason: str) -> None:
        self._call()
        self.packages[arn] = replace(self.packages[arn], approval_status="Rejected")
        self.rejections[arn] = reason

    def evaluation(self, uri: str) -> object | None:
        self._call()
        return {"metrics": {"auc": {"value": 0.9}}}

    def history(self, parameter_name: str) -> Sequence[ParameterVersion]:
        self._call()
        return list(self.values[parameter_name])

    def put(self, parameter_name: str, value: str, description: str) -> None:
        self._call()
        self.values[parameter_name].append(
            ParameterVersion(value=value, modified=self.tick(), description=description)
        )

    def stack(self, name: str, parameter_name: str, challenger_name: str | None = None) -> Stack:
        self._call()
        assert (name, parameter_name, challenger_name) == (STACK, CHAMPION, CHALLENGER)
        serves, challenger = self.attempted if self.status == "UPDATE_IN_PROGRESS" else self.runs
        return Stack(
            status=self.status,
            status_reason="",
            updated=self.updated,
            parameters=("Approved", "Challenger"),
            serves=serves,
            challenger=challenger,
        )

    def failures(self, stack_name: str, since: datetime | None) -> Sequence[str]:
        self._call()
        return ["Endpoint: its alarm is in ALARM"]

    def update(self, stack_name: str, parameters: Sequence[str]) -> bool:
        self._call()
        if self.status.endswith("_IN_PROGRESS"):
            raise TransientError("busy")
        wanted = (self.value(CHAMPION), self.value(CHALLENGER))
        if wanted == self.runs:
            return False
        self.attempted, self.status, self.updated = wanted, "UPDATE_IN_PROGRESS", self.tick()
        return True

    def now(self) -> datetime:
        return T0

    def schedule(self, name: str, when: datetime, body: Mapping[str, object]) -> None:
        self._call()
        assert when > T0
        self.planned.setdefault(name, dict(body))

    def alarms(self) -> Mapping[str, bool]:
        self._call()
        return {ALARM: ALARM in self.ringing}

    def requests(self, since: datetime, until: datetime) -> int:
        self._call()
        assert since < until
        return self.asked


def act(fleet: Fleet, event: dict[str, Any]) -> str:
    return handle(Event.parse(event), fleet, SETTINGS).action


@pytest.fixture
def fleet() -> Fleet:
    """Package 1 is in service."""
    return serving()


def serving() -> Fleet:
    fleet = Fleet()
    assert act(fleet, fleet.approve(ONE)) == "promoted"
    fleet.finish()
    assert fleet.runs == (ONE, NONE)
    return fleet


def tried(fleet: Fleet, package: str = TWO) -> Fleet:
    """A package stands beside the champion."""
    assert act(fleet, fleet.approve(package)) == "testing"
    fleet.finish()
    assert fleet.runs == (ONE, package)
    return fleet


def test_should_promote_the_first_model_without_a_test(fleet: Fleet) -> None:
    assert fleet.planned == {}
    assert fleet.value(CHALLENGER) == NONE


def test_should_plan_the_end_of_the_test_when_it_begins(fleet: Fleet) -> None:
    event = fleet.approve(TWO)
    act(fleet, event)

    body = fleet.ending()
    assert body["detail"]["ModelPackageArn"] == TWO
    assert datetime.fromisoformat(body["time"]) == datetime.fromisoformat(event["time"]) + timedelta(hours=1)
    assert len(fleet.planned) == 1


def test_should_make_a_quiet_challenger_the_champion(fleet: Fleet) -> None:
    tried(fleet)

    assert act(fleet, fleet.ending()) == "promoted"
    fleet.finish()
    assert fleet.runs == (TWO, NONE)
    assert "promoted after 1000 requests" in fleet.values[CHAMPION][-1].description
    assert act(fleet, fleet.ending()) == "ignored"


def test_should_reject_a_challenger_at_once_when_its_alarm_rings(fleet: Fleet) -> None:
    tried(fleet)

    assert act(fleet, fleet.ring()) == "rejected"
    fleet.finish()
    assert fleet.runs == (ONE, NONE)
    assert fleet.rejections[TWO] == f"Rejected as a challenger: alarm {ALARM} went off"
    assert act(fleet, fleet.ending()) == "ignored"


def test_should_reject_at_the_end_what_rings_then(fleet: Fleet) -> None:
    tried(fleet)
    fleet.ringing.add(ALARM)

    assert act(fleet, fleet.ending()) == "rejected"
    assert f"alarm {ALARM} is in ALARM" in fleet.rejections[TWO]


def test_should_go_on_when_too_little_was_seen_and_give_up_in_the_end(fleet: Fleet) -> None:
    tried(fleet)
    fleet.asked = 99

    for attempt in range(1, ATTEMPTS):
        assert act(fleet, fleet.ending()) == "testing"
        assert fleet.ending()["detail"]["Attempt"] == attempt + 1
    assert act(fleet, fleet.ending()) == "rejected"
    assert fleet.rejections[TWO].endswith("it had 99 requests of at least 100")


def test_should_end_the_test_of_a_package_that_a_person_rejected_meanwhile(fleet: Fleet) -> None:
    tried(fleet)
    fleet.packages[TWO] = replace(fleet.packages[TWO], approval_status="Rejected")

    assert act(fleet, fleet.ending()) == "rejected"
    fleet.finish()
    assert fleet.runs == (ONE, NONE)
    assert TWO not in fleet.rejections


def test_should_keep_the_next_approval_waiting_until_the_test_is_over(fleet: Fleet) -> None:
    tried(fleet)
    later = fleet.approve(THREE)

    with pytest.raises(TransientError, match="waits for the end of its test"):
        act(fleet, later)
    act(fleet, fleet.ending())
    fleet.finish()

    assert act(fleet, later) == "testing"
    assert fleet.value(CHALLENGER) == THREE


def test_should_reject_a_challenger_that_the_stack_could_not_bring_up(fleet: Fleet) -> None:
    act(fleet, fleet.approve(TWO))
    event = fleet.finish(succeeded=False)

    assert act(fleet, event) == "restored"
    assert (fleet.value(CHAMPION), fleet.value(CHALLENGER)) == (ONE, NONE)
    assert "its alarm is in ALARM" in fleet.rejections[TWO]


def test_should_take_the_challenger_away_when_its_promotion_was_rolled_back(fleet: Fleet) -> None:
    tried(fleet)
    act(fleet, fleet.ending())
    event = fleet.finish(succeeded=False)
    assert fleet.runs == (ONE, TWO)

    assert act(fleet, event) == "restored"
    fleet.finish()
    assert fleet.runs == (ONE, NONE)
    assert fleet.packages[TWO].approval_status == "Rejected"


def test_should_ignore_an_alarm_that_watches_something_else(fleet: Fleet) -> None:
    tried(fleet)
    event = fleet.event("CloudWatch Alarm State Change", {"alarmName": "other", "state": {"value": "ALARM"}})

    assert act(fleet, event) == "ignored"
    assert fleet.value(CHALLENGER) == TWO


@settings(max_examples=150)
@given(data=st.data())
def test_should_end_with_one_model_whatever_comes_twice_late_or_is_cut_short(data: st.DataObject) -> None:
    """Messages are delivered in any order and again; the function dies before any call; updates fail."""
    fleet = serving()
    queue = [fleet.approve(package) for package in data.draw(st.permutations([TWO, THREE]))]
    ended = False
    for _ in range(60):
        if fleet.status == "UPDATE_IN_PROGRESS" and data.draw(st.booleans()):
            event = fleet.finish(succeeded=data.draw(st.booleans()))
            if fleet.status == "UPDATE_ROLLBACK_COMPLETE":
                queue.append(event)
            continue
        known = {str(body) for body in queue}
        queue += [body for body in fleet.planned.values() if str(body) not in known]
        if data.draw(st.integers(0, 9)) == 0:
            queue.append(fleet.ring())
        if not queue:
            break
        at = data.draw(st.integers(0, len(queue) - 1))
        fleet.crash_at = data.draw(st.none() | st.integers(0, 12))
        try:
            act(fleet, queue[at])
        except (TransientError, CrashedError):
            continue
        finally:
            fleet.crash_at = None
            # The alarm is quiet again once its variant has gone.
            if fleet.value(CHALLENGER) == NONE:
                fleet.ringing.clear()
        if data.draw(st.booleans()):
            queue.pop(at)

    # From here on nothing fails: every message is delivered until it is handled.
    for _ in range(60):
        if fleet.status == "UPDATE_IN_PROGRESS":
            event = fleet.finish()
        waiting = [*queue, *fleet.planned.values()]
        ended = True
        for event in waiting:
            if fleet.status == "UPDATE_IN_PROGRESS":
                fleet.finish()
            try:
                ended = act(fleet, event) == "ignored" and ended
            except TransientError:
                ended = False
        if ended and fleet.status != "UPDATE_IN_PROGRESS":
            break

    assert ended
    assert fleet.value(CHALLENGER) == NONE
    assert fleet.runs == (fleet.value(CHAMPION), NONE)
    assert fleet.packages[fleet.value(CHAMPION)].approval_status == "Approved"


# --- AWS, by its own service models ---


@pytest.fixture
def aws() -> tuple[AwsCloud, dict[str, Stubber]]:
    clients = {
        name: boto3.client(
            name,  # type: ignore[call-overload]
            region_name="us-east-1",
            aws_access_key_id="x",
            aws_secret_access_key="x",
            config=Config(retries={"total_max_attempts": 1}),
        )
        for name in ("sagemaker", "ssm", "s3", "cloudformation", "cloudwatch", "scheduler")
    }
    stubs = {name: Stubber(client) for name, client in clients.items()}
    for stub in stubs.values():
        stub.activate()
    return AwsCloud(**clients, stack_name=STACK, test=TEST), stubs


def test_should_ask_scheduler_for_one_message_and_take_a_second_time_as_done(
    aws: tuple[AwsCloud, dict[str, Stubber]],
) -> None:
    cloud, stubs = aws
    stubs["scheduler"].add_response(
        "create_schedule",
        {"ScheduleArn": "arn:aws:scheduler:us-east-1:111122223333:schedule/dev-claims-fraud/n"},
        {
            "Name": "n",
            "GroupName": "dev-claims-fraud",
            "ScheduleExpression": "at(2026-11-21T13:00:00)",
            "ScheduleExpressionTimezone": "UTC",
            "FlexibleTimeWindow": {"Mode": "OFF"},
            "ActionAfterCompletion": "DELETE",
            "Target": {"Arn": TEST.queue_arn, "RoleArn": TEST.schedule_role_arn, "Input": '{"a": 1}'},
        },
    )
    stubs["scheduler"].add_client_error("create_schedule", "ConflictException", "exists", 409)
    stubs["scheduler"].add_client_error("create_schedule", "ValidationException", "bad", 400)

    cloud.schedule("n", T0 + timedelta(hours=1), {"a": 1})
    cloud.schedule("n", T0 + timedelta(hours=1), {"a": 1})
    with pytest.raises(MisconfiguredError):
        cloud.schedule("n", T0 + timedelta(hours=1), {"a": 1})


def test_should_read_only_the_challengers_alarms(aws: tuple[AwsCloud, dict[str, Stubber]]) -> None:
    cloud, stubs = aws

    def alarm(name: str, variant: str, state: str) -> dict[str, object]:
        return {
            "AlarmName": name,
            "StateValue": state,
            "Dimensions": [{"Name": "VariantName", "Value": variant}],
        }

    resources = [
        {"ResourceType": kind, "PhysicalResourceId": name}
        for kind, name in (
            ("AWS::CloudWatch::Alarm", "a"),
            ("AWS::SageMaker::Endpoint", "x"),
            ("AWS::CloudWatch::Alarm", "b"),
            ("AWS::CloudWatch::Alarm", "c"),
        )
    ]
    more = {"LogicalResourceId": "r", "LastUpdatedTimestamp": T0, "ResourceStatus": "CREATE_COMPLETE"}
    stubs["cloudformation"].add_response(
        "list_stack_resources",
        {"StackResourceSummaries": [{**more, **resource} for resource in resources]},
        {"StackName": STACK},
    )
    stubs["cloudwatch"].add_response(
        "describe_alarms",
        {
            "MetricAlarms": [
                alarm("a", "AllTraffic", "ALARM"),
                alarm("b", "Challenger", "ALARM"),
                alarm("c", "Challenger", "OK"),
            ]
        },
        {"AlarmNames": ["a", "b", "c"], "AlarmTypes": ["MetricAlarm"]},
    )

    assert cloud.alarms() == {"b": True, "c": False}


@pytest.mark.parametrize(("hours", "period"), [(1, 60), (25, 3_600)])
def test_should_count_the_challengers_requests(
    aws: tuple[AwsCloud, dict[str, Stubber]], hours: int, period: int
) -> None:
    cloud, stubs = aws
    stubs["cloudwatch"].add_response(
        "get_metric_statistics",
        {"Datapoints": [{"Sum": 40.0}, {"Sum": 2.0}]},
        {
            "Namespace": "AWS/SageMaker",
            "MetricName": "Invocations",
            "Dimensions": [
                {"Name": "EndpointName", "Value": "dev-claims-fraud"},
                {"Name": "VariantName", "Value": "Challenger"},
            ],
            "StartTime": T0,
            "EndTime": T0 + timedelta(hours=hours),
            "Period": period,
            "Statistics": ["Sum"],
        },
    )

    assert cloud.requests(T0, T0 + timedelta(hours=hours)) == 42


def test_should_name_every_variable_that_a_test_of_challengers_lacks() -> None:
    with pytest.raises(MisconfiguredError) as caught:
        Settings.from_environment({"CHALLENGER_PARAMETER_NAME": "/c", "MINIMUM_REQUESTS": "0"})

    for text in ("ENDPOINT_NAME is not set", "QUEUE_ARN is not set", "TEST_MINUTES", "MINIMUM_REQUESTS"):
        assert text in str(caught.value)
