"""Model quality by Model Monitor: labels are merged first, and a window without any fails."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from .conftest import Rehearsal
from .serving_support import invoke, on_instances, put_model, up

pytestmark = [pytest.mark.rehearsal, pytest.mark.slow]

ENDPOINT = "labelled"


def schedule(rehearsal: Rehearsal) -> None:
    sagemaker = rehearsal.client("sagemaker")
    bucket = f"s3://{rehearsal.bucket}"
    sagemaker.create_model_quality_job_definition(
        JobDefinitionName=ENDPOINT,
        ModelQualityAppSpecification={
            "ImageUri": rehearsal.job_image,
            "ContainerArguments": ["judge"],
            "ProblemType": "BinaryClassification",
        },
        ModelQualityJobInput={
            "EndpointInput": {
                "EndpointName": ENDPOINT,
                "LocalPath": "/opt/ml/processing/input/endpoint",
                "StartTimeOffset": "-PT1H",
                "EndTimeOffset": "-PT1H",
            },
            "GroundTruthS3Input": {"S3Uri": f"{bucket}/truth"},
        },
        ModelQualityJobOutputConfig={
            "MonitoringOutputs": [
                {"S3Output": {"S3Uri": f"{bucket}/quality", "LocalPath": "/opt/ml/processing/output"}}
            ]
        },
        JobResources={
            "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 30}
        },
        RoleArn=rehearsal.role,
    )
    sagemaker.create_monitoring_schedule(
        MonitoringScheduleName=ENDPOINT,
        MonitoringScheduleConfig={
            "ScheduleConfig": {"ScheduleExpression": "cron(0 * ? * * *)"},
            "MonitoringJobDefinitionName": ENDPOINT,
            "MonitoringType": "ModelQuality",
        },
    )


def an_hour_later(rehearsal: Rehearsal) -> dict[str, Any]:
    """Let an hour pass; the newest execution."""
    rehearsal.server.control("POST", "/clock/advance", {"hours": 1})
    assert rehearsal.server.control("GET", "/idle")["idle"]
    found: dict[str, Any] = rehearsal.client("sagemaker").list_monitoring_executions(
        MonitoringScheduleName=ENDPOINT
    )["MonitoringExecutionSummaries"][0]
    return found


def test_should_judge_the_hour_before_last_with_the_labels_that_came_meanwhile(rehearsal: Rehearsal) -> None:
    up(
        rehearsal,
        ENDPOINT,
        on_instances(put_model(rehearsal, ENDPOINT, 3.0)),
        DataCaptureConfig={
            "EnableCapture": True,
            "InitialSamplingPercentage": 100,
            "DestinationS3Uri": f"s3://{rehearsal.bucket}/capture",
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"]},
        },
    )
    schedule(rehearsal)
    invoke(rehearsal, ENDPOINT, "1,drift", InferenceId="a")
    invoke(rehearsal, ENDPOINT, "2", InferenceId="b")
    # The hour before last has nothing yet: nobody asked in it.
    first = an_hour_later(rehearsal)
    assert (first["MonitoringExecutionStatus"], first["FailureReason"]) == (
        "Failed",
        "Job inputs had no data",
    )
    assert "ProcessingJobArn" not in first
    # Only what is labelled is judged: the drift is not.
    now = datetime.fromisoformat(rehearsal.server.control("GET", "/clock")["now"])
    truth = {"groundTruthData": {"data": "1", "encoding": "CSV"}, "eventMetadata": {"eventId": "b"}}
    rehearsal.client("s3").put_object(
        Bucket=rehearsal.bucket, Key=f"truth/{now:%Y/%m/%d/%H}/late.jsonl", Body=json.dumps(truth).encode()
    )
    second = an_hour_later(rehearsal)
    assert second["MonitoringExecutionStatus"] == "Completed", second
    [merged] = [key for key in rehearsal.keys("quality/merge") if key.endswith(".jsonl")]
    body = rehearsal.client("s3").get_object(Bucket=rehearsal.bucket, Key=merged)["Body"].read()
    [line] = [json.loads(text) for text in body.splitlines()]
    assert line["eventMetadata"]["inferenceId"] == "b"
    assert line["groundTruthData"]["data"] == "1"
    assert line["captureData"]["endpointInput"]["data"] == "2"
    rehearsal.client("sagemaker").stop_monitoring_schedule(MonitoringScheduleName=ENDPOINT)
