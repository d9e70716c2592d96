"""Cloud assemblies of a few resources, written by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TAG = "ml-lifecycle:workload"


def resource(kind: str, *, workload: str | None = None, **more: Any) -> dict[str, Any]:
    """A resource; ``more`` are its properties, those with a capital letter, and its attributes."""
    properties = {
        k: v for k, v in more.items() if k[0].isupper() and k not in ("DeletionPolicy", "Condition")
    }
    attributes = {k: v for k, v in more.items() if k not in properties}
    if workload is not None:
        properties["Tags"] = [{"Key": TAG, "Value": workload}]
    return {"Type": kind, "Properties": properties, **attributes}


def write(
    folder: Path, stacks: Mapping[str, Mapping[str, Any]], *, region: str = "unknown-region", **template: Any
) -> Path:
    """Write an assembly with one stage; ``stacks`` are resources by the stack's id (``Dev/Data``)."""
    inner = folder / "assembly"
    inner.mkdir(parents=True)
    artifacts = {}
    for name, resources in stacks.items():
        file = f"{name.replace('/', '')}.template.json"
        (inner / file).write_text(json.dumps({"Resources": resources, **template}))
        artifacts[name.replace("/", "")] = {
            "type": "aws:cloudformation:stack",
            "environment": f"aws://unknown-account/{region}",
            "displayName": f"{name} ({name.replace('/', '-')})",
            "properties": {"templateFile": file, "stackName": name.replace("/", "-")},
        }
    (inner / "manifest.json").write_text(json.dumps({"artifacts": artifacts}))
    outer = {"stage": {"type": "cdk:cloud-assembly", "properties": {"directoryName": "assembly"}}}
    (folder / "manifest.json").write_text(json.dumps({"artifacts": outer}))
    return folder
