"""What the CloudFormation registry says of a resource type, as cfn-lint ships its schemas.

Found without importing cfn-lint: its import costs seconds, its data files cost nothing.
"""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["ResourceType", "resource_type"]

#: Region whose schemas are read; what replaces a resource does not depend on it.
_REGION = "us-east-1"

PropertyPath = tuple[str, ...]


class ResourceType:
    """The registry's schema of one resource type; ``*`` in a path stands for every item of a list."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.name: str = document["typeName"]
        self._document = document

    def _paths(self, key: str) -> tuple[PropertyPath, ...]:
        return tuple(
            tuple(part for part in path.removeprefix("/properties/").split("/") if part != "properties")
            for path in self._document.get(key, ())
        )

    @property
    def create_only(self) -> tuple[PropertyPath, ...]:
        """Properties whose change replaces the resource."""
        return self._paths("createOnlyProperties")

    @property
    def conditionally_create_only(self) -> tuple[PropertyPath, ...]:
        """Properties whose change replaces the resource in some cases, which the registry does not name."""
        return self._paths("conditionalCreateOnlyProperties")

    @property
    def given_identifier(self) -> tuple[PropertyPath, ...]:
        """Properties that identify the resource and that a template may give: its name."""
        read_only = set(self._paths("readOnlyProperties"))
        return tuple(path for path in self._paths("primaryIdentifier") if path not in read_only)


@functools.cache
def _folder() -> Path:
    found = importlib.util.find_spec("cfnlint")
    if found is None or found.origin is None:
        raise RuntimeError("cfn-lint is not installed; run 'make setup'")
    return Path(found.origin).parent / "data" / "schemas"


@functools.cache
def _index() -> dict[str, str]:
    path = _folder() / "providers" / f"{_REGION}.json"
    index: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return index


@functools.cache
def resource_type(name: str) -> ResourceType | None:
    """The schema of a type; None for what the registry does not describe (``Custom::...``)."""
    if name not in _index():
        return None
    path = _folder() / "resources" / f"{_index()[name]}.json"
    return ResourceType(json.loads(path.read_text(encoding="utf-8")))
