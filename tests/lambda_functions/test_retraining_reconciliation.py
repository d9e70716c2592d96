"""The hourly look for drift that no training has answered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from retrain_trigger.aws import SageMakerPipelines
from retrain_trigger.errors import TransientError
from retrain_trigger.logic import RECONCILIATION, Execution, retrain
from retrain_trigger.settings import Settings
from test_retrain_trigger import NOW, FakePipelines, alarm, execution

SETTINGS = Settings(
    pipeline_name="dev-claims-fraud",
    workload="claims_fraud",
    cooldown=timedelta(hours=12),
    drift_alarms=("drift", "quality"),
)


def looked(*executions: Execution, on: dict[str, float], at: datetime = NOW) -> dict[str, object]:
    """What the hourly look decides; ``on`` are alarms by name, since how many hours before now."""
    pipelines = FakePipelines(*executions, now=at)
    pipelines.alarms = {name: NOW - timedelta(hours=hours) for name, hours in on.items()}
    event = {"detail-type": RECONCILIATION, "time": at.isoformat(), "detail": {}}
    return retrain(event, pipelines, SETTINGS, now=at)


def test_should_start_for_an_alarm_whose_event_was_lost() -> None:
    found = looked(execution("old", "Succeeded", hours_ago=40), on={"drift": 2})

    assert found["started"] is True
    assert found["reason"] == "drift: alarm drift on since 2026-11-21T10:00:00Z"


def test_should_do_nothing_while_no_alarm_is_on() -> None:
    assert looked(on={})["why"] == "no alarm of drift is on"
    assert looked(on={"errors": 1})["why"] == "no alarm of drift is on"


def test_should_take_an_alarm_as_answered_by_the_execution_that_started_after_it() -> None:
    found = looked(execution("answer", "Failed", hours_ago=30), on={"drift": 31})

    assert found["started"] is False
    assert str(found["why"]).endswith("started after this trigger and answers it")


def test_should_take_the_alarm_that_went_on_last() -> None:
    found = looked(execution("first", "Succeeded", hours_ago=30), on={"drift": 31, "quality": 3})

    assert (found["started"], str(found["reason"])[:20]) == (True, "drift: alarm quality")


def test_should_start_after_the_cooldown_for_drift_that_began_within_it() -> None:
    latest = execution("latest", "Succeeded", hours_ago=5)
    assert looked(latest, on={"drift": 1})["why"] == (
        "cooldown until 2026-11-21T19:00:00Z after execution arn:execution/latest"
    )

    assert looked(latest, on={"drift": 1}, at=NOW + timedelta(hours=8))["started"] is True


def test_should_wait_for_the_execution_that_runs() -> None:
    found = looked(execution("runs", "Executing", hours_ago=20), on={"drift": 1})

    assert found["why"] == "execution arn:execution/runs is Executing"


def test_should_start_once_together_with_an_event_that_was_only_late() -> None:
    pipelines = FakePipelines(now=NOW + timedelta(seconds=3))
    pipelines.alarms = {"drift": NOW}
    event = {"detail-type": RECONCILIATION, "time": (NOW + timedelta(hours=1)).isoformat(), "detail": {}}
    asked = [
        retrain(each, pipelines, SETTINGS, now=NOW + timedelta(hours=1))["started"]
        for each in (event, alarm(), event)
    ]

    assert asked == [True, False, False]


@pytest.fixture
def cloudwatch() -> Any:
    return boto3.client(
        "cloudwatch", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )


def test_should_read_which_alarms_are_on_and_since_when(cloudwatch: Any) -> None:
    since = datetime(2026, 11, 21, 10, tzinfo=UTC)
    with Stubber(cloudwatch) as stub:
        stub.add_response(
            "describe_alarms",
            {
                "MetricAlarms": [
                    {
                        "AlarmName": "drift",
                        "StateValue": "ALARM",
                        "StateUpdatedTimestamp": NOW,
                        "StateTransitionedTimestamp": since,
                    },
                    {"AlarmName": "quality", "StateValue": "OK", "StateUpdatedTimestamp": NOW},
                ]
            },
            {"AlarmNames": ["drift", "quality"], "AlarmTypes": ["MetricAlarm"]},
        )
        found = SageMakerPipelines(None, cloudwatch=cloudwatch).alarms_on(("drift", "quality"))

    assert found == {"drift": since}


def test_should_try_again_when_cloudwatch_throttles(cloudwatch: Any) -> None:
    with Stubber(cloudwatch) as stub:
        stub.add_client_error("describe_alarms", "Throttling", "slow down", 400)
        with pytest.raises(TransientError, match="slow down"):
            SageMakerPipelines(None, cloudwatch=cloudwatch).alarms_on(("drift",))


def test_should_read_the_alarms_from_its_environment() -> None:
    variables = {"PIPELINE_NAME": "p", "WORKLOAD": "w", "COOLDOWN_HOURS": "1"}

    assert Settings.from_environment(variables).drift_alarms == ()
    assert Settings.from_environment({**variables, "DRIFT_ALARMS": "a,b"}).drift_alarms == ("a", "b")
