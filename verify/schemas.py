"""What CloudFormation's registry says of a resource type, as cfn-lint ships it."""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["Schema", "schema_of", "types_of"]

#: Region whose schemas are read where a stack names none.
DEFAULT_REGION = "us-east-1"


class Schema:
    """The registry's schema of one resource type; property names are those at the top."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self.properties: frozenset[str] = frozenset(document.get("properties", {}))

    def _paths(self, key: str) -> tuple[tuple[str, ...], ...]:
        return tuple(
            tuple(part for part in path.removeprefix("/properties/").split("/") if part != "properties")
            for path in self.document.get(key, ())
        )

    @functools.cached_property
    def create_only(self) -> tuple[tuple[str, ...], ...]:
        """Paths of what only a replacement changes; tags where the service cannot change them."""
        paths = self._paths("createOnlyProperties")
        tagging = self.document.get("tagging", {})
        if tagging.get("taggable") and tagging.get("tagUpdatable") is False:
            paths += ((self.tag_property,),)
        return paths

    @functools.cached_property
    def read_only(self) -> tuple[tuple[str, ...], ...]:
        """Paths of what only AWS sets."""
        return self._paths("readOnlyProperties")

    @functools.cached_property
    def name_property(self) -> str | None:
        """The property by which the service knows the resource, when a template may set it.

        Mostly it is the identifier; where that is an ARN or an id, a create-only property called after the
        type, as ``EndpointConfigName``.
        """
        paths = self._paths("primaryIdentifier")
        if len(paths) != 1 or len(paths[0]) != 1:
            # Unique inside something else only, as a stream of a log group is.
            return None
        if paths[0] not in self.read_only:
            return paths[0][0]
        kind = self.document["typeName"].rpartition("::")[2]
        fixed = {path[0] for path in self.create_only if len(path) == 1}
        return next((name for name in (f"{kind}Name", "Name") if name in fixed), None)

    @property
    def tag_property(self) -> str:
        """The property that holds the tags."""
        return str(self.document.get("tagging", {}).get("tagProperty", "/properties/Tags")).rpartition("/")[2]

    @functools.cached_property
    def immutable(self) -> bool:
        """Whether an update can change nothing but tags."""
        fixed = {path[0] for path in (*self.create_only, *self.read_only) if len(path) == 1}
        return not self.properties - fixed - {self.tag_property}


@functools.cache
def _folder() -> Path:
    # Found without importing it: cfn-lint's import costs seconds, its data files cost nothing.
    spec = importlib.util.find_spec("cfnlint")
    if spec is None or spec.origin is None:
        raise RuntimeError("cfn-lint is not installed; run 'make setup'")
    return Path(spec.origin).parent / "data" / "schemas"


@functools.cache
def types_of(region: str = DEFAULT_REGION) -> Mapping[str, str] | None:
    """File of each resource type that CloudFormation has in a region; None for a region nobody knows."""
    path = _folder() / "providers" / f"{region}.json"
    if not path.is_file():
        return None
    index: dict[str, str] = json.loads(path.read_bytes())
    return index


@functools.cache
def schema_of(resource_type: str) -> Schema | None:
    """Return the schema of a type; None for custom resources and types that the registry does not know."""
    file = (types_of() or {}).get(resource_type)
    if file is None:
        return None
    return Schema(json.loads((_folder() / "resources" / f"{file}.json").read_bytes()))
