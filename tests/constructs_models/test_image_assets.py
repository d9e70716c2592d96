"""Images that SageMaker runs."""

from __future__ import annotations

import json
from pathlib import Path

import aws_cdk as cdk
import pytest
from aws_cdk import aws_ecr_assets as ecr_assets
from ml_lifecycle.images import sagemaker_image


def test_should_ask_for_dockers_own_manifests(tmp_path: Path) -> None:
    app = cdk.App(outdir=str(tmp_path))
    stack = cdk.Stack(app, "Images")
    sagemaker_image(stack, "Serving", image="serving", platform=ecr_assets.Platform.LINUX_ARM64)
    app.synth()
    found = json.loads((tmp_path / "Images.assets.json").read_text())["dockerImages"]
    [source] = [image["source"] for image in found.values()]
    assert (source["dockerOutputs"], source["platform"]) == (["type=docker"], "linux/arm64")


def test_should_refuse_an_image_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"containers must be one of .*serving.*, got 'nothing'"):
        sagemaker_image(cdk.Stack(), "X", image="nothing", platform=ecr_assets.Platform.LINUX_AMD64)
