"""A definition as the text that CloudFormation completes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aws_cdk as cdk

from ml_lifecycle.training import definition

__all__ = ["definition_body"]


def definition_body(program: Path, shape: definition.Shape, values: Mapping[str, Any], *, where: str) -> str:
    """Return the definition of ``program`` with ``values`` in it, tokens as variables of ``Fn::Sub``.

    Args:
        program: see ``definition.render``.
        shape: what it is given.
        values: by the names of ``definition.STAND_INS``.
        where: what an error names.

    Raises:
        ValueError: SageMaker would refuse a step, or the program used a part of a value.
    """
    rendered = definition.render(program, shape)
    variables, plain = _split(values)
    # Tokens keep their stand-ins here: those have the form that SageMaker asks for.
    known = definition.fill(rendered, plain)
    found = definition.problems(known)
    if found:
        raise ValueError(f"{where}: SageMaker would refuse the training pipeline:\n" + "\n".join(found))
    # Fn::Sub reads ${!x} as the text ${x}.
    literal = json.loads(json.dumps(known).replace("${", "${!"))
    named = definition.fill(literal, {name: _placeholders(name, value) for name, value in variables.items()})
    left = definition.left_over(named)
    if left:
        raise ValueError(
            f"{program} must pass on {', '.join(left)} as it is given; the definition holds a part of it"
        )
    body = json.dumps(named, sort_keys=True, separators=(",", ":"))
    return cdk.Fn.sub(body, dict(_pairs(variables)))


def _split(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part values that are known now from those that CloudFormation knows."""
    variables = {name: value for name, value in values.items() if _is_token(value)}
    return variables, {name: value for name, value in values.items() if name not in variables}


def _is_token(value: Any) -> bool:
    if isinstance(value, list):
        return any(_is_token(item) for item in value)
    if isinstance(value, dict):
        return any(_is_token(item) for item in value.values())
    # What Token.is_unresolved looks for in a text, without a call to the jsii kernel for each.
    return isinstance(value, str) and "${Token[" in value


def _variable(name: str) -> str:
    return "".join(part.title() for part in name.split("_"))


def _placeholders(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [f"${{{_variable(name)}{number}}}" for number in range(len(value))]
    if isinstance(value, dict):
        return {key: f"${{{_variable(name)}{number}}}" for number, key in enumerate(value)}
    return f"${{{_variable(name)}}}"


def _pairs(variables: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for name, value in variables.items():
        if isinstance(value, list):
            pairs += [(f"{_variable(name)}{number}", item) for number, item in enumerate(value)]
        elif isinstance(value, dict):
            pairs += [(f"{_variable(name)}{number}", item) for number, item in enumerate(value.values())]
        else:
            pairs.append((_variable(name), value))
    return pairs
