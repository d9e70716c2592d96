"""The constructs of serving, deployed: first without a model, then with one, as an approval does it."""

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_kms as kms
from cdk_support import cdk_context
from ml_contract.load import load_workload
from ml_lifecycle.data_lake import DataLake
from ml_lifecycle.serving import served
from ml_lifecycle.training import JobNetwork

from .conftest import Rehearsal, await_
from .serving_support import put_archive

pytestmark = [pytest.mark.rehearsal, pytest.mark.slow]

WORKLOAD = """
version: 1
name: parcel_delay
title: Parcels that arrive late
owner: logistics@example.com
record:
  identifier: parcel
  event_time: sent_at
  fields:
    parcel: {type: string, required: true}
    sent_at: {type: timestamp, required: true}
    weight_kg: {type: number}
    minutes_late: {type: number}
label: {task: regression, field: minutes_late}
acceptance: {metric: rmse, at_most: 30}
serving:
"""
STYLES = {
    "serverless": "  style: serverless\n",
    "asynchronous": "  style: asynchronous\n  scaling: {min_capacity: 0, max_capacity: 2}\n",
    "components": "  style: inference_components\n  scaling: {min_capacity: 0, max_capacity: 2}\n",
    "multi": "  style: multi_model\n",
    "batch": "  style: batch_transform\n  batch: {content_type: text/csv}\n",
    "steps": (
        "  scaling: {kind: step, steps: [{above: 1500, add: 1}, {below: 300, add: -1}], "
        "schedules: {night: {cron: '0 20 * * ? *', min_capacity: 1, max_capacity: 1}}}\n"
        "  rollout: {strategy: rolling, step_percent: 50, bake_minutes: 1}\n"
    ),
    "ab": "  rollout: {strategy: ab, challenger_percent: 20}\n",
    "shadow": "  rollout: {strategy: shadow, challenger_percent: 50}\n",
}
ASSETS = "construct-assets"


def template(folder: Path, style: str, image: str, rehearsal: Rehearsal) -> str:
    """The template of a style, its assets put where this rehearsal has them."""
    path = folder / style / "parcel_delay"
    path.mkdir(parents=True)
    (path / "workload.yaml").write_text(WORKLOAD + STYLES[style])
    app = cdk.App(context=cdk_context(), outdir=str(folder / style / "out"))
    stack = cdk.Stack(app, style)
    lake = DataLake(stack, "Lake", database_prefix=style)
    key = kms.Key(stack, "Key")
    vpc = ec2.Vpc(
        stack, "Vpc", availability_zones=["us-east-1a"], nat_gateways=0, restrict_default_security_group=False
    )
    network = JobNetwork(
        subnets=tuple(vpc.isolated_subnets or vpc.public_subnets),
        security_groups=(ec2.SecurityGroup(stack, "Group", vpc=vpc),),
    )
    context = folder / style / "image"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\n")
    made = served(
        stack,
        "Endpoint",
        workload=load_workload(path),
        name=f"made-{style}",
        approval_parameter_name=f"/made/{style}/approved",
        challenger_parameter_name=f"/made/{style}/challenger" if style in ("ab", "shadow") else None,
        model_package_group_name=f"made-{style}",
        artifacts=lake.artifacts,
        volume_key=key,
        message_key=key,
        log_key=key,
        image=ecr_assets.DockerImageAsset(stack, "Image", directory=str(context)),
        vpc=vpc,
        network=network,
    )
    for output, value in {**made.outputs, "Artifacts": lake.artifacts.bucket.bucket_name}.items():
        cdk.CfnOutput(stack, output, value=value)
    out = Path(app.synth().directory)
    for file in json.loads((out / f"{style}.assets.json").read_text())["files"].values():
        source = out / file["source"]["path"]
        if source.is_dir():
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w") as archive:
                for item in sorted(source.rglob("*")):
                    archive.write(item, item.relative_to(source))
            for destination in file["destinations"].values():
                rehearsal.client("s3").put_object(
                    Bucket=ASSETS, Key=destination["objectKey"], Body=packed.getvalue()
                )
    text = (out / f"{style}.template.json").read_text()
    data = json.loads(text)
    data["Parameters"].pop("BootstrapVersion", None)
    data.pop("Rules", None)
    text = json.dumps(data)
    text = re.sub(r'\{"Fn::Sub": "[^"]*container-assets[^"]*"\}', json.dumps(image), text)
    return re.sub(r'\{"Fn::Sub": "cdk-[^"]*-assets-[^"]*"\}', json.dumps(ASSETS), text)


def finished(rehearsal: Rehearsal, stack: str) -> dict[str, Any]:
    """Wait for a stack; why it failed, if it did."""
    cloudformation = rehearsal.client("cloudformation")
    found: dict[str, Any] = await_(
        lambda: cloudformation.describe_stacks(StackName=stack)["Stacks"][0],
        lambda answer: not answer["StackStatus"].endswith("_IN_PROGRESS"),
        240,
    )
    if "ROLLBACK" in found["StackStatus"] or "FAILED" in found["StackStatus"]:
        events = cloudformation.describe_stack_events(StackName=stack)["StackEvents"]
        reasons = [
            f"{e['LogicalResourceId']} {e['ResourceType']}: {e.get('ResourceStatusReason')}"
            for e in events
            if "FAILED" in e["ResourceStatus"]
        ]
        pytest.fail("\n".join([found["StackStatus"], *reasons]))
    return found


def ask(rehearsal: Rehearsal, style: str, outputs: dict[str, str], **more: str) -> float:
    """What the model, which adds its mean, answers to 3, in the way of the style."""
    text = _asked(rehearsal, style, outputs, more)
    return float(json.loads(text)["sum"] if text.startswith("{") else text)


def _asked(rehearsal: Rehearsal, style: str, outputs: dict[str, str], more: dict[str, str]) -> str:
    s3, bucket = rehearsal.client("s3"), outputs["Artifacts"]
    if style == "batch":
        s3.put_object(Bucket=bucket, Key="parcel-delay/batch/in/day.csv", Body=b"3\n")
        machines = rehearsal.client("stepfunctions")
        run = machines.start_execution(stateMachineArn=outputs["TransformStateMachineArn"], input="{}")
        done = await_(
            lambda: machines.describe_execution(executionArn=run["executionArn"]),
            lambda answer: answer["status"] != "RUNNING",
            120,
        )
        assert done["status"] == "SUCCEEDED", done
        return read(s3, bucket, "parcel-delay/batch/out/day.csv.out")
    runtime = rehearsal.client("sagemaker-runtime")
    name = outputs["EndpointName"]
    if style == "asynchronous":
        s3.put_object(Bucket=bucket, Key="parcel-delay/async/in/one", Body=b"3")
        answer = runtime.invoke_endpoint_async(
            EndpointName=name, InputLocation=f"{outputs['AsyncInputUri']}one", ContentType="text/csv"
        )
        key = answer["OutputLocation"].partition(f"{bucket}/")[2]
        return str(await_(lambda: read(s3, bucket, key), bool))
    if style == "components":
        more = {"InferenceComponentName": outputs["InferenceComponentName"], **more}
    if style == "multi":
        more = {"TargetModel": "1.tar.gz", **more}
    answer = runtime.invoke_endpoint(EndpointName=name, Body=b"3", ContentType="text/csv", **more)
    return str(answer["Body"].read().decode())


def read(s3: Any, bucket: str, key: str) -> str:
    """The object, or nothing while it is not there."""
    try:
        return str(s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode())
    except s3.exceptions.NoSuchKey:
        return ""


@pytest.fixture(scope="module", autouse=True)
def assets(rehearsal: Rehearsal) -> None:
    rehearsal.client("s3").create_bucket(Bucket=ASSETS)


def register(rehearsal: Rehearsal, style: str, bucket: str, mean: float) -> str:
    """Register a version whose model stands in the artifacts; its ARN."""
    sagemaker = rehearsal.client("sagemaker")
    key = f"parcel-delay/training/{mean:g}/model.tar.gz"
    packed = rehearsal.read(put_archive(rehearsal, key, mean).removeprefix(f"s3://{rehearsal.bucket}/"))
    rehearsal.client("s3").put_object(Bucket=bucket, Key=key, Body=packed)
    arn: str = sagemaker.create_model_package(
        ModelPackageGroupName=f"made-{style}",
        ModelApprovalStatus="Approved",
        InferenceSpecification={
            "Containers": [{"Image": rehearsal.server_image, "ModelDataUrl": f"s3://{bucket}/{key}"}],
            "SupportedContentTypes": ["text/csv"],
            "SupportedResponseMIMETypes": ["text/csv"],
        },
    )["ModelPackageArn"]
    return arn


def promote(rehearsal: Rehearsal, style: str, body: str, **values: str) -> None:
    """Write parameters and update the stack with its previous template, as the promotion does."""
    for name, value in values.items():
        rehearsal.client("ssm").put_parameter(
            Name=f"/made/{style}/{name}", Value=value, Type="String", Overwrite=True
        )
    rehearsal.client("cloudformation").update_stack(
        StackName=style,
        UsePreviousTemplate=True,
        Parameters=[
            {"ParameterKey": name, "UsePreviousValue": True} for name in json.loads(body)["Parameters"]
        ],
        Capabilities=["CAPABILITY_IAM"],
    )
    finished(rehearsal, style)


def kinds_of(rehearsal: Rehearsal, style: str) -> set[str]:
    found = rehearsal.client("cloudformation").describe_stack_resources(StackName=style)
    return {resource["ResourceType"] for resource in found["StackResources"]}


@pytest.mark.parametrize("style", list(STYLES))
def test_should_deploy_without_a_model_and_serve_the_approved_one(
    rehearsal: Rehearsal, tmp_path: Path, style: str
) -> None:
    for name in ("approved", "challenger"):
        rehearsal.client("ssm").put_parameter(Name=f"/made/{style}/{name}", Value="none", Type="String")
    body = template(tmp_path, style, rehearsal.server_image, rehearsal)
    rehearsal.client("s3").put_object(Bucket=ASSETS, Key=f"{style}.json", Body=body.encode())
    rehearsal.client("cloudformation").create_stack(
        StackName=style,
        TemplateURL=f"{rehearsal.server.endpoint}/{ASSETS}/{style}.json",
        Capabilities=["CAPABILITY_IAM"],
    )
    outputs = {o["OutputKey"]: o["OutputValue"] for o in finished(rehearsal, style)["Outputs"]}
    assert not kinds_of(rehearsal, style) & {"AWS::SageMaker::Model", "AWS::SageMaker::Endpoint"}
    rehearsal.client("sagemaker").create_model_package_group(ModelPackageGroupName=f"made-{style}")

    promote(rehearsal, style, body, approved=register(rehearsal, style, outputs["Artifacts"], 4.0))

    assert "AWS::SageMaker::Model" in kinds_of(rehearsal, style)
    assert ask(rehearsal, style, outputs) == 7.0
    if style == "multi":
        promote(rehearsal, style, body, approved=register(rehearsal, style, outputs["Artifacts"], 5.0))
        # Both versions answer, each by its name, and nobody waited for a fleet.
        assert ask(rehearsal, style, outputs) == 7.0
        assert ask(rehearsal, style, outputs, TargetModel="2.tar.gz") == 8.0
    if style in ("ab", "shadow"):
        tried = register(rehearsal, style, outputs["Artifacts"], 9.0)
        promote(rehearsal, style, body, challenger=tried)
        endpoint = rehearsal.client("sagemaker").describe_endpoint(EndpointName=outputs["EndpointName"])
        beside = endpoint["ProductionVariants" if style == "ab" else "ShadowProductionVariants"]
        assert "Challenger" in {variant["VariantName"] for variant in beside}
    if style == "ab":
        assert ask(rehearsal, style, outputs, TargetVariant="AllTraffic") == 7.0
        assert ask(rehearsal, style, outputs, TargetVariant="Challenger") == 12.0
        promote(rehearsal, style, body, approved=tried, challenger="none")
        assert ask(rehearsal, style, outputs) == 12.0
