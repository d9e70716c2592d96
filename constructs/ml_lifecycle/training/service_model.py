"""SageMaker's own request shapes, as data.

``service_model.json`` is cut from botocore's description of SageMaker (``python -m
ml_lifecycle.training.service_model`` writes it anew; a test compares it with the botocore that is installed).
Reading it takes about a millisecond, needs neither botocore nor the SageMaker SDK, and gives every machine
the same answer.

``problems`` checks more than botocore's own validator: enums, patterns and lengths too, since what no client
refuses the service refuses an hour into a deployment.
"""

from __future__ import annotations

import functools
import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["enum", "problems"]

_FILE = Path(__file__).with_name("service_model.json")
#: What the constructs ask of SageMaker, directly or through CloudFormation.
_OPERATIONS = (
    "CreateCluster",
    "CreateDataQualityJobDefinition",
    "CreateEndpoint",
    "CreateEndpointConfig",
    "CreateInferenceRecommendationsJob",
    "CreateHyperParameterTuningJob",
    "CreateLabelingJob",
    "CreateModel",
    "CreateModelBiasJobDefinition",
    "CreateModelExplainabilityJobDefinition",
    "CreateModelPackage",
    "CreateModelQualityJobDefinition",
    "CreateMonitoringSchedule",
    "CreatePipeline",
    "CreateProcessingJob",
    "CreateTrainingJob",
    "CreateTransformJob",
)
#: A pipeline's expressions: a value that is known only while it runs.
_EXPRESSIONS = frozenset({"Get", "Std:Join", "Std:JsonGet"})
_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "boolean": (bool,),
    "structure": (dict,),
    "map": (dict,),
    "list": (list,),
    "timestamp": (str, int, float),
}


@functools.cache
def _model() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(_FILE.read_text())
    return data


def enum(shape: str) -> tuple[str, ...]:
    """Values that SageMaker takes for an enumeration, e.g. ``TrainingInstanceType``, in its own order."""
    return tuple(_model()["shapes"][shape]["enum"])


def problems(
    operation: str, arguments: Mapping[str, Any], *, given: frozenset[str] = frozenset()
) -> list[str]:
    """Return what SageMaker would refuse in a request, one line each, empty when nothing.

    Args:
        operation: API operation, e.g. ``CreateTrainingJob``.
        arguments: the request; a pipeline's expression counts as a value of the right type.
        given: required members that somebody else fills in, e.g. the job name that Pipelines makes up.
    """
    shape = _model()["operations"][operation]
    return [f"{operation}.{line}" for line in _check(shape, dict(arguments), "", given)]


def _check(shape_name: str, value: Any, path: str, given: frozenset[str]) -> Iterator[str]:
    shape = _model()["shapes"][shape_name]
    kind = shape["type"]
    if isinstance(value, dict) and len(value) == 1 and next(iter(value)) in _EXPRESSIONS:
        if kind in ("structure", "map", "list"):
            yield f"{path}: a {kind} cannot be an expression, got {value!r}"
        return
    fits = isinstance(value, _KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool))
    if not fits:
        yield f"{path}: must be {'an' if kind[0] in 'aeiou' else 'a'} {kind}, got {value!r}"
        return
    if kind == "structure":
        yield from _check_structure(shape, value, path, given)
    elif kind == "map":
        yield from _check_length(shape, len(value), path, "entries")
        for key, item in value.items():
            yield from _check(shape["key"], key, f"{path}[{key!r}]", given)
            yield from _check(shape["value"], item, f"{path}[{key!r}]", given)
    elif kind == "list":
        yield from _check_length(shape, len(value), path, "items")
        for number, item in enumerate(value):
            yield from _check(shape["member"], item, f"{path}[{number}]", given)
    elif kind == "string":
        yield from _check_text(shape, value, path)
    elif kind in ("integer", "long", "float", "double"):
        low, high = shape.get("min", -math.inf), shape.get("max", math.inf)
        if not low <= value <= high:
            bounds = f"at least {low}" if high == math.inf else f"between {low} and {high}"
            yield f"{path}: must be {bounds}, got {value}"


def _check_structure(
    shape: dict[str, Any], value: dict[str, Any], path: str, given: frozenset[str]
) -> Iterator[str]:
    dot = f"{path}." if path else ""
    members = shape["members"]
    for name in sorted(set(shape.get("required", ())) - set(value) - (given if not path else frozenset())):
        yield f"{dot}{name}: is required"
    for name, item in value.items():
        if name not in members:
            yield f"{dot}{name}: is no parameter; known are {', '.join(sorted(members))}"
        else:
            yield from _check(members[name], item, f"{dot}{name}", given)


def _check_length(shape: dict[str, Any], length: int, path: str, noun: str) -> Iterator[str]:
    low, high = shape.get("min", 0), shape.get("max", math.inf)
    if not low <= length <= high:
        bounds = f"at least {low}" if high == math.inf else f"between {low} and {high}"
        yield f"{path}: must have {bounds} {noun}, got {length}"


def _check_text(shape: dict[str, Any], value: str, path: str) -> Iterator[str]:
    yield from _check_length(shape, len(value), path, "characters")
    if "enum" in shape and value not in shape["enum"]:
        yield f"{path}: got {value!r}; SageMaker takes {', '.join(shape['enum'])}"
    if "pattern" in shape and not re.fullmatch(shape["pattern"], value):
        yield f"{path}: got {value!r}; must match {shape['pattern']}"


def extract(service: Mapping[str, Any]) -> dict[str, Any]:
    """Cut the request shapes of ``_OPERATIONS`` out of botocore's ``service-2.json``."""
    shapes: dict[str, Any] = {}
    operations = {name: service["operations"][name]["input"]["shape"] for name in _OPERATIONS}
    todo = list(operations.values())
    while todo:
        name = todo.pop()
        if name in shapes:
            continue
        full = service["shapes"][name]
        cut = {key: full[key] for key in ("type", "required", "min", "max", "enum") if key in full}
        if "pattern" in full:
            pattern = _portable(full["pattern"])
            cut |= {"pattern": pattern} if pattern is not None else {"java_pattern": full["pattern"]}
        if "members" in full:
            cut["members"] = {member: ref["shape"] for member, ref in full["members"].items()}
        cut |= {key: full[key]["shape"] for key in ("member", "key", "value") if key in full}
        shapes[name] = cut
        todo += [*cut.get("members", {}).values(), *(cut[k] for k in ("member", "key", "value") if k in cut)]
    return {
        "api": service["metadata"]["apiVersion"],
        "operations": operations,
        "shapes": dict(sorted(shapes.items())),
    }


def _portable(pattern: str) -> str | None:
    """Return a pattern that Python reads; ``None`` for one that only Java does (Unicode classes, ``\\u``
    ranges).
    """
    try:
        with warnings.catch_warnings(action="error"):
            re.compile(pattern)
    except (re.error, FutureWarning):
        return None
    return pattern


def main() -> None:
    """Write ``service_model.json`` from the botocore that is installed."""
    import botocore.loaders

    service = botocore.loaders.Loader().load_service_model("sagemaker", "service-2")
    cut = extract(service)
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(shape)}" for name, shape in cut["shapes"].items())
    head = json.dumps({"api": cut["api"], "operations": cut["operations"]}, indent=1)[:-2]
    _FILE.write_text(f'{head},\n "shapes": {{\n{lines}\n}}}}\n')


if __name__ == "__main__":
    main()
