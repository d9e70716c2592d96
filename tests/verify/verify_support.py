"""Small assemblies, written by hand: what a check has to catch and what it has to let pass."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verify.context import Context
from verify.finding import Finding
from verify.registry import every_check

Json = Any


@dataclass
class Mini:
    """An assembly of one stack in one stage, ``Dev/Main``, that is written when it is judged."""

    folder: Path
    resources: dict[str, Json] = field(default_factory=dict)
    outputs: dict[str, Json] = field(default_factory=dict)
    region: str = "unknown-region"
    assets: dict[str, str] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)

    def add(self, logical_id: str, kind: str, properties: Json = None, **rest: Json) -> None:
        """Add a resource; a later one of the same id takes its place."""
        self.resources[logical_id] = {"Type": kind, "Properties": properties or {}, **rest}

    def code(self, files: Mapping[str, str], *, image: bool = False) -> str:
        """Keep the code of a function or an image; returns the hash by which a template names it."""
        digest = hashlib.sha256(json.dumps(dict(files), sort_keys=True).encode()).hexdigest()
        folder = self.folder / f"asset.{digest}"
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (self.images if image else self.assets)[digest] = folder.name
        return digest

    def function(
        self,
        source: str,
        *,
        variables: Mapping[str, Json] | None = None,
        actions: tuple[str, ...] = (),
        logical_id: str = "Function",
    ) -> None:
        """Add a function of one module with its role and a policy."""
        digest = self.code({"work/__init__.py": "", "work/handler.py": source})
        self.role(f"{logical_id}Role", actions)
        self.add(
            logical_id,
            "AWS::Lambda::Function",
            {
                "Handler": "work.handler.handler",
                "Runtime": "python3.13",
                "Code": {"S3Bucket": "assets", "S3Key": f"{digest}.zip"},
                "Role": {"Fn::GetAtt": [f"{logical_id}Role", "Arn"]},
                **({"Environment": {"Variables": dict(variables)}} if variables is not None else {}),
            },
        )

    def role(self, logical_id: str, actions: tuple[str, ...] = ()) -> None:
        """Add a role, and a policy when it may do something."""
        self.add(logical_id, "AWS::IAM::Role", {"AssumeRolePolicyDocument": {"Statement": []}})
        if actions:
            self.add(
                f"{logical_id}Policy",
                "AWS::IAM::Policy",
                {
                    "PolicyName": f"{logical_id}Policy",
                    "Roles": [{"Ref": logical_id}],
                    "PolicyDocument": {
                        "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}]
                    },
                },
            )

    def write(self) -> Path:
        """Write the assembly and return its folder."""
        stage = self.folder / "assembly-Dev"
        stage.mkdir(parents=True, exist_ok=True)
        template = {"Resources": self.resources, "Outputs": self.outputs}
        (stage / "Main.template.json").write_text(json.dumps(template))
        (stage / "Main.assets.json").write_text(
            json.dumps(
                {
                    "files": {d: {"source": {"path": f"../{name}"}} for d, name in self.assets.items()},
                    "dockerImages": {
                        d: {"source": {"directory": f"../{name}"}} for d, name in self.images.items()
                    },
                }
            )
        )
        artifacts = {
            "Main.assets": {"type": "cdk:asset-manifest", "properties": {"file": "Main.assets.json"}},
            "Main": {
                "type": "aws:cloudformation:stack",
                "environment": f"aws://unknown-account/{self.region}",
                "properties": {"templateFile": "Main.template.json", "stackName": "Dev-Main"},
                "displayName": "Dev/Main (Dev-Main)",
            },
        }
        (stage / "manifest.json").write_text(json.dumps({"artifacts": artifacts}))
        top = {"type": "cdk:cloud-assembly", "properties": {"directoryName": "assembly-Dev"}}
        (self.folder / "manifest.json").write_text(json.dumps({"artifacts": {"assembly-Dev": top}}))
        return self.folder

    def context(self, release: Json = None) -> Context:
        """Write it and read it as the checks do."""
        context = Context.of(self.write())
        return Context(assembly=context.assembly, release=release)

    def found(self, check: str, release: Json = None) -> list[Finding]:
        """What one check finds."""
        (wanted,) = (item for item in every_check() if item.id == check)
        return list(wanted.run(self.context(release)))
