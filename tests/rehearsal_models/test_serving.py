"""Endpoints that serve, are measured and captured, and move from one model to the next."""

import io
import json
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.exceptions import ClientError

from .conftest import Rehearsal, allow, await_

pytestmark = [pytest.mark.rehearsal, pytest.mark.slow]

CANARY = {
    "BlueGreenUpdatePolicy": {
        "TrafficRoutingConfiguration": {
            "Type": "CANARY",
            "WaitIntervalInSeconds": 300,
            "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 30},
        },
        "TerminationWaitInSeconds": 60,
    },
    "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "serving-errors"}]},
}


def make_model(rehearsal: Rehearsal, name: str, mean: float, **environment: str) -> str:
    """Pack a model, make SageMaker's model and a configuration of it; the name of all three."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        content = json.dumps({"mean": mean}).encode()
        info = tarfile.TarInfo("model.json")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    key = f"packed/{name}/model.tar.gz"
    rehearsal.client("s3").put_object(Bucket=rehearsal.bucket, Key=key, Body=packed.getvalue())
    sagemaker = rehearsal.client("sagemaker")
    sagemaker.create_model(
        ModelName=name,
        ExecutionRoleArn=rehearsal.role,
        PrimaryContainer={
            "Image": rehearsal.server_image,
            "ModelDataUrl": f"s3://{rehearsal.bucket}/{key}",
            "Environment": environment,
        },
    )
    sagemaker.create_endpoint_config(
        EndpointConfigName=name,
        ProductionVariants=[
            {
                "VariantName": "AllTraffic",
                "ModelName": name,
                "InitialInstanceCount": 1,
                "InstanceType": "ml.c5.large",
                "InitialVariantWeight": 1.0,
            }
        ],
        DataCaptureConfig={
            "EnableCapture": True,
            "InitialSamplingPercentage": 100,
            "DestinationS3Uri": f"s3://{rehearsal.bucket}/capture",
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            "CaptureContentTypeHeader": {
                "CsvContentTypes": ["text/csv"],
                "JsonContentTypes": ["application/json"],
            },
        },
    )
    return name


def status_of(rehearsal: Rehearsal, endpoint: str) -> dict[str, Any]:
    """Wait until an endpoint rests; its description."""
    sagemaker = rehearsal.client("sagemaker")
    found: dict[str, Any] = await_(
        lambda: sagemaker.describe_endpoint(EndpointName=endpoint),
        lambda answer: answer["EndpointStatus"] in ("InService", "Failed"),
        90,
    )
    return found


def ask(rehearsal: Rehearsal, endpoint: str, body: str = "1") -> dict[str, Any]:
    """Invoke the endpoint with a line of CSV; the answer."""
    answer = rehearsal.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=endpoint, Body=body.encode(), ContentType="text/csv", Accept="application/json"
    )
    return {**json.loads(answer["Body"].read()), "variant": answer["InvokedProductionVariant"]}


@pytest.fixture(scope="module")
def endpoint(rehearsal: Rehearsal) -> str:
    """An endpoint in service whose model has the mean 10."""
    make_model(rehearsal, "ten", 10)
    rehearsal.client("sagemaker").create_endpoint(EndpointName="numbers", EndpointConfigName="ten")
    answer = status_of(rehearsal, "numbers")
    assert answer["EndpointStatus"] == "InService", answer
    return "numbers"


@contextmanager
def traffic(rehearsal: Rehearsal, endpoint: str) -> Iterator[list[str]]:
    """Ask all the time; the outcomes."""
    outcomes: list[str] = []
    stop = threading.Event()
    client = rehearsal.client("sagemaker-runtime")

    def run() -> None:
        while not stop.is_set():
            try:
                answer = client.invoke_endpoint(EndpointName=endpoint, Body=b"1", ContentType="text/csv")
                outcomes.append(str(json.loads(answer["Body"].read())["sum"]))
            except ClientError as error:
                outcomes.append(error.response["Error"]["Code"])
            time.sleep(0.02)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield outcomes
    finally:
        stop.set()
        thread.join(10)


def test_should_answer_through_invoke_endpoint(rehearsal: Rehearsal, endpoint: str) -> None:
    assert ask(rehearsal, endpoint, "5") == {"sum": 15.0, "variant": "AllTraffic"}


def test_should_pass_on_the_errors_of_the_model(rehearsal: Rehearsal, endpoint: str) -> None:
    with pytest.raises(ClientError) as caught:
        ask(rehearsal, endpoint, "bad")
    answer: dict[str, Any] = dict(caught.value.response)
    assert answer["Error"]["Code"] == "ModelError"
    assert (answer["OriginalStatusCode"], answer["OriginalMessage"]) == (400, "not a number")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"EndpointName": "nobody"}, "Endpoint nobody of account 123456789012 not found"),
        ({"TargetVariant": "Blue"}, "has no variant Blue"),
        ({"TargetModel": "a.tar.gz"}, "TargetModel is for endpoints of another kind"),
    ],
)
def test_should_refuse_requests_that_the_endpoint_cannot_serve(
    rehearsal: Rehearsal, endpoint: str, change: dict[str, str], message: str
) -> None:
    with pytest.raises(ClientError, match=message):
        rehearsal.client("sagemaker-runtime").invoke_endpoint(
            **{"EndpointName": endpoint, "Body": b"1", "ContentType": "text/csv"} | change
        )


def test_should_refuse_a_body_over_six_mebibytes(rehearsal: Rehearsal, endpoint: str) -> None:
    with pytest.raises(ClientError, match="6291456"):
        ask(rehearsal, endpoint, "1" * (6 * 1024 * 1024 + 1))


def test_should_capture_and_measure_what_it_serves(rehearsal: Rehearsal, endpoint: str) -> None:
    for _ in range(3):
        ask(rehearsal, endpoint, "77")
    with pytest.raises(ClientError):
        ask(rehearsal, endpoint, "bad")
    rehearsal.server.control("POST", "/endpoints/flush", {})
    keys = rehearsal.keys(f"capture/{endpoint}/AllTraffic/")
    lines = [json.loads(line) for key in keys for line in rehearsal.read(key).splitlines()]
    inputs = [line["captureData"]["endpointInput"] for line in lines]
    assert {"observedContentType": "text/csv", "mode": "INPUT", "data": "77", "encoding": "CSV"} in inputs
    dimensions = [{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": "AllTraffic"}]
    queries = [
        {
            "Id": name.lower(),
            "MetricStat": {
                "Metric": {"Namespace": "AWS/SageMaker", "MetricName": name, "Dimensions": dimensions},
                "Period": 3600,
                "Stat": stat,
            },
        }
        for name, stat in (
            ("Invocations", "Sum"),
            ("Invocation4XXErrors", "Sum"),
            ("ModelLatency", "Average"),
        )
    ]
    now = time.time()
    answer = rehearsal.client("cloudwatch").get_metric_data(
        MetricDataQueries=queries, StartTime=now - 86400, EndTime=now + 86400 * 30
    )
    found = {result["Id"]: sum(result["Values"]) for result in answer["MetricDataResults"]}
    assert found["invocations"] >= 3
    assert found["invocation4xxerrors"] >= 1
    assert 10 < found["modellatency"] < 60e6


def test_should_fail_an_endpoint_whose_container_is_sick(rehearsal: Rehearsal) -> None:
    sagemaker = rehearsal.client("sagemaker")
    sagemaker.create_model(
        ModelName="no-data",
        ExecutionRoleArn=rehearsal.role,
        PrimaryContainer={"Image": rehearsal.server_image},
    )
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": "no-data",
        "InitialInstanceCount": 1,
        "InstanceType": "ml.c5.large",
    }
    sagemaker.create_endpoint_config(EndpointConfigName="no-data", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="no-data", EndpointConfigName="no-data")
    answer = status_of(rehearsal, "no-data")
    assert answer["EndpointStatus"] == "Failed"
    assert "did not pass the ping health check" in answer["FailureReason"]
    sagemaker.delete_endpoint(EndpointName="no-data")


def alarm_on_errors(rehearsal: Rehearsal, endpoint: str) -> None:
    """An alarm on the share of 5xx answers, by metric math."""

    def stat(name: str, metric: str) -> dict[str, Any]:
        dimensions = [
            {"Name": "EndpointName", "Value": endpoint},
            {"Name": "VariantName", "Value": "AllTraffic"},
        ]
        return {
            "Id": name,
            "MetricStat": {
                "Metric": {"Namespace": "AWS/SageMaker", "MetricName": metric, "Dimensions": dimensions},
                "Period": 60,
                "Stat": "Sum",
            },
            "ReturnData": False,
        }

    rehearsal.client("cloudwatch").put_metric_alarm(
        AlarmName="serving-errors",
        ComparisonOperator="GreaterThanThreshold",
        EvaluationPeriods=1,
        Threshold=1,
        TreatMissingData="notBreaching",
        Metrics=[
            {"Id": "rate", "Expression": "100 * errors / requests", "ReturnData": True},
            stat("errors", "Invocation5XXErrors"),
            stat("requests", "Invocations"),
        ],
    )


def test_should_move_the_traffic_by_a_canary_and_stay_available(rehearsal: Rehearsal, endpoint: str) -> None:
    alarm_on_errors(rehearsal, endpoint)
    make_model(rehearsal, "twenty", 20)
    before = rehearsal.server.control("GET", "/clock")["now"]
    with traffic(rehearsal, endpoint) as outcomes:
        rehearsal.client("sagemaker").update_endpoint(
            EndpointName=endpoint, EndpointConfigName="twenty", DeploymentConfig=CANARY
        )
        answer = status_of(rehearsal, endpoint)
    assert (answer["EndpointStatus"], answer["EndpointConfigName"]) == ("InService", "twenty"), answer
    assert "FailureReason" not in answer
    assert set(outcomes) == {"11.0", "21.0"}
    assert ask(rehearsal, endpoint)["sum"] == 21.0
    assert rehearsal.server.control("GET", "/clock")["now"] > before
    deployed = rehearsal.ledger(kind="deployment")[-1]["detail"]
    assert [step["share"] for step in deployed["traffic"]] == [0.3, 1.0]
    first = deployed["traffic"][0]["served"]
    assert first["green"] > 0


def test_should_roll_back_when_the_alarm_rings_and_still_answer(rehearsal: Rehearsal, endpoint: str) -> None:
    alarm_on_errors(rehearsal, endpoint)
    make_model(rehearsal, "broken", -1)
    before = status_of(rehearsal, endpoint)["EndpointConfigName"]
    expected = ask(rehearsal, endpoint)
    with traffic(rehearsal, endpoint) as outcomes:
        rehearsal.client("sagemaker").update_endpoint(
            EndpointName=endpoint, EndpointConfigName="broken", DeploymentConfig=CANARY
        )
        answer = status_of(rehearsal, endpoint)
    assert (answer["EndpointStatus"], answer["EndpointConfigName"]) == ("InService", before)
    assert "the alarm serving-errors is in ALARM" in answer["FailureReason"]
    assert "ModelError" in outcomes
    assert ask(rehearsal, endpoint) == expected
    states = [entry["detail"]["state"] for entry in rehearsal.ledger(kind="alarm")]
    assert "ALARM" in states
    rehearsal.server.control("POST", "/clock/advance", {"minutes": 30})
    alarm = rehearsal.client("cloudwatch").describe_alarms(AlarmNames=["serving-errors"])["MetricAlarms"][0]
    assert alarm["StateValue"] == "OK"


def test_should_fire_a_schedule_that_calls_any_api(rehearsal: Rehearsal, endpoint: str) -> None:
    role = rehearsal.make_role(
        "schedule",
        "scheduler.amazonaws.com",
        [
            allow(
                "sagemaker:CreateProcessingJob",
                on="arn:aws:sagemaker:us-east-1:123456789012:processing-job/monitor-*",
            ),
            allow("iam:PassRole", on=rehearsal.role),
        ],
    )
    job = {
        "ProcessingJobName": "monitor-<aws.scheduler.execution-id>",
        "AppSpecification": {"ImageUri": rehearsal.job_image, "ContainerArguments": ["say"]},
        "Environment": {"SCHEDULED_TIME": "<aws.scheduler.scheduled-time>"},
        "RoleArn": rehearsal.role,
        "ProcessingResources": {
            "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 30}
        },
    }
    scheduler, sagemaker = rehearsal.client("scheduler"), rehearsal.client("sagemaker")
    scheduler.create_schedule(
        Name="monitor",
        ScheduleExpression="rate(1 hour)",
        FlexibleTimeWindow={"Mode": "OFF"},
        Target={
            "Arn": "arn:aws:scheduler:::aws-sdk:sagemaker:createProcessingJob",
            "RoleArn": role,
            "Input": json.dumps(job),
        },
    )
    fired = rehearsal.server.control("POST", "/clock/advance", {"hours": 2, "minutes": 1})["fired"]
    assert [item["title"] for item in fired].count("schedule monitor") == 2
    assert rehearsal.server.control("GET", "/idle")["idle"]
    jobs = sagemaker.list_processing_jobs(NameContains="monitor-")["ProcessingJobSummaries"]
    assert [found["ProcessingJobStatus"] for found in jobs] == ["Completed", "Completed"]
    described = sagemaker.describe_processing_job(ProcessingJobName=jobs[0]["ProcessingJobName"])
    assert described["Environment"]["SCHEDULED_TIME"].startswith("20")
    scheduler.delete_schedule(Name="monitor")


def test_should_start_a_pipeline_that_an_event_asks_for(rehearsal: Rehearsal) -> None:
    sagemaker, events = rehearsal.client("sagemaker"), rehearsal.client("events")
    fail = {
        "Name": "Tell",
        "Type": "Fail",
        "Arguments": {
            "ErrorMessage": {"Std:Join": {"On": " ", "Values": ["told", {"Get": "Parameters.Who"}]}}
        },
    }
    arn = sagemaker.create_pipeline(
        PipelineName="by-event",
        PipelineDefinition=json.dumps(
            {"Version": "2020-12-01", "Parameters": [{"Name": "Who", "Type": "String"}], "Steps": [fail]}
        ),
        ClientRequestToken="0" * 32,
        RoleArn=rehearsal.role,
    )["PipelineArn"]
    role = rehearsal.make_role(
        "starter", "events.amazonaws.com", [allow("sagemaker:StartPipelineExecution", on=arn)]
    )
    events.put_rule(Name="start", EventPattern=json.dumps({"source": ["test"]}))
    parameters = {"PipelineParameterList": [{"Name": "Who", "Value": "$.detail.who"}]}
    events.put_targets(
        Rule="start",
        Targets=[{"Id": "pipeline", "Arn": arn, "RoleArn": role, "SageMakerPipelineParameters": parameters}],
    )
    events.put_events(Entries=[{"Source": "test", "DetailType": "x", "Detail": json.dumps({"who": "us"})}])
    execution = await_(
        lambda: sagemaker.list_pipeline_executions(PipelineName="by-event")["PipelineExecutionSummaries"],
        lambda found: bool(found) and found[0]["PipelineExecutionStatus"] == "Failed",
    )[0]
    assert "told us" in execution["PipelineExecutionFailureReason"]


def test_should_run_model_monitor_with_the_same_image(rehearsal: Rehearsal, endpoint: str) -> None:
    sagemaker = rehearsal.client("sagemaker")
    sagemaker.create_data_quality_job_definition(
        JobDefinitionName="quality",
        DataQualityAppSpecification={"ImageUri": rehearsal.job_image, "ContainerArguments": ["judge"]},
        DataQualityJobInput={
            "EndpointInput": {"EndpointName": endpoint, "LocalPath": "/opt/ml/processing/input/endpoint"}
        },
        DataQualityJobOutputConfig={
            "MonitoringOutputs": [
                {
                    "S3Output": {
                        "S3Uri": f"s3://{rehearsal.bucket}/monitoring",
                        "LocalPath": "/opt/ml/processing/output",
                    }
                }
            ]
        },
        JobResources={
            "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 30}
        },
        RoleArn=rehearsal.role,
    )
    sagemaker.create_monitoring_schedule(
        MonitoringScheduleName="quality",
        MonitoringScheduleConfig={
            "ScheduleConfig": {"ScheduleExpression": "cron(0 * ? * * *)"},
            "MonitoringJobDefinitionName": "quality",
            "MonitoringType": "DataQuality",
        },
    )

    def one_hour(body: str) -> dict[str, Any]:
        ask(rehearsal, endpoint, body)
        rehearsal.server.control("POST", "/clock/advance", {"hours": 1})
        assert rehearsal.server.control("GET", "/idle")["idle"]
        found: dict[str, Any] = sagemaker.list_monitoring_executions(MonitoringScheduleName="quality")[
            "MonitoringExecutionSummaries"
        ][0]
        return found

    assert one_hour("1")["MonitoringExecutionStatus"] == "Completed"
    drifted = one_hour("1,drift")
    assert drifted["MonitoringExecutionStatus"] == "CompletedWithViolations", drifted
    assert any(
        key.endswith("constraint_violations.json") for key in rehearsal.keys(f"monitoring/{endpoint}/quality")
    )
    sagemaker.stop_monitoring_schedule(MonitoringScheduleName="quality")


def test_should_scale_a_variant_by_its_tracked_metric(rehearsal: Rehearsal, endpoint: str) -> None:
    scaling = rehearsal.client("application-autoscaling")
    resource = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{endpoint}/variant/AllTraffic",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    with pytest.raises(ClientError, match="does not exist; there are AllTraffic"):
        scaling.register_scalable_target(
            **resource | {"ResourceId": f"endpoint/{endpoint}/variant/Other"}, MinCapacity=1, MaxCapacity=3
        )
    scaling.register_scalable_target(**resource, MinCapacity=1, MaxCapacity=3)
    policy = scaling.put_scaling_policy(
        **resource,
        PolicyName="track",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": 2,
            "PredefinedMetricSpecification": {
                "PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"
            },
        },
    )
    assert policy["PolicyARN"].startswith("arn:aws:autoscaling:")
    for _ in range(4):
        for _ in range(5):
            ask(rehearsal, endpoint)
        rehearsal.server.control("POST", "/clock/advance", {"minutes": 1})
    variant = rehearsal.client("sagemaker").describe_endpoint(EndpointName=endpoint)["ProductionVariants"][0]
    assert variant["DesiredInstanceCount"] == 3


def test_should_stop_serving_when_deleted(rehearsal: Rehearsal) -> None:
    make_model(rehearsal, "gone", 1)
    sagemaker = rehearsal.client("sagemaker")
    sagemaker.create_endpoint(EndpointName="gone", EndpointConfigName="gone")
    assert status_of(rehearsal, "gone")["EndpointStatus"] == "InService"
    sagemaker.delete_endpoint(EndpointName="gone")
    with pytest.raises(ClientError, match="Endpoint gone of account 123456789012 not found"):
        ask(rehearsal, "gone")


def test_should_deploy_a_package_only_when_it_is_approved(rehearsal: Rehearsal) -> None:
    sagemaker = rehearsal.client("sagemaker")
    make_model(rehearsal, "packaged-source", 3)
    sagemaker.create_model_package_group(ModelPackageGroupName="packaged")
    arn = sagemaker.create_model_package(
        ModelPackageGroupName="packaged",
        ModelApprovalStatus="PendingManualApproval",
        InferenceSpecification={
            "Containers": [
                {
                    "Image": rehearsal.server_image,
                    "ModelDataUrl": f"s3://{rehearsal.bucket}/packed/packaged-source/model.tar.gz",
                }
            ],
            "SupportedContentTypes": ["text/csv"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
    )["ModelPackageArn"]
    model: dict[str, Any] = {
        "ModelName": "packaged",
        "ExecutionRoleArn": rehearsal.role,
        "Containers": [{"ModelPackageName": arn}],
    }
    with pytest.raises(ClientError, match="PendingManualApproval; only an Approved one"):
        sagemaker.create_model(**model)
    sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    sagemaker.create_model(**model)
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": "packaged",
        "InitialInstanceCount": 1,
        "InstanceType": "ml.c5.large",
    }
    sagemaker.create_endpoint_config(EndpointConfigName="packaged", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="packaged", EndpointConfigName="packaged")
    assert status_of(rehearsal, "packaged")["EndpointStatus"] == "InService"
    assert ask(rehearsal, "packaged", "4")["sum"] == 7.0
    sagemaker.delete_endpoint(EndpointName="packaged")


def test_should_fire_a_scheduled_rule_and_pass_over_it_in_a_jump(rehearsal: Rehearsal) -> None:
    events, sqs = rehearsal.client("events"), rehearsal.client("sqs")
    queue, arn = rehearsal.make_queue("hourly")
    events.put_rule(Name="hourly", ScheduleExpression="rate(1 hour)")
    events.put_targets(Rule="hourly", Targets=[{"Id": "queue", "Arn": arn}])
    answer = rehearsal.server.control("POST", "/clock/advance", {"hours": 24, "skip_schedules": True})
    assert (answer["skipped"], answer["fired"]) == (24, [])
    assert "Messages" not in sqs.receive_message(QueueUrl=queue)
    rehearsal.server.control("POST", "/clock/advance", {"hours": 1})
    event = json.loads(sqs.receive_message(QueueUrl=queue)["Messages"][0]["Body"])
    assert (event["source"], event["detail-type"]) == ("aws.events", "Scheduled Event")
    assert event["time"][:13] == rehearsal.server.control("GET", "/clock")["now"][:13]
    events.remove_targets(Rule="hourly", Ids=["queue"])
    events.delete_rule(Name="hourly")


def test_should_tell_of_composite_alarms_and_of_states_that_are_set(rehearsal: Rehearsal) -> None:
    events, sqs, cloudwatch = (
        rehearsal.client("events"),
        rehearsal.client("sqs"),
        rehearsal.client("cloudwatch"),
    )
    queue, arn = rehearsal.make_queue("alarms")
    events.put_rule(Name="alarms", EventPattern=json.dumps({"source": ["aws.cloudwatch"]}))
    events.put_targets(Rule="alarms", Targets=[{"Id": "queue", "Arn": arn}])
    cloudwatch.put_metric_alarm(
        AlarmName="queue-depth",
        Namespace="App",
        MetricName="Depth",
        Statistic="Maximum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=10,
        ComparisonOperator="GreaterThanThreshold",
    )
    cloudwatch.put_composite_alarm(AlarmName="any", AlarmRule='ALARM("queue-depth")')
    cloudwatch.put_metric_data(Namespace="App", MetricData=[{"MetricName": "Depth", "Value": 11}])
    rehearsal.server.control("POST", "/clock/advance", {"minutes": 2})
    seen: list[tuple[str, str]] = []

    def read() -> list[tuple[str, str]]:
        for message in sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", ()):
            detail = json.loads(message["Body"])["detail"]
            seen.append((detail["alarmName"], detail["state"]["value"]))
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return seen

    await_(read, lambda found: {("queue-depth", "ALARM"), ("any", "ALARM")} <= set(found))
    cloudwatch.set_alarm_state(AlarmName="queue-depth", StateValue="OK", StateReason="by hand")
    await_(read, lambda found: ("queue-depth", "OK") in found)
    cloudwatch.delete_alarms(AlarmNames=["any"])
    cloudwatch.delete_alarms(AlarmNames=["queue-depth"])
