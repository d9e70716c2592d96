"""Endpoints that are serverless, asynchronous or serve many models."""

import json
import threading
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from .conftest import Rehearsal, allow, await_
from .serving_support import advance, invoke, metric, on_instances, put_archive, put_model, settled, up

pytestmark = [pytest.mark.rehearsal, pytest.mark.slow]


def serverless(model: str, **given: int) -> dict[str, Any]:
    """A serverless variant."""
    config = {"MemorySizeInMB": 2048, "MaxConcurrency": 2, **given}
    return {"VariantName": "AllTraffic", "ModelName": model, "ServerlessConfig": config}


def instances(rehearsal: Rehearsal, endpoint: str) -> int:
    """How many processes serve an endpoint now."""
    found = rehearsal.server.control("GET", f"/endpoints/traffic?name={endpoint}")["fleets"]["blue"]
    return int(found["instances"]["AllTraffic"])


def test_should_start_a_serverless_container_when_it_is_asked_and_end_it_when_idle(
    rehearsal: Rehearsal,
) -> None:
    put_model(rehearsal, "on-demand", 4)
    up(rehearsal, "on-demand", serverless("on-demand"))
    assert instances(rehearsal, "on-demand") == 0
    assert invoke(rehearsal, "on-demand") == 5
    assert instances(rehearsal, "on-demand") == 1
    where = {"EndpointName": "on-demand", "VariantName": "AllTraffic"}
    assert metric(rehearsal, "ModelSetupTime", "SampleCount", **where) == 1
    assert invoke(rehearsal, "on-demand") == 5
    assert metric(rehearsal, "ModelSetupTime", "SampleCount", **where) == 1
    advance(rehearsal, minutes=9)
    assert instances(rehearsal, "on-demand") == 1
    advance(rehearsal, minutes=2)
    assert instances(rehearsal, "on-demand") == 0
    assert invoke(rehearsal, "on-demand") == 5
    put_model(rehearsal, "on-demand-2", 5)
    sagemaker = rehearsal.client("sagemaker")
    sagemaker.create_endpoint_config(
        EndpointConfigName="on-demand-2", ProductionVariants=[serverless("on-demand-2")]
    )
    sagemaker.update_endpoint(EndpointName="on-demand", EndpointConfigName="on-demand-2")
    assert settled(rehearsal, "on-demand")["EndpointConfigName"] == "on-demand-2"
    assert instances(rehearsal, "on-demand") == 1
    assert invoke(rehearsal, "on-demand") == 6


def test_should_throttle_a_serverless_endpoint_above_its_concurrency(rehearsal: Rehearsal) -> None:
    put_model(rehearsal, "narrow", 4)
    up(rehearsal, "narrow", serverless("narrow", MaxConcurrency=1))
    outcomes: list[str] = []

    def ask() -> None:
        try:
            outcomes.append(str(invoke(rehearsal, "narrow", "slow")))
        except ClientError as error:
            answer: dict[str, Any] = dict(error.response)
            status = answer["ResponseMetadata"]["HTTPStatusCode"]
            outcomes.append(f"{answer['Error']['Code']} {status}")

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(outcomes) == ["4.0", "ThrottlingException 429", "ThrottlingException 429"]


def test_should_keep_provisioned_concurrency_warm(rehearsal: Rehearsal) -> None:
    put_model(rehearsal, "warm", 4)
    answer = up(rehearsal, "warm", serverless("warm", ProvisionedConcurrency=1))
    config = answer["ProductionVariants"][0]["CurrentServerlessConfig"]
    assert config == {"MemorySizeInMB": 2048, "MaxConcurrency": 2, "ProvisionedConcurrency": 1}
    assert instances(rehearsal, "warm") == 1
    assert invoke(rehearsal, "warm") == 5
    advance(rehearsal, hours=1)
    assert instances(rehearsal, "warm") == 1
    where = {"EndpointName": "warm", "VariantName": "AllTraffic"}
    assert metric(rehearsal, "ModelSetupTime", "SampleCount", **where) == 0
    assert metric(rehearsal, "ServerlessProvisionedConcurrencyInvocations", **where) == 1


CAPTURE = {
    "InitialSamplingPercentage": 100,
    "DestinationS3Uri": "s3://models-bucket/x",
    "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
    "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
}


@pytest.mark.parametrize(
    ("variants", "config", "message"),
    [
        ([serverless("plain")], {"DataCaptureConfig": CAPTURE}, "serverless endpoints take no DataCapture"),
        ([serverless("plain", MemorySizeInMB=1500)], {}, "MemorySizeInMB must be 1024"),
        ([serverless("plain", ProvisionedConcurrency=3)], {}, "must not exceed MaxConcurrency 2"),
        ([serverless("plain") | {"InstanceType": "ml.c5.large"}], {}, "exactly one of InstanceType"),
        (
            [serverless("plain"), serverless("plain") | {"VariantName": "Other"}],
            {},
            "one production variant, got 2",
        ),
        (
            [on_instances("plain"), on_instances("plain", "B")],
            {"ShadowProductionVariants": [on_instances("plain", "C")]},
            "one production variant and one shadow variant, got 2 and 1",
        ),
        (
            [on_instances("plain"), on_instances("plain", "B")],
            {"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": "s3://models-bucket/o"}}},
            "an asynchronous endpoint has one production variant",
        ),
        ([{"VariantName": "A", "InstanceType": "ml.c5.large"}], {}, "ExecutionRoleArn of the configuration"),
    ],
)
def test_should_refuse_a_configuration_that_sagemaker_refuses(
    rehearsal: Rehearsal, variants: list[dict[str, Any]], config: dict[str, Any], message: str
) -> None:
    sagemaker = rehearsal.client("sagemaker")
    if "plain" not in [model["ModelName"] for model in sagemaker.list_models()["Models"]]:
        put_model(rehearsal, "plain", 1)
    with pytest.raises(ClientError, match=message):
        sagemaker.create_endpoint_config(EndpointConfigName="bad", ProductionVariants=variants, **config)


def test_should_not_turn_an_endpoint_on_instances_into_a_serverless_one(rehearsal: Rehearsal) -> None:
    put_model(rehearsal, "on-machines", 1)
    up(rehearsal, "on-machines", on_instances("on-machines"))
    sagemaker = rehearsal.client("sagemaker")
    sagemaker.create_endpoint_config(
        EndpointConfigName="no-machines", ProductionVariants=[serverless("on-machines")]
    )
    with pytest.raises(ClientError, match="runs on instances; it cannot be updated to a serverless"):
        sagemaker.update_endpoint(EndpointName="on-machines", EndpointConfigName="no-machines")
    sagemaker.delete_endpoint(EndpointName="on-machines")


def make_asynchronous(rehearsal: Rehearsal, name: str) -> tuple[str, str]:
    """An asynchronous endpoint with topics; the queue that hears of both, and the model's role."""
    sns, sqs = rehearsal.client("sns"), rehearsal.client("sqs")
    queue, queue_arn = rehearsal.make_queue(name)
    topics = {}
    for kind in ("Success", "Error"):
        topics[f"{kind}Topic"] = sns.create_topic(Name=f"{name}-{kind}")["TopicArn"]
        sns.subscribe(
            TopicArn=topics[f"{kind}Topic"],
            Protocol="sqs",
            Endpoint=queue_arn,
            Attributes={"RawMessageDelivery": "true"},
        )
    statement = {"Principal": {"Service": "sns.amazonaws.com"}, **allow("sqs:SendMessage", on=queue_arn)}
    sqs.set_queue_attributes(
        QueueUrl=queue, Attributes={"Policy": json.dumps({"Version": "2012-10-17", "Statement": [statement]})}
    )
    bucket = f"arn:aws:s3:::{rehearsal.bucket}"
    role = rehearsal.make_role(
        name,
        "sagemaker.amazonaws.com",
        [
            allow("s3:GetObject", "s3:PutObject", on=f"{bucket}/*"),
            allow("s3:ListBucket", on=bucket),
            allow("sns:Publish", on=list(topics.values())),
        ],
    )
    rehearsal.client("sagemaker").create_model(
        ModelName=name,
        ExecutionRoleArn=role,
        PrimaryContainer={
            "Image": rehearsal.server_image,
            "ModelDataUrl": put_archive(rehearsal, f"packed/{name}/model.tar.gz", 30),
        },
    )
    out = f"s3://{rehearsal.bucket}/{name}"
    up(
        rehearsal,
        name,
        on_instances(name),
        AsyncInferenceConfig={
            "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 2},
            "OutputConfig": {
                "S3OutputPath": f"{out}/results",
                "S3FailurePath": f"{out}/failures",
                "NotificationConfig": topics,
            },
        },
    )
    return queue, role


def heard(rehearsal: Rehearsal, queue: str) -> dict[str, Any]:
    """The next notification."""
    sqs = rehearsal.client("sqs")
    found = await_(lambda: sqs.receive_message(QueueUrl=queue).get("Messages"), bool, 20)[0]
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=found["ReceiptHandle"])
    message: dict[str, Any] = json.loads(found["Body"])
    return message


def test_should_answer_asynchronously_by_s3_and_sns(rehearsal: Rehearsal) -> None:
    queue, _ = make_asynchronous(rehearsal, "later")
    runtime = rehearsal.client("sagemaker-runtime")
    where = rehearsal.put("later/in/one.csv", "12")
    answer = runtime.invoke_endpoint_async(
        EndpointName="later", InputLocation=where, ContentType="text/csv", InferenceId="first"
    )
    assert answer["InferenceId"] == "first"
    told = heard(rehearsal, queue)
    assert (told["invocationStatus"], told["inferenceId"], told["eventName"]) == (
        "Completed",
        "first",
        "InferenceResult",
    )
    assert told["requestParameters"] == {
        "contentType": "text/csv",
        "endpointName": "later",
        "inputLocation": where,
    }
    assert told["responseParameters"] == {
        "contentType": "application/json",
        "outputLocation": answer["OutputLocation"],
    }
    key = answer["OutputLocation"].removeprefix(f"s3://{rehearsal.bucket}/")
    assert json.loads(rehearsal.read(key)) == {"sum": 42.0}

    answer = runtime.invoke_endpoint_async(
        EndpointName="later", InputLocation=rehearsal.put("later/in/two.csv", "bad"), ContentType="text/csv"
    )
    told = heard(rehearsal, queue)
    assert told["invocationStatus"] == "Failed"
    assert "not a number" in told["failureReason"]
    failure = answer["FailureLocation"].removeprefix(f"s3://{rehearsal.bucket}/")
    assert failure.endswith("-error.out")
    assert rehearsal.read(failure) == b"not a number"
    with pytest.raises(ClientError, match="asynchronous; it is called by InvokeEndpointAsync"):
        invoke(rehearsal, "later")
    missing = f"s3://{rehearsal.bucket}/later/in/none.csv"
    runtime.invoke_endpoint_async(EndpointName="later", InputLocation=missing, ContentType="text/csv")
    assert "none.csv" in heard(rehearsal, queue)["failureReason"]


def test_should_hold_the_queue_at_zero_instances_and_work_it_off_after(rehearsal: Rehearsal) -> None:
    queue, _ = make_asynchronous(rehearsal, "sleepy")
    sagemaker, runtime = rehearsal.client("sagemaker"), rehearsal.client("sagemaker-runtime")

    def scale(count: int) -> None:
        wanted = {"VariantName": "AllTraffic", "DesiredInstanceCount": count}
        sagemaker.update_endpoint_weights_and_capacities(
            EndpointName="sleepy", DesiredWeightsAndCapacities=[wanted]
        )
        settled(rehearsal, "sleepy")

    scale(0)
    assert instances(rehearsal, "sleepy") == 0
    where = rehearsal.put("sleepy/in.csv", "1")
    for _ in range(3):
        runtime.invoke_endpoint_async(EndpointName="sleepy", InputLocation=where, ContentType="text/csv")
    advance(rehearsal, minutes=1)
    assert metric(rehearsal, "HasBacklogWithoutCapacity", "Maximum", EndpointName="sleepy") == 1
    assert metric(rehearsal, "ApproximateBacklogSize", "Maximum", EndpointName="sleepy") == 3
    assert rehearsal.keys("sleepy/results") == []
    scale(1)
    assert {heard(rehearsal, queue)["invocationStatus"] for _ in range(3)} == {"Completed"}
    assert len(rehearsal.keys("sleepy/results")) == 3


def test_should_load_the_target_model_of_a_multi_model_endpoint(rehearsal: Rehearsal) -> None:
    for name, mean in (("a", 1), ("b", 2), ("c", 3)):
        put_archive(rehearsal, f"many/{name}.tar.gz", mean)
    put_model(rehearsal, "many", 0, Mode="MultiModel", ModelDataUrl=f"s3://{rehearsal.bucket}/many/")
    up(rehearsal, "many", on_instances("many"))
    with pytest.raises(ClientError, match="TargetModel is required"):
        invoke(rehearsal, "many")
    assert [invoke(rehearsal, "many", "5", TargetModel=f"{name}.tar.gz") for name in "abca"] == [6, 7, 8, 6]
    loaded = [
        entry["detail"]["model"] for entry in rehearsal.ledger(kind="model-loaded") if entry["name"] == "many"
    ]
    # The container has room for two: the third model takes the place of the first, which then comes anew.
    assert loaded == ["a.tar.gz", "b.tar.gz", "c.tar.gz", "a.tar.gz"]
    assert invoke(rehearsal, "many", "5", TargetModel="a.tar.gz") == 6
    where = {"EndpointName": "many", "VariantName": "AllTraffic"}
    assert metric(rehearsal, "ModelCacheHit", **where) == 1
    assert metric(rehearsal, "LoadedModelCount", "Maximum", **where) >= 2
    with pytest.raises(ClientError, match=r"Failed to download model data.*key: many/d\.tar\.gz"):
        invoke(rehearsal, "many", TargetModel="d.tar.gz")
    with pytest.raises(ClientError, match="a path below the endpoint's prefix"):
        invoke(rehearsal, "many", TargetModel="../a.tar.gz")


def test_should_copy_requests_to_a_shadow_variant(rehearsal: Rehearsal) -> None:
    put_model(rehearsal, "front", 1)
    put_model(rehearsal, "behind", 2)
    capture = {**CAPTURE, "DestinationS3Uri": f"s3://{rehearsal.bucket}/shadowed"}
    answer = up(
        rehearsal,
        "front",
        on_instances("front"),
        ShadowProductionVariants=[on_instances("behind", "Shadow", InitialVariantWeight=0.5)],
        DataCaptureConfig=capture,
    )
    assert [v["VariantName"] for v in answer["ShadowProductionVariants"]] == ["Shadow"]
    assert {invoke(rehearsal, "front") for _ in range(60)} == {2}
    where = {"EndpointName": "front", "VariantName": "Shadow"}
    seen = await_(lambda: metric(rehearsal, "Invocations", **where), lambda count: count > 12, 10)
    time.sleep(0.2)
    assert 12 < seen < 48
    rehearsal.server.control("POST", "/endpoints/flush", {})
    lines = [
        json.loads(line)
        for key in rehearsal.keys("shadowed/front/Shadow/")
        for line in rehearsal.read(key).splitlines()
    ]
    assert {json.loads(line["captureData"]["endpointOutput"]["data"])["sum"] for line in lines} == {3.0}
    rows = rehearsal.server.control("GET", "/endpoints/shares?name=front")["rows"]
    assert sum(row["count"] for row in rows if row["outcome"] == "answered") == 60
    assert {row["variant"] for row in rows if row["outcome"] == "shadow"} == {"Shadow"}
