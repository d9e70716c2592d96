"""The approved model as a component of AWS IoT Greengrass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from cdk_nag import AwsSolutionsChecks
from cdk_support import Template, cdk_context, only, resources, statements
from ml_contract.load import ContractError
from ml_lifecycle.edge import EdgeComponent
from ml_lifecycle.serving.approved import approved_model
from model_support import NAME, PARAMETER, Around, parcels


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """One component; cdk-nag has passed when it is there."""
    folder = tmp_path_factory.mktemp("edge")
    app = cdk.App(context=cdk_context(), outdir=str(folder / "out"))
    stack = cdk.Stack(app, "Edge")
    around = Around(stack)
    component = EdgeComponent(
        stack,
        "Edge",
        workload=parcels(folder, "serving: {edge: {architecture: amd64, port: 9000}}\n"),
        component_name="test.parcel-delay",
        approved=approved_model(stack, PARAMETER),
        model_package_group_name=NAME,
        artifacts=around.lake.artifacts,
        log_key=around.log_key,
    )
    component.grant_device(
        iam.Role(stack, "Device", assumed_by=iam.ServicePrincipal("credentials.iot.amazonaws.com"))
    )
    for key in ("DataKey", "LogKey", "MessageKey"):
        cdk.Validations.of(stack.node.find_child(key)).acknowledge(
            cdk.Acknowledgment(id="AwsSolutions::AwsSolutions-KMS5", reason="Stands around the test")
        )
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    app.synth()
    found: Template = json.loads((folder / "out" / "Edge.template.json").read_text())
    return found


def recipe(template: Template) -> dict[str, Any]:
    """Return the recipe; what only a deploy knows is written as <>."""
    _, parts = only(template, "AWS::GreengrassV2::ComponentVersion")["InlineRecipe"]["Fn::Join"]
    found: dict[str, Any] = json.loads("".join(part if isinstance(part, str) else "<>" for part in parts))
    return found


def test_should_run_the_endpoints_own_program_on_the_device(template: Template) -> None:
    found = recipe(template)
    assert found["ComponentName"] == "test.parcel-delay"
    assert found["ComponentVersion"].startswith("1.0.")
    [manifest] = found["Manifests"]
    assert manifest["Platform"] == {"os": "linux", "architecture": "amd64"}
    assert found["ComponentConfiguration"]["DefaultConfiguration"] == {"port": 9000}
    run = manifest["Lifecycle"]["run"]
    assert run["Script"].endswith("-m ml_serving serve")
    # Nobody but the device itself may ask it.
    assert run["Setenv"]["SERVING_HOST"] == "127.0.0.1"
    assert run["Setenv"]["MODEL_DATA_URL"].startswith("file://{artifacts:path}/")
    assert [artifact.get("Unarchive") for artifact in manifest["Artifacts"]] == [None, "ZIP"]


def test_should_keep_every_version_and_have_none_before_an_approval(template: Template) -> None:
    [component] = resources(template, "AWS::GreengrassV2::ComponentVersion").values()
    assert (component["DeletionPolicy"], component["UpdateReplacePolicy"]) == ("Retain", "Retain")
    assert "IsApproved" in component["Condition"]


def test_should_let_a_device_read_its_component_and_nothing_else(template: Template) -> None:
    actions = {
        action
        for statement in statements(template, "Device")
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    }
    assert {"greengrass:GetComponent", "greengrass:GetComponentVersionArtifact"} <= actions
    assert not {a for a in actions if a.startswith(("s3:Put", "s3:Delete", "greengrass:Create"))}


def test_should_ask_for_the_block(tmp_path: Path) -> None:
    stack = cdk.Stack(cdk.App(context=cdk_context()), "None")
    around = Around(stack)
    with pytest.raises(ValueError, match=r"parcel_delay has no serving\.edge"):
        EdgeComponent(
            stack,
            "Edge",
            workload=parcels(tmp_path),
            component_name="x",
            approved=approved_model(stack, PARAMETER),
            model_package_group_name=NAME,
            artifacts=around.lake.artifacts,
            log_key=around.log_key,
        )


def test_should_refuse_a_processor_that_has_no_runtime(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="architecture"):
        parcels(tmp_path, "serving: {edge: {architecture: armv7l}}\n")
