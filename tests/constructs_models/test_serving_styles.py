"""Every style of serving but the real-time endpoint: what its template holds, and what it refuses."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import assertions
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sagemaker as sagemaker
from cdk_nag import AwsSolutionsChecks
from cdk_support import Template, cdk_context, only, resources, statements
from ml_contract.load import ContractError, LoadedWorkload
from ml_contract.spec.serving import Components
from ml_lifecycle.serving import BatchTransform, InferenceComponents, InstanceRecommender, Served, served
from ml_lifecycle.serving.recommender import sample_payload
from ml_lifecycle.training import JobNetwork
from model_support import NAME, PARAMETER, Around, flat, granted, parcels

STYLES = {
    "Serverless": "{style: serverless, serverless: {memory_mb: 4096, max_concurrency: 9}}",
    "Asynchronous": (
        "{style: asynchronous, scaling: {min_capacity: 0, max_capacity: 3}, "
        "asynchronous: {max_concurrent_per_instance: 2, backlog_per_instance: 7}}"
    ),
    "Batch": "{style: batch_transform, batch: {join: input, every_hours: 6}}",
    "MultiModel": "{style: multi_model, multi_model: {keep_versions: 4, cache: false}}",
    "Components": (
        "{style: inference_components, components: {copies: 2, cpus: 0.5, memory_mb: 512}, "
        "scaling: {min_capacity: 0, max_capacity: 6, target_invocations_per_instance: 90}, "
        "rollout: {step_percent: 25, bake_minutes: 2}}"
    ),
    "Lambda": "{style: lambda}",
    "LambdaCanary": "{style: lambda, rollout: {strategy: canary, step_percent: 20, bake_minutes: 3}}",
    "Ecs": (
        "{style: ecs, service: {cpu: 2048, memory_mb: 4096}, rollout: {max_latency_ms: 300}, "
        "scaling: {min_capacity: 2, max_capacity: 5, target_invocations_per_instance: 700}}"
    ),
    "Recommend": "{recommend: {instance_types: [ml.c5.large, ml.c7g.large]}}",
    "BatchBeside": "{batch: {every_hours: null, on_new_data: true, strategy: SINGLE_RECORD}}",
}


def build(stack: cdk.Stack, workload: LoadedWorkload) -> Served:
    around = Around(stack)
    vpc = ec2.Vpc(
        stack,
        "Vpc",
        availability_zones=["us-east-1a", "us-east-1b"],
        nat_gateways=0,
        subnet_configuration=[
            ec2.SubnetConfiguration(name="Isolated", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED)
        ],
        restrict_default_security_group=False,
    )
    folder = Path(workload.path).parent / "image"
    folder.mkdir(exist_ok=True)
    (folder / "Dockerfile").write_text("FROM scratch\n")
    image = ecr_assets.DockerImageAsset(stack, "Image", directory=str(folder))
    network = JobNetwork(
        subnets=tuple(vpc.isolated_subnets), security_groups=(ec2.SecurityGroup(stack, "Group", vpc=vpc),)
    )
    made = served(
        stack,
        "Endpoint",
        workload=workload,
        name=NAME,
        approval_parameter_name=PARAMETER,
        model_package_group_name=NAME,
        artifacts=around.lake.artifacts,
        volume_key=around.data_key,
        message_key=around.message_key,
        log_key=around.log_key,
        image=image,
        vpc=vpc,
        network=network,
    )
    if workload.workload.serving.batch is not None and not isinstance(made, BatchTransform):
        BatchTransform(
            stack,
            "Batch",
            workload=workload,
            name=NAME,
            approved=made.approved,
            artifacts=around.lake.artifacts,
            volume_key=around.data_key,
            log_key=around.log_key,
            repository=image.repository,
            network=network,
        )
    if workload.workload.serving.recommend is not None:
        InstanceRecommender(
            stack,
            "Recommender",
            workload=workload,
            name=NAME,
            approved=made.approved,
            artifacts=around.lake.artifacts,
            volume_key=around.data_key,
            log_key=around.log_key,
            repository=image.repository,
            network=network,
        )
    for output, value in made.outputs.items():
        cdk.CfnOutput(stack, output, value=value)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workloads")


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> dict[str, Template]:
    """Templates of all styles; cdk-nag and CloudFormation's own rules have passed when they are there."""
    app = cdk.App(context=cdk_context(), outdir=str(tmp_path_factory.mktemp("styles")))
    for name, block in STYLES.items():
        stack = cdk.Stack(app, name)
        made = build(stack, parcels(folder, f"serving: {block}\n"))
        grant = getattr(made, "grant_invoke", None) or getattr(made, "grant_files", None)
        if grant is not None:
            grant(iam.Role(stack, "Caller", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com")))
        for construct in ("Vpc", "DataKey", "LogKey", "MessageKey"):
            cdk.Validations.of(stack.node.find_child(construct)).acknowledge(
                *(
                    cdk.Acknowledgment(
                        id=f"AwsSolutions::AwsSolutions-{rule}", reason="Stands around the test"
                    )
                    for rule in ("VPC7", "KMS5")
                )
            )
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    written = Path(app.synth().directory)
    return {name: json.loads((written / f"{name}.template.json").read_text()) for name in STYLES}


def condition(template: Template) -> str:
    [name] = [str(name) for name in template["Conditions"] if "IsApproved" in name]
    return name


@pytest.mark.parametrize("style", list(STYLES))
def test_should_exist_only_while_a_model_is_approved(templates: dict[str, Template], style: str) -> None:
    template = templates[style]
    kinds = {
        "AWS::SageMaker::Model",
        "AWS::SageMaker::EndpointConfig",
        "AWS::SageMaker::Endpoint",
        "AWS::SageMaker::InferenceComponent",
        "AWS::ApplicationAutoScaling::ScalableTarget",
        "AWS::ApplicationAutoScaling::ScalingPolicy",
        "AWS::StepFunctions::StateMachine",
        "AWS::Scheduler::Schedule",
        "AWS::Lambda::Version",
        "AWS::Lambda::Alias",
        "AWS::ECS::Service",
        "AWS::ECS::TaskDefinition",
        "Custom::ModelShelf",
    }
    found = {name: r.get("Condition") for name, r in template["Resources"].items() if r["Type"] in kinds}
    assert found
    assert set(found.values()) == {condition(template)}


# --- serverless -----------------------------------------------------------------------------------


def test_should_serve_without_instances(templates: dict[str, Template]) -> None:
    template = templates["Serverless"]
    config = only(template, "AWS::SageMaker::EndpointConfig")
    [variant] = config["ProductionVariants"]
    assert variant["ServerlessConfig"] == {"MemorySizeInMB": 4096, "MaxConcurrency": 9}
    assert not {"InstanceType", "InitialInstanceCount"} & set(variant)
    # What SageMaker gives no serverless endpoint: capture, VPC, isolation, guardrails, a fleet to scale.
    assert "DataCaptureConfig" not in config
    assert not {"VpcConfig", "EnableNetworkIsolation"} & set(only(template, "AWS::SageMaker::Model"))
    assert "DeploymentConfig" not in only(template, "AWS::SageMaker::Endpoint")
    assert not resources(template, "AWS::ApplicationAutoScaling::ScalableTarget")
    assert "EndpointCaptureUri" not in str(template["Outputs"])
    assert set(template["Outputs"]) == {"EndpointName"}


# --- asynchronous ---------------------------------------------------------------------------------


def test_should_answer_into_s3_and_tell_of_it(templates: dict[str, Template]) -> None:
    template = templates["Asynchronous"]
    config = only(template, "AWS::SageMaker::EndpointConfig")["AsyncInferenceConfig"]
    assert config["ClientConfig"] == {"MaxConcurrentInvocationsPerInstance": 2}
    output = config["OutputConfig"]
    assert flat(output["S3OutputPath"]).endswith("/parcel-delay/async/out/")
    assert flat(output["S3FailurePath"]).endswith("/parcel-delay/async/failed/")
    assert "KmsKeyId" in output
    topics = resources(template, "AWS::SNS::Topic")
    named = {output["NotificationConfig"][kind]["Ref"] for kind in ("SuccessTopic", "ErrorTopic")}
    assert named == set(topics)
    assert all("KmsMasterKeyId" in topic["Properties"] for topic in topics.values())
    role = granted(statements(template, "EndpointRole"))
    assert {r for a, r in role if a == "sns:Publish"} == {f"<{name}>" for name in topics}
    assert {r.rsplit(">", 1)[1] for a, r in role if a == "s3:PutObject"} == {
        "/parcel-delay/capture/*",
        "/parcel-delay/async/out/*",
        "/parcel-delay/async/failed/*",
    }


def test_should_follow_the_queue_down_to_nobody_and_back(templates: dict[str, Template]) -> None:
    template = templates["Asynchronous"]
    target = only(template, "AWS::ApplicationAutoScaling::ScalableTarget")
    assert (target["MinCapacity"], target["MaxCapacity"]) == (0, 3)
    policies = {
        p["Properties"]["PolicyName"]: p["Properties"]
        for p in resources(template, "AWS::ApplicationAutoScaling::ScalingPolicy").values()
    }
    tracking = policies["Backlog"]["TargetTrackingScalingPolicyConfiguration"]
    assert tracking["TargetValue"] == 7
    assert tracking["CustomizedMetricSpecification"] == {
        "Namespace": "AWS/SageMaker",
        "MetricName": "ApproximateBacklogSizePerInstance",
        "Statistic": "Average",
        "Dimensions": [{"Name": "EndpointName", "Value": NAME}],
    }
    step = policies["FromZero"]["StepScalingPolicyConfiguration"]
    assert step["StepAdjustments"] == [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}]
    [alarm] = [
        a["Properties"]
        for a in resources(template, "AWS::CloudWatch::Alarm").values()
        if a["Properties"].get("MetricName") == "HasBacklogWithoutCapacity"
    ]
    assert (alarm["Threshold"], alarm["ComparisonOperator"]) == (1, "GreaterThanOrEqualToThreshold")
    assert alarm["Dimensions"] == [{"Name": "EndpointName", "Value": NAME}]
    [action] = alarm["AlarmActions"]
    assert action["Ref"].startswith("EndpointFromZeroPolicy")


def test_should_let_a_caller_put_a_request_and_read_its_answer(templates: dict[str, Template]) -> None:
    caller = granted(statements(templates["Asynchronous"], "Caller"))
    assert {a for a, r in caller if r.endswith(f"endpoint/{NAME}")} == {"sagemaker:InvokeEndpointAsync"}
    written = {r.rsplit(">", 1)[1] for a, r in caller if a == "s3:PutObject"}
    assert written == {"/parcel-delay/async/in/*"}
    read = {r.rsplit(">", 1)[1] for a, r in caller if a == "s3:GetObject"}
    assert read == {"/parcel-delay/async/out/*", "/parcel-delay/async/failed/*"}


# --- inference components -------------------------------------------------------------------------


def test_should_place_copies_on_a_fleet_without_a_model(templates: dict[str, Template]) -> None:
    template = templates["Components"]
    config = only(template, "AWS::SageMaker::EndpointConfig")
    [variant] = config["ProductionVariants"]
    assert "ModelName" not in variant
    assert variant["ManagedInstanceScaling"] == {
        "Status": "ENABLED",
        "MinInstanceCount": 0,
        "MaxInstanceCount": 4,
    }
    assert config["EnableNetworkIsolation"] is True
    assert {"ExecutionRoleArn", "VpcConfig"} <= set(config)
    component = only(template, "AWS::SageMaker::InferenceComponent")
    assert component["Specification"]["ComputeResourceRequirements"] == {
        "NumberOfCpuCoresRequired": 0.5,
        "MinMemoryRequiredInMb": 512,
    }
    assert component["Specification"]["ModelName"]["Fn::GetAtt"][1] == "ModelName"
    assert component["RuntimeConfig"] == {"CopyCount": 2}
    policy = component["DeploymentConfig"]["RollingUpdatePolicy"]
    assert policy["MaximumBatchSize"] == {"Type": "CAPACITY_PERCENT", "Value": 25}
    assert policy["WaitIntervalInSeconds"] == 120
    assert len(component["DeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"]) == 2


def test_should_scale_and_watch_the_copies_and_not_the_fleet(templates: dict[str, Template]) -> None:
    template = templates["Components"]
    target = only(template, "AWS::ApplicationAutoScaling::ScalableTarget")
    assert target["ScalableDimension"] == "sagemaker:inference-component:DesiredCopyCount"
    assert target["ResourceId"] == f"inference-component/{NAME}"
    [tracking] = [
        p["Properties"]["TargetTrackingScalingPolicyConfiguration"]
        for p in resources(template, "AWS::ApplicationAutoScaling::ScalingPolicy").values()
        if p["Properties"]["PolicyType"] == "TargetTrackingScaling"
    ]
    assert tracking["TargetValue"] == 90
    assert tracking["PredefinedMetricSpecification"] == {
        "PredefinedMetricType": "SageMakerInferenceComponentInvocationsPerCopy"
    }
    alarms = [a["Properties"] for a in resources(template, "AWS::CloudWatch::Alarm").values()]
    assert {a["MetricName"] for a in alarms} == {
        "Invocation5XXErrors",
        "ModelLatency",
        "NoCapacityInvocationFailures",
    }
    for alarm in alarms:
        assert alarm["Dimensions"] == [{"Name": "InferenceComponentName", "Value": NAME}]
    caller = {r.rsplit(":", 1)[1] for _, r in granted(statements(template, "Caller"))}
    assert caller == {f"endpoint/{NAME}", f"inference-component/{NAME}"}


def test_should_place_another_model_on_the_same_fleet(folder: Path, tmp_path: Path) -> None:
    stack = cdk.Stack(cdk.App(context=cdk_context(), outdir=str(tmp_path)), "Two")
    made = build(stack, parcels(folder, "serving: {style: inference_components}\n"))
    assert isinstance(made, InferenceComponents)
    other = sagemaker.CfnModel(stack, "Other", execution_role_arn=made.role.role_arn)
    made.add_model("Second", name="other", model=other, wants=Components(cpus=2, memory_mb=256, copies=3))
    found = assertions.Template.from_stack(stack).to_json()
    components = {
        c["Properties"]["InferenceComponentName"]: c
        for c in resources(found, "AWS::SageMaker::InferenceComponent").values()
    }
    assert set(components) == {NAME, "other"}
    second = components["other"]
    assert second["Condition"] == components[NAME]["Condition"]
    assert second["Properties"]["EndpointName"] == NAME
    assert second["Properties"]["RuntimeConfig"] == {"CopyCount": 3}
    assert second["Properties"]["Specification"]["ComputeResourceRequirements"] == {
        "NumberOfCpuCoresRequired": 2,
        "MinMemoryRequiredInMb": 256,
    }
    with pytest.raises(ValueError, match="must differ from the fleet's first component"):
        made.add_model("Third", name=NAME, model=other)


# --- multi-model ----------------------------------------------------------------------------------


def test_should_serve_versions_by_name_from_a_folder_of_approved_ones(templates: dict[str, Template]) -> None:
    template = templates["MultiModel"]
    [container] = only(template, "AWS::SageMaker::Model")["Containers"]
    assert container["Mode"] == "MultiModel"
    assert container["MultiModelConfig"] == {"ModelCacheSetting": "Disabled"}
    assert flat(container["ModelDataUrl"]).endswith("/parcel-delay/served/")
    assert flat(container["Environment"]["MODEL_PACKAGE_GROUP"]).endswith(f":model-package/{NAME}")
    shelf = only(template, "Custom::ModelShelf")
    assert (shelf["Prefix"], shelf["Keep"]) == ("parcel-delay/served/", "4")
    [parameter] = [name for name in template["Parameters"] if "ApprovedModelPackage" in name]
    assert shelf["ModelPackage"] == {"Ref": parameter}
    # The endpoint reads approved models and no others.
    role = granted(statements(template, "EndpointRole"))
    assert {r.rsplit(">", 1)[1] for a, r in role if a == "s3:GetObject"} == {"/parcel-delay/served/*"}


# --- batch transform ------------------------------------------------------------------------------


def definition(template: Template) -> dict[str, Any]:
    text = flat(only(template, "AWS::StepFunctions::StateMachine")["DefinitionString"])
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def test_should_score_a_folder_on_a_schedule_and_join_answers_to_records(
    templates: dict[str, Template],
) -> None:
    template = templates["Batch"]
    assert only(template, "AWS::Scheduler::Schedule")["ScheduleExpression"] == "rate(6 hours)"
    states = definition(template)["States"]
    assert states["All"]["Result"]["uri"].endswith("/parcel-delay/batch/in/")
    job = states["Score"]["Parameters"]
    assert states["Score"]["Resource"].endswith(":states:::sagemaker:createTransformJob.sync")
    assert job["DataProcessing"] == {"JoinSource": "Input"}
    assert job["TransformInput"]["SplitType"] == "Line"
    assert (job["BatchStrategy"], job["MaxPayloadInMB"]) == ("MultiRecord", 6)
    assert job["TransformOutput"]["S3OutputPath"].endswith("/parcel-delay/batch/out/")
    assert job["TransformOutput"]["AssembleWith"] == "Line"
    assert {"KmsKeyId"} <= set(job["TransformOutput"])
    assert "VolumeKmsKeyId" in job["TransformResources"]
    assert set(template["Outputs"]) == {
        "TransformInputUri",
        "TransformOutputUri",
        "TransformStateMachineArn",
    }


def test_should_start_no_job_over_an_empty_folder(templates: dict[str, Template]) -> None:
    states = definition(templates["Batch"])["States"]
    looked = states["Look"]["Parameters"]
    assert (looked["Prefix"], looked["MaxKeys"]) == ("parcel-delay/batch/in/", 1)
    assert states["Any"]["Default"] == "Nothing"
    assert states["Nothing"] == {"Type": "Succeed"}
    # A caller who names files is not asked what lies in the folder.
    assert states["Which"]["Choices"][0] == {"Variable": "$.uri", "IsPresent": True, "Next": "Score"}


def test_should_score_each_object_that_lands_beside_an_endpoint(templates: dict[str, Template]) -> None:
    template = templates["BatchBeside"]
    assert resources(template, "AWS::SageMaker::Endpoint")
    rule = only(template, "AWS::Events::Rule")
    assert rule["EventPattern"]["detail"]["object"] == {"key": [{"prefix": "parcel-delay/batch/in/"}]}
    [target] = rule["Targets"]
    assert target["InputTransformer"]["InputTemplate"] == '{"uri": "s3://<bucket>/<key>"}'
    assert definition(template)["States"]["Score"]["Parameters"]["BatchStrategy"] == "SingleRecord"
    assert not resources(template, "AWS::Scheduler::Schedule")
    # One parameter, one condition: a promotion changes both models at once.
    assert len([name for name in template["Parameters"] if "ApprovedModelPackage" in name]) == 1


def test_should_name_jobs_that_its_role_may_start_within_sagemakers_length(
    templates: dict[str, Template],
) -> None:
    name = definition(templates["Batch"])["States"]["Score"]["Parameters"]["TransformJobName.$"]
    prefix = name.removeprefix("States.Format('").partition("{}")[0]
    assert len(prefix) + 12 <= 63
    started = {
        r.rsplit(":", 1)[1]
        for a, r in granted(statements(templates["Batch"], "EndpointStepsRole"))
        if a == "sagemaker:CreateTransformJob"
    }
    assert started == {f"transform-job/{prefix}*"}


# --- lambda ---------------------------------------------------------------------------------------


def test_should_serve_from_a_function_of_the_same_image(templates: dict[str, Template]) -> None:
    template = templates["Lambda"]
    [function] = [
        f["Properties"]
        for f in resources(template, "AWS::Lambda::Function").values()
        if f["Properties"].get("PackageType") == "Image"
    ]
    assert function["ImageConfig"] == {
        "EntryPoint": ["python", "-m", "awslambdaric"],
        "Command": ["ml_serving.lambda_handler.handler"],
    }
    assert (function["MemorySize"], function["Timeout"]) == (2048, 60)
    assert len(function["VpcConfig"]["SubnetIds"]) == 2
    variables = function["Environment"]["Variables"]
    assert variables["MODEL_DATA_URL"]["Fn::GetAtt"][1] == "Uri"
    version = only(template, "AWS::Lambda::Version")
    # The same template with another model must publish another version.
    assert version["Description"] == variables["MODEL_PACKAGE"]
    alias = only(template, "AWS::Lambda::Alias")
    assert alias["FunctionVersion"]["Fn::GetAtt"][1] == "Version"
    assert template["Outputs"]["FunctionName"]["Value"] == f"{NAME}-serving:live"
    assert not resources(template, "AWS::CodeDeploy::DeploymentGroup")


def test_should_move_the_alias_by_codedeploy_and_back_on_an_alarm(templates: dict[str, Template]) -> None:
    template = templates["LambdaCanary"]
    [alias] = resources(template, "AWS::Lambda::Alias").values()
    assert set(alias["UpdatePolicy"]) == {"CodeDeployLambdaAliasUpdate"}
    routing = only(template, "AWS::CodeDeploy::DeploymentConfig")["TrafficRoutingConfig"]
    assert routing == {
        "Type": "TimeBasedCanary",
        "TimeBasedCanary": {"CanaryInterval": 3, "CanaryPercentage": 20},
    }
    group = only(template, "AWS::CodeDeploy::DeploymentGroup")
    assert {a["Name"]["Ref"] for a in group["AlarmConfiguration"]["Alarms"]} == set(
        resources(template, "AWS::CloudWatch::Alarm")
    )
    assert "DEPLOYMENT_STOP_ON_ALARM" in group["AutoRollbackConfiguration"]["Events"]


# --- ecs ------------------------------------------------------------------------------------------


def test_should_serve_on_fargate_without_a_way_in_from_outside(templates: dict[str, Template]) -> None:
    template = templates["Ecs"]
    assert only(template, "AWS::ElasticLoadBalancingV2::LoadBalancer")["Scheme"] == "internal"
    service = only(template, "AWS::ECS::Service")
    place = service["NetworkConfiguration"]["AwsvpcConfiguration"]
    assert place["AssignPublicIp"] == "DISABLED"
    assert "DesiredCount" not in service
    [container] = only(template, "AWS::ECS::TaskDefinition")["ContainerDefinitions"]
    assert container["ReadonlyRootFilesystem"] is True
    assert [m["ContainerPath"] for m in container["MountPoints"]] == ["/tmp"]
    assert {e["Name"] for e in container["Environment"]} == {
        "MODEL_DATA_URL",
        "MODEL_PACKAGE",
        "DECISION_THRESHOLD",
    }
    assert only(template, "AWS::ElasticLoadBalancingV2::TargetGroup")["HealthCheckPath"] == "/ping"
    for group in resources(template, "AWS::EC2::SecurityGroup").values():
        for rule in group["Properties"].get("SecurityGroupIngress", []):
            assert "CidrIp" not in rule


def test_should_turn_a_deployment_of_tasks_back(templates: dict[str, Template]) -> None:
    template = templates["Ecs"]
    found = only(template, "AWS::ECS::Service")["DeploymentConfiguration"]
    assert found["DeploymentCircuitBreaker"] == {"Enable": True, "Rollback": True}
    assert (found["MinimumHealthyPercent"], found["MaximumPercent"]) == (100, 200)
    alarms = resources(template, "AWS::CloudWatch::Alarm")
    assert {name["Ref"] for name in found["Alarms"]["AlarmNames"]} == set(alarms)
    [latency] = [a["Properties"] for a in alarms.values() if a["Properties"].get("MetricName")]
    # Load balancers measure in seconds.
    assert (latency["MetricName"], latency["Threshold"]) == ("TargetResponseTime", 0.3)
    target = only(template, "AWS::ApplicationAutoScaling::ScalableTarget")
    assert (target["ServiceNamespace"], target["ResourceId"]) == ("ecs", f"service/{NAME}/{NAME}")
    policy = only(template, "AWS::ApplicationAutoScaling::ScalingPolicy")
    label = policy["TargetTrackingScalingPolicyConfiguration"]["PredefinedMetricSpecification"]
    assert flat(label["ResourceLabel"]).count("/") == 1


# --- the right instance ---------------------------------------------------------------------------


def test_should_ask_which_instance_the_approved_model_should_run_on(templates: dict[str, Template]) -> None:
    template = templates["Recommend"]
    states = definition(template)["States"]
    job = states["Create"]["Parameters"]
    assert job["JobType"] == "Default"
    container = job["InputConfig"]["ContainerConfig"]
    assert container["Task"] == "REGRESSION"
    assert container["SupportedInstanceTypes"] == ["ml.c5.large", "ml.c7g.large"]
    assert container["PayloadConfig"]["SamplePayloadUrl"].startswith("s3://")
    # What it makes is named after the job, cut at 40 characters: the role's wildcards must still hold.
    prefix = states["Name"]["Parameters"]["name.$"].removeprefix("States.Format('").partition("{}")[0]
    assert len(prefix) + 12 <= 40
    made = {
        r.rsplit(":", 1)[1]
        for a, r in granted(statements(template, "RecommenderRole"))
        if a == "sagemaker:CreateEndpoint"
    }
    assert made == {f"{kind}/{prefix.rstrip('-')}*" for kind in ("model", "endpoint-config", "endpoint")}


def test_should_make_up_the_same_request_each_time(folder: Path) -> None:
    contract = parcels(folder).compiled
    packed = sample_payload(contract)
    assert packed == sample_payload(contract)
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
        [member] = archive.getmembers()
        body = archive.extractfile(member)
        assert body is not None
        # Neither the label nor who it is about.
        assert json.loads(body.read()) == {"carrier": "north", "weight_kg": 35.0}


# --- refusals -------------------------------------------------------------------------------------


def test_should_refuse_an_instance_type_that_runs_no_batch_transform(folder: Path) -> None:
    workload = parcels(folder, "serving: {batch: {instance_type: ml.inf1.xlarge}}\n")
    with pytest.raises(ContractError, match=r"serving\.batch\.instance_type: 'ml\.inf1\.xlarge'"):
        build(cdk.Stack(), workload)


def test_should_refuse_to_measure_what_serves_no_endpoint(folder: Path) -> None:
    workload = parcels(folder, "serving: {recommend: {instance_types: [ml.c5.large, ml.p3dn.24xlarge]}}\n")
    with pytest.raises(ContractError, match=r"recommend\.instance_types\[1\]: 'ml\.p3dn\.24xlarge'"):
        build(cdk.Stack(), workload)


def test_should_refuse_a_fleet_that_begins_larger_than_it_may_be(folder: Path) -> None:
    block = "serving: {style: inference_components, initial_instance_count: 9}\n"
    with pytest.raises(ValueError, match=r"at most components\.max_instances 4, got 9"):
        build(cdk.Stack(), parcels(folder, block))


def test_should_never_change_a_role_under_an_endpoint_that_still_answers(
    templates: dict[str, Template],
) -> None:
    """A workload that changes its style keeps the old endpoint until the new target stands, and its role."""

    def roles(style: str, service: str) -> set[str]:
        return {
            name
            for name, role in resources(templates[style], "AWS::IAM::Role").items()
            if service in json.dumps(role["Properties"]["AssumeRolePolicyDocument"])
        }

    endpoints = set().union(*(roles(style, "sagemaker.amazonaws.com") for style in templates))
    for style, service in (("Lambda", "lambda.amazonaws.com"), ("Ecs", "ecs-tasks.amazonaws.com")):
        assert roles(style, service)
        assert not roles(style, service) & endpoints
