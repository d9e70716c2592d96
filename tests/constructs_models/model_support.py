"""A small workload that is not the worked example, and what the constructs of models need around them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_kms as kms
from cdk_support import Template, only
from ml_contract.load import LoadedWorkload, load_workload
from ml_lifecycle.data_lake import DataLake
from ml_lifecycle.registry import ModelRegistry
from ml_lifecycle.training import JobNetwork

RECORD = """
version: 1
name: parcel_delay
title: Parcels that arrive late
owner: logistics@example.com
record:
  identifier: parcel
  event_time: sent_at
  fields:
    parcel: {type: string, required: true, max_length: 40, sensitive: pii}
    sent_at: {type: timestamp, required: true}
    weight_kg: {type: number, minimum: 0, maximum: 70}
    carrier: {type: string, allowed: [north, south]}
    minutes_late: {type: number}
label: {task: regression, field: minutes_late}
acceptance: {metric: rmse, at_most: 30}
"""
#: Names that every construct is given here.
NAME = "test-parcel-delay"
PARAMETER = "/ml-lifecycle/test/parcel-delay/approved-model-package"


def parcels(folder: Path, blocks: str = "") -> LoadedWorkload:
    """Write the workload, with further ``blocks`` of YAML, below ``folder`` and load it."""
    path = folder / f"parcels-{abs(hash(blocks))}" / "parcel_delay"
    path.mkdir(parents=True, exist_ok=True)
    (path / "workload.yaml").write_text(RECORD + blocks)
    return load_workload(path)


class Around:
    """Lake, keys and network of one stack."""

    def __init__(self, stack: cdk.Stack) -> None:
        self.stack = stack
        self.lake = DataLake(stack, "Lake", database_prefix="t")
        self.data_key = kms.Key(stack, "DataKey")
        self.log_key = kms.Key(stack, "LogKey")
        self.message_key = kms.Key(stack, "MessageKey")

    def network(self) -> JobNetwork:
        vpc = ec2.Vpc(self.stack, "Vpc", availability_zones=["us-east-1a"], nat_gateways=0)
        return JobNetwork(
            subnets=tuple(vpc.isolated_subnets or vpc.public_subnets),
            security_groups=(ec2.SecurityGroup(self.stack, "Group", vpc=vpc),),
        )

    def registry(self, workload: LoadedWorkload, **options: Any) -> ModelRegistry:
        return ModelRegistry(
            self.stack,
            "Registry",
            workload=workload,
            group_name=NAME,
            approval_parameter_name=PARAMETER,
            serving_stack_name="Test-ParcelDelayServing",
            artifacts=self.lake.artifacts,
            message_key=self.message_key,
            log_key=self.log_key,
            **options,
        )


def pipeline_definition(template: Template) -> dict[str, Any]:
    """The pipeline's definition with every CloudFormation variable as ``${Name}``."""
    text, _ = only(template, "AWS::SageMaker::Pipeline")["PipelineDefinition"]["PipelineDefinitionBody"][
        "Fn::Sub"
    ]
    definition: dict[str, Any] = json.loads(text)
    return definition


def step(definition: dict[str, Any], name: str) -> dict[str, Any]:
    """A step by its name, those below a condition included."""
    steps = list(definition["Steps"])
    while steps:
        found: dict[str, Any] = steps.pop()
        if found["Name"] == name:
            return found
        if found["Type"] == "Condition":
            steps += [*found["Arguments"]["IfSteps"], *found["Arguments"]["ElseSteps"]]
    raise AssertionError(f"no step {name}")


def flat(node: Any) -> str:
    """Write a template's value as one text: references as ``<Id>`` or ``<Id.Attribute>``."""
    if isinstance(node, str):
        return node
    if isinstance(node, list):
        return ",".join(flat(item) for item in node)
    [(name, value)] = node.items()
    if name == "Fn::Join":
        return str(value[0]).join(flat(part) for part in value[1])
    if name == "Fn::GetAtt":
        return f"<{value[0]}.{value[1]}>"
    if name == "Fn::Sub":
        return str(value)
    return f"<{value if isinstance(value, str) else flat(value)}>"


def granted(found: list[Template]) -> set[tuple[str, str]]:
    """Every pair of an allowed action and a resource, references written as text."""
    pairs = set()
    for statement in found:
        if statement["Effect"] != "Allow":
            continue
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        resources = (
            statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        )
        pairs |= {(action, flat(resource)) for action in actions for resource in resources}
    return pairs
