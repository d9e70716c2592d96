"""Hive's type names, as the Glue Data Catalog has them, as Arrow types."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["arrow_type", "fitted"]


@functools.cache
def arrow_type(text: str) -> Any:
    """Return the Arrow type of ``array<struct<code:string>>``."""
    found, rest = _parse(text.replace(" ", "").lower())
    if rest:
        raise ValueError(f"{text!r} is no Hive type: {rest!r} is left over")
    return found


def _parse(text: str) -> tuple[Any, str]:
    import pyarrow as pa

    match = re.match(r"[a-z_0-9]+", text)
    if match is None:
        raise ValueError(f"{text!r} is no Hive type")
    name, rest = match.group(), text[match.end() :]
    if name == "array":
        inner, rest = _parse(rest[1:])
        return pa.list_(inner), rest[1:]
    if name == "map":
        key, rest = _parse(rest[1:])
        value, rest = _parse(rest[1:])
        return pa.map_(key, value), rest[1:]
    if name == "struct":
        fields = []
        while rest[0] in "<,":
            field, _, rest = rest[1:].partition(":")
            inner, rest = _parse(rest)
            fields.append((field, inner))
        return pa.struct(fields), rest[1:]
    if name in ("decimal", "varchar", "char"):
        arguments, rest = _arguments(rest)
        return (pa.decimal128(*arguments) if name == "decimal" else pa.string()), rest
    plain = {
        "string": pa.string(),
        "bigint": pa.int64(),
        "int": pa.int32(),
        "integer": pa.int32(),
        "smallint": pa.int16(),
        "tinyint": pa.int8(),
        "double": pa.float64(),
        "float": pa.float32(),
        "boolean": pa.bool_(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us"),
        "timestamptz": pa.timestamp("us", tz="UTC"),
        "binary": pa.binary(),
    }
    if name not in plain:
        raise ValueError(f"{name!r} is no Hive type that the rehearsal knows: {', '.join(sorted(plain))}")
    return plain[name], rest


def _arguments(rest: str) -> tuple[list[int], str]:
    match = re.match(r"\(([\d,]+)\)", rest)
    if match is None:
        return [], rest
    return [int(number) for number in match.group(1).split(",")], rest[match.end() :]


def fitted(value: Any, kind: Any) -> Any:
    """Return a JSON value as the type's Python value; what should be a text becomes one."""
    import pyarrow as pa

    if value is None:
        return None
    if pa.types.is_string(kind):
        return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    if pa.types.is_struct(kind):
        lowered = {key.lower(): part for key, part in value.items()} if isinstance(value, Mapping) else {}
        fields = [kind.field(number) for number in range(kind.num_fields)]
        return {field.name: fitted(lowered.get(field.name), field.type) for field in fields}
    if pa.types.is_list(kind):
        return [fitted(part, kind.value_type) for part in value]
    return value
