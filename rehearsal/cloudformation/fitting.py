"""Maps CloudFormation properties onto the parameters of an API operation.

Names differ in case only (``roleArn`` for ``RoleArn``), values in kind (``"60"`` for 60, a list of tags for
a map). What has no place among the parameters is an error: CloudFormation would refuse the property, and a
rehearsal that drops it would not find that out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

__all__ = ["PropertyError", "fitted"]

#: A shape of botocore's models. Its members depend on its ``type_name``, which types cannot follow.
Shape: TypeAlias = Any


class PropertyError(Exception):
    """A property that does not fit the operation's parameters."""


def fitted(shape: Shape, properties: Mapping[str, Any], operation: str) -> dict[str, Any]:
    """Return the parameters of ``operation`` (whose input shape is ``shape``) for resolved properties.

    :raises PropertyError: naming every property that has no parameter or cannot be one
    """
    problems: list[str] = []
    value = _fit(shape, properties, "", problems)
    if problems:
        raise PropertyError(f"{operation}: {'; '.join(problems)}")
    return dict(value)


def _fit(shape: Shape, value: Any, path: str, problems: list[str]) -> Any:
    kind = shape.type_name
    if kind == "structure":
        return _structure(shape, value, path, problems)
    if kind == "list":
        parts = value if isinstance(value, list) else [value]
        return [_fit(shape.member, part, f"{path}[{index}]", problems) for index, part in enumerate(parts)]
    if kind == "map":
        return _map(shape, value, path, problems)
    try:
        return _scalar(kind, value)
    except (TypeError, ValueError):
        problems.append(f"property {path or '/'} must be a {kind}, got {value!r}")
        return None


def _structure(shape: Shape, value: Any, path: str, problems: list[str]) -> dict[str, Any]:
    if isinstance(value, str):
        value = _parsed(value)
    if not isinstance(value, Mapping):
        problems.append(f"property {path or '/'} must be an object, got {value!r}")
        return {}
    members = {name.lower(): name for name in shape.members}
    out: dict[str, Any] = {}
    for name, part in value.items():
        member = name if name in shape.members else members.get(name.lower())
        where = f"{path}.{name}" if path else name
        if member is None:
            problems.append(f"property {where} is taken by no parameter")
        elif part is not None:
            out[member] = _fit(shape.members[member], part, where, problems)
    return out


def _map(shape: Shape, value: Any, path: str, problems: list[str]) -> dict[str, Any]:
    if isinstance(value, str):
        value = _parsed(value)
    if isinstance(value, list) and all(isinstance(part, Mapping) and "Key" in part for part in value):
        # Tags, which many APIs take as a map.
        value = {part["Key"]: part.get("Value", "") for part in value}
    if not isinstance(value, Mapping):
        problems.append(f"property {path or '/'} must be an object, got {value!r}")
        return {}
    return {str(key): _fit(shape.value, part, f"{path}.{key}", problems) for key, part in value.items()}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _scalar(kind: str, value: Any) -> Any:
    if kind == "boolean":
        text = str(value).lower()
        if text not in ("true", "false"):
            raise ValueError(text)
        return text == "true"
    if kind in ("integer", "long"):
        if isinstance(value, Mapping | list):
            raise TypeError(kind)
        return int(value)
    if kind in ("float", "double"):
        return float(value)
    if kind == "string":
        if isinstance(value, Mapping | list):
            # A JSON document that the API takes as text.
            return json.dumps(value)
        return str(value).lower() if isinstance(value, bool) else str(value)
    return value
