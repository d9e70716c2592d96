"""Which instance types SageMaker offers for what, and what is said about the others."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from ml_contract.load import ContractError
from ml_lifecycle import instance_types
from ml_lifecycle.instance_types import Purpose
from model_support import parcels


@pytest.mark.parametrize(
    ("instance_type", "purpose"),
    [
        ("ml.m5.xlarge", "training"),
        ("ml.p4d.24xlarge", "training"),
        ("ml.trn1.2xlarge", "training"),
        ("ml.g5.xlarge", "processing"),
        ("ml.inf2.xlarge", "endpoint"),
        ("ml.c7g.large", "endpoint"),
        ("ml.g4dn.xlarge", "transform"),
    ],
)
def test_should_take_what_sagemaker_offers(instance_type: str, purpose: Purpose) -> None:
    assert instance_types.check(instance_type, purpose) == instance_type


@pytest.mark.parametrize(
    ("instance_type", "purpose", "said"),
    [
        (
            "ml.inf2.xlarge",
            "training",
            "is no instance type for training (it is one for endpoint and transform)",
        ),
        ("ml.c7g.large", "processing", "(it is one for endpoint)"),
        ("ml.p3dn.24xlarge", "endpoint", "(it is one for training)"),
        ("m5.large", "endpoint", "ml.m5.large"),
        ("ml.m5.huge", "training", "ml.m5.xlarge"),
        ("", "transform", "'' is no instance type for transform"),
    ],
)
def test_should_name_the_value_the_purpose_and_the_nearest(
    instance_type: str, purpose: Purpose, said: str
) -> None:
    with pytest.raises(ValueError, match="instance type") as error:
        instance_types.check(instance_type, purpose, where="workload.yaml:12: training.instance_type")
    text = str(error.value)
    assert text.startswith("workload.yaml:12: training.instance_type: ")
    assert said in text
    nearest = text.split("nearest are ")[1].split(";", maxsplit=1)[0].split(", ")
    assert nearest
    assert set(nearest) <= set(instance_types.allowed(purpose))


def test_should_suggest_an_accelerated_type_for_an_accelerated_one() -> None:
    with pytest.raises(ValueError, match="nearest") as error:
        instance_types.check("ml.inf2.xlarge", "training")
    nearest = str(error.value).split("nearest are ")[1].split(";")[0].split(", ")
    assert all(instance_types.accelerator(value) for value in nearest)


def test_should_refuse_an_unknown_purpose() -> None:
    with pytest.raises(
        ValueError, match="purpose must be one of training, processing, endpoint, transform, got 'edge'"
    ):
        instance_types.allowed("edge")  # type: ignore[arg-type]


def test_should_report_every_wrong_type_of_a_workload_at_its_line(tmp_path: Path) -> None:
    workload = parcels(
        tmp_path,
        "training:\n  instance_type: ml.inf2.xlarge\n  processing_instance_type: ml.m5.large\n"
        "serving:\n  instance_type: ml.p3dn.24xlarge\n",
    )
    with pytest.raises(ContractError) as error:
        instance_types.check_workload(workload)
    lines = Path(workload.path).read_text().splitlines()
    at = [(problem.path, lines[problem.line - 1].strip()) for problem in error.value.problems]
    assert at == [
        ("training.instance_type", "instance_type: ml.inf2.xlarge"),
        ("serving.instance_type", "instance_type: ml.p3dn.24xlarge"),
    ]


@pytest.mark.parametrize(
    ("instance_type", "accelerator", "architecture", "local_disk"),
    [
        ("ml.m5.large", None, "x86_64", False),
        ("ml.m5d.large", None, "x86_64", True),
        ("ml.c7g.large", None, "arm64", False),
        ("ml.m6gd.large", None, "arm64", True),
        ("ml.c7i-flex.large", None, "x86_64", False),
        ("ml.g4dn.xlarge", "gpu", "x86_64", True),
        ("ml.g6e.xlarge", "gpu", "x86_64", True),
        ("ml.p3.2xlarge", "gpu", "x86_64", False),
        ("ml.p4d.24xlarge", "gpu", "x86_64", True),
        ("ml.p6e-gb200.36xlarge", "gpu", "arm64", True),
        ("ml.inf2.xlarge", "inferentia", "x86_64", False),
        ("ml.trn1.2xlarge", "trainium", "x86_64", True),
        ("ml.dl1.24xlarge", "gaudi", "x86_64", True),
    ],
)
def test_should_know_what_an_instance_is_made_of(
    instance_type: str, accelerator: str | None, architecture: str, local_disk: bool
) -> None:
    assert instance_types.accelerator(instance_type) == accelerator
    assert instance_types.architecture(instance_type) == architecture
    assert instance_types.has_local_disk(instance_type) is local_disk


def test_should_know_every_type_that_sagemaker_offers() -> None:
    for purpose in get_args(Purpose):
        for value in instance_types.allowed(purpose):
            instance_types.accelerator(value)
            instance_types.architecture(value)
            instance_types.has_local_disk(value)


@pytest.mark.parametrize(
    ("instance_type", "efa"),
    [
        ("ml.p4d.24xlarge", True),
        ("ml.p5en.48xlarge", True),
        ("ml.trn1.32xlarge", True),
        ("ml.g5.48xlarge", True),
        ("ml.c5n.18xlarge", True),
        ("ml.g5.xlarge", False),
        ("ml.p3.16xlarge", False),
        ("ml.trn1.2xlarge", False),
        ("ml.m5.24xlarge", False),
    ],
)
def test_should_know_which_instances_reach_each_other_past_the_kernel(instance_type: str, efa: bool) -> None:
    assert instance_types.has_efa(instance_type) is efa


@pytest.mark.parametrize("algorithm", ["xgboost", "pytorch"])
def test_should_refuse_to_train_on_what_no_image_is_compiled_for(tmp_path: Path, algorithm: str) -> None:
    workload = parcels(tmp_path, f"training: {{algorithm: {algorithm}, instance_type: ml.trn1.2xlarge}}\n")
    with pytest.raises(
        ContractError, match=r"compiled for trainium, which no image of .* use algorithm: image"
    ):
        instance_types.check_workload(workload)


def test_should_take_an_own_image_for_trainium(tmp_path: Path) -> None:
    uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/neuron:1"
    workload = parcels(
        tmp_path,
        f"training: {{algorithm: image, image: {{uri: '{uri}'}}, instance_type: ml.trn1.2xlarge}}\n",
    )
    instance_types.check_workload(workload)
