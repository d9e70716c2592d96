"""The endpoint: conditional on an approval, captured, scaled, rolled out with alarms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns
from cdk_support import Template, only, resources, statements, synthesise_stacks
from ml_contract.load import ContractError, LoadedWorkload
from ml_lifecycle.serving import ModelEndpoint
from model_support import NAME, PARAMETER, Around, flat, granted, parcels

CONDITIONAL = {
    "AWS::SageMaker::Model",
    "AWS::SageMaker::EndpointConfig",
    "AWS::SageMaker::Endpoint",
    "AWS::ApplicationAutoScaling::ScalableTarget",
    "AWS::ApplicationAutoScaling::ScalingPolicy",
}
LINEAR = """
serving:
  instance_type: ml.g5.xlarge
  initial_instance_count: 3
  capture_percent: 25
  scaling: {min_capacity: 2, max_capacity: 8, target_invocations_per_instance: 50}
  rollout: {strategy: linear, step_percent: 25, bake_minutes: 20, max_error_percent: 2.5, max_latency_ms: 80}
"""


def endpoint(stack: cdk.Stack, workload: LoadedWorkload, **options: Any) -> ModelEndpoint:
    around = Around(stack)
    if options.pop("vpc", False):
        options["network"] = around.network()
    return ModelEndpoint(
        stack,
        "Endpoint",
        workload=workload,
        endpoint_name=NAME,
        approval_parameter_name=PARAMETER,
        artifacts=around.lake.artifacts,
        volume_key=around.data_key,
        repository=ecr.Repository.from_repository_name(stack, "Images", "images"),
        **options,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workloads")


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> dict[str, Template]:
    def everything(stack: cdk.Stack) -> None:
        built = endpoint(stack, parcels(folder))
        built.grant_invoke(iam.Role(stack, "Caller", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com")))
        built.on_state_change("Changed", target=targets.SnsTopic(sns.Topic(stack, "Topic")))

    return synthesise_stacks(
        tmp_path_factory.mktemp("serving"),
        {
            "Default": everything,
            "Linear": lambda stack: endpoint(stack, parcels(folder, LINEAR), vpc=True, alarm_minutes=3),
            "AllAtOnce": lambda stack: endpoint(
                stack, parcels(folder, "serving: {rollout: {strategy: all_at_once, bake_minutes: 1}}\n")
            ),
        },
    )


def test_should_exist_only_while_a_model_is_approved(templates: dict[str, Template]) -> None:
    template = templates["Default"]
    [(name, condition)] = template["Conditions"].items()
    [(parameter, declared)] = [
        (key, value) for key, value in template["Parameters"].items() if "BootstrapVersion" not in key
    ]
    assert declared["Type"] == "AWS::SSM::Parameter::Value<String>"
    assert declared["Default"] == PARAMETER
    assert condition == {"Fn::Not": [{"Fn::Equals": [{"Ref": parameter}, "none"]}]}
    conditional = {r["Type"] for r in template["Resources"].values() if r.get("Condition") == name}
    assert conditional == CONDITIONAL


def test_should_serve_the_approved_package_in_isolation(templates: dict[str, Template]) -> None:
    model = only(templates["Default"], "AWS::SageMaker::Model")
    [container] = model["Containers"]
    assert set(container) == {"ModelPackageName", "Environment"}
    # The container is told which model it is: every answer says so, and with it every captured prediction.
    assert container["Environment"] == {"MODEL_PACKAGE": container["ModelPackageName"]}
    assert model["EnableNetworkIsolation"] is True
    assert "VpcConfig" not in model
    assert set(only(templates["Linear"], "AWS::SageMaker::Model")["VpcConfig"]) == {
        "Subnets",
        "SecurityGroupIds",
    }


def test_should_leave_the_names_of_what_is_immutable_to_cloudformation(
    templates: dict[str, Template],
) -> None:
    assert "ModelName" not in only(templates["Default"], "AWS::SageMaker::Model")
    config = only(templates["Default"], "AWS::SageMaker::EndpointConfig")
    assert "EndpointConfigName" not in config
    assert config["ProductionVariants"][0]["ModelName"]["Fn::GetAtt"][1] == "ModelName"
    used = only(templates["Default"], "AWS::SageMaker::Endpoint")["EndpointConfigName"]
    assert used["Fn::GetAtt"][1] == "EndpointConfigName"


def test_should_serve_on_one_variant_with_the_workloads_sizes(templates: dict[str, Template]) -> None:
    [default] = only(templates["Default"], "AWS::SageMaker::EndpointConfig")["ProductionVariants"]
    assert {k: v for k, v in default.items() if k != "ModelName"} == {
        "VariantName": "AllTraffic",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
        "InitialVariantWeight": 1,
    }
    [linear] = only(templates["Linear"], "AWS::SageMaker::EndpointConfig")["ProductionVariants"]
    assert (linear["InstanceType"], linear["InitialInstanceCount"]) == ("ml.g5.xlarge", 3)


def test_should_capture_requests_and_answers(templates: dict[str, Template]) -> None:
    capture = only(templates["Default"], "AWS::SageMaker::EndpointConfig")["DataCaptureConfig"]
    assert capture["EnableCapture"] is True
    assert capture["InitialSamplingPercentage"] == 100
    assert [option["CaptureMode"] for option in capture["CaptureOptions"]] == ["Input", "Output"]
    assert capture["CaptureContentTypeHeader"] == {
        "CsvContentTypes": ["text/csv"],
        "JsonContentTypes": ["application/json"],
    }
    assert flat(capture["DestinationS3Uri"]).endswith("/parcel-delay/capture")
    linear = only(templates["Linear"], "AWS::SageMaker::EndpointConfig")["DataCaptureConfig"]
    assert linear["InitialSamplingPercentage"] == 25


def test_should_encrypt_volumes_where_the_instance_type_takes_a_key(templates: dict[str, Template]) -> None:
    assert "KmsKeyId" in only(templates["Default"], "AWS::SageMaker::EndpointConfig")
    assert "KmsKeyId" not in only(templates["Linear"], "AWS::SageMaker::EndpointConfig")


def test_should_roll_out_as_a_canary_unless_told_otherwise(templates: dict[str, Template]) -> None:
    policy = only(templates["Default"], "AWS::SageMaker::Endpoint")["DeploymentConfig"][
        "BlueGreenUpdatePolicy"
    ]
    assert policy["TrafficRoutingConfiguration"] == {
        "Type": "CANARY",
        "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 10},
        "WaitIntervalInSeconds": 600,
    }
    assert policy["MaximumExecutionTimeoutInSeconds"] == 2 * 600 + 120 + 3_600


@pytest.mark.parametrize(
    ("stack", "routing", "timeout"),
    [
        (
            "Linear",
            {
                "Type": "LINEAR",
                "LinearStepSize": {"Type": "CAPACITY_PERCENT", "Value": 25},
                "WaitIntervalInSeconds": 1_200,
            },
            4 * 1_200 + 120 + 3_600,
        ),
        ("AllAtOnce", {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 60}, 60 + 120 + 3_600),
    ],
)
def test_should_roll_out_as_the_workload_says(
    templates: dict[str, Template], stack: str, routing: dict[str, Any], timeout: int
) -> None:
    policy = only(templates[stack], "AWS::SageMaker::Endpoint")["DeploymentConfig"]["BlueGreenUpdatePolicy"]
    assert policy["TrafficRoutingConfiguration"] == routing
    assert policy["MaximumExecutionTimeoutInSeconds"] == timeout


def test_should_roll_back_on_errors_and_latency(templates: dict[str, Template]) -> None:
    template = templates["Linear"]
    rollback = only(template, "AWS::SageMaker::Endpoint")["DeploymentConfig"]["AutoRollbackConfiguration"]
    alarms = resources(template, "AWS::CloudWatch::Alarm")
    assert {alarm["AlarmName"]["Ref"] for alarm in rollback["Alarms"]} == set(alarms)
    by_metric = {alarm["Properties"]["MetricName"]: alarm["Properties"] for alarm in alarms.values()}
    errors, latency = by_metric["Invocation5XXErrors"], by_metric["ModelLatency"]
    for alarm in (errors, latency):
        assert alarm["ComparisonOperator"] == "GreaterThanThreshold"
        assert alarm["TreatMissingData"] == "notBreaching"
        assert (alarm["Period"], alarm["EvaluationPeriods"]) == (60, 3)
        assert {d["Name"]: d["Value"] for d in alarm["Dimensions"]} == {
            "EndpointName": NAME,
            "VariantName": "AllTraffic",
        }
    # SageMaker sends 1 for a 5xx and 0 otherwise: the average is the share.
    assert (errors["Statistic"], errors["Threshold"]) == ("Average", 0.025)
    # Microseconds.
    assert (latency["ExtendedStatistic"], latency["Threshold"]) == ("p99", 80_000)


def test_should_judge_one_minute_by_default(templates: dict[str, Template]) -> None:
    for alarm in resources(templates["Default"], "AWS::CloudWatch::Alarm").values():
        assert alarm["Properties"]["EvaluationPeriods"] == 1


def test_should_follow_the_load_between_its_capacities(templates: dict[str, Template]) -> None:
    template = templates["Linear"]
    target = only(template, "AWS::ApplicationAutoScaling::ScalableTarget")
    assert target == {
        "ServiceNamespace": "sagemaker",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
        "ResourceId": f"endpoint/{NAME}/variant/AllTraffic",
        "MinCapacity": 2,
        "MaxCapacity": 8,
    }
    policy = only(template, "AWS::ApplicationAutoScaling::ScalingPolicy")
    tracking = policy["TargetTrackingScalingPolicyConfiguration"]
    assert tracking["TargetValue"] == 50
    assert tracking["PredefinedMetricSpecification"] == {
        "PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"
    }
    assert only(template, "AWS::SageMaker::Endpoint")["RetainAllVariantProperties"] is True


def test_should_register_the_variant_after_the_endpoint_exists(templates: dict[str, Template]) -> None:
    [target] = resources(templates["Default"], "AWS::ApplicationAutoScaling::ScalableTarget").values()
    [name] = resources(templates["Default"], "AWS::SageMaker::Endpoint")
    assert name in (target["DependsOn"] if isinstance(target["DependsOn"], list) else [target["DependsOn"]])


def test_should_read_models_and_write_captures_and_nothing_else(templates: dict[str, Template]) -> None:
    found = granted(statements(templates["Default"], "EndpointRole"))
    assert {r.rsplit(">", 1)[1] for a, r in found if a == "s3:GetObject"} == {"/parcel-delay/training/*"}
    assert {r.rsplit(">", 1)[1] for a, r in found if a == "s3:PutObject"} == {"/parcel-delay/capture/*"}
    assert not [action for action, _ in found if "*" in action]
    wide = {action for action, resource in found if resource == "*"}
    assert wide == {"ecr:GetAuthorizationToken", "cloudwatch:PutMetricData"}


def test_should_grant_asking_this_endpoint(templates: dict[str, Template]) -> None:
    arn = f"arn:<AWS::Partition>:sagemaker:<AWS::Region>:<AWS::AccountId>:endpoint/{NAME}"
    assert granted(statements(templates["Default"], "Caller")) == {("sagemaker:InvokeEndpoint", arn)}


def test_should_tell_of_its_status(templates: dict[str, Template]) -> None:
    pattern = only(templates["Default"], "AWS::Events::Rule")["EventPattern"]
    assert pattern == {
        "source": ["aws.sagemaker"],
        "detail-type": ["SageMaker Endpoint State Change"],
        "detail": {"EndpointName": [NAME]},
    }


def test_should_refuse_an_instance_type_for_another_purpose(folder: Path) -> None:
    workload = parcels(folder, "serving: {instance_type: ml.p3dn.24xlarge}\n")
    with pytest.raises(
        ContractError, match=r"serving\.instance_type: 'ml\.p3dn\.24xlarge' is no instance type"
    ):
        endpoint(cdk.Stack(), workload)


def test_should_refuse_inf1_that_no_alarm_rolls_back(folder: Path) -> None:
    workload = parcels(folder, "serving: {instance_type: ml.inf1.xlarge}\n")
    with pytest.raises(ValueError, match=r"must not be one of Inf1, got ml\.inf1\.xlarge.*use ml\.inf2"):
        endpoint(cdk.Stack(), workload)


def test_should_refuse_a_linear_step_that_sagemaker_refuses(folder: Path) -> None:
    workload = parcels(folder, "serving: {rollout: {strategy: linear, step_percent: 5, bake_minutes: 5}}\n")
    with pytest.raises(ValueError, match=r"step_percent must be between 10 and 50 .* linear, got 5"):
        endpoint(cdk.Stack(), workload)


def test_should_refuse_a_rollout_that_takes_too_long(folder: Path) -> None:
    workload = parcels(folder, "serving: {rollout: {strategy: linear, step_percent: 10, bake_minutes: 60}}\n")
    with pytest.raises(ValueError, match="must end within 480 minutes, got 10 steps of 60 minutes"):
        endpoint(cdk.Stack(), workload)


def test_should_refuse_an_alarm_of_no_minutes(folder: Path) -> None:
    with pytest.raises(ValueError, match="alarm_minutes must be between 1 and 60, got 0"):
        endpoint(cdk.Stack(), parcels(folder), alarm_minutes=0)
