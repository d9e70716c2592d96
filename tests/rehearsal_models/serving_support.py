"""Models and endpoints for the tests of the serving styles."""

import io
import json
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import ClientError

from .conftest import Rehearsal, await_


def put_archive(rehearsal: Rehearsal, key: str, mean: float) -> str:
    """Put a model archive; its URI."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        content = json.dumps({"mean": mean}).encode()
        info = tarfile.TarInfo("model.json")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    rehearsal.client("s3").put_object(Bucket=rehearsal.bucket, Key=key, Body=packed.getvalue())
    return f"s3://{rehearsal.bucket}/{key}"


def put_model(rehearsal: Rehearsal, name: str, mean: float, **container: Any) -> str:
    """Make a model; its name."""
    given = {
        "Image": rehearsal.server_image,
        "ModelDataUrl": put_archive(rehearsal, f"packed/{name}/model.tar.gz", mean),
        **container,
    }
    rehearsal.client("sagemaker").create_model(
        ModelName=name, ExecutionRoleArn=rehearsal.role, PrimaryContainer=given
    )
    return name


def on_instances(model: str, variant: str = "AllTraffic", **given: Any) -> dict[str, Any]:
    """A production variant on instances."""
    return {
        "VariantName": variant,
        "ModelName": model,
        "InitialInstanceCount": 1,
        "InstanceType": "ml.c5.large",
        "InitialVariantWeight": 1.0,
        **given,
    }


def settled(rehearsal: Rehearsal, endpoint: str) -> dict[str, Any]:
    """Wait until an endpoint rests; its description."""
    sagemaker = rehearsal.client("sagemaker")
    found: dict[str, Any] = await_(
        lambda: sagemaker.describe_endpoint(EndpointName=endpoint),
        lambda answer: answer["EndpointStatus"] in ("InService", "Failed"),
        90,
    )
    return found


def up(rehearsal: Rehearsal, endpoint: str, *variants: dict[str, Any], **config: Any) -> dict[str, Any]:
    """Make a configuration and an endpoint of it in service; its description."""
    sagemaker = rehearsal.client("sagemaker")
    sagemaker.create_endpoint_config(EndpointConfigName=endpoint, ProductionVariants=list(variants), **config)
    sagemaker.create_endpoint(EndpointName=endpoint, EndpointConfigName=endpoint)
    found = settled(rehearsal, endpoint)
    assert found["EndpointStatus"] == "InService", found
    return found


def invoke(rehearsal: Rehearsal, endpoint: str, body: str = "1", **given: Any) -> float:
    """Invoke an endpoint; the sum it answers."""
    answer = rehearsal.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=endpoint, Body=body.encode(), ContentType="text/csv", **given
    )
    return float(json.loads(answer["Body"].read())["sum"])


@contextmanager
def traffic(rehearsal: Rehearsal, endpoint: str, threads: int = 1) -> Iterator[list[str]]:
    """Ask all the time; the outcomes: sums, or codes of errors."""
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

    running = [threading.Thread(target=run, daemon=True) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield outcomes
    finally:
        stop.set()
        for thread in running:
            thread.join(10)


def metric(rehearsal: Rehearsal, name: str, stat: str = "Sum", **dimensions: str) -> float:
    """A metric of AWS/SageMaker over all time; the sum of its hours."""
    now = time.time()
    answer = rehearsal.client("cloudwatch").get_metric_data(
        MetricDataQueries=[
            {
                "Id": "m",
                "MetricStat": {
                    "Metric": {
                        "Namespace": "AWS/SageMaker",
                        "MetricName": name,
                        "Dimensions": [{"Name": k, "Value": v} for k, v in dimensions.items()],
                    },
                    "Period": 3600,
                    "Stat": stat,
                },
            }
        ],
        StartTime=now - 86400,
        EndTime=now + 86400 * 60,
    )
    return float(sum(answer["MetricDataResults"][0]["Values"]))


def advance(rehearsal: Rehearsal, **by: float) -> list[dict[str, Any]]:
    """Let time pass; what fired."""
    fired: list[dict[str, Any]] = rehearsal.server.control("POST", "/clock/advance", dict(by))["fired"]
    return fired
