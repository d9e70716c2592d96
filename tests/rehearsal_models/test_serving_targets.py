"""The serving image beyond SageMaker: as a Lambda function, and as a service on ECS."""

import json
import threading
import time
from typing import Any

import pytest
import urllib3
from botocore.exceptions import ClientError

from rehearsal.executors.alias_deployments import AliasError, steps_of
from rehearsal.server import ServerProcess

from .conftest import IMAGES, REGISTRY, Rehearsal, allow, await_, build_image
from .serving_support import advance

pytestmark = [pytest.mark.rehearsal, pytest.mark.slow]


def points(rehearsal: Rehearsal, namespace: str, name: str, **dimensions: str) -> float:
    """The sum of a metric over all time."""
    now = time.time()
    found = rehearsal.client("cloudwatch").get_metric_statistics(
        Namespace=namespace,
        MetricName=name,
        Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
        StartTime=now - 86400,
        EndTime=now + 86400 * 60,
        Period=86400,
        Statistics=["Sum"],
    )
    return float(sum(point["Sum"] for point in found["Datapoints"]))


def test_should_run_any_image_with_lambdas_client_as_a_function(rehearsal: Rehearsal) -> None:
    image = f"{REGISTRY}/function:1"
    build_image(rehearsal.server.state, image, IMAGES / "function")
    functions = rehearsal.client("lambda")
    functions.create_function(
        FunctionName="answers",
        Role=rehearsal.make_role("answers", "lambda.amazonaws.com", [allow("s3:GetObject")]),
        PackageType="Image",
        Code={"ImageUri": image},
        ImageConfig={"EntryPoint": ["python", "-m", "awslambdaric"], "Command": ["answers.handler"]},
        Environment={"Variables": {"MEAN": "7"}},
    )
    version = functions.publish_version(FunctionName="answers")["Version"]
    functions.create_alias(FunctionName="answers", Name="live", FunctionVersion=version)

    def call(event: dict[str, Any]) -> dict[str, Any]:
        answer = functions.invoke(FunctionName="answers", Qualifier="live", Payload=json.dumps(event))
        return {"error": answer.get("FunctionError"), **json.loads(answer["Payload"].read())}

    assert call({}) == {"error": None, "statusCode": 200, "body": "7", "version": version}
    assert call({"fail": True})["errorMessage"] == "told to fail"
    where = {"FunctionName": "answers", "Resource": "answers:live"}
    assert points(rehearsal, "AWS/Lambda", "Invocations", **where) == 2
    assert points(rehearsal, "AWS/Lambda", "Errors", **where) == 1


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        ("CodeDeployDefault.LambdaAllAtOnce", None, []),
        ("CodeDeployDefault.LambdaCanary10Percent5Minutes", None, [(0.1, 300)]),
        ("CodeDeployDefault.LambdaLinear10PercentEvery1Minute", None, [(n / 10, 60) for n in range(1, 10)]),
        (
            "own",
            {
                "trafficRoutingConfig": {
                    "type": "TimeBasedLinear",
                    "timeBasedLinear": {"linearPercentage": 40, "linearInterval": 2},
                }
            },
            [(0.4, 120), (0.8, 120)],
        ),
    ],
)
def test_should_shift_an_alias_by_the_deployment_configuration(
    name: str, config: dict[str, Any] | None, expected: list[tuple[float, float]]
) -> None:
    assert steps_of(name, config) == expected


def test_should_refuse_a_deployment_configuration_that_codedeploy_does_not_know() -> None:
    with pytest.raises(AliasError, match=r"no deployment configuration CodeDeployDefault\.OneAtATime"):
        steps_of("CodeDeployDefault.OneAtATime", None)


def function_template(image: str, roles: dict[str, str], *, mean: str) -> str:
    """A function whose alias moves by CodeDeploy, half of the requests first."""
    canary = {"CanaryPercentage": 50, "CanaryInterval": 5}
    policy = {"ApplicationName": {"Ref": "Application"}, "DeploymentGroupName": {"Ref": "Deployments"}}
    resources: dict[str, Any] = {
        "Function": {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "FunctionName": "shifted",
                "Role": roles["function"],
                "PackageType": "Image",
                "Code": {"ImageUri": image},
                "ImageConfig": {
                    "EntryPoint": ["python", "-m", "awslambdaric"],
                    "Command": ["answers.handler"],
                },
                "Environment": {"Variables": {"MEAN": mean}},
            },
        },
        "Version": {
            "Type": "AWS::Lambda::Version",
            "Properties": {"FunctionName": {"Ref": "Function"}, "Description": f"mean {mean}"},
        },
        "Application": {
            "Type": "AWS::CodeDeploy::Application",
            "Properties": {"ComputePlatform": "Lambda"},
        },
        "Shift": {
            "Type": "AWS::CodeDeploy::DeploymentConfig",
            "Properties": {
                "ComputePlatform": "Lambda",
                "TrafficRoutingConfig": {"Type": "TimeBasedCanary", "TimeBasedCanary": canary},
            },
        },
        "Deployments": {
            "Type": "AWS::CodeDeploy::DeploymentGroup",
            "Properties": {
                "ApplicationName": {"Ref": "Application"},
                "ServiceRoleArn": roles["deploy"],
                "DeploymentConfigName": {"Ref": "Shift"},
                "AlarmConfiguration": {"Enabled": True, "Alarms": [{"Name": "shifted-errors"}]},
            },
        },
        "Alias": {
            "Type": "AWS::Lambda::Alias",
            "DependsOn": ["Deployments"],
            "UpdatePolicy": {"CodeDeployLambdaAliasUpdate": policy},
            "Properties": {
                "Name": "live",
                "FunctionName": {"Ref": "Function"},
                "FunctionVersion": {"Fn::GetAtt": ["Version", "Version"]},
            },
        },
    }
    return json.dumps({"Resources": resources})


def test_should_move_an_alias_in_steps_and_back_when_its_alarm_rings(rehearsal: Rehearsal) -> None:
    image = f"{REGISTRY}/function:1"
    build_image(rehearsal.server.state, image, IMAGES / "function")
    alias = "arn:aws:lambda:us-east-1:123456789012:function:shifted"
    roles = {
        "function": rehearsal.make_role("shifted", "lambda.amazonaws.com", [allow("s3:GetObject")]),
        "deploy": rehearsal.make_role(
            "shifts", "codedeploy.amazonaws.com", [allow("lambda:UpdateAlias", on=[alias, f"{alias}:live"])]
        ),
    }
    dimensions = [{"Name": "FunctionName", "Value": "shifted"}, {"Name": "Resource", "Value": "shifted:live"}]
    rehearsal.client("cloudwatch").put_metric_alarm(
        AlarmName="shifted-errors",
        Namespace="AWS/Lambda",
        MetricName="Errors",
        Dimensions=dimensions,
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        TreatMissingData="notBreaching",
    )
    stacks, functions = rehearsal.client("cloudformation"), rehearsal.client("lambda")
    stacks.create_stack(StackName="answers", TemplateBody=function_template(image, roles, mean="1"))
    assert stack_state(rehearsal)["StackStatus"] == "CREATE_COMPLETE"
    seen: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.wait(0.02):
            answer = functions.invoke(FunctionName="shifted", Qualifier="live", Payload=b"{}")
            body = json.loads(answer["Payload"].read())
            seen.append(body.get("body", "failed"))

    def update(mean: str) -> dict[str, Any]:
        seen.clear()
        stop.clear()
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        stacks.update_stack(StackName="answers", TemplateBody=function_template(image, roles, mean=mean))
        stack = stack_state(rehearsal)
        stop.set()
        asking.join(10)
        return stack

    stack = update("2")
    events = stacks.describe_stack_events(StackName="answers")["StackEvents"]
    assert stack["StackStatus"] == "UPDATE_COMPLETE", [
        r for e in events if (r := e.get("ResourceStatusReason"))
    ]
    moved = [e["detail"] for e in rehearsal.ledger(kind="alias-deployment")][-1]
    assert (moved["shares"], moved["outcome"]) == ([0.5, 1.0], "deployed")
    assert {"1", "2"} == set(seen[seen.index("2") :]) == set(seen)
    stack = update("bad")
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE", stack
    assert "failed" in seen
    found = functions.get_alias(FunctionName="shifted", Name="live")
    assert "RoutingConfig" not in found
    answer = functions.invoke(FunctionName="shifted", Qualifier="live", Payload=b"{}")
    assert json.loads(answer["Payload"].read())["body"] == "2"
    stacks.delete_stack(StackName="answers")
    rehearsal.client("cloudwatch").delete_alarms(AlarmNames=["shifted-errors"])
    await_(lambda: stack_names(rehearsal), lambda names: "answers" not in names, 30)


def stack_names(rehearsal: Rehearsal) -> list[str]:
    """The stacks that are there."""
    found = rehearsal.client("cloudformation").describe_stacks()["Stacks"]
    return [stack["StackName"] for stack in found if stack["StackStatus"] != "DELETE_COMPLETE"]


def template(image: str, roles: dict[str, str], *, mean: str, alarms: bool = False) -> str:
    """A service of the serving image behind a load balancer."""
    deployment: dict[str, Any] = {
        "MinimumHealthyPercent": 100,
        "MaximumPercent": 200,
        "DeploymentCircuitBreaker": {"Enable": True, "Rollback": True},
    }
    if alarms:
        deployment["Alarms"] = {"AlarmNames": ["wrong-answers"], "Enable": True, "Rollback": True}
    resources = {
        "Vpc": {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": "10.0.0.0/16"}},
        "Subnet": {
            "Type": "AWS::EC2::Subnet",
            "Properties": {"VpcId": {"Ref": "Vpc"}, "CidrBlock": "10.0.1.0/24"},
        },
        "Balancer": {
            "Type": "AWS::ElasticLoadBalancingV2::LoadBalancer",
            "Properties": {"Scheme": "internal", "Subnets": [{"Ref": "Subnet"}], "Type": "application"},
        },
        "Targets": {
            "Type": "AWS::ElasticLoadBalancingV2::TargetGroup",
            "Properties": {
                "VpcId": {"Ref": "Vpc"},
                "Port": 8080,
                "Protocol": "HTTP",
                "TargetType": "ip",
                "HealthCheckPath": "/ping",
            },
        },
        "Listener": {
            "Type": "AWS::ElasticLoadBalancingV2::Listener",
            "Properties": {
                "LoadBalancerArn": {"Ref": "Balancer"},
                "Port": 80,
                "Protocol": "HTTP",
                "DefaultActions": [{"Type": "forward", "TargetGroupArn": {"Ref": "Targets"}}],
            },
        },
        "Cluster": {"Type": "AWS::ECS::Cluster", "Properties": {"ClusterName": "answers"}},
        "Task": {
            "Type": "AWS::ECS::TaskDefinition",
            "Properties": {
                "Family": "answers",
                "RequiresCompatibilities": ["FARGATE"],
                "NetworkMode": "awsvpc",
                "Cpu": "256",
                "Memory": "512",
                "TaskRoleArn": roles["task"],
                "ExecutionRoleArn": roles["execution"],
                "ContainerDefinitions": [
                    {
                        "Name": "serving",
                        "Image": image,
                        "Command": ["serve"],
                        "PortMappings": [{"ContainerPort": 8080}],
                        "Environment": [{"Name": "MEAN", "Value": mean}],
                    }
                ],
            },
        },
        "Service": {
            "Type": "AWS::ECS::Service",
            "DependsOn": ["Listener"],
            "Properties": {
                "ServiceName": "answers",
                "Cluster": {"Ref": "Cluster"},
                "TaskDefinition": {"Ref": "Task"},
                "DesiredCount": 1,
                "LaunchType": "FARGATE",
                "DeploymentConfiguration": deployment,
                "NetworkConfiguration": {"AwsvpcConfiguration": {"Subnets": [{"Ref": "Subnet"}]}},
                "LoadBalancers": [
                    {
                        "ContainerName": "serving",
                        "ContainerPort": 8080,
                        "TargetGroupArn": {"Ref": "Targets"},
                    }
                ],
            },
        },
    }
    outputs = {
        "Host": {"Value": {"Fn::GetAtt": ["Balancer", "DNSName"]}},
        "Name": {"Value": {"Fn::GetAtt": ["Balancer", "LoadBalancerFullName"]}},
    }
    return json.dumps({"Resources": resources, "Outputs": outputs})


def stack_state(rehearsal: Rehearsal) -> dict[str, Any]:
    """Wait until the stack rests; its description."""
    stacks = rehearsal.client("cloudformation")
    found: dict[str, Any] = await_(
        lambda: stacks.describe_stacks(StackName="answers")["Stacks"][0],
        lambda stack: not stack["StackStatus"].endswith("IN_PROGRESS"),
        90,
    )
    return found


def answer(server: ServerProcess, host: str) -> tuple[int, str]:
    """Ask the service through its load balancer."""
    found = urllib3.request(
        "POST", f"{server.endpoint}/invocations", body=b"1", headers={"Host": host}, retries=False
    )
    return found.status, found.data.decode()


def test_should_serve_on_ecs_roll_its_tasks_and_go_back(rehearsal: Rehearsal) -> None:
    principal = "ecs-tasks.amazonaws.com"
    roles = {
        "task": rehearsal.make_role("answers-task", principal, [allow("s3:GetObject")]),
        "execution": rehearsal.make_role("answers-execution", principal, [allow("logs:PutLogEvents")]),
    }
    stacks = rehearsal.client("cloudformation")
    first = template(rehearsal.server_image, roles, mean="3")
    stacks.create_stack(StackName="answers", TemplateBody=first)
    stack = stack_state(rehearsal)
    assert stack["StackStatus"] == "CREATE_COMPLETE", stack
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    host = outputs["Host"]
    assert answer(rehearsal.server, host) == (200, '{"sum": 4.0}')

    seen: list[tuple[int, str]] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.wait(0.02):
            seen.append(answer(rehearsal.server, host))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    stacks.update_stack(StackName="answers", TemplateBody=template(rehearsal.server_image, roles, mean="4"))
    assert stack_state(rehearsal)["StackStatus"] == "UPDATE_COMPLETE"
    stop.set()
    asking.join(10)
    assert {status for status, _ in seen} == {200}
    assert answer(rehearsal.server, host) == (200, '{"sum": 5.0}')
    where = {"LoadBalancer": outputs["Name"]}
    assert points(rehearsal, "AWS/ApplicationELB", "RequestCount", **where) >= len(seen)

    scaling = rehearsal.client("application-autoscaling")
    target = {
        "ServiceNamespace": "ecs",
        "ResourceId": "service/answers/answers",
        "ScalableDimension": "ecs:service:DesiredCount",
    }
    scaling.register_scalable_target(**target, MinCapacity=1, MaxCapacity=3)
    scaling.put_scheduled_action(
        **target,
        ScheduledActionName="more",
        Schedule="rate(10 minutes)",
        ScalableTargetAction={"MinCapacity": 2},
    )
    advance(rehearsal, minutes=11)
    ecs = rehearsal.client("ecs")
    running = await_(
        lambda: ecs.describe_services(cluster="answers", services=["answers"])["services"][0]["runningCount"],
        lambda count: count == 2,
        20,
    )
    assert running == 2
    scaling.deregister_scalable_target(**target)
    with pytest.raises(ClientError, match="ECS has no such active service"):
        scaling.register_scalable_target(
            **target | {"ResourceId": "service/answers/nobody"}, MinCapacity=1, MaxCapacity=2
        )

    rehearsal.client("cloudwatch").put_metric_alarm(
        AlarmName="wrong-answers",
        Namespace="AWS/ApplicationELB",
        MetricName="HTTPCode_Target_5XX_Count",
        Dimensions=[{"Name": "LoadBalancer", "Value": outputs["Name"]}],
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        TreatMissingData="notBreaching",
    )
    stop.clear()
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    bad = template(rehearsal.server_image, roles, mean="-1", alarms=True)
    stacks.update_stack(StackName="answers", TemplateBody=bad)
    stack = stack_state(rehearsal)
    stop.set()
    asking.join(10)
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    events = stacks.describe_stack_events(StackName="answers")["StackEvents"]
    reasons = [event.get("ResourceStatusReason", "") for event in events]
    assert any("the alarm wrong-answers is in ALARM" in reason for reason in reasons), reasons
    assert answer(rehearsal.server, host) == (200, '{"sum": 5.0}')
    stacks.delete_stack(StackName="answers")
    rehearsal.client("cloudwatch").delete_alarms(AlarmNames=["wrong-answers"])
