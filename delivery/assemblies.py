"""Templates to compare: of a cloud assembly, or those that are deployed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["AssemblyError", "Stack", "deployed", "read_assembly", "write_assembly"]


class AssemblyError(Exception):
    """What was to be read is no cloud assembly, or an account does not give its templates."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """One stack: the id a user types (``Dev/Foundation``), its name, where it goes, its template.

    ``account`` and ``region`` are None where the assembly leaves them to the credentials.
    """

    id: str
    name: str
    account: str | None = None
    region: str | None = None
    template: Mapping[str, Any] = field(default_factory=dict)
    protected: bool = False

    @property
    def resources(self) -> Mapping[str, Mapping[str, Any]]:
        """The resources by logical id, without what only counts the CDK's users."""
        return {
            name: resource
            for name, resource in self.template.get("Resources", {}).items()
            if resource["Type"] != "AWS::CDK::Metadata"
        }


def read_assembly(folder: Path) -> tuple[Stack, ...]:
    """The stacks of a cloud assembly, those of nested stages too.

    Raises:
        AssemblyError: there is no ``manifest.json``.
    """
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        raise AssemblyError(f"{folder} is no cloud assembly (no manifest.json); run 'make synth' first")
    found: list[Stack] = []
    for key, artifact in json.loads(manifest.read_text(encoding="utf-8")).get("artifacts", {}).items():
        properties = artifact.get("properties", {})
        if artifact["type"] == "cdk:cloud-assembly":
            found += read_assembly(folder / properties["directoryName"])
        elif artifact["type"] == "aws:cloudformation:stack":
            account, _, region = artifact["environment"].partition("://")[2].partition("/")
            template = json.loads((folder / properties["templateFile"]).read_text(encoding="utf-8"))
            found.append(
                Stack(
                    # A stack in a stage is called "Dev/Foundation (Dev-Foundation)".
                    id=artifact.get("displayName", key).split(" ")[0],
                    name=properties.get("stackName", key),
                    account=None if account.startswith("unknown") else account,
                    region=None if region.startswith("unknown") else region,
                    template=template,
                    protected=bool(properties.get("terminationProtection", False)),
                )
            )
    return tuple(found)


def write_assembly(stacks: Sequence[Stack], folder: Path) -> None:
    """Write stacks as the cloud assembly that `read_assembly` reads, for tools that take a folder."""
    artifacts = {}
    for number, stack in enumerate(stacks):
        template = f"{number}.template.json"
        (folder / template).write_text(json.dumps(stack.template), encoding="utf-8")
        account, region = stack.account or "unknown-account", stack.region or "unknown-region"
        artifacts[f"stack-{number}"] = {
            "type": "aws:cloudformation:stack",
            "environment": f"aws://{account}/{region}",
            "displayName": stack.id,
            "properties": {
                "templateFile": template,
                "stackName": stack.name,
                "terminationProtection": stack.protected,
            },
        }
    (folder / "manifest.json").write_text(json.dumps({"artifacts": artifacts}), encoding="utf-8")


def deployed(stacks: Sequence[Stack], client: Callable[[Stack], Any]) -> tuple[Stack, ...]:
    """What is deployed now under the names of ``stacks``; a stack that is not there is left out.

    ``client`` gives a CloudFormation client of the stack's account and Region. Needs
    ``cloudformation:GetTemplate`` and ``cloudformation:DescribeStacks`` on the stacks.

    Raises:
        AssemblyError: an account refuses; what cannot be read must not pass for what is not there.
    """
    from botocore.exceptions import ClientError

    found = []
    for stack in stacks:
        try:
            api = client(stack)
            described = api.describe_stacks(StackName=stack.name)["Stacks"][0]
            if described["StackStatus"] in ("REVIEW_IN_PROGRESS", "DELETE_COMPLETE"):
                continue
            body = api.get_template(StackName=stack.name, TemplateStage="Original")["TemplateBody"]
        except ClientError as error:
            # DescribeStacks answers a name that is not there with a validation error of its own words.
            if "does not exist" in error.response["Error"].get("Message", ""):
                continue
            raise AssemblyError(f"{stack.id}: {error}") from error
        found.append(
            Stack(
                id=stack.id,
                name=stack.name,
                account=stack.account,
                region=stack.region,
                template=_parsed(body),
                protected=bool(described.get("EnableTerminationProtection", False)),
            )
        )
    return tuple(found)


def _parsed(body: Any) -> Mapping[str, Any]:
    """botocore parses a JSON template; one that somebody deployed as YAML comes as text."""
    if isinstance(body, Mapping):
        return body
    try:
        parsed: Mapping[str, Any] = json.loads(body)
    except ValueError as error:
        raise AssemblyError("a deployed template is no JSON; the CDK writes JSON") from error
    return parsed
