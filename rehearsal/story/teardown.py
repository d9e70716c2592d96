"""Chapter: everything is destroyed but what must survive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rehearsal.story.books import close_permissions
from rehearsal.story.deployment import DELIVERY
from rehearsal.story.tale import Cloud, Tale
from rehearsal.story.telling import Evidence, Step, require

__all__ = ["PROBES", "STEPS", "exists"]

CHAPTER = "Destroy"


def _found(answer: Any, key: str) -> bool:
    return bool(answer[key])


#: How to see whether a resource is there, by its physical id: true, false, or an error that says no.
PROBES: dict[str, Callable[[Cloud, str], object]] = {
    "AWS::CloudWatch::Alarm": lambda c, n: _found(
        c.client("cloudwatch").describe_alarms(AlarmNames=[n]), "MetricAlarms"
    ),
    "AWS::Cognito::UserPool": lambda c, n: c.client("cognito-idp").describe_user_pool(UserPoolId=n),
    "AWS::DynamoDB::Table": lambda c, n: c.client("dynamodb").describe_table(TableName=n),
    "AWS::Events::Rule": lambda c, n: c.client("events").describe_rule(Name=n.rsplit("|", 1)[-1]),
    "AWS::Glue::Crawler": lambda c, n: c.client("glue").get_crawler(Name=n),
    "AWS::Glue::Database": lambda c, n: c.client("glue").get_database(Name=n),
    "AWS::Glue::Job": lambda c, n: c.client("glue").get_job(JobName=n),
    "AWS::IAM::Role": lambda c, n: c.client("iam").get_role(RoleName=n),
    "AWS::KMS::Key": lambda c, n: (
        c.client("kms").describe_key(KeyId=n)["KeyMetadata"]["KeyState"] in ("Enabled", "Disabled")
    ),
    "AWS::Kinesis::Stream": lambda c, n: c.client("kinesis").describe_stream_summary(StreamName=n),
    "AWS::KinesisFirehose::DeliveryStream": lambda c, n: c.client("firehose").describe_delivery_stream(
        DeliveryStreamName=n
    ),
    "AWS::Lambda::Function": lambda c, n: c.client("lambda").get_function(FunctionName=n),
    "AWS::S3::Bucket": lambda c, n: c.client("s3").head_bucket(Bucket=n),
    "AWS::SageMaker::Endpoint": lambda c, n: c.client("sagemaker").describe_endpoint(
        EndpointName=n.rsplit("/", 1)[-1]
    ),
    "AWS::SageMaker::FeatureGroup": lambda c, n: c.client("sagemaker").describe_feature_group(
        FeatureGroupName=n
    ),
    "AWS::SageMaker::ModelPackageGroup": lambda c, n: c.client("sagemaker").describe_model_package_group(
        ModelPackageGroupName=n.rsplit("/", 1)[-1]
    ),
    "AWS::SageMaker::Pipeline": lambda c, n: c.client("sagemaker").describe_pipeline(PipelineName=n),
    "AWS::SNS::Topic": lambda c, n: c.client("sns").get_topic_attributes(TopicArn=n),
    "AWS::SQS::Queue": lambda c, n: c.client("sqs").get_queue_attributes(QueueUrl=n),
}

#: Codes with which services say that there is no such thing.
ABSENT = ("notfound", "nosuch", "nonexistent", "notexist", "404", "validationexception", "validationerror")


def exists(cloud: Cloud, resource_type: str, physical_id: str) -> bool | None:
    """Whether a resource is there; ``None`` when its type has no probe."""
    from botocore.exceptions import ClientError

    probe = PROBES.get(resource_type)
    if probe is None:
        return None
    try:
        found = probe(cloud, physical_id)
    except ClientError as error:
        code = error.response["Error"]["Code"].replace(".", "").lower()
        if any(word in code for word in ABSENT):
            return False
        raise
    return bool(found)


def _resources(tale: Tale) -> list[dict[str, Any]]:
    """Every resource of the deployed stacks, with its physical id and whether its template retains it."""
    rows = []
    for stack in tale.report.stacks:
        pages = (
            tale.cloud.client("cloudformation")
            .get_paginator("list_stack_resources")
            .paginate(StackName=stack["name"])
        )
        physical = {
            s["LogicalResourceId"]: s.get("PhysicalResourceId")
            for page in pages
            for s in page["StackResourceSummaries"]
        }
        rows += [
            {"stack": stack["name"], **resource, "physical_id": physical[resource["logical_id"]]}
            for resource in stack["resources"]
            if physical.get(resource["logical_id"])
        ]
    return rows


def _destroy(tale: Tale, evidence: Evidence) -> None:
    close_permissions(tale)
    resources = _resources(tale)
    tale.known["resources"] = resources
    objects = len(tale.cloud.objects.list(tale.outputs("Data")["RawDataUri"]))
    tale.known["raw objects"] = (tale.outputs("Data")["RawDataUri"], objects)
    ids = [stack["id"] for stack in tale.report.stacks]
    for name in [i for i in ids if i == DELIVERY]:
        tale.cdk.destroy([name])
    tale.cdk.destroy([i for i in ids if i != DELIVERY])
    names = {s["name"] for s in tale.report.stacks}
    left = [
        f"{s['StackName']}: {s['StackStatus']}"
        for s in tale.cloud.client("cloudformation").describe_stacks()["Stacks"]
        if s["StackName"] in names
    ]
    evidence |= {"stacks_destroyed": len(names) - len(left), "resources_before": len(resources)}
    require(not left, f"stacks are left after cdk destroy: {', '.join(left)}")


def _survivors(tale: Tale, evidence: Evidence) -> None:
    kept: list[dict[str, Any]] = []
    lost: list[str] = []
    haunting: list[str] = []
    checked = unprobed = 0
    for resource in tale.known["resources"]:
        there = exists(tale.cloud, resource["type"], resource["physical_id"])
        if there is None:
            unprobed += 1
            continue
        checked += 1
        if resource["retained"] and there:
            kept.append(
                {"stack": resource["stack"], "type": resource["type"], "name": resource["physical_id"]}
            )
        elif resource["retained"]:
            lost.append(f"{resource['type']} {resource['physical_id']}")
        elif there:
            haunting.append(f"{resource['type']} {resource['physical_id']}")
    tale.report.survivors = kept
    uri, before = tale.known["raw objects"]
    after = len(tale.cloud.objects.list(uri)) if any(k["type"] == "AWS::S3::Bucket" for k in kept) else 0
    evidence |= {
        "checked": checked,
        "of_types_that_are_not_checked": unprobed,
        "survived": [{"type": k["type"], "name": k["name"]} for k in kept],
        "raw_objects_before": before,
        "raw_objects_after": after,
    }
    require(not lost, f"the template retains what cdk destroy deleted: {', '.join(lost)}")
    require(not haunting, f"left behind although nothing retains it: {', '.join(haunting)}")
    require(not kept or after == before, f"the raw zone held {before} objects, after the destroy {after}")


STEPS = (
    Step(
        id="destroy",
        title="Destroy every stack with the CDK CLI",
        chapter=CHAPTER,
        run=_destroy,
        capabilities=lambda _: (),
    ),
    Step(
        id="survivors",
        title="What must survive has survived, and nothing else",
        chapter=CHAPTER,
        run=_survivors,
        capabilities=lambda _: ("data.repository",),
    ),
)
