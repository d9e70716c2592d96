"""Values of a template: intrinsic functions as text, what they refer to, which parts of two values differ."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["at", "differing", "flat", "is_intrinsic", "references", "same"]

_MISSING = object()
_IN_SUB = re.compile(r"\$\{(?!!)([^}]+)\}")


def is_intrinsic(value: Any) -> bool:
    """Whether a value is an intrinsic function."""
    if not isinstance(value, Mapping) or len(value) != 1:
        return False
    (key,) = value
    return bool(key == "Ref" or key.startswith("Fn::"))


def flat(value: Any) -> str:  # noqa: PLR0911 - one per function
    """A value as one text in which intrinsic functions stand as ``${Name}`` or ``${Name.Attribute}``."""
    if isinstance(value, str):
        return value
    if is_intrinsic(value):
        (key, argument), *_ = value.items()
        if key == "Ref":
            return f"${{{argument}}}"
        if key == "Fn::GetAtt":
            return f"${{{argument if isinstance(argument, str) else '.'.join(map(flat, argument))}}}"
        if key == "Fn::Join":
            return (
                flat(argument[0]).join(map(flat, argument[1]))
                if isinstance(argument[1], list)
                else _json(value)
            )
        if key == "Fn::Sub":
            return argument if isinstance(argument, str) else _json(value)
        if key == "Fn::ImportValue":
            return f"${{import {flat(argument)}}}"
    return _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def same(one: Any, other: Any) -> bool:
    """Whether two values of a template mean the same: CloudFormation takes numbers and truth as text."""
    return bool(_calm(one) == _calm(other))


def _calm(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _calm(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_calm(part) for part in value]
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def references(value: Any) -> Iterator[str]:
    """Logical ids (and pseudo parameters) that a value refers to."""
    if isinstance(value, Mapping):
        if is_intrinsic(value):
            (key, argument), *_ = value.items()
            if key == "Ref":
                yield str(argument)
                return
            if key == "Fn::GetAtt":
                yield str(argument).partition(".")[0] if isinstance(argument, str) else str(argument[0])
                return
            if key == "Fn::Sub":
                text = argument if isinstance(argument, str) else argument[0]
                yield from (name.partition(".")[0] for name in _IN_SUB.findall(str(text)))
        for part in value.values():
            yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


def at(value: Any, path: tuple[str, ...]) -> list[Any]:
    """The values at a path; ``*`` stands for every item. A value that is not there gives none."""
    if not path:
        return [value]
    head, rest = path[0], path[1:]
    if head == "*":
        items = (
            value if isinstance(value, list) else list(value.values()) if isinstance(value, Mapping) else []
        )
        return [found for item in items for found in at(item, rest)]
    if isinstance(value, Mapping) and head in value:
        return at(value[head], rest)
    return []


def differing(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Paths (``A.B.0``) of the innermost parts in which two values differ."""
    if same(before, after):
        return
    if (
        isinstance(before, Mapping)
        and isinstance(after, Mapping)
        and not (is_intrinsic(before) or is_intrinsic(after))
    ):
        for key in sorted({*before, *after}):
            yield from differing(
                before.get(key, _MISSING), after.get(key, _MISSING), f"{path}.{key}" if path else key
            )
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from differing(one, other, f"{path}.{number}" if path else str(number))
    else:
        yield path
