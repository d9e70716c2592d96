"""Judging a table by its data quality rules, whatever engine measures it.

An engine (``ml_contract.quality.on_polars``, ``ml_contract.quality.on_spark``) takes the measures, in one
pass where it can; the verdicts are made here, so that every engine means the same by a rule. Glue's own
evaluator answers the same outcomes, rule by rule.

Standard library only.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from ml_contract.quality.dqdl import Composite, Condition, DqdlError, Rule

__all__ = [
    "COMPARISONS",
    "DATA_TYPES",
    "MEASURED",
    "UNIQUENESS",
    "Engine",
    "Verdict",
    "condition_of",
    "evaluate",
    "known_type",
]

COMPARISONS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
#: DQDL's names of types that ``ColumnDataType`` knows.
DATA_TYPES: Final = ("BOOLEAN", "DATE", "TIMESTAMP", "INTEGER", "LONG", "FLOAT", "DOUBLE")
_SHARES: Final = {
    "IsComplete": "Completeness",
    "Completeness": "Completeness",
    "ColumnValues": "ColumnValues.Compliance",
    "ColumnLength": "ColumnLength.Compliance",
    "ColumnDataType": "ColumnDataType.Compliance",
}
_VALUES: Final = frozenset({"RowCount", "DistinctValuesCount", "Mean", "Sum", "StandardDeviation"})
#: Rule types that are measured row by row or as one aggregate, all in one pass.
MEASURED: Final = frozenset(_SHARES) | _VALUES
#: Rule types that need a grouping of their own.
UNIQUENESS: Final = frozenset({"IsUnique", "Uniqueness", "UniqueValueRatio", "IsPrimaryKey"})


@dataclass(frozen=True)
class Verdict:
    """What became of one rule."""

    passed: bool
    reason: str | None
    metrics: Mapping[str, float] = field(default_factory=dict)


class Engine(Protocol):
    """What measures a table."""

    @property
    def columns(self) -> Sequence[str]:
        """Names of the table's columns."""
        ...

    def measure(self, rules: Sequence[Rule]) -> Mapping[str, Mapping[str, Any]]:
        """Measures by the rule's text: ``rows``, ``kept``, ``nulls`` of a share, or ``value``."""
        ...

    def groups(self, rule: Rule) -> Mapping[str, int]:
        """Of the groups by the rule's columns: ``rows``, ``nulls``, ``once``, ``distinct``."""
        ...

    def sql(self, statement: str) -> Sequence[Sequence[Any]]:
        """At most two rows of a statement over the table ``primary``."""
        ...


def evaluate(engine: Engine, rules: Sequence[Rule | Composite]) -> list[Verdict]:
    """Judge every rule, in order."""
    simple = {leaf.text: leaf for rule in rules for leaf in _leaves(rule)}
    measured = [rule for rule in simple.values() if rule.kind in MEASURED and _missing(engine, rule) is None]
    values = engine.measure(measured) if measured else {}
    verdicts = {text: _judge(engine, rule, values.get(text, {})) for text, rule in simple.items()}
    return [_combined(rule, verdicts) for rule in rules]


def condition_of(rule: Rule) -> Condition:
    """The condition of a rule that must have one."""
    if rule.condition is None:
        raise DqdlError(f"{rule.text!r} needs a condition")
    return rule.condition


def known_type(rule: Rule) -> str:
    """The type that a ``ColumnDataType`` rule asks for."""
    condition = condition_of(rule)
    wanted = condition.operands[0]
    if condition.operator != "=" or not isinstance(wanted, str) or wanted.upper() not in DATA_TYPES:
        raise DqdlError(f'{rule.text!r}: ColumnDataType is = "<one of {", ".join(DATA_TYPES)}>"')
    return wanted.upper()


def _leaves(rule: Rule | Composite) -> list[Rule]:
    return [rule] if isinstance(rule, Rule) else [leaf for part in rule.parts for leaf in _leaves(part)]


def _combined(rule: Rule | Composite, verdicts: Mapping[str, Verdict]) -> Verdict:
    if isinstance(rule, Rule):
        return verdicts[rule.text]
    parts = [_combined(part, verdicts) for part in rule.parts]
    passed = all(p.passed for p in parts) if rule.operator == "and" else any(p.passed for p in parts)
    reason = None if passed else "; ".join(p.reason for p in parts if p.reason is not None)
    return Verdict(passed, reason, {key: value for p in parts for key, value in p.metrics.items()})


def _missing(engine: Engine, rule: Rule) -> str | None:
    """The first column that the rule names and the table lacks."""
    columns = () if rule.kind in ("CustomSql", "ColumnExists") else rule.parameters
    return next((column for column in columns if column not in engine.columns), None)


def _judge(engine: Engine, rule: Rule, values: Mapping[str, Any]) -> Verdict:  # noqa: PLR0911
    missing = _missing(engine, rule)
    if missing is not None:
        return Verdict(False, f"Column {missing} does not exist")
    if rule.kind in _SHARES:
        return _judge_share(rule, values)
    if rule.kind in _VALUES:
        return _judge_value(rule, values["value"])
    if rule.kind in UNIQUENESS:
        return _judge_unique(rule, engine.groups(rule))
    if rule.kind == "ColumnExists":
        passed = rule.parameters[0] in engine.columns
        return Verdict(passed, None if passed else f"Column {rule.parameters[0]} does not exist")
    if rule.kind == "ColumnCount":
        return _judge_value(rule, float(len(engine.columns)))
    if rule.kind == "CustomSql":
        return _judge_sql(engine, rule)
    raise DqdlError(f"no engine here judges {rule.kind}: {rule.text!r}")


def _judge_share(rule: Rule, values: Mapping[str, Any]) -> Verdict:
    rows, kept = int(values["rows"]), int(values["kept"])
    share = 1.0 if rows == 0 else kept / rows
    metrics = {f"Column.{rule.parameters[0]}.{_SHARES[rule.kind]}": share}
    condition = rule.condition if rule.kind == "Completeness" else rule.threshold
    passed = kept == rows if condition is None else _satisfies(share, condition)
    if passed:
        return Verdict(True, None, metrics)
    if rule.kind in ("ColumnValues", "ColumnLength") and values["nulls"] and condition is None:
        reason = f"Value: NULL does not meet the constraint requirement! {rows - kept} of {rows} rows"
    else:
        reason = f"Value: {share:g} does not meet the constraint requirement! {rows - kept} of {rows} rows"
    return Verdict(False, reason, metrics)


def _judge_value(rule: Rule, value: float | None) -> Verdict:
    where = f"Column.{rule.parameters[0]}" if rule.parameters else "Dataset.*"
    if value is None:
        return Verdict(False, f"{rule.kind} of no value cannot be judged")
    metrics = {f"{where}.{rule.kind}": float(value)}
    if _satisfies(float(value), condition_of(rule)):
        return Verdict(True, None, metrics)
    return Verdict(False, f"Value: {value:g} does not meet the constraint requirement!", metrics)


def _satisfies(value: float, condition: Condition) -> bool:
    numbers = [operand for operand in condition.operands if isinstance(operand, float)]
    if len(numbers) != len(condition.operands):
        raise DqdlError(f"a number is compared with numbers, got {condition.operands}")
    name = condition.operator.removeprefix("not ")
    if name == "between":
        held = numbers[0] < value < numbers[1]
    elif name == "in":
        held = value in numbers
    elif name in COMPARISONS:
        held = bool(COMPARISONS[name](value, numbers[0]))
    else:
        raise DqdlError(f"{condition.operator} does not go with a number")
    return held != condition.operator.startswith("not ")


def _judge_unique(rule: Rule, groups: Mapping[str, int]) -> Verdict:
    total = groups["distinct"] if rule.kind == "UniqueValueRatio" else groups["rows"]
    share = 1.0 if total == 0 else groups["once"] / total
    name = "UniqueValueRatio" if rule.kind == "UniqueValueRatio" else "Uniqueness"
    metrics = {f"Column.{','.join(rule.parameters)}.{name}": share}
    if rule.kind == "IsPrimaryKey" and groups["nulls"]:
        return Verdict(False, f"{groups['nulls']} rows have no key", metrics)
    passed = share == 1.0 if rule.condition is None else _satisfies(share, rule.condition)
    return Verdict(
        passed, None if passed else f"Value: {share:g} does not meet the constraint requirement!", metrics
    )


def _judge_sql(engine: Engine, rule: Rule) -> Verdict:
    if rule.where is not None:
        raise DqdlError(f"{rule.text!r}: write the filter into the statement")
    rows = engine.sql(rule.parameters[0])
    if len(rows) != 1 or len(rows[0]) != 1:
        raise DqdlError(f"{rule.text!r}: the statement must give one value")
    value = rows[0][0]
    whole = Rule(rule.kind, (), rule.condition, None, None, rule.text)
    return _judge_value(whole, None if value is None else float(value))
