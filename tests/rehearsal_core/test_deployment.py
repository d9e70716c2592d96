"""The real CDK CLI deploys, changes and destroys the test app on the embedded AWS."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from core_support import ROOT, Deployed

from rehearsal.cdk import Cdk, CdkError

pytestmark = [pytest.mark.slow, pytest.mark.rehearsal]


def _outputs(deployed: Deployed) -> dict[str, str]:
    return {**deployed.cdk.outputs("CoreStorage"), **deployed.cdk.outputs("CoreWork")}


def _template(deployed: Deployed, stack: str) -> dict[str, Any]:
    body: dict[str, Any] = deployed.client("cloudformation").get_template(StackName=stack)["TemplateBody"]
    return body


def _settled(deployed: Deployed, stack: str) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        stacks = deployed.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
        found: dict[str, Any] = stacks[0]
        if not found["StackStatus"].endswith("IN_PROGRESS"):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{stack} is still {found['StackStatus']}")


def test_should_stream_the_progress_of_a_deploy(deployed: Deployed) -> None:
    assert any("CREATE_COMPLETE" in line and "AWS::KMS::Key" in line for line in deployed.lines)
    assert any("✅  CoreWork" in line for line in deployed.lines)


def test_should_resolve_attributes_that_ministack_lacks(deployed: Deployed) -> None:
    assert _outputs(deployed)["VpcCidr"] == "10.0.0.0/16"


def test_should_encrypt_a_bucket_with_the_templates_key(deployed: Deployed) -> None:
    s3, bucket = deployed.client("s3"), _outputs(deployed)["BucketName"]
    rule = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    assert ":key/" in rule["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"]
    assert rule["BucketKeyEnabled"] is True


def test_should_apply_the_properties_of_a_bucket_that_ministack_leaves_out(deployed: Deployed) -> None:
    s3, bucket = deployed.client("s3"), _outputs(deployed)["BucketName"]
    rule = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"][0]
    assert rule["Filter"]["Prefix"] == "raw/"
    assert rule["Transitions"] == [{"Days": 30, "StorageClass": "STANDARD_IA"}]
    assert rule["NoncurrentVersionExpiration"]["NoncurrentDays"] == 90
    assert s3.get_bucket_logging(Bucket=bucket)["LoggingEnabled"]["TargetPrefix"] == "bucket/"
    assert "EventBridgeConfiguration" in s3.get_bucket_notification_configuration(Bucket=bucket)


def test_should_make_types_that_ministack_lacks(deployed: Deployed) -> None:
    sagemaker = deployed.client("sagemaker")
    group = sagemaker.describe_model_package_group(ModelPackageGroupName="core-group")
    assert group["ModelPackageGroupStatus"] == "Completed"
    assert (
        sagemaker.describe_feature_group(FeatureGroupName="core-features")["FeatureGroupStatus"] == "Created"
    )
    assert sagemaker.describe_pipeline(PipelineName="core-pipeline")["PipelineStatus"] == "Active"
    assert (
        deployed.client("lakeformation")
        .list_resources()["ResourceInfoList"][0]["ResourceArn"]
        .startswith("arn:aws:s3:::")
    )


def test_should_build_an_image_without_docker(deployed: Deployed) -> None:
    images = json.loads((deployed.server.state / "images.json").read_text())
    uri = _outputs(deployed)["ImageUri"]
    assert (Path(images[uri]["context"]) / "program" / "__main__.py").exists()
    repository, _, tag = uri.split("/", 1)[1].partition(":")
    described = deployed.client("ecr").describe_images(
        repositoryName=repository, imageIds=[{"imageTag": tag}]
    )["imageDetails"]
    assert described[0]["imageTags"] == [tag]


def test_should_say_that_an_image_is_missing(deployed: Deployed) -> None:
    repository = _outputs(deployed)["ImageUri"].split("/", 1)[1].partition(":")[0]
    with pytest.raises(ClientError) as caught:
        deployed.client("ecr").describe_images(repositoryName=repository, imageIds=[{"imageTag": "nope"}])
    assert caught.value.response["Error"]["Code"] == "ImageNotFoundException"


def test_should_publish_status_changes_of_stacks(deployed: Deployed) -> None:
    deployed.server.control("GET", "/idle")
    queue = _outputs(deployed)["QueueUrl"]
    seen = []
    for _ in range(20):
        messages = deployed.client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10)
        bodies = [json.loads(message["Body"]) for message in messages.get("Messages", [])]
        if not bodies:
            break
        seen += bodies
    done = [body for body in seen if body["detail"]["status-details"]["status"] == "CREATE_COMPLETE"]
    assert any("stack/CoreWork/" in body["detail"]["stack-id"] for body in done)
    assert {body["source"] for body in seen} == {"aws.cloudformation"}
    assert {body["detail-type"] for body in seen} == {"CloudFormation Stack Status Change"}


def test_should_follow_a_parameter_with_the_previous_template(deployed: Deployed) -> None:
    cloudformation, ssm = deployed.client("cloudformation"), deployed.client("ssm")

    def resources() -> set[str]:
        found = cloudformation.list_stack_resources(StackName="CoreServing")["StackResourceSummaries"]
        return {resource["LogicalResourceId"] for resource in found}

    def update() -> None:
        cloudformation.update_stack(
            StackName="CoreServing",
            UsePreviousTemplate=True,
            Parameters=[
                {"ParameterKey": name, "UsePreviousValue": True}
                for name in _template(deployed, "CoreServing")["Parameters"]
            ],
        )
        assert _settled(deployed, "CoreServing")["StackStatus"] == "UPDATE_COMPLETE"

    assert "Conditional" not in resources()
    ssm.put_parameter(Name="/core/approved", Value="a-model", Overwrite=True)
    update()
    assert "Conditional" in resources()
    parameters = cloudformation.describe_stacks(StackName="CoreServing")["Stacks"][0]["Parameters"]
    approved = next(p for p in parameters if p["ParameterKey"] == "Approved")
    assert (approved["ParameterValue"], approved["ResolvedValue"]) == ("/core/approved", "a-model")
    ssm.put_parameter(Name="/core/approved", Value="none", Overwrite=True)
    update()
    assert "Conditional" not in resources()


def test_should_fail_a_template_with_a_wrong_property_name(deployed: Deployed, tmp_path: Path) -> None:
    broken = shutil.copytree(deployed.cdk.assembly, tmp_path / "cdk.out")
    template = broken / "CoreServing.template.json"
    document = json.loads(template.read_text())
    document["Resources"]["Wrong"] = {
        "Type": "AWS::SQS::Queue",
        "Properties": {"VisibilityTimeoutSecond": 30},
    }
    template.write_text(json.dumps(document))
    # The CLI uploads a template under the hash that the assembly gives it, and only once.
    assets = broken / "CoreServing.assets.json"
    [known] = [
        name
        for name, asset in json.loads(assets.read_text())["files"].items()
        if asset["source"]["path"] == template.name
    ]
    for file in (assets, broken / "manifest.json"):
        file.write_text(file.read_text().replace(known, hashlib.sha256(template.read_bytes()).hexdigest()))
    cdk = Cdk.of(ROOT, broken, deployed.server)
    with pytest.raises(CdkError, match=r"extraneous key \[VisibilityTimeoutSecond\] is not permitted"):
        cdk.deploy(["CoreServing"], exclusively=True)
    assert deployed.client("sqs").list_queues(QueueNamePrefix="CoreServing").get("QueueUrls", []) == []
    assert _settled(deployed, "CoreServing")["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"


@pytest.mark.parametrize(
    ("resource", "reason"),
    [
        (
            {"Type": "AWS::SQS::Queue", "Properties": {"VisibilityTimeout": 99999}},
            "not less or equal to 43200",
        ),
        ({"Type": "AWS::Nope::Thing"}, "AWS::Nope::Thing"),
        (
            {"Type": "AWS::SageMaker::Model", "Properties": {"ExecutionRoleArn": "x", "Container": []}},
            r"extraneous key \[Container\]",
        ),
        (
            {"Type": "AWS::AppRunner::Service", "Properties": {"SourceConfiguration": {}}},
            "AWS::AppRunner::Service",
        ),
        (
            {
                "Type": "AWS::KMS::Key",
                "Properties": {
                    "KeyUsage": "ENCRYPT",
                    "KeyPolicy": {"Version": "2012-10-17", "Statement": []},
                },
            },
            "not a valid enum value",
        ),
    ],
)
def test_should_refuse_a_template_that_aws_would_refuse(
    deployed: Deployed, resource: dict[str, Any], reason: str
) -> None:
    cloudformation = deployed.client("cloudformation")
    name = f"refused-{abs(hash(reason)) % 10**8}"
    try:
        cloudformation.create_stack(
            StackName=name, TemplateBody=json.dumps({"Resources": {"R": resource}}), OnFailure="ROLLBACK"
        )
    except ClientError as error:
        text = str(error)
    else:
        assert _settled(deployed, name)["StackStatus"] == "ROLLBACK_COMPLETE"
        events = cloudformation.describe_stack_events(StackName=name)["StackEvents"]
        text = " ".join(event.get("ResourceStatusReason", "") for event in events)
    assert re.search(reason, text), text


def test_should_roll_back_when_a_service_refuses_a_resource(deployed: Deployed) -> None:
    cloudformation = deployed.client("cloudformation")
    template = {
        "Resources": {
            "First": {
                "Type": "AWS::SageMaker::ModelPackageGroup",
                "Properties": {"ModelPackageGroupName": "rolled-back"},
            },
            "Second": {
                "Type": "AWS::SageMaker::ModelPackageGroup",
                "DependsOn": "First",
                "Properties": {"ModelPackageGroupName": "core-group"},
            },
        }
    }
    cloudformation.create_stack(StackName="rolls-back", TemplateBody=json.dumps(template))
    assert _settled(deployed, "rolls-back")["StackStatus"] == "ROLLBACK_COMPLETE"
    groups = deployed.client("sagemaker").list_model_package_groups()["ModelPackageGroupSummaryList"]
    assert {group["ModelPackageGroupName"] for group in groups} == {"core-group"}


def test_should_refuse_a_role_that_the_service_cannot_assume(deployed: Deployed) -> None:
    cloudformation = deployed.client("cloudformation")
    role = _outputs(deployed)["FunctionRole"]
    template = {
        "Resources": {
            "Pipeline": {
                "Type": "AWS::SageMaker::Pipeline",
                "Properties": {
                    "PipelineName": "untrusted",
                    "RoleArn": role,
                    "PipelineDefinition": {"PipelineDefinitionBody": "{}"},
                },
            }
        }
    }
    cloudformation.create_stack(StackName="untrusted", TemplateBody=json.dumps(template))
    assert _settled(deployed, "untrusted")["StackStatus"] == "ROLLBACK_COMPLETE"
    events = cloudformation.describe_stack_events(StackName="untrusted")["StackEvents"]
    assert any(
        "cannot be assumed by sagemaker.amazonaws.com" in e.get("ResourceStatusReason", "") for e in events
    )


def test_should_replace_a_resource_whose_create_only_property_changed(deployed: Deployed) -> None:
    cloudformation, sagemaker = deployed.client("cloudformation"), deployed.client("sagemaker")

    def template(description: str, policy: str) -> str:
        config = {
            "Type": "AWS::SageMaker::ModelPackageGroup",
            "UpdateReplacePolicy": policy,
            "Properties": {
                "ModelPackageGroupName": f"replaced-{description}",
                "ModelPackageGroupDescription": description,
            },
        }
        return json.dumps({"Resources": {"Group": config}})

    def groups() -> set[str]:
        found = sagemaker.list_model_package_groups(NameContains="replaced")["ModelPackageGroupSummaryList"]
        return {group["ModelPackageGroupName"] for group in found}

    cloudformation.create_stack(StackName="replaces", TemplateBody=template("one", "Delete"))
    assert _settled(deployed, "replaces")["StackStatus"] == "CREATE_COMPLETE"
    cloudformation.update_stack(StackName="replaces", TemplateBody=template("two", "Delete"))
    assert _settled(deployed, "replaces")["StackStatus"] == "UPDATE_COMPLETE"
    assert groups() == {"replaced-two"}
    cloudformation.update_stack(StackName="replaces", TemplateBody=template("three", "Retain"))
    assert _settled(deployed, "replaces")["StackStatus"] == "UPDATE_COMPLETE"
    assert groups() == {"replaced-two", "replaced-three"}


def test_should_find_no_difference_after_a_deploy(deployed: Deployed) -> None:
    assert "There were no differences" in deployed.cdk.diff(["CoreWork"])


def test_should_fail_clearly_for_a_stack_that_is_not_there(deployed: Deployed) -> None:
    with pytest.raises(CdkError, match="No stacks match"):
        deployed.cdk.deploy(["Nope*"])
    with pytest.raises(CdkError, match="no stack 'Nope'; there are: CoreStorage"):
        deployed.cdk.outputs("Nope")


def test_should_keep_what_must_survive_a_destroy(deployed: Deployed) -> None:
    bucket = _outputs(deployed)["BucketName"]
    shutil.rmtree(deployed.server.state / "images", ignore_errors=True)
    deployed.cdk.destroy(["CoreWork", "CoreServing", "CoreStorage"])
    buckets = {b["Name"] for b in deployed.client("s3").list_buckets()["Buckets"]}
    assert bucket in buckets
    assert not any("logs" in name for name in buckets if name.startswith("corestorage"))
    groups = deployed.client("sagemaker").list_model_package_groups(NameContains="core")
    assert groups["ModelPackageGroupSummaryList"] == []
