"""What a training job runs: image, hyperparameters, script, and who may fetch them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from cdk_support import statements
from ml_contract.load import ContractError, LoadedWorkload, load_workload
from ml_lifecycle import code
from ml_lifecycle.images import sagemaker_image
from ml_lifecycle.training import framework_images
from ml_lifecycle.training.algorithm import Algorithm
from model_support import RECORD, granted, parcels

SCRIPT = """
training:
  algorithm: script
  script: {framework: pytorch, version: "2.10"}
  hyperparameters: {lr: 0.01}
"""

Made = tuple[Algorithm, dict[str, Any]]


def workload_with(folder: Path, blocks: str, files: dict[str, str]) -> LoadedWorkload:
    """A workload with files beside it."""
    home = folder / "parcel_delay"
    for name, text in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    (home / "workload.yaml").write_text(RECORD + blocks)
    return load_workload(home)


@pytest.fixture
def make() -> Callable[..., Made]:
    def algorithm(workload: LoadedWorkload, region: str | None = None) -> Made:
        app = cdk.App()
        stack = cdk.Stack(app, "S", env=cdk.Environment(region=region, account="123456789012"))
        ours = None
        if workload.workload.training.algorithm in ("xgboost", "pytorch"):
            platform = cdk.aws_ecr_assets.Platform.LINUX_AMD64
            ours = sagemaker_image(stack, "Training", image="training", platform=platform)
        made = Algorithm(stack, "Algorithm", workload=workload, ours=ours)
        made.grant_fetch(iam.Role(stack, "Role", assumed_by=iam.ServicePrincipal("sagemaker.amazonaws.com")))
        cdk.CfnOutput(stack, "Uri", value=made.image_uri)
        return made, app.synth().get_stack_by_name("S").template

    return algorithm


def test_should_train_with_our_image_unless_told_otherwise(tmp_path: Path, make: Callable[..., Made]) -> None:
    made, template = make(parcels(tmp_path))
    assert (made.exports, made.entrypoint, made.environment, made.script) == (False, None, None, None)
    assert made.hyperparameters == {"rounds": "200", "early_stopping_rounds": "20"}
    assert "Mappings" not in template


def test_should_pass_on_what_our_images_read(tmp_path: Path, make: Callable[..., Made]) -> None:
    made, _ = make(
        parcels(
            tmp_path,
            "training:\n  algorithm: pytorch\n  spot: true\n  checkpoint_every_rounds: 5\n"
            "  checkpoint_every_minutes: 3\n  instance_count: 2\n  instance_type: ml.p4d.24xlarge\n"
            "  distribution: {kind: fully_sharded, processes_per_instance: 8}\n",
        )
    )
    assert made.hyperparameters == {
        "rounds": "200",
        "early_stopping_rounds": "20",
        "checkpoint_every_rounds": "5",
        "checkpoint_every_minutes": "3",
        "distribution": "fully_sharded",
        "processes_per_instance": "8",
    }
    assert made.environment == {"FI_PROVIDER": "efa", "FI_EFA_USE_DEVICE_RDMA": "1"}


def test_should_tell_our_images_how_many_folds(tmp_path: Path, make: Callable[..., Made]) -> None:
    made, _ = make(parcels(tmp_path, "training: {k_folds: 4, early_stopping_rounds: null}\n"))
    assert made.hyperparameters == {"rounds": "200", "k_folds": "4"}


@pytest.mark.parametrize(
    ("instance_type", "count"), [("ml.p4d.24xlarge", 1), ("ml.g5.xlarge", 2), ("ml.m5.xlarge", 2)]
)
def test_should_ask_for_efa_only_where_instances_have_it(
    tmp_path: Path, make: Callable[..., Made], instance_type: str, count: int
) -> None:
    text = (
        f"training: {{algorithm: pytorch, instance_type: {instance_type}, instance_count: {count}, "
        "distribution: {kind: data_parallel}}\n"
    )
    assert make(parcels(tmp_path, text))[0].environment is None


def test_should_take_sagemakers_xgboost_from_the_account_of_the_region(
    tmp_path: Path, make: Callable[..., Made]
) -> None:
    workload = parcels(
        tmp_path,
        'training: {algorithm: built_in, built_in: {name: xgboost, version: "3.0-5"}, '
        "hyperparameters: {eta: 0.1}}\n",
    )
    made, template = make(workload, "eu-central-1")
    assert made.exports
    assert made.hyperparameters == {
        "objective": "reg:squarederror",
        "num_round": "200",
        "early_stopping_rounds": "20",
        "eta": "0.1",
    }
    uri = json.dumps(template["Outputs"]["Uri"]["Value"])
    # The account is the SDK's own answer for this Region.
    assert "492215442770.dkr.ecr." in uri
    assert "/sagemaker-xgboost:3.0-5" in uri
    pulls = {
        resource
        for action, resource in granted(statements(template, "Role"))
        if action == "ecr:BatchGetImage"
    }
    assert len(pulls) == 1
    assert next(iter(pulls)).endswith(":492215442770:repository/sagemaker-xgboost")


def test_should_look_the_account_up_when_the_region_is_known_only_in_the_deploy(
    tmp_path: Path, make: Callable[..., Made]
) -> None:
    workload = parcels(
        tmp_path, 'training: {algorithm: built_in, built_in: {name: xgboost, version: "3.2-0"}}\n'
    )
    _, template = make(workload)
    [(name, mapping)] = template["Mappings"].items()
    assert mapping["eu-central-1"] == {"account": "492215442770"}
    found = json.dumps(template["Outputs"]["Uri"]["Value"])
    assert json.dumps({"Fn::FindInMap": [name, {"Ref": "AWS::Region"}, "account"]}) in found


def test_should_refuse_a_region_without_the_image(tmp_path: Path, make: Callable[..., Made]) -> None:
    workload = parcels(
        tmp_path, 'training: {algorithm: built_in, built_in: {name: xgboost, version: "3.2-0"}}\n'
    )
    with pytest.raises(
        ValueError, match=r"region must be one that offers sagemaker-xgboost:3\.2-0, got mars-1"
    ):
        make(workload, "mars-1")


@pytest.mark.parametrize(
    ("blocks", "place", "said"),
    [
        (
            'training:\n  algorithm: built_in\n  built_in: {name: xgboost, version: "1.2-1"}\n',
            "training.built_in.version",
            "must be one of 3.0-5, 3.2-0 for xgboost, got '1.2-1'",
        ),
        (
            'training:\n  algorithm: script\n  script: {framework: pytorch, version: "1.8"}\n',
            "training.script.version",
            "got '1.8'",
        ),
    ],
)
def test_should_refuse_a_version_that_sagemaker_does_not_have_with_its_line(
    tmp_path: Path, make: Callable[..., Made], blocks: str, place: str, said: str
) -> None:
    workload = workload_with(tmp_path, blocks, {"training/train.py": "print()"})
    with pytest.raises(ContractError) as caught:
        make(workload)
    [problem] = caught.value.problems
    assert (problem.path, problem.line) == (place, len(RECORD.splitlines()) + 3)
    assert said in problem.message


def test_should_start_a_script_from_a_zip_that_the_job_reads_itself(
    tmp_path: Path, make: Callable[..., Made]
) -> None:
    workload = workload_with(
        tmp_path, SCRIPT, {"training/train.py": "print()", "training/net/layers.py": "x = 1"}
    )
    made, template = make(workload, "us-east-1")
    assert made.script is not None
    assert made.entrypoint == ["python3", f"/opt/ml/input/data/code/{made.script.s3_object_key}"]
    assert made.hyperparameters == {"lr": "0.01", "rounds": "200", "early_stopping_rounds": "20"}
    assert "pytorch-training:2.10.0-cpu-py313" in json.dumps(template["Outputs"]["Uri"]["Value"])
    reads = [
        resource for action, resource in granted(statements(template, "Role")) if action == "s3:GetObject"
    ]
    assert [bool(re.fullmatch(r".*/[0-9a-f]{64}\.zip", resource)) for resource in reads] == [True]


def test_should_stage_a_script_with_its_launcher(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "train.py").write_text("print()")
    launch = {"entry_point": "train.py", "torchrun": True, "processes_per_instance": 2}
    folder = code.training_script("parcel_delay", tmp_path / "training", launch)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {"__main__.py", "launch.json", "program/train.py"}
    assert json.loads((folder / "launch.json").read_text()) == launch


def test_should_take_the_gpu_image_for_a_gpu(tmp_path: Path, make: Callable[..., Made]) -> None:
    blocks = SCRIPT + "  instance_type: ml.g5.12xlarge\n  distribution: {kind: data_parallel}\n"
    _, template = make(workload_with(tmp_path, blocks, {"training/train.py": "print()"}), "us-east-1")
    assert "pytorch-training:2.10.0-gpu-py313" in json.dumps(template["Outputs"]["Uri"]["Value"])


def test_should_let_training_pull_an_image_of_the_workload_and_no_other(
    tmp_path: Path, make: Callable[..., Made]
) -> None:
    uri = "210987654321.dkr.ecr.eu-west-1.amazonaws.com/team/trainer:7"
    made, template = make(parcels(tmp_path, f"training: {{algorithm: image, image: {{uri: '{uri}'}}}}\n"))
    assert (made.image_uri, made.exports) == (uri, False)
    pulls = {r for action, r in granted(statements(template, "Role")) if action == "ecr:BatchGetImage"}
    assert pulls == {"arn:<AWS::Partition>:ecr:eu-west-1:210987654321:repository/team/trainer"}


def test_should_build_an_image_that_stands_beside_the_workload(
    tmp_path: Path, make: Callable[..., Made]
) -> None:
    blocks = "training: {algorithm: image, image: {folder: trainer}, instance_type: ml.trn1.2xlarge}\n"
    made, template = make(
        workload_with(tmp_path, blocks, {"trainer/Dockerfile": "FROM scratch\n"}), "us-east-1"
    )
    assert ".dkr.ecr." in json.dumps(template["Outputs"]["Uri"]["Value"])
    assert not made.exports


def test_should_hold_the_images_of_the_installed_sdk() -> None:
    held = json.loads(framework_images._FILE.read_text())
    assert held == json.loads(json.dumps(framework_images.extract())), (
        "the SDK changed: run python -m ml_lifecycle.training.framework_images and read the difference"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("framework", "version", "instance_type"),
    [
        ("xgboost", "3.2-0", "ml.m5.xlarge"),
        ("pytorch", "2.10", "ml.m5.xlarge"),
        ("pytorch", "2.9.0", "ml.g5.xlarge"),
    ],
)
def test_should_name_images_as_the_sdk_does(framework: str, version: str, instance_type: str) -> None:
    from sagemaker.core import image_uris

    region = "ap-east-1"
    image = framework_images.framework_image(framework, version, gpu=".g" in instance_type)
    uri = f"{dict(image.accounts)[region]}.dkr.ecr.{region}.amazonaws.com/{image.repository}:{image.tag}"
    said = image_uris.retrieve(
        framework, region, version=version, instance_type=instance_type, image_scope="training"
    )
    # The SDK writes the short form of a version as it was given; both tags name one image.
    assert uri == said.replace(":2.10-", ":2.10.0-")
