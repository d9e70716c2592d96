"""Hyperparameters: SageMaker hands every one over as a text; here they become typed and checked."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ml_contract.algorithms.values import Choice, Number, Value
from ml_runtime.job import BadInputError

#: What is about the job and not about what learns, by name; every training image takes these. What a
#: workload's ``training`` block says under the same name gives way to them.
JOB_PARAMETERS: dict[str, Value] = {
    "checkpoint_every_minutes": Number(0, above_minimum=True),
    "checkpoint_every_rounds": Number(1, whole=True),
    "distribution": Choice(("data_parallel", "fully_sharded")),
    "k_folds": Number(2, 20, whole=True),
    "processes_per_instance": Number(1, 64, whole=True),
}


def read_values(
    given: Mapping[str, object], allowed: Mapping[str, Value], *, aliases: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return typed values under their first names.

    Args:
        given: texts, as SageMaker hands them over; names that begin with ``_`` are its own and passed over
            (a tuning job adds ``_tuning_objective_metric``).
        allowed: what each may be.
        aliases: second names.

    Raises:
        BadInputError: naming everything that is wrong.
    """
    others = {} if aliases is None else aliases
    problems: list[str] = []
    values: dict[str, Any] = {}
    seen: dict[str, str] = {}
    for original, value in given.items():
        if original.startswith("_"):
            continue
        name = others.get(original, original)
        if name in seen:
            problems.append(f"{original} and {seen[name]} are the same parameter; give one")
            continue
        seen[name] = original
        if name not in allowed:
            problems.append(f"{original} is no hyperparameter{_guess(original, [*allowed, *others])}")
            continue
        text = _text(value)
        try:
            values[name] = allowed[name].read(text)
        except ValueError as error:
            problems.append(f"{original} {error}, got {text!r}")
    if problems:
        raise BadInputError("hyperparameters: " + "; ".join(problems))
    return values


def read_all(
    given: Mapping[str, object],
    allowed: Mapping[str, Value],
    aliases: Mapping[str, str],
    *,
    refused: Sequence[str] = (),
) -> dict[str, Any]:
    """Return an algorithm's values; the job's own are checked too and left out.

    Args:
        given: as above.
        allowed: what the algorithm takes.
        aliases: second names.
        refused: job parameters that mean nothing to the algorithm.

    Raises:
        BadInputError: naming everything that is wrong.
    """
    job = {name: value for name, value in JOB_PARAMETERS.items() if name not in refused}
    values = read_values(given, {**job, **allowed}, aliases=aliases)
    return {name: value for name, value in values.items() if name not in JOB_PARAMETERS}


def job_values(given: Mapping[str, object]) -> dict[str, Any]:
    """Return the job's own values among the given. Raises BadInputError naming what is wrong with them."""
    own = {name: value for name, value in given.items() if name in JOB_PARAMETERS}
    return read_values(own, JOB_PARAMETERS)


def _text(value: object) -> str:
    # The SageMaker SDK encodes each value as JSON, other callers do not: '4' and '"4"' are the same.
    text = str(value).strip()
    if text[:1] == '"':
        try:
            return str(json.loads(text))
        except json.JSONDecodeError:
            return text
    return text


def _guess(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(known))}"
