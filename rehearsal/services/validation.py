"""Checks parameters against a shape of botocore's models, as the services themselves do.

botocore's own validator knows types, required and unknown members; the services also refuse values outside
an enum, a pattern, a length or a range. All problems of one call are reported at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from botocore.validate import ParamValidator

from rehearsal.services.patterns import compiled

__all__ = ["problems"]

#: A shape of botocore's models. Its members depend on its ``type_name``, which types cannot follow.
Shape: TypeAlias = Any

_VALIDATOR = ParamValidator()


def problems(shape: Shape | None, params: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with ``params`` for the input shape of an operation; empty when nothing is."""
    if shape is None:
        return [f"Unknown parameter in input: {name!r}; the operation takes none" for name in params]
    report = _VALIDATOR.validate(dict(params), shape)
    found = [line for line in report.generate_report().splitlines() if line]
    if found:
        return found
    return list(_constraints(shape, params, ""))


def _constraints(shape: Shape, value: Any, path: str) -> Iterator[str]:
    kind = shape.type_name
    if kind == "structure":
        members: Mapping[str, Shape] = shape.members
        for name, part in value.items():
            if part is not None:
                yield from _constraints(members[name], part, f"{path}.{name}" if path else name)
    elif kind == "list":
        yield from _size(shape, len(value), "length", value, path)
        for index, part in enumerate(value):
            yield from _constraints(shape.member, part, f"{path}.{index + 1}.member")
    elif kind == "map":
        yield from _size(shape, len(value), "length", value, path)
        for name, part in value.items():
            yield from _constraints(shape.key, name, f"{path} key")
            yield from _constraints(shape.value, part, f"{path}.{name}")
    elif kind == "string":
        yield from _text(shape, value, path)
    elif kind in ("integer", "long", "float", "double"):
        yield from _size(shape, value, "value", value, path)
    elif kind == "blob" and isinstance(value, str | bytes | bytearray):
        yield from _size(shape, len(value), "length", f"<{len(value)} bytes>", path)


def _failed(value: Any, path: str, must: str) -> str:
    shown = str(value)
    shown = shown if len(shown) <= 200 else shown[:200] + "..."
    return f"Value '{shown}' at '{path}' failed to satisfy constraint: {must}"


def _size(shape: Shape, size: float, what: str, value: Any, path: str) -> Iterator[str]:
    limits = shape.metadata
    low, high = limits.get("min"), limits.get("max")
    if low is not None and size < low:
        yield _failed(value, path, f"Member must have {what} greater than or equal to {low}")
    if high is not None and size > high:
        yield _failed(value, path, f"Member must have {what} less than or equal to {high}")


def _text(shape: Shape, value: str, path: str) -> Iterator[str]:
    limits = shape.metadata
    allowed = limits.get("enum")
    if allowed and value not in allowed:
        yield _failed(value, path, f"Member must satisfy enum value set: [{', '.join(allowed)}]")
    yield from _size(shape, len(value), "length", value, path)
    pattern = limits.get("pattern")
    # Smithy's patterns match anywhere unless they are anchored; botocore's models of services written for the
    # older framework mean the whole value, and are the ones without anchors.
    if pattern is not None and not compiled(pattern).fullmatch(value):
        yield _failed(value, path, f"Member must satisfy regular expression pattern: {pattern}")
