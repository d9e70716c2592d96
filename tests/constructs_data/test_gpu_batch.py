"""The queue for jobs that want a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from cdk_support import Template, actions, cdk_context, only, resources, statements, synthesise_stacks
from ml_lifecycle.acknowledge import acknowledge
from ml_lifecycle.data_lake import DataLake
from ml_lifecycle.foundation import Keys, Network
from ml_lifecycle.processing import GpuBatchQueue

IMAGE = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/vision/resize:1.4"


def queue(stack: cdk.Stack, **options: Any) -> GpuBatchQueue:
    keys = Keys(stack, "Keys")
    network = Network(stack, "Network", log_key=keys.logs)
    built = GpuBatchQueue(
        stack,
        "Gpu",
        **{
            "image": IMAGE,
            "vpc": network.vpc,
            "subnets": network.vpc.isolated_subnets,
            "security_group": network.job_security_group,
            "log_key": keys.logs,
            **options,
        },
    )
    lake = DataLake(stack, "Lake", database_prefix="t")
    built.grant_zone(lake.raw, "images/")
    built.grant_zone(lake.curated, "images/", write=True)
    return built


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Template]:
    def grants(stack: cdk.Stack) -> None:
        built = queue(stack)
        built.grant_submit(iam.Role(stack, "Caller", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com")))

    return synthesise_stacks(
        tmp_path_factory.mktemp("gpu"),
        {
            "Default": queue,
            "Options": lambda stack: queue(
                stack, instance_types=["g6e.xlarge"], max_vcpu=400, spot=True, gpus=1, endpoints=False
            ),
            "Grants": grants,
        },
    )


def test_should_start_gpu_instances_for_jobs_and_none_without(templates: dict[str, Template]) -> None:
    compute = only(templates["Default"], "AWS::Batch::ComputeEnvironment")["ComputeResources"]
    assert (compute["MinvCpus"], compute["MaxvCpus"], compute["Type"]) == (0, 32, "EC2")
    assert compute["InstanceTypes"] == ["g5", "g4dn"]
    assert compute["Ec2Configuration"] == [{"ImageType": "ECS_AL2023_NVIDIA"}]
    spot = only(templates["Options"], "AWS::Batch::ComputeEnvironment")["ComputeResources"]
    assert (spot["Type"], spot["AllocationStrategy"]) == ("SPOT", "SPOT_PRICE_CAPACITY_OPTIMIZED")


def test_should_keep_jobs_from_the_instances_credentials_and_disks_encrypted(
    templates: dict[str, Template],
) -> None:
    data = only(templates["Default"], "AWS::EC2::LaunchTemplate")["LaunchTemplateData"]
    assert data["MetadataOptions"] == {
        "HttpEndpoint": "enabled",
        "HttpPutResponseHopLimit": 1,
        "HttpTokens": "required",
    }
    (disk,) = data["BlockDeviceMappings"]
    assert disk["Ebs"]["Encrypted"] is True


def test_should_start_again_only_what_lost_its_instance(templates: dict[str, Template]) -> None:
    definition = only(templates["Default"], "AWS::Batch::JobDefinition")
    assert definition["RetryStrategy"] == {
        "Attempts": 3,
        "EvaluateOnExit": [
            {"Action": "RETRY", "OnStatusReason": "Host EC2*"},
            {"Action": "EXIT", "OnReason": "*"},
        ],
    }
    container = definition["ContainerProperties"]
    assert {r["Type"]: r["Value"] for r in container["ResourceRequirements"]} == {
        "GPU": "1",
        "VCPU": "4",
        "MEMORY": "15000",
    }
    assert (container["ReadonlyRootFilesystem"], container["Privileged"]) == (True, False)


def test_should_make_the_endpoints_that_instances_in_isolated_subnets_need(
    templates: dict[str, Template],
) -> None:
    def services(template: Template) -> set[str]:
        found = resources(template, "AWS::EC2::VPCEndpoint")
        return {
            json.dumps(endpoint["Properties"]["ServiceName"]).rpartition(".")[2].strip('"]} ')
            for name, endpoint in found.items()
            if name.startswith("Gpu")
        }

    assert services(templates["Default"]) == {"ecs", "ecs-agent", "ecs-telemetry"}
    assert services(templates["Options"]) == set()


def test_should_let_jobs_touch_only_what_is_granted(templates: dict[str, Template]) -> None:
    job = statements(templates["Default"], "GpuJobRole")
    assert actions(job) >= {"s3:GetObject", "s3:PutObject"}
    assert "s3:DeleteObject" not in actions(job)
    (pull,) = [
        s for s in statements(templates["Default"], "GpuExecutionRole") if "ecr:BatchGetImage" in s["Action"]
    ]
    assert pull["Resource"]["Fn::Join"][1][-1].endswith(":repository/vision/resize")
    assert not {
        a for a in actions(statements(templates["Default"], "GpuInstanceRole")) if a.startswith("s3:")
    }
    submit = [s for s in statements(templates["Grants"], "Caller") if s["Action"] == "batch:SubmitJob"]
    assert len(submit[0]["Resource"]) == 2


def test_should_pass_the_security_pack(tmp_path: Path) -> None:
    from cdk_nag import AwsSolutionsChecks

    app = cdk.App(context=cdk_context(), outdir=str(tmp_path))
    stack = cdk.Stack(app, "Pack")
    queue(stack).grant_submit(
        iam.Role(stack, "Caller", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
    )
    acknowledge(stack.node.find_child("Network"), "EC23", "the foundation says why in its own stack")
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    app.synth()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"instance_types": ["m5.large"]}, "instance_types must have NVIDIA GPUs .*, got 'm5.large'"),
        ({"instance_types": []}, "instance_types must name at least one"),
        ({"image": "resize:latest"}, "image must be an image URI of ECR, got 'resize:latest'"),
        (
            {"gpus": 0, "vcpu": 64},
            "gpus must be between 1 and 16, got 0; vcpu of a job must fit into max_vcpu 32",
        ),
        ({"timeout": cdk.Duration.seconds(30)}, "timeout must be at least 60 seconds, got 30"),
    ],
)
def test_should_refuse_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        queue(cdk.Stack(), **options)
