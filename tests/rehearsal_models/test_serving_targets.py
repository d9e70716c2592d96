"""The serving image beyond SageMaker: as a Lambda function, and as a service on ECS."""

import json
import threading
import time
from typing import Any

import pytest
import urllib3
from botocore.exceptions import ClientError

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
