"""Batch transform: splitting, filters and joins, and whole jobs in a container."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal.executors.serving import records
from rehearsal.executors.serving.records import RecordError

from .conftest import Rehearsal, await_
from .serving_support import put_model


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$", {"a": [1, 2, 3], "b": {"c": 4}}),
        ("$.a", [1, 2, 3]),
        ("$.b.c", 4),
        ("$['b']['c']", 4),
        ("$['a','b']", {"a": [1, 2, 3], "b": {"c": 4}}),
        ("$.a[0]", 1),
        ("$.a[0,2]", [1, 3]),
        ("$.a[1:]", [2, 3]),
        ("$.a[:-1]", [1, 2]),
        ("$.b.*", [4]),
    ],
)
def test_should_filter_by_the_paths_that_sagemaker_takes(path: str, expected: Any) -> None:
    assert records.filtered({"a": [1, 2, 3], "b": {"c": 4}}, records.path_of(path)) == expected


@pytest.mark.parametrize("path", ["a", "$..a", "$[?(@.a)]", "$.a["])
def test_should_refuse_a_filter_that_sagemaker_does_not_know(path: str) -> None:
    with pytest.raises(RecordError, match="filter"):
        records.path_of(path)


def test_should_say_where_a_filter_finds_nothing() -> None:
    with pytest.raises(RecordError, match=r"the filter finds no \.b"):
        records.filtered({"a": 1}, records.path_of("$.b"))


def test_should_fill_batches_up_to_the_payload() -> None:
    rows = [b"aaaa", b"bbbb", b"cc"]
    assert list(records.batches(rows, largest=10, single=False)) == [[b"aaaa", b"bbbb"], [b"cc"]]
    assert list(records.batches(rows, largest=10, single=True)) == [[row] for row in rows]
    with pytest.raises(RecordError, match="a record has 4 bytes; MaxPayloadInMB allows 3"):
        list(records.batches(rows, largest=3, single=False))


def test_should_join_records_with_their_answers() -> None:
    assert records.joined(["1", "2"], ["0.5"], records.CSV) == ["1", "2", "0.5"]
    assert records.joined({"a": 1}, 0.5, records.JSON) == {"a": 1, "SageMakerOutput": 0.5}
    assert records.joined([1], 0.5, records.JSON) == {"SageMakerInput": [1], "SageMakerOutput": 0.5}


def transformed(rehearsal: Rehearsal, name: str, **given: Any) -> dict[str, Any]:
    """Run a transform job to its end; its description."""
    sagemaker = rehearsal.client("sagemaker")
    source = given.pop("source", f"s3://{rehearsal.bucket}/{name}/in/")
    job: dict[str, Any] = {
        "TransformJobName": name,
        "ModelName": "mean-seven",
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": given.pop("kind", "S3Prefix"), "S3Uri": source}},
            "ContentType": "text/csv",
            "SplitType": "Line",
        },
        "TransformOutput": {
            "S3OutputPath": f"s3://{rehearsal.bucket}/{name}/out",
            "Accept": "text/csv",
            "AssembleWith": "Line",
        },
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        **given,
    }
    if "mean-seven" not in [model["ModelName"] for model in sagemaker.list_models(MaxResults=100)["Models"]]:
        put_model(rehearsal, "mean-seven", 7)
    sagemaker.create_transform_job(**job)
    found: dict[str, Any] = await_(
        lambda: sagemaker.describe_transform_job(TransformJobName=name),
        lambda answer: answer["TransformJobStatus"] in ("Completed", "Failed", "Stopped"),
        60,
    )
    return found


@pytest.mark.rehearsal
@pytest.mark.slow
def test_should_transform_every_file_below_a_prefix(rehearsal: Rehearsal) -> None:
    rehearsal.put("scores/in/a.csv", "1\n2\n3\n")
    rehearsal.put("scores/in/deep/b.csv", "10")
    job = transformed(
        rehearsal,
        "scores",
        MaxConcurrentTransforms=2,
        BatchStrategy="MultiRecord",
        DataCaptureConfig={"DestinationS3Uri": f"s3://{rehearsal.bucket}/scores/captured"},
    )
    assert job["TransformJobStatus"] == "Completed", job
    assert job["TransformEndTime"] >= job["TransformStartTime"]
    assert rehearsal.read("scores/out/a.csv.out") == b"8.0\n9.0\n10.0\n"
    assert rehearsal.read("scores/out/deep/b.csv.out") == b"17.0\n"
    kept = {key.split("/")[2]: json.loads(rehearsal.read(key)) for key in rehearsal.keys("scores/captured")}
    assert kept["output"][1:] == ["a.csv.out", "deep/b.csv.out"]
    sagemaker = rehearsal.client("sagemaker")
    listed = sagemaker.list_transform_jobs(NameContains="scores")["TransformJobSummaries"]
    assert [item["TransformJobStatus"] for item in listed] == ["Completed"]
    with pytest.raises(ClientError, match="Completed; only one InProgress can be stopped"):
        sagemaker.stop_transform_job(TransformJobName="scores")


@pytest.mark.rehearsal
@pytest.mark.slow
def test_should_filter_and_join_what_it_transforms(rehearsal: Rehearsal) -> None:
    rehearsal.put("joined/data/a.csv", "claim-1,5,x\nclaim-2,6,y\n")
    manifest = rehearsal.put(
        "joined/manifest.json", json.dumps([{"prefix": f"s3://{rehearsal.bucket}/joined/data/"}, "a.csv"])
    )
    job = transformed(
        rehearsal,
        "joined",
        source=manifest,
        kind="ManifestFile",
        DataProcessing={"InputFilter": "$[1:]", "JoinSource": "Input", "OutputFilter": "$[0,-1]"},
    )
    assert job["TransformJobStatus"] == "Completed", job
    assert rehearsal.read("joined/out/a.csv.out") == b"claim-1,12.0\nclaim-2,13.0\n"


@pytest.mark.rehearsal
@pytest.mark.slow
def test_should_fail_the_file_with_a_bad_record_and_do_the_others(rehearsal: Rehearsal) -> None:
    rehearsal.put("mixed/in/good.csv", "1\n")
    rehearsal.put("mixed/in/wrong.csv", "bad\n")
    job = transformed(rehearsal, "mixed")
    assert job["TransformJobStatus"] == "Failed"
    assert "1 of 2 files failed: wrong.csv: the model answered 400: not a number" in job["FailureReason"]
    assert rehearsal.keys("mixed/out") == ["mixed/out/good.csv.out"]


@pytest.mark.rehearsal
@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ModelName": "nobody"}, "Could not find model"),
        ({"MaxPayloadInMB": 60, "MaxConcurrentTransforms": 2}, "must be at most 100, got 60 times 2"),
        ({"DataProcessing": {"InputFilter": "a"}}, "begins with"),
        (
            {"DataProcessing": {"JoinSource": "Input"}, "TransformOutput": {"S3OutputPath": "s3://b/o"}},
            "DataProcessing needs SplitType Line and AssembleWith Line",
        ),
        ({"kind": "AugmentedManifestFile"}, "reads S3Prefix and ManifestFile"),
    ],
)
def test_should_refuse_a_transform_job_that_sagemaker_refuses(
    rehearsal: Rehearsal, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClientError, match=message):
        transformed(rehearsal, "refused", **change)
