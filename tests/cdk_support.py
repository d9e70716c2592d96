"""Helpers of tests that synthesise: assemblies, templates, policies."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aws_cdk as cdk

ROOT = Path(__file__).resolve().parent.parent

Template = dict[str, Any]


@dataclass(frozen=True)
class Assembly:
    """A cloud assembly on disk."""

    folder: Path

    def files(self) -> dict[str, bytes]:
        """Every file by its path."""
        return {
            p.relative_to(self.folder).as_posix(): p.read_bytes()
            for p in sorted(self.folder.rglob("*"))
            if p.is_file()
        }

    def stacks(self) -> dict[str, Path]:
        """Template file of every stack by its display name, ``Dev/Foundation``."""
        found: dict[str, Path] = {}
        for manifest in sorted(self.folder.rglob("manifest.json")):
            for artifact in json.loads(manifest.read_text()).get("artifacts", {}).values():
                if artifact["type"] == "aws:cloudformation:stack":
                    name = artifact.get("displayName", artifact["properties"].get("stackName"))
                    # A name with a hash in parentheses is an explicit stack name beside the path.
                    found[name.split(" ")[0]] = manifest.parent / artifact["properties"]["templateFile"]
        return found

    def template(self, name: str) -> Template:
        """Template of one stack."""
        template: Template = json.loads(self.stacks()[name].read_text())
        return template

    def templates(self) -> dict[str, Template]:
        """Every template by the display name of its stack."""
        return {name: self.template(name) for name in self.stacks()}


def cdk_context() -> dict[str, Any]:
    """The context that the CDK CLI would pass from ``cdk.json``."""
    context: dict[str, Any] = json.loads((ROOT / "cdk.json").read_text())["context"]
    return context


@contextmanager
def offline() -> Iterator[None]:
    """Neither credentials nor sockets; jsii speaks over pipes."""
    import pytest_socket

    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("AWS_")}
    pytest_socket.disable_socket()
    try:
        yield
    finally:
        pytest_socket.enable_socket()
        os.environ.update(hidden)


def synthesise_app(folder: Path, *, prepare: Callable[[cdk.App], None] | None = None) -> Assembly:
    """Synthesise the whole app as the CDK CLI would, sockets off and without credentials."""
    import aws_cdk as cdk

    import app

    with offline():
        built = app.build(cdk.App(context=cdk_context(), outdir=str(folder)))
        if prepare is not None:
            prepare(built)
        built.synth()
    return Assembly(folder)


Builder = Callable[["cdk.Stack"], object]


def synthesise_stacks(folder: Path, builders: dict[str, Builder]) -> dict[str, Template]:
    """Build many small stacks in one app and give their templates by name."""
    import aws_cdk as cdk

    app = cdk.App(context=cdk_context(), outdir=str(folder))
    for name, build in builders.items():
        build(cdk.Stack(app, name))
    written = Path(app.synth().directory)
    return {name: json.loads((written / f"{name}.template.json").read_text()) for name in builders}


def normalised(template: Template) -> Template:
    """Hide what changes with the content of deployed code: asset hashes, and the order that hangs on them."""

    def calm(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: calm(child, name) for name, child in value.items()}
        if isinstance(value, list):
            items = [calm(child) for child in value]
            # The CDK sorts the resources of merged statements by their text.
            return sorted(items, key=json.dumps) if key == "Resource" else items
        return re.sub(r"[0-9a-f]{64}", "<hash>", value) if isinstance(value, str) else value

    result: Template = calm(template)
    return result


def resources(template: Template, kind: str) -> dict[str, Template]:
    """Resources of one type by logical id."""
    return {name: r for name, r in template["Resources"].items() if r["Type"] == kind}


def only(template: Template, kind: str) -> Template:
    """Properties of the only resource of a type."""
    found = resources(template, kind)
    assert len(found) == 1, f"{kind}: {sorted(found)}"
    properties: Template = next(iter(found.values()))["Properties"]
    return properties


def statements(template: Template, role: str) -> list[Template]:
    """Statements of the default policy of the role whose logical id starts with ``role``."""
    found = [
        statement
        for policy in resources(template, "AWS::IAM::Policy").values()
        if policy["Properties"]["Roles"][0].get("Ref", "").startswith(role)
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
    ]
    assert found, f"no policy of {role}: {sorted(template['Resources'])}"
    return found


def actions(found: list[Template]) -> set[str]:
    """Every action that the statements allow."""
    return {
        action
        for statement in found
        if statement["Effect"] == "Allow"
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    }
