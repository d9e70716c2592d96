"""An account with an approved model, captured traffic and labels for the monitor's image."""

from __future__ import annotations

import datetime as dt
import json
import pathlib
from typing import Any

import boto3
from container_support import features_of, make_records, run_image
from ml_contract.compiled import CompiledContract
from ml_statistics.baseline import baseline

BUCKET = "artifacts"
PARAMETER = "/ml-lifecycle/dev/trips/approved-model-package"
OWN = {
    "ENVIRONMENT": "dev",
    "WORKLOAD": "trips",
    "ENDPOINT_NAME": "dev-trips",
    "CAPTURE_URI": f"s3://{BUCKET}/trips/capture",
    "WINDOW_HOURS": "1",
    "SCHEDULED_TIME": "2026-11-21T16:20:00Z",
    "APPROVED_MODEL_PARAMETER": PARAMETER,
}
HOUR = "2026/11/21/15"


def line(data: str, encoding: str = "JSON", content_type: str = "application/json") -> bytes:
    """Return one captured invocation as SageMaker writes it."""
    entry = {
        "captureData": {
            "endpointInput": {
                "observedContentType": content_type,
                "mode": "INPUT",
                "data": data,
                "encoding": encoding,
            },
            "endpointOutput": {
                "observedContentType": "application/json",
                "mode": "OUTPUT",
                "data": '{"predictions":[]}',
                "encoding": "JSON",
            },
        },
        "eventMetadata": {"eventId": "0", "inferenceTime": "2026-11-21T15:10:00Z"},
        "eventVersion": "0",
    }
    return json.dumps(entry).encode()


def lines(records: list[dict[str, Any]]) -> bytes:
    """Return captured invocations of one record each, without their labels."""
    bodies = [{k: v for k, v in record.items() if k != "outcome"} for record in records]
    return b"\n".join(line(json.dumps(body)) for body in bodies)


class Account:
    """An AWS account in this process, with an approved model."""

    def __init__(self, port: int, contract: CompiledContract) -> None:
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
        }
        self.contract = contract
        self.client("s3").create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )

    def client(self, service: str) -> Any:
        return boto3.client(
            service,  # type: ignore[call-overload]
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            region_name="eu-central-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    def put(self, key: str, content: bytes) -> None:
        self.client("s3").put_object(Bucket=BUCKET, Key=key, Body=content)

    def approve(self, *, with_baseline: bool = True) -> str:
        features = features_of(make_records("binary", 600, seed=1), self.contract)
        for name, document in zip(
            ("statistics", "constraints"), baseline(features, self.contract), strict=True
        ):
            self.put(f"baseline/{name}.json", json.dumps(document).encode())
        uri = f"s3://{BUCKET}/baseline"
        quality = {
            "Statistics": {"ContentType": "application/json", "S3Uri": f"{uri}/statistics.json"},
            "Constraints": {"ContentType": "application/json", "S3Uri": f"{uri}/constraints.json"},
        }
        sagemaker = self.client("sagemaker")
        sagemaker.create_model_package_group(ModelPackageGroupName="dev-trips")
        arn: str = sagemaker.create_model_package(
            ModelPackageGroupName="dev-trips",
            DriftCheckBaselines={"ModelDataQuality": quality} if with_baseline else {},
        )["ModelPackageArn"]
        self.parameter(arn)
        return arn

    def parameter(self, value: str) -> None:
        self.client("ssm").put_parameter(Name=PARAMETER, Value=value, Type="String", Overwrite=True)

    def capture(self, records: list[dict[str, Any]], hour: str = HOUR, variant: str = "AllTraffic") -> None:
        self.put(f"trips/capture/dev-trips/{variant}/{hour}/{len(records)}.jsonl", lines(records))

    def metrics(self) -> dict[str, float]:
        found: dict[str, float] = {}
        cloudwatch = self.client("cloudwatch")
        now = dt.datetime.now(dt.UTC)
        for metric in cloudwatch.list_metrics(Namespace="MLLifecycle")["Metrics"]:
            dimensions = {d["Name"]: d["Value"] for d in metric["Dimensions"]}
            assert dimensions["Environment"] == "dev"
            assert dimensions["Workload"] == "trips"
            points = cloudwatch.get_metric_statistics(
                Namespace="MLLifecycle",
                MetricName=metric["MetricName"],
                Dimensions=metric["Dimensions"],
                StartTime=now - dt.timedelta(hours=1),
                EndTime=now + dt.timedelta(hours=1),
                Period=7200,
                Statistics=["Sum"],
            )["Datapoints"]
            name = metric["MetricName"] + "".join(f":{dimensions[d]}" for d in dimensions if d == "Feature")
            found[name] = sum(point["Sum"] for point in points)
        return found


def run_monitor(
    account: Account, base: pathlib.Path, expected: int = 0, **extra: str
) -> tuple[dict[str, Any], str]:
    """Run the image; return its report and its exit message."""
    folder = base / "processing/input/contract"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "contract.json").write_text(account.contract.to_json())
    done = run_image("monitoring", base, **{**account.environment, **OWN, **extra})
    assert done.returncode == expected, done.stderr
    report = base / "processing/output/report/report.json"
    found = json.loads(report.read_text()) if report.exists() else {}
    return found, (base / "output/message").read_text()
