"""A cloud assembly, parsed once: stacks, resources, assets, and what a reference leads to."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

__all__ = ["Assembly", "AssemblyError", "Resource", "Stack", "walk"]

Json: TypeAlias = Any

#: The CDK's bootstrap gives assets these names: a hash of the content.
_ASSET = re.compile(r"[0-9a-f]{64}")
_SUB = re.compile(r"\$\{([^!}][^}]*)\}")


class AssemblyError(Exception):
    """The folder holds no assembly that can be read."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Resource:
    """One resource of one stack."""

    stack: Stack
    id: str
    type: str
    properties: Mapping[str, Json]
    raw: Mapping[str, Json]

    @property
    def place(self) -> str:
        """How a finding names it."""
        return f"{self.stack.id} {self.id}"

    @property
    def depends_on(self) -> tuple[str, ...]:
        """Logical ids of ``DependsOn``."""
        named = self.raw.get("DependsOn", ())
        return (named,) if isinstance(named, str) else tuple(named)


@dataclass(frozen=True, kw_only=True, eq=False)
class Stack:
    """One stack: its id in the app (``Dev/Foundation``), its CloudFormation name and its template."""

    id: str
    name: str
    region: str | None
    file: Path
    size: int
    template: Mapping[str, Json]
    resources: dict[str, Resource] = field(default_factory=dict)

    @property
    def stage(self) -> str:
        """The environment: ``Dev`` of ``Dev/Foundation``; the stack's own id outside a stage."""
        return self.id.partition("/")[0]


class Assembly:
    """Every stack below a folder such as ``cdk.out``.

    Raises:
        AssemblyError: the folder holds no manifest, or one that cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stacks: dict[str, Stack] = {}
        #: Folder or file of each asset by its hash, and whether it is an image.
        self.assets: dict[str, Path] = {}
        self._exports: dict[tuple[str, str], tuple[Stack, Json]] = {}
        if not (folder / "manifest.json").is_file():
            raise AssemblyError(f"{folder} holds no manifest.json; run 'make synth' first")
        try:
            self._read(folder)
        except (OSError, ValueError, KeyError) as error:
            raise AssemblyError(f"{folder} cannot be read: {error!r}; run 'make synth' again") from error
        if not self.stacks:
            raise AssemblyError(f"{folder} holds no stack; run 'make synth' again")

    def _read(self, folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        for key, artifact in manifest.get("artifacts", {}).items():
            properties = artifact.get("properties", {})
            if artifact["type"] == "cdk:cloud-assembly":
                self._read(folder / properties["directoryName"])
            elif artifact["type"] == "cdk:asset-manifest":
                self._read_assets(folder, folder / properties["file"])
            elif artifact["type"] == "aws:cloudformation:stack":
                self._add(key, artifact, folder / properties["templateFile"])

    def _read_assets(self, folder: Path, file: Path) -> None:
        document = json.loads(file.read_bytes())
        for digest, asset in document.get("files", {}).items():
            if "path" in asset["source"]:
                self.assets[digest] = (folder / asset["source"]["path"]).resolve()
        for digest, asset in document.get("dockerImages", {}).items():
            if "directory" in asset["source"]:
                self.assets[digest] = (folder / asset["source"]["directory"]).resolve()

    def _add(self, key: str, artifact: Mapping[str, Json], file: Path) -> None:
        content = file.read_bytes()
        template = json.loads(content)
        region = artifact.get("environment", "").rpartition("/")[2]
        properties = artifact["properties"]
        stack = Stack(
            # A stack in a stage is called "Dev/Foundation (Dev-Foundation)".
            id=artifact.get("displayName", key).split(" ")[0],
            name=properties.get("stackName", key),
            region=None if region in ("", "unknown-region") else region,
            file=file,
            size=len(content),
            template=template,
        )
        for logical_id, raw in template.get("Resources", {}).items():
            stack.resources[logical_id] = Resource(
                stack=stack, id=logical_id, type=raw["Type"], properties=raw.get("Properties", {}), raw=raw
            )
        self.stacks[stack.id] = stack
        for output in template.get("Outputs", {}).values():
            name = output.get("Export", {}).get("Name")
            if isinstance(name, str):
                self._exports[stack.stage, name] = (stack, output["Value"])

    def resources(self, *types: str) -> Iterator[Resource]:
        """Every resource of some types; of all types when none is named."""
        for stack in self.stacks.values():
            for resource in stack.resources.values():
                if not types or resource.type in types:
                    yield resource

    # -- references ---------------------------------------------------------------------------------------

    def follow(self, stack: Stack, value: Json) -> tuple[Stack, Json]:
        """What an ``Fn::ImportValue`` stands for in the stack that exports it; anything else as it is."""
        seen = 0
        while isinstance(value, Mapping) and isinstance(value.get("Fn::ImportValue"), str) and seen < 8:
            found = self._exports.get((stack.stage, value["Fn::ImportValue"]))
            if found is None:
                return stack, value
            stack, value = found
            seen += 1
        return stack, value

    def target(self, stack: Stack, value: Json) -> Resource | None:
        """The resource that a ``Ref``, ``Fn::GetAtt`` or import leads to."""
        stack, value = self.follow(stack, value)
        if not isinstance(value, Mapping) or len(value) != 1:
            return None
        if "Ref" in value:
            return stack.resources.get(value["Ref"])
        if "Fn::GetAtt" in value:
            attribute = value["Fn::GetAtt"]
            name = attribute.split(".")[0] if isinstance(attribute, str) else attribute[0]
            return stack.resources.get(name)
        return None

    def text(self, stack: Stack, value: Json) -> str:  # noqa: PLR0911 - one a kind of value
        """A value as text; what only a deployment knows as a mark, the same one wherever it is meant.

        ``${Dev/Foundation|Topic}`` is a ``Ref``, ``${Dev/Foundation|Topic.Arn}`` an attribute,
        ``${AWS::Region}`` a pseudo parameter.
        """
        stack, value = self.follow(stack, value)
        if isinstance(value, str):
            return value
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, Mapping) and len(value) == 1:
            (function, argument), *_ = value.items()
            match function:
                case "Ref":
                    return self._mark(stack, argument)
                case "Fn::GetAtt":
                    name = argument if isinstance(argument, str) else ".".join(map(str, argument))
                    return self._mark(stack, name)
                case "Fn::Join":
                    parts = argument[1]
                    if isinstance(parts, list):
                        return str(argument[0]).join(self.text(stack, part) for part in parts)
                case "Fn::Sub":
                    return self._sub(stack, argument)
                case _:
                    pass
            return "${" + json.dumps(value, sort_keys=True).replace("{", "(").replace("}", ")") + "}"
        if isinstance(value, Mapping | list):
            return json.dumps(value, sort_keys=True)
        return str(value)

    def plain(self, stack: Stack, value: Json) -> Json:
        """A value with every intrinsic function in it as text."""
        if isinstance(value, Mapping):
            if len(value) == 1 and (next(iter(value)) == "Ref" or next(iter(value)).startswith("Fn::")):
                return self.text(stack, value)
            return {key: self.plain(stack, part) for key, part in value.items()}
        if isinstance(value, list):
            return [self.plain(stack, part) for part in value]
        return value

    @staticmethod
    def _mark(stack: Stack, name: str) -> str:
        return "${" + (name if name.startswith("AWS::") else f"{stack.id}|{name}") + "}"

    def _sub(self, stack: Stack, argument: Json) -> str:
        template, values = (argument, {}) if isinstance(argument, str) else argument

        def one(match: re.Match[str]) -> str:
            name = match[1]
            return self.text(stack, values[name]) if name in values else self._mark(stack, name)

        return _SUB.sub(one, template).replace("${!", "${")

    # -- code ---------------------------------------------------------------------------------------------

    def asset_of(self, stack: Stack, value: Json) -> Path | None:
        """The folder or file whose asset a value names by its hash."""
        for digest in _ASSET.findall(self.text(stack, value)):
            if digest in self.assets:
                return self.assets[digest]
        return None


def walk(value: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """Every value inside plain data with its path, ``Targets/0/Arn``."""
    yield path, value
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from walk(part, f"{path}/{key}" if path else str(key))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from walk(part, f"{path}/{number}" if path else str(number))


@functools.cache
def hashed(text: str) -> bool:
    """Whether a name holds a digest: at least six hexadecimal digits with a figure among them."""
    return any(re.search("[0-9]", part) for part in re.findall(r"[0-9a-fA-F]{6,}", text))
