"""Reading a ``workload.yaml`` and the ``features.py`` beside it.

Every problem is found in one pass and reported as ``file:line: path: got value; allowed; fix``. Nothing
that a person can write into these two files ends in a stack trace.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from ml_contract.checks.batching import batch_problems
from ml_contract.checks.workload import Checks, field_features
from ml_contract.compiled import Column, CompiledContract, Feature, FitSpec, LabelSpec, Window, WindowSpec
from ml_contract.evolution.feature_lock import GroupVersion, group_versions, lock_problems
from ml_contract.evolution.record import lock_problems as record_problems
from ml_contract.expressions import Expr, col, type_of
from ml_contract.problems import ContractError, Lines, Problem, join, nearest, split
from ml_contract.reading.findings import findings, without_wrong_values
from ml_contract.reading.yaml_lines import Source, read_yaml
from ml_contract.spec.features import (
    BinFeature,
    DatePartFeature,
    DaysBetweenFeature,
    DerivedFeature,
    PythonFeature,
    RatioFeature,
)
from ml_contract.spec.preparation import QuantileBinFeature
from ml_contract.spec.record import RegressionLabel, class_text
from ml_contract.spec.workload import Workload

__all__ = ["ContractError", "LoadedWorkload", "Problem", "discover_workloads", "load_workload"]

YAML_NAME: Final = "workload.yaml"
PYTHON_NAME: Final = "features.py"
#: Rounds of leaving wrong values out: a block that lacks a key is left out in the round after.
REPAIRS: Final = 4
#: What a model card says of the workload.
_ABOUT: Final = ("title", "owner", "classification", "registry")


@dataclass(frozen=True)
class LoadedWorkload:
    """A workload that is right in itself, and where it came from."""

    workload: Workload
    path: Path
    expressions: dict[str, Expr]
    _lines: Lines

    @property
    def name(self) -> str:
        """Name of the workload."""
        return self.workload.name

    def line_of(self, path: str) -> int:
        """Line of e.g. ``training.instance_type``; the enclosing block's when it is left to its default."""
        return nearest(self._lines, split(path))

    def problem(self, path: str, message: str) -> Problem:
        """A problem that somebody else found with this workload, at its line."""
        return Problem(str(self.path), self.line_of(path), path, message)

    @cached_property
    def compiled(self) -> CompiledContract:
        """What runtime code reads."""
        return _compile(self.workload, self.expressions)

    @property
    def feature_groups(self) -> tuple[tuple[GroupVersion, ...], int]:
        """The versions of the feature group, oldest first, and the number of the one that readers use."""
        return group_versions(self.path.parent, self.compiled, self.workload.features.store)


def load_workload(path: Path, *, locked: bool = True) -> LoadedWorkload:
    """Read a workload from its folder or its YAML file. Raises ContractError listing every problem.

    ``locked`` also holds it against its lock files, ``features.lock.json`` and ``record.lock.json``.
    """
    yaml_path = path / YAML_NAME if path.is_dir() else path
    source = read_yaml(yaml_path)
    problems = list(source.problems)
    workload, found = _validated(source, yaml_path)
    unread = {p.path for p in problems}
    problems += [p for p in found if p.path not in unread]
    expressions: dict[str, Expr] = {}
    if workload is not None:
        checks = Checks(workload, yaml_path, source.lines)
        expressions = checks.all(yaml_path.parent / PYTHON_NAME)
        problems += checks.problems
        if not problems:
            for place, message in batch_problems(workload, _compile(workload, expressions)):
                problems.append(Problem(str(yaml_path), nearest(source.lines, place), join(place), message))
    if problems or workload is None:
        raise ContractError(problems)
    loaded = LoadedWorkload(workload, yaml_path, expressions, source.lines)
    if locked:
        problems += lock_problems(yaml_path.parent, loaded.compiled, workload.features.store)
        problems += record_problems(loaded)
        if problems:
            raise ContractError(problems)
    return loaded


def _validated(source: Source, file: Path) -> tuple[Workload | None, list[Problem]]:
    """The typed workload and what is wrong in single blocks.

    Where something is wrong outside the record and the label, the wrong values are left out and the rest is
    typed nevertheless: so that the checks between blocks speak up in the same pass.
    """
    problems: list[Problem] = []
    data = source.data
    for _ in range(REPAIRS):
        try:
            return Workload.model_validate_json(json.dumps(data)), problems
        except ValidationError as error:
            if not problems:
                problems = findings(error, data, source.lines, str(file))
            repaired = without_wrong_values(error, data)
            if repaired is None:
                break
            data = repaired
    return None, problems


def discover_workloads(root: Path) -> tuple[LoadedWorkload, ...]:
    """Every folder below ``root`` with a ``workload.yaml``, by name. Problems of all of them at once."""
    found: list[LoadedWorkload] = []
    problems: list[Problem] = []
    if not root.is_dir():
        raise ContractError(
            [Problem(str(root), 1, "", "no such folder; workloads live in one folder each below it")]
        )
    for yaml_path in sorted(root.glob(f"*/{YAML_NAME}")):
        try:
            found.append(load_workload(yaml_path))
        except ContractError as error:
            problems += error.problems
    names: dict[str, LoadedWorkload] = {}
    for loaded in found:
        if loaded.name in names:
            problems.append(
                loaded.problem(
                    "name", f"got {loaded.name!r}, which {names[loaded.name].path} has too; rename one"
                )
            )
        names[loaded.name] = loaded
    ids: dict[str, str] = {}
    for loaded in found:
        other = ids.setdefault(loaded.workload.id, loaded.name)
        if other != loaded.name:
            problems.append(
                loaded.problem(
                    "name",
                    f"got {loaded.name!r}, whose id {loaded.workload.id} {other!r} has too; rename one",
                )
            )
    if problems:
        raise ContractError(problems)
    return tuple(names[name] for name in sorted(names))


def _compile(workload: Workload, expressions: Mapping[str, Expr]) -> CompiledContract:
    columns = tuple(
        Column(
            name=name,
            source=field.source if field.source is not None else name,
            type=field.type,
            required=field.required,
            minimum=field.minimum,
            maximum=field.maximum,
            allowed=field.allowed,
            pattern=field.pattern,
            max_length=field.max_length,
            missing=field.missing,
            format=field.format,
            sensitive=field.sensitive,
        )
        for name, field in workload.record.fields.items()
    )
    label = workload.label
    values = None if isinstance(label, RegressionLabel) else tuple(class_text(v) for v in label.values)
    features = [
        Feature(
            name=name,
            type="category" if workload.record.fields[name].type == "string" else "number",
            expression=col(name),
        )
        for name in field_features(workload)
    ]
    windows = _windows(workload)
    types = {c.name: c.type for c in columns}
    if windows is not None:
        types |= dict.fromkeys((w.name for w in windows.windows), "number")
    for name, derived in workload.features.derive.items():
        expression = expressions[name] if isinstance(derived, PythonFeature) else _declared(derived)
        kind = type_of(expression, types)
        features.append(
            Feature(name=name, type="category" if kind == "string" else "number", expression=expression)
        )
    if windows is not None:
        features += [Feature(name=w.name, type="number", expression=col(w.name)) for w in windows.windows]
    data = workload.json_dict()
    return CompiledContract(
        name=workload.name,
        identifier=workload.record.identifier,
        event_time=workload.record.event_time,
        late_after_days=workload.record.late_after_days,
        columns=columns,
        label=LabelSpec(task=label.task, field=label.field, values=values),
        features=tuple(features),
        fit=FitSpec(
            impute_numbers=workload.features.impute_numbers,
            max_categories=workload.features.max_categories,
            minimum_category_count=workload.features.minimum_category_count,
            impute=data["features"]["impute"],
            outliers=data["features"]["outliers"],
            encode=data["features"]["encode"],
            scale=workload.features.scale,
            scale_fields=data["features"]["scale_fields"],
            bins={
                name: derived.bins
                for name, derived in workload.features.derive.items()
                if isinstance(derived, QuantileBinFeature)
            },
        ),
        decision_threshold=workload.serving.decision_threshold,
        split=data["training"]["split"],
        acceptance=data["acceptance"],
        monitoring=data["monitoring"],
        training={
            key: data["training"][key]
            for key in ("algorithm", "hyperparameters", "rounds", "early_stopping_rounds", "balance")
        }
        | {key: data["training"][key] for key in ("rules",) if data["training"][key] is not None},
        rules=workload.batch.rules,
        batch={
            **{key: data["batch"][key] for key in ("dedup", "severity")},
            "scan": workload.governance.scan,
        },
        windows=windows,
        evaluation=data["evaluation"] | {"about": {key: data[key] for key in _ABOUT if key in data}},
    )


def _windows(workload: Workload) -> WindowSpec | None:
    if workload.windows is None:
        return None
    return WindowSpec(
        key=workload.windows.key,
        windows=tuple(
            Window(name=name, aggregate=w.aggregate, field=w.field, over_hours=w.over_hours)
            for name, w in workload.windows.features.items()
        ),
    )


def _declared(derived: DerivedFeature) -> Expr:
    if isinstance(derived, BinFeature):
        return col(derived.field).cut(derived.edges, derived.labels, below=derived.below, above=derived.above)
    if isinstance(derived, QuantileBinFeature):
        return col(derived.field)  # the intervals are fitted, so they are no part of the expression
    if isinstance(derived, DaysBetweenFeature):
        return col(derived.since).days_between(col(derived.until))
    if isinstance(derived, RatioFeature):
        return col(derived.numerator) / col(derived.denominator)
    if isinstance(derived, DatePartFeature):
        parts = {
            "year": Expr.year,
            "month": Expr.month,
            "day": Expr.day,
            "weekday": Expr.weekday,
            "hour": Expr.hour,
        }
        return parts[derived.part](col(derived.field))
    raise TypeError(f"{derived.kind} features are expressions of {PYTHON_NAME}")
