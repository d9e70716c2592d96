"""Botocore's service models: operations, shapes, and what is wrong with parameters."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import botocore.loaders
from botocore import xform_name
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StringShape, StructureShape

__all__ = ["UNKNOWN", "Problem", "Reading", "operation_named", "problems", "service_model", "services"]

_LOADER = botocore.loaders.Loader()
#: Stands for a value that only a run knows.
UNKNOWN = object()
_LONGEST = 80


@functools.cache
def services() -> frozenset[str]:
    """Names of all services, as boto3 takes them."""
    return frozenset(_LOADER.list_available_services("service-2"))


@functools.cache
def service_model(name: str) -> ServiceModel | None:
    """The model of a service; None where there is none of that name."""
    if name not in services():
        return None
    return ServiceModel(_LOADER.load_service_model(name, "service-2"), name)


@functools.cache
def _operations(service: str) -> Mapping[str, str]:
    """Operation by its name in lower case and by boto3's method."""
    model = service_model(service)
    if model is None:
        return {}
    names = model.operation_names
    return {name.lower(): name for name in names} | {xform_name(name): name for name in names}


def operation_named(service: str, name: str) -> str | None:
    """The operation of a service that ``startPipelineExecution`` or ``start_pipeline_execution`` means."""
    known = _operations(service)
    return known.get(name) or known.get(name.lower())


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong with parameters."""

    path: str
    value: str
    allowed: str


#: Turns what a format writes for "only a run knows" into ``UNKNOWN``.
Known = Callable[[Any], Any]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a format writes parameters.

    Args:
        known: called with every value; what it returns is judged, ``UNKNOWN`` never is.
        any_case: whether the first letter of a key may be a capital where the API's is not, as Step
            Functions and EventBridge Scheduler write them.
        given: required members at the top that the service fills in itself.
    """

    known: Known = lambda value: value
    any_case: bool = False
    given: frozenset[str] = frozenset()


def problems(shape: Shape | None, value: Any, reading: Reading, path: str = "") -> Iterator[Problem]:
    """Yield what an API would refuse of parameters.

    Args:
        shape: what the API takes; None takes nothing.
        value: plain data. A key that ends in ``.$`` has a value that only a run knows.
        reading: how the format writes parameters.
        path: where the value stands.
    """
    value = reading.known(value)
    if value is UNKNOWN:
        return
    if shape is None:
        if value:
            yield Problem(path=path, value=f"{sorted(value)!r}", allowed="no parameters")
    elif isinstance(shape, StructureShape):
        yield from _structure(shape, value, reading, path)
    elif isinstance(shape, ListShape):
        if not isinstance(value, list):
            yield Problem(path=path, value=_shown(value), allowed="a list")
            return
        yield from _sized(shape, len(value), path, "elements")
        for number, part in enumerate(value):
            yield from problems(shape.member, part, reading, f"{path}/{number}")
    elif isinstance(shape, MapShape):
        if not isinstance(value, Mapping):
            yield Problem(path=path, value=_shown(value), allowed="a mapping")
            return
        yield from _sized(shape, len(value), path, "entries")
        for key, part in value.items():
            if not str(key).endswith(".$"):
                yield from problems(shape.value, part, reading, f"{path}/{key}")
    else:
        yield from _scalar(shape, value, path)


def _structure(shape: StructureShape, value: Any, reading: Reading, path: str) -> Iterator[Problem]:
    if shape.is_document_type:
        return
    names = ", ".join(sorted(shape.members))
    if not isinstance(value, Mapping):
        yield Problem(path=path, value=_shown(value), allowed=f"a structure of {names}")
        return
    members: dict[str, str] = {name: name for name in shape.members}
    if reading.any_case:
        members |= {name[:1].upper() + name[1:]: name for name in shape.members}
    found = set()
    for key, part in value.items():
        plain = str(key).removesuffix(".$")
        name = members.get(plain)
        here = f"{path}/{plain}" if path else plain
        if name is None:
            yield Problem(path=here, value=f"{plain} is no parameter", allowed=names)
            continue
        found.add(name)
        if not str(key).endswith(".$"):
            inside = Reading(known=reading.known, any_case=reading.any_case)
            yield from problems(shape.members[name], part, inside, here)
    for name in shape.required_members:
        # AWS's SDKs, and the services that call for us through them, draw idempotency tokens themselves.
        drawn = shape.members[name].metadata.get("idempotencyToken", False)
        if name not in found and name not in reading.given and not drawn:
            here = f"{path}/{name}" if path else name
            yield Problem(path=here, value=f"{name} is missing", allowed=f"{name} is required")


def _sized(shape: Shape, size: int, path: str, unit: str) -> Iterator[Problem]:
    yield from _bounded(shape, size, path, f"{size} {unit}")


def _bounded(shape: Shape, value: float, path: str, shown: str) -> Iterator[Problem]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and value < least:
        yield Problem(path=path, value=shown, allowed=f"at least {least}")
    if most is not None and value > most:
        yield Problem(path=path, value=shown, allowed=f"at most {most}")


def _scalar(shape: Shape, value: Any, path: str) -> Iterator[Problem]:
    kinds: tuple[type, ...]
    match shape.type_name:
        case "string" | "character":
            kinds, allowed = (str,), "a text"
        case "integer" | "long":
            kinds, allowed = (int,), "a whole number"
        case "float" | "double":
            kinds, allowed = (int, float), "a number"
        case "boolean":
            kinds, allowed = (bool,), "true or false"
        case _:
            return
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        # A mark inside a number's text is a number once it is deployed.
        if not (isinstance(value, str) and "${" in value):
            yield Problem(path=path, value=_shown(value), allowed=allowed)
    elif isinstance(value, str):
        yield from _text(shape, value, path)
    elif not isinstance(value, bool):
        yield from _bounded(shape, value, path, str(value))


def _text(shape: Shape, value: str, path: str) -> Iterator[Problem]:
    if "${" in value or "<aws.scheduler." in value:
        return
    if isinstance(shape, StringShape) and shape.enum:
        if value not in shape.enum:
            yield Problem(path=path, value=_shown(value), allowed=", ".join(shape.enum))
        return
    yield from _sized(shape, len(value), path, "characters")
    pattern = shape.metadata.get("pattern")
    compiled = None if pattern is None else _compiled(pattern)
    if compiled is not None and not compiled.search(value):
        yield Problem(path=path, value=_shown(value), allowed=f"a text of {pattern}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str] | None:
    """A pattern of a model, which are Java's, anchored as the services do; None where Python has no such."""
    replaced = (
        pattern.replace(r"\p{L}", "a-zA-Z\u00c0-\uffff")
        .replace(r"\p{Z}", r"\s")
        .replace(r"\p{N}", "0-9")
        .replace(r"\p{Alnum}", "a-zA-Z0-9")
    )
    try:
        return re.compile(rf"^(?:{replaced})$")
    except re.error:
        return None
