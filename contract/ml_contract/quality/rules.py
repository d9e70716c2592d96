"""Glue Data Quality: the contract as a DQDL ruleset, and what a broken rule does. Standard library only."""

from __future__ import annotations

from ml_contract.compiled import Column, CompiledContract
from ml_contract.quality.dqdl import Composite, Rule, parse

__all__ = ["dqdl", "parsed_rules", "quality_rules", "row_rule", "severity_of"]

#: Rule types that judge each row by itself.
ROW_KINDS = frozenset({"ColumnDataType", "ColumnLength", "ColumnValues", "IsComplete"})


def dqdl(contract: CompiledContract) -> str:
    """Ruleset in the Data Quality Definition Language, for the curated table."""
    return "Rules = [\n" + ",\n".join(f"    {rule}" for rule in quality_rules(contract)) + "\n]\n"


def parsed_rules(contract: CompiledContract) -> tuple[Rule | Composite, ...]:
    """The same rules as values. Raises DqdlError for a rule that no engine here evaluates."""
    return parse(dqdl(contract))


def row_rule(rule: Rule | Composite) -> bool:
    """Whether a single row can break the rule.

    One with a threshold allows some rows to break it, a composite joins verdicts on the table.
    """
    return isinstance(rule, Rule) and rule.kind in ROW_KINDS and rule.threshold is None


def severity_of(rule: Rule | Composite, contract: CompiledContract) -> str:
    """``stop``, ``quarantine`` or ``warn``: what the contract says of this rule, else of its type."""
    severity = contract.batch.get("severity", {})
    by_text = severity.get(rule.text)
    if by_text is not None:
        return str(by_text)
    if isinstance(rule, Composite):
        return "stop"
    return str(severity.get(rule.kind, "stop"))


def quality_rules(contract: CompiledContract) -> list[str]:
    """One rule per promise of the contract, then the workload's own.

    A row without a value fails ``ColumnValues`` (DQDL reference, "Null behavior"), hence the where clauses.
    Patterns are left out: they are Python's regular expressions and are checked at the door, DQDL's are
    Java's.
    """
    rules = ["RowCount > 0", f"IsUnique {_quoted(contract.identifier)}"]
    rules += [f"IsComplete {_quoted(c.name)}" for c in contract.columns if c.required]
    for column in contract.columns:
        rules += _rules_of(column)
    label = contract.label
    if label.values is not None and contract.label_column.type == "string":
        rules.append(_among(label.field, label.values))
    return list(dict.fromkeys([*rules, *contract.rules]))


def _rules_of(column: Column) -> list[str]:
    name = _quoted(column.name)
    given = _given(column.name)
    rules = []
    if column.minimum is not None:
        rules.append(f"ColumnValues {name} >= {_number(column.minimum)} {given}")
    if column.maximum is not None:
        rules.append(f"ColumnValues {name} <= {_number(column.maximum)} {given}")
    if column.allowed is not None:
        rules.append(_among(column.name, column.allowed))
    if column.max_length is not None:
        rules.append(f"ColumnLength {name} <= {column.max_length} {given}")
    return rules


def _among(name: str, values: tuple[str, ...]) -> str:
    listed = ", ".join(_quoted(v) for v in values)
    return f"ColumnValues {_quoted(name)} in [ {listed} ] {_given(name)}"


def _given(name: str) -> str:
    return f'where "{name} is not null"'


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
