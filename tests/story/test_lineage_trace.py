"""The trace from a prediction to its records, against recorded answers of AWS."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rehearsal.lineage import LineageError, Tracer, trace_and_show, tree
from tools import lineage as tool

ARN = "arn:aws:sagemaker:eu-west-1:111122223333"
CAPTURE = "s3://zone/claims/capture"
MOMENT = "2026-11-21T10:00:00Z"
FEATURES = b"feature rows"


def line(event_id: str, answer: str, inference_id: str | None = None) -> bytes:
    metadata = {"eventId": event_id, "inferenceTime": MOMENT}
    if inference_id is not None:
        metadata["inferenceId"] = inference_id
    side = {"observedContentType": "application/json", "mode": "OUTPUT", "data": answer, "encoding": "JSON"}
    return json.dumps({"captureData": {"endpointOutput": side}, "eventMetadata": metadata}).encode()


class Pages:
    """A paginator of one page."""

    def __init__(self, page: dict[str, Any]) -> None:
        self.page = page

    def paginate(self, **_: Any) -> Iterator[dict[str, Any]]:
        yield self.page


class Aws:
    """As much of S3 and SageMaker as the trace asks for."""

    def __init__(self) -> None:
        self.objects: dict[str, list[bytes]] = {}
        self.models = {"model-1": f"{ARN}:model-package/claims/1"}
        self.packages = [*self.models.values()]
        self.made = datetime(2026, 11, 1, tzinfo=UTC)
        self.metadata: dict[str, str] = {
            "PipelineExecution": f"{ARN}:pipeline/claims/execution/e1",
            "Lineage": "s3://zone/claims/training/e1/prepare/lineage/lineage.json",
            "Reason": "manual",
        }
        self.put(f"{CAPTURE}/claims/AllTraffic/2026/11/21/10/a.jsonl", self.lines())
        document = {
            "records": "records.parquet",
            "workload": "claims",
            "contract": "c",
            "named_by": "record_key",
            "rows": {"train": 7, "test": 2},
            "split": {},
            "features": {
                "columns": [],
                "snapshot": {"curated_table": "dev.claims", "curated_snapshot_id": "42"},
                "files": [{"file": "m=1/a.parquet", "sha256": hashlib.sha256(FEATURES).hexdigest()}],
            },
            "job": {"name": "prepare-1", "inputs": {"features": "s3://zone/features/"}},
        }
        self.put(self.metadata["Lineage"], json.dumps(document).encode())
        self.put("s3://zone/claims/training/e1/prepare/lineage/records.parquet", b"records")
        self.put("s3://zone/features/m=1/a.parquet", FEATURES)
        self.put("s3://zone/features/m=1/a.parquet", b"newer rows")

    def lines(self) -> bytes:
        named = json.dumps({"predictions": [{"score": 0.5}], "model": "claims/1"})
        return b"\n".join([line("e-1", named, "mine"), line("e-2", named), line("e-3", "0.5,Y\n", "as-csv")])

    def put(self, uri: str, body: bytes) -> None:
        self.objects.setdefault(uri, []).append(body)

    def client(self, service: str) -> Any:
        del service
        return self

    # --- S3 ---------------------------------------------------------------------------------------------

    def get_object(self, *, Bucket: str, Key: str, VersionId: str = "") -> dict[str, Any]:  # noqa: N803
        bodies = self.objects[f"s3://{Bucket}/{Key}"]
        return {"Body": io.BytesIO(bodies[int(VersionId)] if VersionId else bodies[-1])}

    def get_paginator(self, operation: str) -> Pages:
        keys = sorted(uri.removeprefix("s3://zone/") for uri in self.objects)
        pages: dict[str, dict[str, Any]] = {
            "list_objects_v2": {"Contents": [{"Key": key} for key in keys if "/capture/" in key]},
            "list_object_versions": {
                "Versions": [
                    {"Key": uri.removeprefix("s3://zone/"), "VersionId": str(number)}
                    for uri, bodies in self.objects.items()
                    for number in range(len(bodies))
                ]
            },
            "list_model_packages": {
                "ModelPackageSummaryList": [
                    {"ModelPackageArn": arn, "CreationTime": self.made} for arn in self.packages
                ]
            },
            "list_endpoint_configs": {"EndpointConfigs": [{"EndpointConfigName": m} for m in self.models]},
            "list_pipeline_execution_steps": {
                "PipelineExecutionSteps": [
                    {"StepName": "Train", "Metadata": {"TrainingJob": {"Arn": f"{ARN}:training-job/t"}}},
                    {"StepName": "Accept", "Metadata": {"Condition": {"Outcome": "True"}}},
                ]
            },
        }
        return Pages(pages[operation])

    # --- SageMaker --------------------------------------------------------------------------------------

    def list_endpoints(self, **_: Any) -> dict[str, Any]:
        return {"Endpoints": [{"EndpointName": "claims"}]}

    def describe_endpoint(self, *, EndpointName: str) -> dict[str, Any]:  # noqa: N803
        return {
            "EndpointArn": f"{ARN}:endpoint/{EndpointName}",
            "DataCaptureConfig": {"DestinationS3Uri": CAPTURE, "CurrentSamplingPercentage": 100},
        }

    def describe_endpoint_config(self, *, EndpointConfigName: str) -> dict[str, Any]:  # noqa: N803
        return {
            "EndpointConfigName": EndpointConfigName,
            "CreationTime": self.made,
            "DataCaptureConfig": {"DestinationS3Uri": CAPTURE},
            "ProductionVariants": [{"ModelName": EndpointConfigName}],
        }

    def describe_model(self, *, ModelName: str) -> dict[str, Any]:  # noqa: N803
        return {"Containers": [{"ModelPackageName": self.models[ModelName]}]}

    def describe_model_package(self, *, ModelPackageName: str) -> dict[str, Any]:  # noqa: N803
        return {
            "ModelPackageArn": ModelPackageName,
            "ModelPackageVersion": 1,
            "ModelApprovalStatus": "Approved",
            "InferenceSpecification": {"Containers": [{"ModelDataUrl": "s3://zone/model.tar.gz"}]},
            "CustomerMetadataProperties": self.metadata,
        }


@pytest.fixture
def aws() -> Aws:
    return Aws()


@pytest.fixture
def tracer(aws: Aws) -> Tracer:
    return Tracer(aws.client, "claims")


@pytest.mark.parametrize("name", ["mine", "e-2"], ids=["inference id", "event id"])
def test_should_follow_a_prediction_to_its_records(tracer: Tracer, name: str) -> None:
    trace = tracer.trace(name)
    assert trace.model["package"] == f"{ARN}:model-package/claims/1"
    assert trace.model["named_by"] == "the answer"
    assert trace.endpoint == {"name": "claims", "variant": "AllTraffic", "configs": ["model-1"]}
    assert trace.training["jobs"] == {"Train": f"{ARN}:training-job/t"}
    assert trace.records == "s3://zone/claims/training/e1/prepare/lineage/records.parquet"
    shown = tree(trace)
    for text in (
        "prediction " + name,
        "dev.claims, snapshot 42",
        "2 test, 7 train",
        "training set of prepare-1",
    ):
        assert text in shown


def test_should_go_by_the_time_where_an_answer_names_no_model(aws: Aws, tracer: Tracer) -> None:
    trace = tracer.trace("as-csv")
    assert trace.prediction["answer"] == "0.5,Y\n"
    assert trace.model["named_by"] == "the only version there was by then"
    # The configuration of the other version is gone with its rollout; it may have answered all the same.
    aws.packages.append(f"{ARN}:model-package/claims/2")
    with pytest.raises(LineageError, match=r"2 versions were there by 2026-11-21.*claims/1, .*claims/2"):
        tracer.trace("as-csv")
    aws.made = datetime(2026, 12, 1, tzinfo=UTC)
    with pytest.raises(LineageError, match=r"0 versions were there by .*: none"):
        tracer.trace("as-csv")


def test_should_say_where_the_chain_ends(aws: Aws, tracer: Tracer) -> None:
    with pytest.raises(LineageError, match=r"no captured prediction has the id lost; 1 files .* 100 %"):
        tracer.trace("lost")
    with pytest.raises(LineageError, match="of 2026-11-20 only"):
        Tracer(aws.client, "claims", "2026-11-20").trace("mine")
    # An id within another text of the line is no id.
    with pytest.raises(LineageError, match="no captured prediction has the id OUTPUT"):
        tracer.trace("OUTPUT")
    del aws.metadata["Lineage"]
    with pytest.raises(LineageError, match="model-package/claims/1 names no lineage"):
        tracer.trace("mine")


def test_should_find_a_file_in_the_version_that_was_read(aws: Aws, tracer: Tracer) -> None:
    trace = tracer.trace("mine")
    uri = "s3://zone/features/m=1/a.parquet"
    assert tracer.versions(trace) == [{"uri": uri, "version": "0"}]
    aws.objects[uri] = [b"newer rows"]
    assert tracer.versions(trace) == [{"uri": uri, "version": None}]


def test_should_show_a_tree_or_json_and_save_the_records(aws: Aws, tmp_path: Path) -> None:
    shown = trace_and_show(aws.client, "mine", versions=True, save=tmp_path / "trace")
    assert "s3://zone/features/m=1/a.parquet version 0" in shown
    assert (tmp_path / "trace" / "records.parquet").read_bytes() == b"records"
    assert json.loads((tmp_path / "trace" / "trace.json").read_text())["model"]["version"] == 1
    document = json.loads(trace_and_show(aws.client, "mine", endpoint="claims", as_json=True))
    assert document["data"]["features"]["snapshot"]["curated_snapshot_id"] == "42"


def test_should_answer_for_an_account_with_the_same_code(
    aws: Aws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Session:
        def __init__(self, **_: Any) -> None:
            self.client: Callable[[str], Any] = aws.client

    monkeypatch.setattr(tool.boto3.session, "Session", Session)
    assert tool.main(["mine", "--endpoint", "claims", "--day", "2026-11-21"]) == 0
    assert "model package" in capsys.readouterr().out
    assert tool.main(["lost"]) == 1
    assert "error: no captured prediction has the id lost" in capsys.readouterr().err
