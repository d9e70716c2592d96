"""Fleets that scale by steps, by schedule, to zero and back."""

import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal.executors.serving.capacity import Capacity, Need, capacity_of
from rehearsal.executors.serving.rollout import batches
from rehearsal.executors.serving.scaling_rules import stepped, steps_problem

from .conftest import Rehearsal, await_
from .serving_support import advance, invoke, metric, on_instances, put_model, settled, traffic, up

STEPS = {
    "AdjustmentType": "ChangeInCapacity",
    "StepAdjustments": [
        {"MetricIntervalLowerBound": 0, "MetricIntervalUpperBound": 100, "ScalingAdjustment": 1},
        {"MetricIntervalLowerBound": 100, "ScalingAdjustment": 3},
    ],
}


@pytest.mark.parametrize(
    ("change", "breach", "current", "expected"),
    [
        ({}, 0, 1, 2),
        ({}, 99.9, 1, 2),
        ({}, 100, 1, 4),
        ({}, -1, 2, 2),
        ({}, 500, 5, 6),
        ({"AdjustmentType": "ExactCapacity"}, 100, 1, 3),
        ({"AdjustmentType": "PercentChangeInCapacity"}, 50, 4, 5),
        ({"AdjustmentType": "PercentChangeInCapacity", "MinAdjustmentMagnitude": 2}, 50, 3, 5),
        ({"StepAdjustments": [{"MetricIntervalUpperBound": 0, "ScalingAdjustment": -2}]}, -5, 4, 2),
        ({"StepAdjustments": [{"MetricIntervalUpperBound": 0, "ScalingAdjustment": -2}]}, -5, 1, 0),
    ],
)
def test_should_scale_by_the_step_that_the_breach_falls_into(
    change: dict[str, Any], breach: float, current: int, expected: int
) -> None:
    assert stepped({**STEPS, **change}, breach=breach, current=current, minimum=0, maximum=6) == expected


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "StepAdjustments is required"),
        ([{"MetricIntervalLowerBound": 3, "MetricIntervalUpperBound": 3}], "must be below"),
        (
            [{"MetricIntervalUpperBound": 1}, {"MetricIntervalLowerBound": 2}],
            "must neither overlap nor leave a gap",
        ),
    ],
)
def test_should_refuse_steps_that_overlap_or_leave_a_gap(steps: list[dict[str, float]], message: str) -> None:
    given = [{**step, "ScalingAdjustment": 1} for step in steps]
    problem = steps_problem({"AdjustmentType": "ChangeInCapacity", "StepAdjustments": given})
    assert message in str(problem)


@pytest.mark.parametrize(
    ("instances", "shares", "expected"),
    [
        (4, [0.25, 0.5, 0.75, 1.0], [1, 1, 1, 1]),
        (2, [0.5, 1.0], [1, 1]),
        (3, [0.5, 1.0], [2, 1]),
        (1, [0.5, 1.0], [1, 0]),
    ],
)
def test_should_roll_in_whole_instances(instances: int, shares: list[float], expected: list[int]) -> None:
    assert batches(instances, shares) == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("ml.c5.large", Capacity(cpus=2, memory_mb=4096)),
        ("ml.m5.xlarge", Capacity(cpus=4, memory_mb=16384)),
        ("ml.r6g.2xlarge", Capacity(cpus=8, memory_mb=65536, accelerators=0)),
        ("ml.g5.12xlarge", Capacity(cpus=48, memory_mb=196608, accelerators=4)),
        ("ml.p4d.24xlarge", Capacity(cpus=96, memory_mb=1179648, accelerators=8)),
        ("ml.unheard-of", None),
    ],
)
def test_should_know_what_an_instance_type_offers(kind: str, expected: Capacity | None) -> None:
    assert capacity_of(kind) == expected


def test_should_say_what_fits_on_an_instance() -> None:
    capacity = Capacity(cpus=2, memory_mb=4096)
    half = Need(cpus=1, memory_mb=2048)
    assert capacity.fits([half, half])
    assert not capacity.fits([half, half, Need(memory_mb=128)])
    assert not capacity.fits([Need(accelerators=1)])


def target(endpoint: str) -> dict[str, str]:
    """The instances of an endpoint's variant, as a scalable target."""
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{endpoint}/variant/AllTraffic",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }


def count_of(rehearsal: Rehearsal, endpoint: str) -> int:
    """How many instances a variant has."""
    found = rehearsal.client("sagemaker").describe_endpoint(EndpointName=endpoint)
    return int(found["ProductionVariants"][0]["CurrentInstanceCount"])


def step_alarm(rehearsal: Rehearsal, where: dict[str, str], adjustment: int, **alarm: Any) -> None:
    """A step policy of a target and the alarm that triggers it."""
    arn = rehearsal.client("application-autoscaling").put_scaling_policy(
        **where,
        PolicyName=f"{where['ResourceId'].split('/')[1]}-step",
        PolicyType="StepScaling",
        StepScalingPolicyConfiguration={
            "AdjustmentType": "ChangeInCapacity",
            "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": adjustment}],
            "Cooldown": 300,
        },
    )["PolicyARN"]
    rehearsal.client("cloudwatch").put_metric_alarm(
        Namespace="AWS/SageMaker",
        Period=60,
        EvaluationPeriods=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        TreatMissingData="notBreaching",
        AlarmActions=[arn],
        **alarm,
    )


@pytest.mark.rehearsal
@pytest.mark.slow
def test_should_scale_by_steps_and_by_schedule(rehearsal: Rehearsal) -> None:
    put_model(rehearsal, "stairs", 1)
    up(rehearsal, "stairs", on_instances("stairs"))
    scaling, where = rehearsal.client("application-autoscaling"), target("stairs")
    with pytest.raises(ClientError, match=r"MinCapacity of endpoint.* must be at least 1, got 0"):
        scaling.register_scalable_target(**where, MinCapacity=0, MaxCapacity=3)
    scaling.register_scalable_target(**where, MinCapacity=1, MaxCapacity=4)
    step_alarm(
        rehearsal,
        where,
        1,
        AlarmName="stairs-busy",
        MetricName="Invocations",
        Statistic="Sum",
        Threshold=5,
        Dimensions=[
            {"Name": "EndpointName", "Value": "stairs"},
            {"Name": "VariantName", "Value": "AllTraffic"},
        ],
    )
    for _ in range(6):
        invoke(rehearsal, "stairs")
    advance(rehearsal, minutes=2)
    assert count_of(rehearsal, "stairs") == 2
    for _ in range(6):
        invoke(rehearsal, "stairs")
    # What was added counts as part of the next step while it cools down.
    advance(rehearsal, minutes=2)
    assert count_of(rehearsal, "stairs") == 2
    now = rehearsal.server.control("GET", "/clock")["now"]
    hour = int(now[11:13])
    scaling.put_scheduled_action(
        **where,
        ScheduledActionName="office",
        Schedule=f"cron(30 {(hour + 2) % 24} * * ? *)",
        Timezone="UTC",
        ScalableTargetAction={"MinCapacity": 3, "MaxCapacity": 4},
    )
    scaling.put_scheduled_action(
        **where,
        ScheduledActionName="evening",
        Schedule=f"cron(30 {(hour + 3) % 24} * * ? *)",
        ScalableTargetAction={"MinCapacity": 1, "MaxCapacity": 1},
    )
    # Of this target: other tests of the module's server have theirs.
    actions = scaling.describe_scheduled_actions(
        ServiceNamespace="sagemaker", ResourceId=where["ResourceId"]
    )["ScheduledActions"]
    assert {action["ScheduledActionName"] for action in actions} == {"office", "evening"}
    advance(rehearsal, hours=2)
    fired = [item["title"] for item in advance(rehearsal, minutes=60 - int(now[14:16]))]
    counts = {count_of(rehearsal, "stairs")}
    fired += [item["title"] for item in advance(rehearsal, hours=1)]
    counts.add(count_of(rehearsal, "stairs"))
    assert [title for title in fired if title.startswith("scheduled scaling")][-1] == (
        "scheduled scaling evening"
    )
    assert counts == {3, 1}
    activities = scaling.describe_scaling_activities(
        ServiceNamespace="sagemaker", ResourceId=where["ResourceId"]
    )
    causes = [activity["Cause"] for activity in activities["ScalingActivities"]][::-1]
    assert [cause.split(" ")[0] for cause in causes] == ["monitor", "scheduled", "scheduled"]
    scaling.deregister_scalable_target(**where)
    left = scaling.describe_scheduled_actions(ServiceNamespace="sagemaker", ResourceId=where["ResourceId"])
    assert left["ScheduledActions"] == []
    rehearsal.client("cloudwatch").delete_alarms(AlarmNames=["stairs-busy"])


@pytest.mark.rehearsal
@pytest.mark.slow
def test_should_scale_an_asynchronous_endpoint_to_zero_and_back(rehearsal: Rehearsal) -> None:
    put_model(rehearsal, "naps", 1)
    output = {"OutputConfig": {"S3OutputPath": f"s3://{rehearsal.bucket}/naps/out"}}
    up(rehearsal, "naps", on_instances("naps"), AsyncInferenceConfig=output)
    scaling, where = rehearsal.client("application-autoscaling"), target("naps")
    scaling.register_scalable_target(**where, MinCapacity=0, MaxCapacity=2)
    dimensions = [{"Name": "EndpointName", "Value": "naps"}]
    scaling.put_scaling_policy(
        **where,
        PolicyName="naps-backlog",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": 5,
            "CustomizedMetricSpecification": {
                "Namespace": "AWS/SageMaker",
                "MetricName": "ApproximateBacklogSizePerInstance",
                "Statistic": "Average",
                "Dimensions": dimensions,
            },
        },
    )
    step_alarm(
        rehearsal,
        where,
        1,
        AlarmName="naps-waits",
        MetricName="HasBacklogWithoutCapacity",
        Statistic="Maximum",
        Threshold=1,
        Dimensions=dimensions,
    )
    runtime = rehearsal.client("sagemaker-runtime")

    def ask() -> None:
        place = rehearsal.put("naps/in.csv", "1")
        runtime.invoke_endpoint_async(EndpointName="naps", InputLocation=place, ContentType="text/csv")

    ask()
    await_(lambda: rehearsal.keys("naps/out"), lambda keys: len(keys) == 1, 10)
    advance(rehearsal, minutes=25)
    assert count_of(rehearsal, "naps") == 0
    ask()
    time.sleep(0.3)
    assert len(rehearsal.keys("naps/out")) == 1
    advance(rehearsal, minutes=3)
    assert count_of(rehearsal, "naps") == 1
    await_(lambda: rehearsal.keys("naps/out"), lambda keys: len(keys) == 2, 10)
    rehearsal.client("cloudwatch").delete_alarms(AlarmNames=["naps-waits"])


def component(model: str, copies: int = 1, memory: int = 1024, **given: Any) -> dict[str, Any]:
    """What a component runs."""
    return {
        "Specification": {
            "ModelName": model,
            "ComputeResourceRequirements": {"NumberOfCpuCoresRequired": 1, "MinMemoryRequiredInMb": memory},
            **given,
        },
        "RuntimeConfig": {"CopyCount": copies},
    }


def state_of(rehearsal: Rehearsal, name: str) -> dict[str, Any]:
    """Wait until a component rests; its description."""
    sagemaker = rehearsal.client("sagemaker")
    found: dict[str, Any] = await_(
        lambda: sagemaker.describe_inference_component(InferenceComponentName=name),
        lambda answer: answer["InferenceComponentStatus"] in ("InService", "Failed"),
        60,
    )
    return found


@pytest.mark.rehearsal
@pytest.mark.slow
def test_should_serve_several_models_on_one_fleet_by_components(rehearsal: Rehearsal) -> None:
    sagemaker, scaling = rehearsal.client("sagemaker"), rehearsal.client("application-autoscaling")
    for name, mean in (("north", 1), ("south", 2), ("wrong", -1)):
        put_model(rehearsal, name, mean)
    host = {key: value for key, value in on_instances("").items() if key != "ModelName"}
    managed = {"Status": "ENABLED", "MinInstanceCount": 1, "MaxInstanceCount": 2}
    up(
        rehearsal,
        "shared",
        host | {"ManagedInstanceScaling": managed},
        ExecutionRoleArn=rehearsal.role,
    )
    place = {"EndpointName": "shared", "VariantName": "AllTraffic"}
    for name in ("north", "south"):
        sagemaker.create_inference_component(InferenceComponentName=name, **place, **component(name))
        assert state_of(rehearsal, name)["InferenceComponentStatus"] == "InService"
    assert invoke(rehearsal, "shared", "5", InferenceComponentName="north") == 6
    assert invoke(rehearsal, "shared", "5", InferenceComponentName="south") == 7
    with pytest.raises(ClientError, match="Inference Component Name header is required"):
        invoke(rehearsal, "shared")
    # Both CPUs of the ml.c5.large are taken: managed scaling brings a second one, and no third.
    sagemaker.update_inference_component_runtime_config(
        InferenceComponentName="north", DesiredRuntimeConfig={"CopyCount": 3}
    )
    assert state_of(rehearsal, "north")["RuntimeConfig"] == {"DesiredCopyCount": 3, "CurrentCopyCount": 3}
    assert count_of(rehearsal, "shared") == 2
    sagemaker.create_inference_component(InferenceComponentName="late", **place, **component("south"))
    failed = state_of(rehearsal, "late")
    assert failed["InferenceComponentStatus"] == "Failed"
    assert "not enough hardware resources" in failed["FailureReason"]
    sagemaker.delete_inference_component(InferenceComponentName="late")

    resource = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": "inference-component/north",
        "ScalableDimension": "sagemaker:inference-component:DesiredCopyCount",
    }
    scaling.register_scalable_target(**resource, MinCapacity=0, MaxCapacity=2)
    step_alarm(
        rehearsal,
        resource,
        1,
        AlarmName="north-asked",
        MetricName="NoCapacityInvocationFailures",
        Statistic="Sum",
        Threshold=1,
        Dimensions=[{"Name": "InferenceComponentName", "Value": "north"}],
    )
    sagemaker.update_inference_component_runtime_config(
        InferenceComponentName="north", DesiredRuntimeConfig={"CopyCount": 0}
    )
    assert state_of(rehearsal, "north")["RuntimeConfig"]["CurrentCopyCount"] == 0
    assert count_of(rehearsal, "shared") == 1
    with pytest.raises(ClientError, match="has no capacity to process this request"):
        invoke(rehearsal, "shared", InferenceComponentName="north")
    assert metric(rehearsal, "NoCapacityInvocationFailures", InferenceComponentName="north") == 1
    advance(rehearsal, minutes=2)
    assert state_of(rehearsal, "north")["RuntimeConfig"]["CurrentCopyCount"] == 1
    assert invoke(rehearsal, "shared", "5", InferenceComponentName="north") == 6

    rolling = {
        "RollingUpdatePolicy": {
            "MaximumBatchSize": {"Type": "COPY_COUNT", "Value": 1},
            "WaitIntervalInSeconds": 60,
        },
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "no-such-alarm"}]},
    }
    sagemaker.update_inference_component(
        InferenceComponentName="north", **component("wrong"), DeploymentConfig=rolling
    )
    kept = state_of(rehearsal, "north")
    assert "no-such-alarm" in kept["FailureReason"]
    assert kept["Specification"]["ModelName"] == "north"
    assert invoke(rehearsal, "shared", "5", InferenceComponentName="north") == 6
    del rolling["AutoRollbackConfiguration"]
    sagemaker.update_inference_component(
        InferenceComponentName="north", **component("south"), DeploymentConfig=rolling
    )
    assert "FailureReason" not in state_of(rehearsal, "north")
    assert invoke(rehearsal, "shared", "5", InferenceComponentName="north") == 7
    with pytest.raises(ClientError, match="it hosts the inference components north, south"):
        sagemaker.delete_endpoint(EndpointName="shared")
    for name in ("north", "south"):
        sagemaker.delete_inference_component(InferenceComponentName=name)
    sagemaker.delete_endpoint(EndpointName="shared")
    rehearsal.client("cloudwatch").delete_alarms(AlarmNames=["north-asked"])


@pytest.mark.rehearsal
@pytest.mark.slow
def test_should_replace_instances_batch_by_batch_without_losing_a_request(rehearsal: Rehearsal) -> None:
    sagemaker = rehearsal.client("sagemaker")
    for name, mean in (("old", 1), ("new", 2), ("failing", -1)):
        put_model(rehearsal, name, mean)
        if name != "old":
            sagemaker.create_endpoint_config(
                EndpointConfigName=name, ProductionVariants=[on_instances(name, InitialInstanceCount=2)]
            )
    up(rehearsal, "rolled", on_instances("old", InitialInstanceCount=2))
    rolling = {
        "RollingUpdatePolicy": {
            "MaximumBatchSize": {"Type": "CAPACITY_PERCENT", "Value": 50},
            "WaitIntervalInSeconds": 60,
        }
    }
    with traffic(rehearsal, "rolled", threads=3) as outcomes:
        sagemaker.update_endpoint(EndpointName="rolled", EndpointConfigName="new", DeploymentConfig=rolling)
        with pytest.raises(ClientError, match=r"Cannot update in-progress endpoint .*\(Updating\)"):
            sagemaker.update_endpoint(EndpointName="rolled", EndpointConfigName="new")
        assert settled(rehearsal, "rolled")["EndpointConfigName"] == "new"
    assert set(outcomes) == {"2.0", "3.0"}
    steps = [e for e in rehearsal.ledger(kind="deployment") if e["name"] == "rolled"][-1]["detail"]["traffic"]
    assert [step["instances"] for step in steps] == [{"blue": 2, "green": 1}, {"blue": 1, "green": 2}]
    plan = rehearsal.server.control("GET", "/endpoints/shares?name=rolled")["plan"]
    assert [step["share"] for step in plan] == [0.5, 1.0]
    rehearsal.client("cloudwatch").put_metric_alarm(
        AlarmName="rolled-errors",
        Namespace="AWS/SageMaker",
        MetricName="Invocation5XXErrors",
        Dimensions=[
            {"Name": "EndpointName", "Value": "rolled"},
            {"Name": "VariantName", "Value": "AllTraffic"},
        ],
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        TreatMissingData="notBreaching",
    )
    guarded = {
        "RollingUpdatePolicy": {**rolling["RollingUpdatePolicy"], "WaitIntervalInSeconds": 300},
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "rolled-errors"}]},
    }
    with traffic(rehearsal, "rolled") as outcomes:
        sagemaker.update_endpoint(
            EndpointName="rolled", EndpointConfigName="failing", DeploymentConfig=guarded
        )
        answer = settled(rehearsal, "rolled")
    assert answer["EndpointConfigName"] == "new"
    assert "the alarm rolled-errors is in ALARM" in answer["FailureReason"]
    assert "ModelError" in outcomes
    fleets = rehearsal.server.control("GET", "/endpoints/traffic?name=rolled")["fleets"]
    assert fleets["blue"]["instances"] == {"AllTraffic": 2}
    assert {invoke(rehearsal, "rolled") for _ in range(4)} == {3}
    rehearsal.client("cloudwatch").delete_alarms(AlarmNames=["rolled-errors"])


@pytest.mark.rehearsal
@pytest.mark.slow
def test_should_share_traffic_by_weights_and_change_them(rehearsal: Rehearsal) -> None:
    for name, mean in (("champion", 1), ("challenger", 2)):
        put_model(rehearsal, name, mean)
    up(
        rehearsal,
        "contest",
        on_instances("champion", "Champion", InitialVariantWeight=9),
        on_instances("challenger", "Challenger", InitialVariantWeight=1),
    )
    answers = [invoke(rehearsal, "contest") for _ in range(80)]
    assert 1 <= answers.count(3) <= 25
    sagemaker = rehearsal.client("sagemaker")
    sagemaker.update_endpoint_weights_and_capacities(
        EndpointName="contest",
        DesiredWeightsAndCapacities=[{"VariantName": "Champion", "DesiredWeight": 0}],
    )
    shown = settled(rehearsal, "contest")["ProductionVariants"]
    assert {v["VariantName"]: v["CurrentWeight"] for v in shown} == {"Champion": 0, "Challenger": 1}
    assert {invoke(rehearsal, "contest") for _ in range(20)} == {3}
    assert invoke(rehearsal, "contest", TargetVariant="Champion") == 2
    sagemaker.create_endpoint_config(
        EndpointConfigName="rematch",
        ProductionVariants=[
            on_instances("champion", "Champion", InitialVariantWeight=9),
            on_instances("challenger", "Challenger", InitialVariantWeight=1),
        ],
    )
    for excluded, weights in (([], [0, 1]), ([{"VariantPropertyType": "DesiredWeight"}], [9, 1])):
        sagemaker.update_endpoint(
            EndpointName="contest",
            EndpointConfigName="rematch",
            RetainAllVariantProperties=True,
            ExcludeRetainedVariantProperties=excluded,
        )
        shown = settled(rehearsal, "contest")["ProductionVariants"]
        assert [variant["CurrentWeight"] for variant in shown] == weights
    canary = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {
                "Type": "CANARY",
                "WaitIntervalInSeconds": 60,
                "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 50},
            }
        }
    }
    sagemaker.create_endpoint_config(
        EndpointConfigName="alone", ProductionVariants=[on_instances("champion", "Champion")]
    )
    with pytest.raises(ClientError, match="With CANARY the new configuration must have the variants of the"):
        sagemaker.update_endpoint(EndpointName="contest", EndpointConfigName="alone", DeploymentConfig=canary)
    sagemaker.delete_endpoint(EndpointName="contest")
