"""The real-time endpoint's further ways: in batches, beside a challenger, by steps, by the clock."""

from __future__ import annotations

from pathlib import Path

import aws_cdk as cdk
import pytest
from aws_cdk import aws_ecr as ecr
from cdk_support import Template, only, resources, synthesise_stacks
from ml_contract.load import LoadedWorkload
from ml_lifecycle.serving import ModelEndpoint
from model_support import NAME, PARAMETER, Around, parcels

CHALLENGER = "/ml-lifecycle/test/parcel-delay/challenger-model-package"
BLOCKS = {
    "Rolling": "{rollout: {strategy: rolling, step_percent: 20, bake_minutes: 4}}",
    "Ab": "{rollout: {strategy: ab, challenger_percent: 15, max_latency_ms: 90}, initial_instance_count: 2}",
    "Shadow": "{rollout: {strategy: shadow, challenger_percent: 60}}",
    "Steps": (
        "{scaling: {kind: step, max_capacity: 9, steps: [{above: 3000, add: 3}, {above: 1500, add: 1}, "
        "{below: 300, add: -1}, {below: 100, add: -2}], schedules: {office_hours: "
        "{cron: '0 7 ? * MON-FRI *', timezone: Europe/Vienna, min_capacity: 2, max_capacity: 8}}}}"
    ),
}


def endpoint(stack: cdk.Stack, workload: LoadedWorkload, challenger: str | None) -> ModelEndpoint:
    around = Around(stack)
    return ModelEndpoint(
        stack,
        "Endpoint",
        workload=workload,
        endpoint_name=NAME,
        approval_parameter_name=PARAMETER,
        challenger_parameter_name=challenger,
        artifacts=around.lake.artifacts,
        volume_key=around.data_key,
        repository=ecr.Repository.from_repository_name(stack, "Images", "images"),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workloads")


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> dict[str, Template]:
    def builder(name: str, block: str) -> object:
        challenger = CHALLENGER if name in ("Ab", "Shadow") else None
        return lambda stack: endpoint(stack, parcels(folder, f"serving: {block}\n"), challenger)

    builders = {name: builder(name, block) for name, block in BLOCKS.items()}
    return synthesise_stacks(tmp_path_factory.mktemp("rollouts"), builders)  # type: ignore[arg-type]


def test_should_replace_instances_in_batches(templates: dict[str, Template]) -> None:
    config = only(templates["Rolling"], "AWS::SageMaker::Endpoint")["DeploymentConfig"]
    assert "BlueGreenUpdatePolicy" not in config
    assert config["RollingUpdatePolicy"] == {
        "MaximumBatchSize": {"Type": "CAPACITY_PERCENT", "Value": 20},
        "WaitIntervalInSeconds": 240,
        "MaximumExecutionTimeoutInSeconds": 5 * 240 + 120 + 3_600,
    }
    assert len(config["AutoRollbackConfiguration"]["Alarms"]) == 2


@pytest.mark.parametrize("stack", ["Ab", "Shadow"])
def test_should_try_a_challenger_only_beside_an_approved_model(
    templates: dict[str, Template], stack: str
) -> None:
    template = templates[stack]
    conditions = template["Conditions"]
    [has] = [name for name in conditions if "HasChallenger" in name]
    [approved] = [name for name in conditions if "IsApproved" in name]
    [parameter] = [name for name in template["Parameters"] if "ChallengerModelPackage" in name]
    assert template["Parameters"][parameter]["Default"] == CHALLENGER
    assert conditions[has] == {
        "Fn::And": [
            {"Condition": approved},
            {"Fn::Not": [{"Fn::Equals": [{"Ref": parameter}, "none"]}]},
        ]
    }
    models = resources(template, "AWS::SageMaker::Model")
    assert sorted(model["Condition"] for model in models.values()) == sorted([has, approved])
    endpoint = only(template, "AWS::SageMaker::Endpoint")
    # Variants come and go: a deployment configuration would want them to stay.
    assert "DeploymentConfig" not in endpoint
    assert endpoint["ExcludeRetainedVariantProperties"] == [{"VariantPropertyType": "DesiredWeight"}]


def test_should_share_live_traffic_by_weight(templates: dict[str, Template]) -> None:
    champion, tried = only(templates["Ab"], "AWS::SageMaker::EndpointConfig")["ProductionVariants"]
    assert (champion["VariantName"], champion["InitialVariantWeight"]) == ("AllTraffic", 85)
    condition, challenger, otherwise = tried["Fn::If"]
    assert condition in templates["Ab"]["Conditions"]
    assert otherwise == {"Ref": "AWS::NoValue"}
    model = challenger.pop("ModelName")
    assert model["Fn::GetAtt"][0].startswith("EndpointChallengerModel")
    assert challenger == {
        "VariantName": "Challenger",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 2,
        "InitialVariantWeight": 15,
    }


def test_should_copy_a_share_of_requests_to_a_shadow(templates: dict[str, Template]) -> None:
    config = only(templates["Shadow"], "AWS::SageMaker::EndpointConfig")
    [champion] = config["ProductionVariants"]
    _, [shadow], otherwise = config["ShadowProductionVariants"]["Fn::If"]
    # SageMaker copies the shadow's weight divided by the champion's.
    assert shadow["InitialVariantWeight"] / champion["InitialVariantWeight"] == 0.6
    assert otherwise == {"Ref": "AWS::NoValue"}


def test_should_watch_the_challenger_alone(templates: dict[str, Template]) -> None:
    alarms = {
        name: alarm["Properties"]
        for name, alarm in resources(templates["Ab"], "AWS::CloudWatch::Alarm").items()
        if name.startswith("EndpointChallenger")
    }
    assert {a["MetricName"] for a in alarms.values()} == {"Invocation5XXErrors", "ModelLatency"}
    for alarm in alarms.values():
        assert {d["Name"]: d["Value"] for d in alarm["Dimensions"]} == {
            "EndpointName": NAME,
            "VariantName": "Challenger",
        }
        if alarm["MetricName"] == "ModelLatency":
            assert alarm["Threshold"] == 90_000


def test_should_take_steps_up_and_down(templates: dict[str, Template]) -> None:
    template = templates["Steps"]
    policies = resources(template, "AWS::ApplicationAutoScaling::ScalingPolicy")
    by_name = {p["Properties"]["PolicyName"]: (name, p["Properties"]) for name, p in policies.items()}
    assert set(by_name) == {"ScaleOut", "ScaleIn"}
    steps = {
        name: found["StepScalingPolicyConfiguration"]["StepAdjustments"]
        for name, (_, found) in by_name.items()
    }
    # Bounds count from the alarm's threshold: 1,500 up, 300 down.
    assert steps["ScaleOut"] == [
        {"MetricIntervalLowerBound": 0, "MetricIntervalUpperBound": 1_500, "ScalingAdjustment": 1},
        {"MetricIntervalLowerBound": 1_500, "ScalingAdjustment": 3},
    ]
    assert steps["ScaleIn"] == [
        {"MetricIntervalLowerBound": -200, "MetricIntervalUpperBound": 0, "ScalingAdjustment": -1},
        {"MetricIntervalUpperBound": -200, "ScalingAdjustment": -2},
    ]
    alarms = {
        a["Properties"]["AlarmActions"][0]["Ref"]: a["Properties"]
        for a in resources(template, "AWS::CloudWatch::Alarm").values()
        if "AlarmActions" in a["Properties"]
    }
    out, back = alarms[by_name["ScaleOut"][0]], alarms[by_name["ScaleIn"][0]]
    load = ("InvocationsPerInstance", "Sum", 60)
    assert (out["MetricName"], out["Statistic"], out["Period"]) == load
    # A step is taken by a value: where nobody asks there is no data point, and 0 stands for it.
    filled, metric = back["Metrics"]
    assert (filled["Expression"], filled["ReturnData"]) == ("FILL(load, 0)", True)
    stat = metric["MetricStat"]
    assert (stat["Metric"]["MetricName"], stat["Stat"], stat["Period"]) == load
    assert (out["Threshold"], out["ComparisonOperator"], out["TreatMissingData"]) == (
        1_500,
        "GreaterThanThreshold",
        "notBreaching",
    )
    # Nobody asks: then the fleet may shrink.
    assert (back["Threshold"], back["ComparisonOperator"], back["TreatMissingData"]) == (
        300,
        "LessThanThreshold",
        "breaching",
    )


def test_should_change_its_size_by_the_clock(templates: dict[str, Template]) -> None:
    target = only(templates["Steps"], "AWS::ApplicationAutoScaling::ScalableTarget")
    assert target["ScheduledActions"] == [
        {
            "ScheduledActionName": "office_hours",
            "Schedule": "cron(0 7 ? * MON-FRI *)",
            "Timezone": "Europe/Vienna",
            "ScalableTargetAction": {"MinCapacity": 2, "MaxCapacity": 8},
        }
    ]
    assert "Schedules" not in str(only(templates["Rolling"], "AWS::ApplicationAutoScaling::ScalableTarget"))


def test_should_refuse_a_challenger_that_nobody_tries(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"goes with rollout\.strategy ab and shadow"):
        endpoint(cdk.Stack(), parcels(folder), CHALLENGER)
    with pytest.raises(ValueError, match=r"goes with rollout\.strategy ab and shadow"):
        endpoint(cdk.Stack(), parcels(folder, "serving: {rollout: {strategy: ab}}\n"), None)


def test_should_refuse_a_workload_of_another_style(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"must have serving\.style real_time, got serverless"):
        endpoint(cdk.Stack(), parcels(folder, "serving: {style: serverless}\n"), None)
