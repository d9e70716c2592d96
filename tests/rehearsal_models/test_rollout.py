"""Deployment configurations as steps of traffic."""

from typing import Any

import pytest

from rehearsal.executors.serving.rollout import DeploymentConfigError, plan


def blue_green(kind: str, wait: int = 600, **routing: Any) -> dict[str, Any]:
    """A blue/green deployment configuration."""
    return {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {"Type": kind, "WaitIntervalInSeconds": wait, **routing},
            "TerminationWaitInSeconds": 120,
            "MaximumExecutionTimeoutInSeconds": 3600,
        },
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "errors"}, {"AlarmName": "latency"}]},
    }


def percent(value: int) -> dict[str, Any]:
    """A capacity size."""
    return {"Type": "CAPACITY_PERCENT", "Value": value}


def shares(config: dict[str, Any] | None, instances: int = 10) -> list[tuple[float, float]]:
    """The steps of a plan."""
    return [(shift.share, shift.wait_seconds) for shift in plan(config, instances).shifts]


def test_should_move_everything_at_once_without_a_configuration() -> None:
    assert shares(None) == [(1.0, 0)]
    assert shares(blue_green("ALL_AT_ONCE")) == [(1.0, 600)]


def test_should_bake_a_canary_and_then_the_whole_fleet() -> None:
    found = plan(blue_green("CANARY", CanarySize=percent(10)), 1)
    assert [(s.share, s.wait_seconds) for s in found.shifts] == [(0.1, 600), (1.0, 600)]
    assert (found.alarms, found.termination_wait_seconds, found.timeout_seconds) == (
        ("errors", "latency"),
        120,
        3600,
    )


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (percent(50), [0.5, 1.0]),
        (percent(30), [0.3, 0.6, 0.9, 1.0]),
        (percent(10), [round(n / 10, 1) for n in range(1, 11)]),
        ({"Type": "INSTANCE_COUNT", "Value": 5}, [0.5, 1.0]),
    ],
)
def test_should_move_in_equal_steps_when_linear(size: dict[str, Any], expected: list[float]) -> None:
    assert shares(blue_green("LINEAR", 60, LinearStepSize=size)) == [(share, 60) for share in expected]


def test_should_replace_batch_by_batch_when_rolling() -> None:
    rolling = {"RollingUpdatePolicy": {"MaximumBatchSize": percent(50), "WaitIntervalInSeconds": 30}}
    assert shares(rolling) == [(0.5, 30), (1.0, 30)]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (blue_green("CANARY"), "Type CANARY needs CanarySize"),
        (blue_green("LINEAR", CanarySize=percent(10)), "CanarySize belongs to Type CANARY, got Type LINEAR"),
        (blue_green("CANARY", CanarySize=percent(60)), "CanarySize must be 0% to 50% .* got 60"),
        (blue_green("LINEAR", LinearStepSize=percent(5)), "LinearStepSize must be 10% to 50%"),
        (
            {
                "RollingUpdatePolicy": {"MaximumBatchSize": percent(10), "WaitIntervalInSeconds": 0},
                **blue_green("ALL_AT_ONCE"),
            },
            "BlueGreenUpdatePolicy or RollingUpdatePolicy, not both",
        ),
    ],
)
def test_should_refuse_what_sagemaker_refuses(config: dict[str, Any], message: str) -> None:
    with pytest.raises(DeploymentConfigError, match=message):
        plan(config, 10)
