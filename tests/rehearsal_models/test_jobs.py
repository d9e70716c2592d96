"""Processing and training jobs that run for real."""

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from .conftest import IMAGES, REGISTRY, Rehearsal, allow, await_, build_image

pytestmark = [pytest.mark.rehearsal, pytest.mark.slow]

CLUSTER = {"ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 30}}


def process(rehearsal: Rehearsal, name: str, *arguments: str, **changes: Any) -> dict[str, Any]:
    """Run a processing job to its end; its description."""
    sagemaker = rehearsal.client("sagemaker")
    sagemaker.create_processing_job(
        **{
            "ProcessingJobName": name,
            "AppSpecification": {"ImageUri": rehearsal.job_image, "ContainerArguments": list(arguments)},
            "RoleArn": rehearsal.role,
            "ProcessingResources": CLUSTER,
        }
        | changes
    )
    found: dict[str, Any] = await_(
        lambda: sagemaker.describe_processing_job(ProcessingJobName=name),
        lambda job: job["ProcessingJobStatus"] not in ("InProgress", "Stopping"),
    )
    return found


def numbers(rehearsal: Rehearsal, prefix: str) -> dict[str, Any]:
    """Inputs and outputs of a job that sorts numbers."""
    return {
        "ProcessingInputs": [
            {
                "InputName": "numbers",
                "S3Input": {
                    "S3Uri": f"s3://{rehearsal.bucket}/{prefix}/in/",
                    "LocalPath": "/opt/ml/processing/input/numbers",
                    "S3DataType": "S3Prefix",
                    "S3InputMode": "File",
                },
            }
        ],
        "ProcessingOutputConfig": {
            "Outputs": [
                {
                    "OutputName": "train",
                    "S3Output": {
                        "S3Uri": f"s3://{rehearsal.bucket}/{prefix}/out",
                        "LocalPath": "/opt/ml/processing/output/train",
                        "S3UploadMode": "EndOfJob",
                    },
                }
            ]
        },
    }


def test_should_download_run_and_upload_a_processing_job(rehearsal: Rehearsal) -> None:
    rehearsal.put("sort/in/a.txt", "3\n1\n")
    rehearsal.put("sort/in/sub/b.txt", "2\n")
    job = process(rehearsal, "sort", "prepare", **numbers(rehearsal, "sort"))
    assert job["ProcessingJobStatus"] == "Completed", job
    assert json.loads(rehearsal.read("sort/out/numbers.json")) == [1, 2, 3]
    assert job["ProcessingStartTime"] <= job["ProcessingEndTime"]
    events = rehearsal.client("logs").get_log_events(
        logGroupName="/aws/sagemaker/ProcessingJobs", logStreamName="sort/algo-1"
    )["events"]
    assert [event["message"] for event in events] == ["read 3 numbers from 2 files"]


def test_should_fail_a_job_whose_input_is_empty(rehearsal: Rehearsal) -> None:
    job = process(rehearsal, "empty", "prepare", **numbers(rehearsal, "nothing-here"))
    assert job["ProcessingJobStatus"] == "Failed"
    assert "no S3 objects found under s3://models-bucket/nothing-here/in/" in job["FailureReason"]


def test_should_give_the_exit_message_of_a_job(rehearsal: Rehearsal) -> None:
    assert process(rehearsal, "say", "say")["ExitMessage"] == "nothing to do"


def test_should_refuse_a_job_what_its_role_may_not_do(rehearsal: Rehearsal) -> None:
    job = process(rehearsal, "identity", "identity")
    assert job["ProcessingJobStatus"] == "Failed"
    assert "AccessDenied" in job["FailureReason"]
    role = rehearsal.make_role("no-reads", "sagemaker.amazonaws.com", [allow("logs:*")])
    rehearsal.put("denied/in/a.txt", "1")
    denied = process(rehearsal, "denied", "prepare", **numbers(rehearsal, "denied"), RoleArn=role)
    assert "Data download failed" in denied["FailureReason"]
    assert "AccessDenied" in denied["FailureReason"]


def test_should_ask_for_kms_encrypt_where_a_job_is_told_a_key_for_its_output(rehearsal: Rehearsal) -> None:
    key = rehearsal.client("kms").create_key()["KeyMetadata"]["Arn"]
    rehearsal.put("sealed/in/a.txt", "1")
    request = numbers(rehearsal, "sealed")
    request["ProcessingOutputConfig"]["KmsKeyId"] = key
    usual = [allow("s3:*", "logs:*"), allow("kms:Decrypt", "kms:GenerateDataKey", on=key)]
    short = rehearsal.make_role("no-encrypt", "sagemaker.amazonaws.com", usual)
    refused = process(rehearsal, "sealed-short", "prepare", **request, RoleArn=short)
    assert "kms:Encrypt" in refused["FailureReason"]
    full = rehearsal.make_role(
        "with-encrypt", "sagemaker.amazonaws.com", [*usual, allow("kms:Encrypt", on=key)]
    )
    done = process(rehearsal, "sealed-full", "prepare", **request, RoleArn=full)
    assert done["ProcessingJobStatus"] == "Completed", done


def test_should_fail_a_job_whose_role_does_not_trust_sagemaker(rehearsal: Rehearsal) -> None:
    role = rehearsal.make_role("glue-only", "glue.amazonaws.com", [allow("s3:*")])
    assert "Could not assume role" in process(rehearsal, "untrusted", "say", RoleArn=role)["FailureReason"]


def test_should_fail_a_job_whose_image_nobody_built(rehearsal: Rehearsal) -> None:
    job = process(
        rehearsal,
        "no-image",
        AppSpecification={"ImageUri": "123456789012.dkr.ecr.us-east-1.amazonaws.com/x:9"},
    )
    assert "cannot be pulled" in job["FailureReason"]


def test_should_refuse_an_image_that_runs_as_another_user_than_root(
    rehearsal: Rehearsal, tmp_path: Path
) -> None:
    shutil.copytree(IMAGES / "job", tmp_path / "job")
    with (tmp_path / "job" / "Dockerfile").open("a") as file:
        file.write("USER 1000\n")
    uri = f"{REGISTRY}/somebody:1"
    build_image(rehearsal.server.state, uri, tmp_path / "job")
    job = process(rehearsal, "somebody", "say", AppSpecification={"ImageUri": uri})
    assert "runs as user 1000; SageMaker runs containers with root users only" in job["FailureReason"]


def test_should_stop_a_job_that_is_asked_to_or_runs_too_long(rehearsal: Rehearsal) -> None:
    late = process(rehearsal, "late", "hang", StoppingCondition={"MaxRuntimeInSeconds": 1})
    assert (late["ProcessingJobStatus"], "longer than 1 seconds" in late["FailureReason"]) == (
        "Stopped",
        True,
    )
    sagemaker = rehearsal.client("sagemaker")
    with pytest.raises(ClientError, match="only one InProgress can be stopped"):
        sagemaker.stop_processing_job(ProcessingJobName="late")


def test_should_refuse_a_local_path_outside_of_the_containers_folder(rehearsal: Rehearsal) -> None:
    wrong = numbers(rehearsal, "x")
    wrong["ProcessingInputs"][0]["S3Input"]["LocalPath"] = "/etc"
    with pytest.raises(ClientError, match="LocalPath must be below /opt/ml/processing, got '/etc'"):
        process(rehearsal, "outside", "prepare", **wrong)


def train(rehearsal: Rehearsal, name: str, mode: str = "File", **hyperparameters: str) -> dict[str, Any]:
    """Train on three numbers; the job's description."""
    rehearsal.put("train/numbers.json", "[1, 2, 3]")
    sagemaker = rehearsal.client("sagemaker")
    sagemaker.create_training_job(
        TrainingJobName=name,
        AlgorithmSpecification={
            "TrainingImage": rehearsal.job_image,
            "TrainingInputMode": mode,
            "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+);"}],
        },
        RoleArn=rehearsal.role,
        HyperParameters=hyperparameters,
        InputDataConfig=[
            {
                "ChannelName": "train",
                "DataSource": {
                    "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{rehearsal.bucket}/train/"}
                },
            }
        ],
        OutputDataConfig={"S3OutputPath": f"s3://{rehearsal.bucket}/models/"},
        ResourceConfig={"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 30},
        StoppingCondition={"MaxRuntimeInSeconds": 600},
    )
    found: dict[str, Any] = await_(
        lambda: sagemaker.describe_training_job(TrainingJobName=name),
        lambda job: job["TrainingJobStatus"] not in ("InProgress", "Stopping"),
    )
    return found


def test_should_train_a_model_and_pack_it(rehearsal: Rehearsal) -> None:
    job = train(rehearsal, "mean")
    assert job["TrainingJobStatus"] == "Completed", job
    assert job["ModelArtifacts"]["S3ModelArtifacts"] == "s3://models-bucket/models/mean/output/model.tar.gz"
    with tarfile.open(fileobj=io.BytesIO(rehearsal.read("models/mean/output/model.tar.gz"))) as tar:
        content = tar.extractfile("model.json")
        assert content is not None
        assert json.loads(content.read()) == {"mean": 2.0, "job": "mean"}
    assert rehearsal.keys("models/mean/output/output.tar.gz")
    assert {m["MetricName"]: m["Value"] for m in job["FinalMetricDataList"]} == {"loss": 0.25}
    assert [t["Status"] for t in job["SecondaryStatusTransitions"]] == [
        "Starting",
        "Downloading",
        "Training",
        "Uploading",
        "Completed",
    ]


def test_should_give_fast_file_channels_as_files_and_refuse_a_pipe(rehearsal: Rehearsal) -> None:
    assert train(rehearsal, "fast", mode="FastFile")["TrainingJobStatus"] == "Completed"
    piped = train(rehearsal, "piped", mode="Pipe")
    assert piped["TrainingJobStatus"] == "Failed"
    assert "asks for Pipe mode; the rehearsal has File and FastFile" in piped["FailureReason"]


def test_should_give_the_failure_that_a_training_wrote(rehearsal: Rehearsal) -> None:
    job = train(rehearsal, "diverges", fail="yes")
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"] == "AlgorithmError: the numbers do not converge, exit code: 3"
