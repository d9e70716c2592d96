"""What each option of the training block changes in the pipeline that is deployed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_ec2 as ec2
from cdk_support import Template, resources, statements, synthesise_stacks
from ml_contract.load import ContractError, LoadedWorkload, load_workload
from ml_lifecycle.storage import LustreCache
from ml_lifecycle.training import JobNetwork, TrainingPipeline, WorkersSecurityGroup, definition
from ml_lifecycle.training.shapes import shape_of
from model_support import NAME, RECORD, Around, granted, parcels, pipeline_definition, step

BUILT_IN = """
training:
  algorithm: built_in
  built_in: {name: xgboost, version: "3.2-0"}
  spot: true
  max_wait_minutes: 90
"""
SCRIPT = """
training:
  algorithm: script
  script: {framework: pytorch, version: "2.10"}
  instance_type: ml.p4d.24xlarge
  instance_count: 4
  distribution: {kind: fully_sharded}
  file_system: lustre
"""
PARENT = """
training:
  algorithm: image
  image: {uri: 123456789012.dkr.ecr.us-east-1.amazonaws.com/trainer:1}
  parent: approved
  warm_pool_minutes: 30
  input_mode: FastFile
"""

Steps = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def workloads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LoadedWorkload]:
    folder = tmp_path_factory.mktemp("workloads")
    home = folder / "script" / "parcel_delay"
    (home / "training").mkdir(parents=True)
    (home / "training" / "train.py").write_text("print('train')\n")
    (home / "workload.yaml").write_text(RECORD + SCRIPT)
    loaded = {
        "BuiltIn": parcels(folder, BUILT_IN),
        "Script": load_workload(home),
        "Parent": parcels(folder, PARENT),
    }
    definition.warm(definition.PROGRAM, [shape_of(each.workload) for each in loaded.values()])
    return loaded


def pipeline(
    stack: cdk.Stack, workload: LoadedWorkload, *, prefix: str = "parcel-delay/"
) -> TrainingPipeline:
    around = Around(stack)
    vpc = ec2.Vpc(stack, "Vpc", availability_zones=["us-east-1a"], nat_gateways=0)
    group = ec2.SecurityGroup(stack, "Group", vpc=vpc)
    network = JobNetwork(subnets=tuple(vpc.public_subnets), security_groups=(group,))
    training_network, file_system = network, None
    if workload.workload.training.instance_count > 1:
        workers = WorkersSecurityGroup(stack, "Workers", vpc=vpc)
        training_network = replace(network, security_groups=(group, workers.group))
    if workload.workload.training.file_system is not None:
        file_system = LustreCache(
            stack,
            "Lustre",
            zone=around.lake.artifacts,
            prefix=prefix,
            key=around.data_key,
            vpc=vpc,
            subnet=vpc.public_subnets[0],
            clients=group,
        )
    return TrainingPipeline(
        stack,
        "Training",
        workload=workload,
        pipeline_name=NAME,
        model_package_group_name=NAME,
        features=around.lake.features,
        artifacts=around.lake.artifacts,
        volume_key=around.data_key,
        network=network,
        training_network=training_network,
        file_system=file_system,
    )


@pytest.fixture(scope="module")
def templates(
    tmp_path_factory: pytest.TempPathFactory, workloads: dict[str, LoadedWorkload]
) -> dict[str, Template]:
    return synthesise_stacks(
        tmp_path_factory.mktemp("options"),
        {
            name: (lambda stack, workload=workload: pipeline(stack, workload) and None)
            for name, workload in workloads.items()
        },
    )


def train(template: Template) -> dict[str, Any]:
    found: dict[str, Any] = step(pipeline_definition(template), "Train")["Arguments"]
    return found


def channels(template: Template) -> dict[str, dict[str, Any]]:
    return {channel["ChannelName"]: channel for channel in train(template)["InputDataConfig"]}


@pytest.mark.slow
def test_should_export_what_sagemakers_xgboost_leaves(templates: dict[str, Template]) -> None:
    template = templates["BuiltIn"]
    found = pipeline_definition(template)
    assert [each["Name"] for each in found["Steps"]] == ["Prepare", "Train", "Export", "Evaluate", "Accept"]
    assert {name: channel["ContentType"] for name, channel in channels(template).items()} == dict.fromkeys(
        ("train", "validation"), "application/x-parquet"
    )
    # SageMaker refuses definitions of metrics for its own algorithms.
    assert "MetricDefinitions" not in train(template)["AlgorithmSpecification"]
    export = step(found, "Export")["Arguments"]
    assert export["AppSpecification"]["ImageUri"] == "${ExportImage}"
    assert export["AppSpecification"]["ContainerArguments"] == ["export"]
    assert export["NetworkConfig"]["EnableNetworkIsolation"] is True
    named = [each["InputName"] for each in export["ProcessingInputs"]]
    named += [each["OutputName"] for each in export["ProcessingOutputConfig"]["Outputs"]]
    # SageMaker wants the names of inputs and outputs to be unique together.
    assert sorted(named) == ["contract", "exported", "model", "transform", "validation"]
    outputs = step(found, "Prepare")["Arguments"]["ProcessingOutputConfig"]["Outputs"]
    assert {"matrix_train", "matrix_validation"} < {each["OutputName"] for each in outputs}
    model = next(
        each
        for each in step(found, "Evaluate")["Arguments"]["ProcessingInputs"]
        if each["InputName"] == "model"
    )["S3Input"]["S3Uri"]["Std:Join"]["Values"]
    assert model[1] == "model.tar.gz"
    assert "Steps.Export" in model[0]["Get"]


@pytest.mark.slow
def test_should_let_processing_pull_the_image_that_exports(templates: dict[str, Template]) -> None:
    def pulls(template: Template) -> int:
        found = granted(statements(template, "TrainingProcessingRole"))
        return len({resource for action, resource in found if action == "ecr:BatchGetImage"})

    # Both images of ours stand in one repository of the bootstrap.
    assert pulls(templates["BuiltIn"]) >= pulls(templates["Parent"]) >= 1


@pytest.mark.slow
def test_should_wait_for_spot_as_long_as_it_is_told(templates: dict[str, Template]) -> None:
    arguments = train(templates["BuiltIn"])
    assert arguments["EnableManagedSpotTraining"] is True
    assert arguments["StoppingCondition"] == {"MaxRuntimeInSeconds": 3_600, "MaxWaitTimeInSeconds": 5_400}
    assert "checkpoints" in json.dumps(arguments["CheckpointConfig"])


@pytest.mark.slow
def test_should_start_a_script_from_a_channel_without_network(templates: dict[str, Template]) -> None:
    template = templates["Script"]
    arguments = train(template)
    [python, archive] = arguments["AlgorithmSpecification"]["ContainerEntrypoint"]
    assert python == "python3"
    assert archive.startswith("/opt/ml/input/data/code/")
    assert archive.endswith(".zip")
    assert arguments["EnableNetworkIsolation"] is True
    assert channels(template)["code"]["DataSource"]["S3DataSource"]["S3Uri"] == "${ScriptUri}"


@pytest.mark.slow
def test_should_let_the_workers_of_a_training_reach_each_other(templates: dict[str, Template]) -> None:
    template = templates["Script"]
    arguments = train(template)
    assert arguments["ResourceConfig"]["InstanceCount"] == 4
    assert arguments["VpcConfig"]["SecurityGroupIds"] == ["${TrainingGroups0}", "${TrainingGroups1}"]
    assert arguments["Environment"] == {"FI_PROVIDER": "efa", "FI_EFA_USE_DEVICE_RDMA": "1"}
    prepare = step(pipeline_definition(template), "Prepare")["Arguments"]
    assert prepare["NetworkConfig"]["VpcConfig"]["SecurityGroupIds"] == ["${SecurityGroups0}"]
    for kind in ("Ingress", "Egress"):
        rules = resources(template, f"AWS::EC2::SecurityGroup{kind}").values()
        own = [r["Properties"] for r in rules if "WorkersGroup" in json.dumps(r["Properties"]["GroupId"])]
        assert [rule["IpProtocol"] for rule in own] == ["-1"]


@pytest.mark.slow
def test_should_read_from_the_file_system_what_prepare_wrote_to_s3(templates: dict[str, Template]) -> None:
    template = templates["Script"]
    found = channels(template)
    for name, folder in (("train", "matrix_train"), ("transform", "transform")):
        source = found[name]["DataSource"]["FileSystemDataSource"]
        assert source["FileSystemId"] == "${FileSystemId}"
        assert source["FileSystemType"] == "FSxLustre"
        assert source["FileSystemAccessMode"] == "ro"
        assert source["DirectoryPath"]["Std:Join"]["Values"] == [
            "${FileSystemPath}",
            {"Get": "Execution.PipelineExecutionId"},
            "prepare",
            folder,
        ]
    allowed = granted(statements(template, "TrainingTrainingRole"))
    assert [resource for action, resource in allowed if action == "fsx:DescribeFileSystems"]


@pytest.mark.slow
def test_should_go_on_from_the_approved_model_and_keep_the_instances(templates: dict[str, Template]) -> None:
    template = templates["Parent"]
    assert channels(template)["parent"]["DataSource"]["S3DataSource"]["S3Uri"] == {
        "Get": "Parameters.ChampionModel"
    }
    parameters = {each["Name"]: each for each in pipeline_definition(template)["Parameters"]}
    # What is always there and no model: the first execution has no parent.
    assert parameters["ChampionModel"]["DefaultValue"] == "${ContractUri}"
    assert train(template)["ResourceConfig"]["KeepAlivePeriodInSeconds"] == 1_800
    assert [each["Name"] for each in pipeline_definition(template)["Steps"]] == [
        "Prepare",
        "Train",
        "Evaluate",
        "Accept",
    ]


@pytest.mark.slow
def test_should_isolate_and_encrypt_whatever_trains(templates: dict[str, Template]) -> None:
    for template in templates.values():
        arguments = train(template)
        assert arguments["EnableNetworkIsolation"] is True
        assert arguments["EnableInterContainerTrafficEncryption"] is True
        assert arguments["OutputDataConfig"]["KmsKeyId"] == "${OutputKey}"


@pytest.mark.slow
def test_should_refuse_a_file_system_that_does_not_show_what_prepare_writes(
    workloads: dict[str, LoadedWorkload],
) -> None:
    with pytest.raises(ContractError, match=r"training\.file_system: the file system shows 'other/'"):
        pipeline(cdk.Stack(), workloads["Script"], prefix="other/")


def test_should_refuse_a_file_system_that_the_environment_does_not_have(tmp_path: Path) -> None:
    workload = parcels(tmp_path, "training: {file_system: lustre}\n")
    stack = cdk.Stack()
    around = Around(stack)
    with pytest.raises(ContractError, match=r"training\.file_system: this environment has no file system"):
        TrainingPipeline(
            stack,
            "Training",
            workload=workload,
            pipeline_name=NAME,
            model_package_group_name=NAME,
            features=around.lake.features,
            artifacts=around.lake.artifacts,
            volume_key=around.data_key,
        )
