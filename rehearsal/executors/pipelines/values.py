"""What the references inside a step mean while a pipeline runs: parameters, outputs of steps, conditions.

Pure: no AWS, no threads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["COMPARISONS", "ValueUnknownError", "Values", "evaluate_condition", "resolve"]

COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "Equals": lambda left, right: bool(left == right),
    "GreaterThan": lambda left, right: bool(left > right),
    "GreaterThanOrEqualTo": lambda left, right: bool(left >= right),
    "LessThan": lambda left, right: bool(left < right),
    "LessThanOrEqualTo": lambda left, right: bool(left <= right),
}


class ValueUnknownError(Exception):
    """A reference whose value the run did not produce."""


@dataclass(frozen=True, kw_only=True)
class Values:
    """What references are resolved against.

    `steps` maps a step to the answer of its Describe call; `property_file` reads a step's property file.
    """

    parameters: Mapping[str, Any]
    execution: Mapping[str, str]
    steps: Mapping[str, Mapping[str, Any]]
    property_file: Callable[[str, str], Any]


_PART = re.compile(r"(?P<name>[^.\[\]]+)|\[(?P<quote>['\"])(?P<key>.*?)(?P=quote)\]|\[(?P<index>\d+)\]")


def resolve(value: Any, values: Values) -> Any:
    """Replace every reference inside `value`.

    :raises ValueUnknownError: a reference that has no value; the message names it
    """
    if isinstance(value, dict):
        if set(value) == {"Get"}:
            return _get(value["Get"], values)
        if set(value) == {"Std:Join"}:
            join = value["Std:Join"]
            return str(join["On"]).join(_text(resolve(item, values)) for item in join["Values"])
        if set(value) == {"Std:JsonGet"}:
            return _json_get(value["Std:JsonGet"], values)
        return {key: resolve(item, values) for key, item in value.items()}
    if isinstance(value, list):
        return [resolve(item, values) for item in value]
    return value


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _get(path: str, values: Values) -> Any:
    head, _, rest = path.partition(".")
    if head == "Parameters":
        return values.parameters[rest]
    if head == "Execution":
        return values.execution[rest]
    step, _, tail = rest.partition(".")
    if step not in values.steps:
        raise ValueUnknownError(f"{path}: step {step} has not run")
    return _walk(values.steps[step], tail, path)


def _walk(value: Any, path: str, whole: str) -> Any:
    at = 0
    while at < len(path):
        if path[at] == ".":
            at += 1
            continue
        match = _PART.match(path, at)
        if match is None:
            raise ValueUnknownError(f"{whole}: {path[at:]!r} is not a path")
        at = match.end()
        value = _member(value, match, whole)
    return value


def _member(value: Any, match: re.Match[str], whole: str) -> Any:
    if match["index"] is not None:
        if not isinstance(value, list) or int(match["index"]) >= len(value):
            raise ValueUnknownError(f"{whole}: there is no item {match['index']}")
        return value[int(match["index"])]
    key = match["key"] if match["key"] is not None else match["name"]
    if isinstance(value, Mapping) and key in value:
        return value[key]
    if isinstance(value, list):
        # Lists of named things (channels, outputs) are addressed by the name of the thing.
        for item in value:
            if isinstance(item, Mapping) and key in (
                item.get("OutputName"),
                item.get("InputName"),
                item.get("ChannelName"),
                item.get("MetricName"),
            ):
                return item
    raise ValueUnknownError(f"{whole}: there is no {key}")


def _json_get(call: Mapping[str, Any], values: Values) -> Any:
    path = str(call["Path"])
    reference = call.get("PropertyFile")
    if not isinstance(reference, Mapping) or "Get" not in reference:
        raise ValueUnknownError(
            "Std:JsonGet without a PropertyFile cannot be read here; give the step a property file"
        )
    _, step, _, name = str(reference["Get"]).split(".", 3)
    return _walk(values.property_file(step, name), path.removeprefix("$").lstrip("."), f"{name} {path}")


def evaluate_condition(condition: Mapping[str, Any], values: Values) -> bool:
    """Whether one condition holds.

    :raises ValueUnknownError: one of its references has no value
    :raises TypeError: its two sides cannot be compared
    """
    type_name = condition["Type"]
    if type_name == "In":
        return resolve(condition["QueryValue"], values) in [
            resolve(item, values) for item in condition["Values"]
        ]
    if type_name == "Not":
        return not evaluate_condition(condition["Expression"], values)
    if type_name == "Or":
        return any(evaluate_condition(item, values) for item in condition["Conditions"])
    left, right = resolve(condition["LeftValue"], values), resolve(condition["RightValue"], values)
    numbers = isinstance(left, int | float) and isinstance(right, int | float)
    if type_name != "Equals" and not numbers and not (isinstance(left, str) and isinstance(right, str)):
        raise TypeError(f"{type_name} needs two numbers or two texts, got {left!r} and {right!r}")
    return COMPARISONS[type_name](left, right)
