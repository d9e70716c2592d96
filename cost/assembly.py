"""Stacks and resources of a cloud assembly, with intrinsic functions as readable text."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

__all__ = ["AssemblyError", "Resource", "Stack", "read_stacks", "text"]

#: The tag that says whose a resource is, as the stacks set it.
WORKLOAD_TAG = "ml-lifecycle:workload"


class AssemblyError(Exception):
    """There is no cloud assembly, or none with what was asked for; the text says how to make one."""


@dataclass(frozen=True, kw_only=True)
class Resource:
    """One resource of a template. ``condition`` is the name of its condition, if it has one."""

    id: str
    type: str
    properties: Mapping[str, Any]
    condition: str | None = None
    deletion_policy: str = "Delete"

    def text(self, *path: str) -> str | None:
        """The property at ``path`` as text; ``None`` where it is not there."""
        value: Any = self.properties
        for name in path:
            if not isinstance(value, Mapping) or name not in value:
                return None
            value = value[name]
        return text(value)

    @property
    def retained(self) -> bool:
        """Whether it stays when its stack is deleted: by its policy, or because its function keeps it."""
        kept = self.properties.get("OnDelete") == "keep"
        return kept or self.deletion_policy in ("Retain", "RetainExceptOnCreate")


@dataclass(frozen=True, kw_only=True)
class Stack:
    """One stack. ``id`` is what a user types (``Dev/DataLake``); ``region`` is None where none is said."""

    id: str
    name: str
    region: str | None
    template: Mapping[str, Any]
    #: Whether CloudFormation refuses to delete it.
    protected: bool = False

    @property
    def stage(self) -> str | None:
        """Id of its stage; ``None`` for a stack of the app itself."""
        stage, slash, _ = self.id.partition("/")
        return stage if slash else None

    @cached_property
    def resources(self) -> dict[str, Resource]:
        """Its resources by logical id, without the CDK's metadata."""
        return {
            key: Resource(
                id=key,
                type=found["Type"],
                properties=found.get("Properties", {}),
                condition=found.get("Condition"),
                deletion_policy=found.get("DeletionPolicy", "Delete"),
            )
            for key, found in self.template.get("Resources", {}).items()
            if found["Type"] != "AWS::CDK::Metadata"
        }

    @cached_property
    def workload(self) -> str | None:
        """The workload whose tag most of its resources carry; ``None`` for what all workloads share."""
        found = Counter(name for r in self.resources.values() if (name := _tag(r, WORKLOAD_TAG)) is not None)
        return found.most_common(1)[0][0] if found else None

    def of_type(self, kind: str) -> Iterator[Resource]:
        """Its resources of one type."""
        return (r for r in self.resources.values() if r.type == kind)

    def refers(self, value: str) -> list[Resource]:
        """Resources whose logical ids stand in a text that `text` made."""
        ids = re.findall(r"\$\{([A-Za-z0-9]+)[.}]", value)
        return [self.resources[key] for key in dict.fromkeys(ids) if key in self.resources]

    def asks_for_challenger(self, condition: str | None) -> bool:
        """Whether a condition holds only while a challenger is tried."""
        return condition is not None and "hallenger" in self._said(condition)

    def waits(self, condition: str) -> bool:
        """Whether a condition depends on a parameter in SSM: nothing is approved at first."""
        said = self._said(condition)
        return any(
            f'"{name}"' in said
            for name, parameter in self.template.get("Parameters", {}).items()
            if str(parameter.get("Type", "")).startswith("AWS::SSM::Parameter::Value")
            and name != "BootstrapVersion"
        )

    def when(self, value: Any) -> str | None:
        """The condition of a value that is there under one only (``Fn::If``)."""
        if isinstance(value, Mapping) and "Fn::If" in value:
            return str(value["Fn::If"][0])
        return None

    def _said(self, condition: str) -> str:
        """A condition and those that it names, as JSON."""
        known = self.template.get("Conditions", {})
        said = json.dumps(known.get(condition))
        named = re.findall(r'\{"Condition": "(\w+)"\}', said)
        return said + "".join(self._said(name) for name in named)


def _tag(resource: Resource, key: str) -> str | None:
    tags = resource.properties.get("Tags")
    if isinstance(tags, Mapping):
        found = tags.get(key)
        return found if isinstance(found, str) else None
    if isinstance(tags, list):
        for tag in tags:
            if isinstance(tag, Mapping) and tag.get("Key") == key and isinstance(tag.get("Value"), str):
                return str(tag["Value"])
    return None


def text(value: Any) -> str:  # noqa: PLR0911 - one answer per function
    """A value with its intrinsic functions as text: ``{"Ref": "Queue"}`` is ``${Queue}``."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) and len(value) == 1:
        name, inner = next(iter(value.items()))
        if name == "Ref":
            return f"${{{inner}}}"
        if name == "Fn::GetAtt":
            return f"${{{'.'.join(inner) if isinstance(inner, list) else inner}}}"
        if name == "Fn::Join":
            return str(inner[0]).join(text(part) for part in inner[1])
        if name == "Fn::Sub":
            if isinstance(inner, str):
                return inner
            template, variables = inner
            return re.sub(
                r"\$\{(\w+)\}",
                lambda m: text(variables[m[1]]) if m[1] in variables else m[0],
                text(template),
            )
    return json.dumps(value)


def read_stacks(assembly: Path) -> tuple[Stack, ...]:
    """Return the stacks of a cloud assembly, those of its stages too.

    Raises:
        AssemblyError: the folder is no cloud assembly.
    """
    manifest = assembly / "manifest.json"
    if not manifest.is_file():
        raise AssemblyError(f"{assembly} is no cloud assembly (no manifest.json); run 'make synth' first")
    found: list[Stack] = []
    for key, artifact in json.loads(manifest.read_text(encoding="utf-8")).get("artifacts", {}).items():
        properties = artifact.get("properties", {})
        if artifact["type"] == "cdk:cloud-assembly":
            found += read_stacks(assembly / properties["directoryName"])
        elif artifact["type"] == "aws:cloudformation:stack":
            region = artifact["environment"].rpartition("/")[2]
            template = (assembly / properties["templateFile"]).read_text(encoding="utf-8")
            found.append(
                Stack(
                    # A stack in a stage is called "Dev/Foundation (Dev-Foundation)".
                    id=artifact.get("displayName", key).split(" ")[0],
                    name=properties.get("stackName", key),
                    region=None if region.startswith("unknown") else region,
                    template=json.loads(template),
                    protected=bool(properties.get("terminationProtection", False)),
                )
            )
    return tuple(found)
