"""The CloudFormation registry's schemas, as cfn-lint ships them, and a check of properties against them.

A template's wrong property name, missing required property or impossible value fails the deploy before
anything is made, with the words CloudFormation uses. Values that only exist at deploy time (intrinsic
functions) are not judged before; the same check runs again on the resolved properties.
"""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from rehearsal.services.patterns import compiled

__all__ = ["Schema", "UnknownTypeError", "problems", "schema_of"]

#: Region whose schemas are read; the types of the rehearsal are the same everywhere.
_REGION = "us-east-1"
_UNRESOLVED = object()

Json: TypeAlias = Any


class UnknownTypeError(Exception):
    """A resource type that the registry does not have."""


class Schema:
    """The registry's schema of one resource type."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self.type: str = document["typeName"]
        self.properties: Mapping[str, Any] = document.get("properties", {})

    def _paths(self, key: str) -> tuple[tuple[str, ...], ...]:
        return tuple(
            tuple(part for part in path.removeprefix("/properties/").split("/") if part != "properties")
            for path in self.document.get(key, ())
        )

    @property
    def create_only(self) -> tuple[tuple[str, ...], ...]:
        """Paths of the properties whose change replaces the resource."""
        return self._paths("createOnlyProperties")

    @property
    def read_only(self) -> tuple[tuple[str, ...], ...]:
        """Paths of what only AWS sets: the attributes that ``Fn::GetAtt`` returns."""
        return self._paths("readOnlyProperties")

    @property
    def primary_identifier(self) -> tuple[tuple[str, ...], ...]:
        """Paths of what identifies the resource: what ``Ref`` returns."""
        return self._paths("primaryIdentifier")

    @property
    def tag_property(self) -> str | None:
        """The property that holds the resource's tags."""
        tagging = self.document.get("tagging", {})
        if not tagging.get("taggable", "Tags" in self.properties):
            return None
        return str(tagging.get("tagProperty", "/properties/Tags")).rpartition("/")[2]


@functools.cache
def _folder() -> Path:
    # Found without importing it: cfn-lint's import costs seconds, its data files cost nothing.
    spec = importlib.util.find_spec("cfnlint")
    if spec is None or spec.origin is None:
        raise RuntimeError("cfn-lint is not installed; run 'make setup'")
    return Path(spec.origin).parent / "data" / "schemas"


@functools.cache
def _index() -> dict[str, str]:
    path = _folder() / "providers" / f"{_REGION}.json"
    index: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return index


@functools.cache
def schema_of(resource_type: str) -> Schema:
    """Return the schema of a resource type.

    :raises UnknownTypeError: the registry has no such type
    """
    if resource_type not in _index():
        raise UnknownTypeError(f"Unrecognized resource types: [{resource_type}]")
    path = _folder() / "resources" / f"{_index()[resource_type]}.json"
    return Schema(json.loads(path.read_text(encoding="utf-8")))


def problems(resource_type: str, properties: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the properties of a resource, in CloudFormation's words.

    Intrinsic functions in the properties count as a value that fits.
    """
    schema = schema_of(resource_type)
    read_only = {path[0] for path in schema.read_only if len(path) == 1}
    settable = _settable(schema)
    given = [name for name in properties if name in read_only - settable and name not in ("Id",)]
    found = [f"#: extraneous key [{name}] is not permitted (read-only)" for name in given]
    return [*found, *_check(schema.document, schema.document, _known(dict(properties)), "#")]


def _settable(schema: Schema) -> frozenset[str]:
    """A few schemas list as read-only what may be given too (names that identify the resource)."""
    return frozenset(path[0] for path in (*schema.create_only, *schema.primary_identifier))


# -- the check ----------------------------------------------------------------------------------------------


def _is_intrinsic(value: Json) -> bool:
    if not isinstance(value, Mapping) or len(value) != 1:
        return False
    (key,) = value
    return bool(key == "Ref" or key.startswith("Fn::"))


def _known(value: Json) -> Json:
    """Replace intrinsic functions by a mark, drop what ``AWS::NoValue`` removes."""
    if _is_intrinsic(value):
        (key, argument), *_ = value.items()
        if key == "Ref" and argument == "AWS::NoValue":
            return None
        return _UNRESOLVED
    if isinstance(value, Mapping):
        parts = {key: _known(part) for key, part in value.items()}
        return {key: part for key, part in parts.items() if part is not None}
    if isinstance(value, list):
        parts_of_list = [_known(part) for part in value]
        return [part for part in parts_of_list if part is not None]
    return value


def _resolved(root: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        schema = target
    return schema


def _check(root: Mapping[str, Any], schema: Mapping[str, Any], value: Json, path: str) -> Iterator[str]:
    if value is _UNRESOLVED:
        return
    schema = _resolved(root, schema)
    kinds = schema.get("type")
    # The document itself is a resource, whose properties are an object.
    kind = _kind(value, [kinds] if isinstance(kinds, str) else kinds)
    if kind is None:
        yield f"{path}: expected type: {_named(kinds)}, found: {type(value).__name__}"
        return
    if kind == "object" and isinstance(value, Mapping):
        yield from _object(root, schema, value, path)
    elif kind == "array" and isinstance(value, list):
        yield from _array(root, schema, value, path)
    else:
        yield from _scalar(schema, value, path)
    yield from _combined(root, schema, value, path)


def _named(kinds: Json) -> str:
    return kinds if isinstance(kinds, str) else " or ".join(kinds)


def _kind(value: Json, kinds: Sequence[str] | None) -> str | None:  # noqa: PLR0911 - one per type
    """Return which of the allowed types a value has.

    CloudFormation takes numbers and booleans as text, and the other way round.
    """
    if kinds is None:
        return "object" if isinstance(value, Mapping) else "array" if isinstance(value, list) else "scalar"
    for kind in kinds:
        if kind == "object" and isinstance(value, Mapping):
            return kind
        if kind == "object" and isinstance(value, str) and value.lstrip().startswith("{"):
            # A JSON document given as text.
            return "scalar"
        if kind == "array" and isinstance(value, list):
            return kind
        if kind == "string" and isinstance(value, str | int | float | bool):
            return kind
        if kind == "boolean" and (isinstance(value, bool) or str(value).lower() in ("true", "false")):
            return kind
        if kind in ("integer", "number") and not isinstance(value, bool | Mapping | list):
            try:
                int(value) if kind == "integer" else float(value)
            except ValueError:
                continue
            return kind
    return None


def _object(
    root: Mapping[str, Any], schema: Mapping[str, Any], value: Mapping[str, Any], path: str
) -> Iterator[str]:
    properties = schema.get("properties", {})
    patterns = schema.get("patternProperties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{path}: required key [{name}] not found"
    for name, part in value.items():
        where = f"{path}/{name}"
        matching = [inner for pattern, inner in patterns.items() if compiled(pattern).search(name)]
        if name in properties:
            yield from _check(root, properties[name], part, where)
        elif matching:
            yield from _check(root, matching[0], part, where)
        elif schema.get("additionalProperties", True) is False:
            yield f"{path}: extraneous key [{name}] is not permitted"
        elif isinstance(schema.get("additionalProperties"), Mapping):
            yield from _check(root, schema["additionalProperties"], part, where)


def _array(root: Mapping[str, Any], schema: Mapping[str, Any], value: list[Any], path: str) -> Iterator[str]:
    unresolved = any(part is _UNRESOLVED for part in value)
    low, high = schema.get("minItems"), schema.get("maxItems")
    if low is not None and len(value) < low and not unresolved:
        yield f"{path}: expected minimum item count: {low}, found: {len(value)}"
    if high is not None and len(value) > high:
        yield f"{path}: expected maximum item count: {high}, found: {len(value)}"
    for index, part in enumerate(value):
        yield from _check(root, schema.get("items", {}), part, f"{path}/{index}")


def _scalar(schema: Mapping[str, Any], value: Json, path: str) -> Iterator[str]:
    text = _text_of(value)
    allowed = schema.get("enum")
    if allowed is not None and text not in {_text_of(item) for item in allowed}:
        yield f"{path}: {text} is not a valid enum value, allowed: [{', '.join(map(str, allowed))}]"
    folded = schema.get("enumCaseInsensitive")
    if folded is not None and text.lower() not in {str(item).lower() for item in folded}:
        yield f"{path}: {text} is not a valid enum value, allowed: [{', '.join(map(str, folded))}]"
    if schema.get("type") == "string":
        low, high = schema.get("minLength"), schema.get("maxLength")
        if low is not None and len(text) < low:
            yield f"{path}: expected minLength: {low}, actual: {len(text)}"
        if high is not None and len(text) > high:
            yield f"{path}: expected maxLength: {high}, actual: {len(text)}"
        pattern = schema.get("pattern")
        if pattern is not None and not compiled(pattern).search(text):
            yield f"{path}: failed validation constraint for keyword [pattern]: {text!r} against {pattern}"
    elif schema.get("type") in ("integer", "number"):
        low, high = schema.get("minimum"), schema.get("maximum")
        if low is not None and float(text) < low:
            yield f"{path}: {text} is not greater or equal to {low}"
        if high is not None and float(text) > high:
            yield f"{path}: {text} is not less or equal to {high}"


def _text_of(value: Json) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _combined(root: Mapping[str, Any], schema: Mapping[str, Any], value: Json, path: str) -> Iterator[str]:
    for inner in schema.get("allOf", ()):
        yield from _check(root, inner, value, path)
    for keyword in ("anyOf", "oneOf"):
        inners = schema.get(keyword)
        if inners:
            results = [list(_check(root, inner, value, path)) for inner in inners]
            if all(results):
                total = f"no subschema matched out of the total {len(inners)} subschemas"
                yield f"{path}: {total}: {min(results, key=len)[0]}"
    if isinstance(value, Mapping):
        exclusive = schema.get("requiredXor")
        if exclusive and sum(name in value for name in exclusive) != 1:
            yield f"{path}: exactly one of [{', '.join(exclusive)}] is required"
        for name, needed in schema.get("dependentRequired", {}).items():
            for other in needed:
                if name in value and other not in value:
                    yield f"{path}: required key [{other}] not found (needed by {name})"
        for name, excluded in schema.get("dependentExcluded", {}).items():
            for other in excluded:
                if name in value and other in value:
                    yield f"{path}: [{other}] cannot be given together with [{name}]"
