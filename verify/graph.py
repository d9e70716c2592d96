"""Which resource of a stack waits for which."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from verify.assembly import Resource, Stack

__all__ = ["waits_for"]

_SUB = re.compile(r"\$\{([^!}.]+)")


def _referred(value: Any) -> Iterator[str]:
    """Logical ids that a value names."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            if key == "Ref" and isinstance(part, str):
                yield part
            elif key == "Fn::GetAtt":
                yield part.split(".")[0] if isinstance(part, str) else str(part[0])
            elif key == "Fn::Sub":
                text = part if isinstance(part, str) else part[0]
                yield from _SUB.findall(text)
                if not isinstance(part, str):
                    yield from _referred(part[1])
            else:
                yield from _referred(part)
    elif isinstance(value, list):
        for part in value:
            yield from _referred(part)


@functools.cache
def _direct(stack: Stack) -> Mapping[str, frozenset[str]]:
    return {
        name: frozenset({*_referred(resource.properties), *resource.depends_on} & stack.resources.keys())
        for name, resource in stack.resources.items()
    }


@functools.cache
def waits_for(resource: Resource) -> frozenset[str]:
    """Logical ids of everything in its stack that is made before a resource, through however many others."""
    direct = _direct(resource.stack)
    seen: set[str] = set()
    todo = list(direct[resource.id])
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo.extend(direct[name])
    return frozenset(seen)
