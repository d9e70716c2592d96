"""Training's options through a whole stage: the security pack, HyperPod, what an environment says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from cdk_nag import AwsSolutionsChecks
from cdk_support import cdk_context, only, resources, statements
from ml_contract.load import load_workload
from ml_lifecycle.training import definition, service_model
from ml_lifecycle.training.shapes import shape_of

from environments import Environment, HyperPod, Lustre, Services
from stacks.stage import LifecycleStage

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
training:
  algorithm: script
  script: {framework: pytorch, version: "2.10"}
  instance_type: ml.p4d.24xlarge
  instance_count: 2
  distribution: {kind: data_parallel}
  file_system: lustre
"""
ENVIRONMENT = Environment(
    name="test",
    services=Services(lustre=Lustre(prefix="parcel-delay/")),
    hyperpod=HyperPod(
        instance_type="ml.p5.48xlarge", prefix="llm/", instance_count=4, lifecycle_uri="s3://scripts/hyperpod"
    ),
)


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Templates of a stage by stack, once the pack had nothing to say."""
    folder = tmp_path_factory.mktemp("stage")
    home = folder / "parcel_delay"
    (home / "training").mkdir(parents=True)
    (home / "training" / "train.py").write_text("print()\n")
    (home / "workload.yaml").write_text(WORKLOAD)
    workload = load_workload(home)
    definition.warm(definition.PROGRAM, [shape_of(workload.workload)])
    app = cdk.App(context=cdk_context(), outdir=str(folder / "out"))
    LifecycleStage(app, "Test", environment=ENVIRONMENT, workloads=(workload,))
    # Raises with the whole list when one finding is not acknowledged.
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    assembly = app.synth().get_nested_assembly("assembly-Test")
    return {stack.stack_name: stack.template for stack in assembly.stacks}


@pytest.mark.slow
def test_should_train_from_the_environments_file_system_with_workers_that_reach_each_other(
    templates: dict[str, dict[str, Any]],
) -> None:
    models = templates["Test-ParcelDelayModels"]
    body = json.dumps(only(models, "AWS::SageMaker::Pipeline")["PipelineDefinition"])
    assert "FileSystemDataSource" in body
    assert "WorkersGroup" in json.dumps(
        only(models, "AWS::SageMaker::Pipeline")["PipelineDefinition"]["PipelineDefinitionBody"]["Fn::Sub"][1]
    )
    actions = {
        action
        for statement in statements(models, "TrainingTrainingRole")
        for action in (
            statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        )
    }
    assert {"fsx:DescribeFileSystems", "ec2:CreateNetworkInterface", "ecr:BatchGetImage"} <= actions


@pytest.mark.slow
def test_should_define_a_cluster_that_sagemaker_would_take(templates: dict[str, dict[str, Any]]) -> None:
    cluster = only(templates["Test-HyperPod"], "AWS::SageMaker::Cluster")
    plain = json.loads(json.dumps(cluster), object_hook=_arn)
    assert service_model.problems("CreateCluster", {**plain, "ClusterName": "test"}) == []
    controller, workers = cluster["InstanceGroups"]
    assert (controller["InstanceCount"], workers["InstanceCount"]) == (1, 4)
    assert workers["OnStartDeepHealthChecks"] == ["InstanceStress", "InstanceConnectivity"]
    assert workers["LifeCycleConfig"] == {"SourceS3Uri": "s3://scripts/hyperpod", "OnCreate": "on_create.sh"}
    assert "VolumeKmsKeyId" in workers["InstanceStorageConfigs"][0]["EbsVolumeConfig"]
    assert cluster["Orchestrator"] == {"Slurm": {"SlurmConfigStrategy": "Managed"}}
    assert cluster["NodeRecovery"] == "Automatic"


def _arn(node: dict[str, Any]) -> Any:
    """References become what they stand for, as far as a pattern asks."""
    if set(node) == {"Ref"} or set(node) == {"Fn::GetAtt"} or set(node) == {"Fn::ImportValue"}:
        text = json.dumps(node)
        if "Role" in text:
            return "arn:aws:iam::123456789012:role/nodes"
        return "subnet-0123456789abcdef0" if "Subnet" in text else "sg-0123456789abcdef0"
    return node


@pytest.mark.slow
def test_should_open_a_cluster_to_nobody_but_its_own_nodes(templates: dict[str, dict[str, Any]]) -> None:
    stack = templates["Test-HyperPod"]
    rules = [*resources(stack, "AWS::EC2::SecurityGroupIngress").values()]
    assert [rule["Properties"]["IpProtocol"] for rule in rules] == ["-1"]
    assert all("SourceSecurityGroupId" in rule["Properties"] for rule in rules)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prefix": "/llm"}, "prefix must end with '/'"),
        ({"lifecycle_uri": "scripts"}, "lifecycle_uri must look like s3://bucket/folder, got 'scripts'"),
    ],
)
def test_should_refuse_a_cluster_that_cannot_be(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        HyperPod(**{"instance_type": "ml.p5.48xlarge", "prefix": "llm/", **options})


def test_should_have_no_cluster_unless_named(tmp_path: Path) -> None:
    assert Environment(name="test").hyperpod is None


def test_should_name_the_cluster_types_of_a_family_that_is_misspelt() -> None:
    from aws_cdk import aws_ec2 as ec2
    from aws_cdk import aws_kms as kms
    from ml_lifecycle.data_lake import DataLake
    from ml_lifecycle.training import HyperPodCluster

    stack = cdk.Stack()
    vpc = ec2.Vpc(stack, "Vpc", availability_zones=["us-east-1a"], nat_gateways=0)
    with pytest.raises(
        ValueError,
        match=r"HyperPod: instance_type .* got 'ml\.p5\.huge'; .*ml\.p5\.48xlarge.*; "
        r"instance_count must be between 1 and 6758, got 0",
    ):
        HyperPodCluster(
            stack,
            "Cluster",
            instance_type="ml.p5.huge",
            instance_count=0,
            artifacts=DataLake(stack, "Lake", database_prefix="t").artifacts,
            prefix="llm/",
            key=kms.Key(stack, "Key"),
            vpc=vpc,
            subnets=vpc.public_subnets,
            security_group=ec2.SecurityGroup(stack, "Group", vpc=vpc),
        )
