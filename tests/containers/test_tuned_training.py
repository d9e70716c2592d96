"""The training image under a tuning job: bears what SageMaker adds, logs what is read, keeps the best."""

from __future__ import annotations

import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from container_support import Trained, training_inputs
from ml_contract.algorithms.xgboost import METRICS
from ml_lifecycle import code

from rehearsal.docker_shim import STATE_VARIABLE
from rehearsal.server import ServerProcess, start_server

pytestmark = [pytest.mark.slow, pytest.mark.rehearsal]

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/training:1"
BUCKET = "tuned-bucket"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    state = tmp_path_factory.mktemp("tuned") / "state"
    with start_server(state) as process:
        subprocess.run(
            [
                *(sys.executable, "-m", "rehearsal.docker_shim", "build", "-t", IMAGE),
                str(code.image_context("training")),
            ],
            env={**os.environ, STATE_VARIABLE: str(state)},
            check=True,
        )
        yield process


def client(server: ServerProcess, service: str) -> Any:
    environment = server.environment()
    make: Callable[..., Any] = boto3.client
    return make(
        service,
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        config=Config(proxies={}, s3={"addressing_style": "path"}),
    )


def role(server: ServerProcess) -> str:
    iam = client(server, "iam")
    trust = {
        "Effect": "Allow",
        "Principal": {"Service": "sagemaker.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    made = iam.create_role(
        RoleName="tuned", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    )
    allowed = {"Effect": "Allow", "Action": ["s3:*", "logs:*"], "Resource": "*"}
    iam.put_role_policy(
        RoleName="tuned",
        PolicyName="inline",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [allowed]}),
    )
    return str(made["Role"]["Arn"])


def channels(server: ServerProcess, folder: pathlib.Path) -> list[dict[str, Any]]:
    """Upload what a training reads; the channels."""
    s3 = client(server, "s3")
    s3.create_bucket(Bucket=BUCKET)
    data = folder / "input/data"
    for path in sorted(p for p in data.rglob("*") if p.is_file()):
        s3.upload_file(str(path), BUCKET, f"in/{path.relative_to(data)}")
    return [
        {
            "ChannelName": channel.name,
            "DataSource": {
                "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/in/{channel.name}/"}
            },
        }
        for channel in sorted(data.iterdir())
    ]


def test_should_be_searched_and_leave_the_best_model(
    server: ServerProcess, trained: Callable[[str], Trained], tmp_path: pathlib.Path
) -> None:
    workload = trained("binary")
    training_inputs(tmp_path, workload.prepared, workload.contract)
    loss = METRICS["binary"][-1]
    sagemaker = client(server, "sagemaker")
    sagemaker.create_hyper_parameter_tuning_job(
        HyperParameterTuningJobName="tuned",
        HyperParameterTuningJobConfig={
            "Strategy": "Bayesian",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": f"validation:{loss}"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 4, "MaxParallelTrainingJobs": 2},
            "ParameterRanges": {
                "IntegerParameterRanges": [{"Name": "max_depth", "MinValue": "1", "MaxValue": "5"}],
                "ContinuousParameterRanges": [
                    {"Name": "eta", "MinValue": "0.01", "MaxValue": "0.5", "ScalingType": "Logarithmic"}
                ],
            },
        },
        TrainingJobDefinition={
            "AlgorithmSpecification": {
                "TrainingImage": IMAGE,
                "TrainingInputMode": "File",
                "MetricDefinitions": [
                    {"Name": f"validation:{loss}", "Regex": f"validation-{loss}:([-+0-9.eE]+)"}
                ],
            },
            "RoleArn": role(server),
            "InputDataConfig": channels(server, tmp_path),
            "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/out"},
            "ResourceConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 30},
            "StoppingCondition": {"MaxRuntimeInSeconds": 600},
            "StaticHyperParameters": {"rounds": "30", "early_stopping_rounds": "5"},
            "EnableNetworkIsolation": True,
        },
    )
    deadline = time.monotonic() + 120
    while True:
        job = sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName="tuned")
        if job["HyperParameterTuningJobStatus"] not in ("InProgress", "Stopping"):
            break
        assert time.monotonic() < deadline, job
        time.sleep(0.3)
    assert job["HyperParameterTuningJobStatus"] == "Completed", job.get("FailureReason")
    assert job["TrainingJobStatusCounters"]["Completed"] == 4
    found = sagemaker.list_training_jobs_for_hyper_parameter_tuning_job(
        HyperParameterTuningJobName="tuned", SortBy="FinalObjectiveMetricValue", SortOrder="Ascending"
    )["TrainingJobSummaries"]
    best = found[0]
    assert best["TrainingJobName"] == job["BestTrainingJob"]["TrainingJobName"]
    key = f"out/{best['TrainingJobName']}/output/model.tar.gz"
    body = client(server, "s3").get_object(Bucket=BUCKET, Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        member = tar.extractfile("metadata.json")
        assert member is not None
        metadata = json.loads(member.read())
    # The trial is judged by the model that it keeps, not by its last round.
    value = best["FinalHyperParameterTuningJobObjectiveMetric"]["Value"]
    assert metadata["metrics"][f"validation-{loss}"] == pytest.approx(value, abs=1e-5)
    assert metadata["hyperparameters"]["max_depth"] == int(best["TunedHyperParameters"]["max_depth"])
    assert metadata["hyperparameters"]["eta"] == pytest.approx(float(best["TunedHyperParameters"]["eta"]))
