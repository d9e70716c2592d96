"""Metric data queries as CloudWatch's alarms evaluate them: metrics by period, and the math over them.

The expression language is the part of metric math that alarms on ratios need: numbers, the ids of other
queries, `+ - * /`, parentheses, comparisons, `AND`, `OR`, `FILL(m, value)`, `IF(condition, a, b)`, `ABS` and
`SUM`, `AVG`, `MAX`, `MIN` of a list. Anything else is refused by name.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["MathError", "Series", "evaluate_queries"]

Series = Mapping[float, float]
"""Values by the start of their period; a period without data is absent."""

Fetch = Callable[[Mapping[str, Any]], Series]


class MathError(Exception):
    """An expression that cannot be evaluated; the text names the part."""


def evaluate_queries(queries: Sequence[Mapping[str, Any]], fetch: Fetch, periods: Sequence[float]) -> Series:
    """The one series that the queries return (`ReturnData`), for the given period starts.

    :param fetch: reads the series of a `MetricStat`
    :raises MathError: an expression that cannot be evaluated
    """
    by_id = {query["Id"]: query for query in queries}
    returned = [query["Id"] for query in queries if query.get("ReturnData", True)]
    if len(returned) != 1:
        raise MathError(f"exactly one query must return data, got {', '.join(returned) or 'none'}")
    known: dict[str, Series] = {}

    def series(name: str, asked_by: tuple[str, ...]) -> Series:
        if name in asked_by:
            raise MathError(
                f"the expressions refer to each other in a circle: {' -> '.join((*asked_by, name))}"
            )
        if name not in by_id:
            raise MathError(f"there is no query with the id {name}")
        if name not in known:
            query = by_id[name]
            if "MetricStat" in query:
                known[name] = fetch(query["MetricStat"])
            else:
                tree = _parse(query["Expression"])
                known[name] = _Evaluator(lambda n: series(n, (*asked_by, name)), periods).run(tree)
        return known[name]

    return series(returned[0], ())


def _parse(expression: str) -> ast.expr:
    # CloudWatch spells the logical operators in capitals or as && and ||; Python's parser takes its own.
    text = re.sub(r"\bAND\b|&&", " and ", expression)
    text = re.sub(r"\bOR\b|\|\|", " or ", text)
    try:
        return ast.parse(re.sub(r"\bIF\(", "IF_(", text).strip(), mode="eval").body
    except SyntaxError as error:
        raise MathError(f"{expression!r} is no metric math expression: {error.msg}") from None


_OPERATORS: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Pow: lambda a, b: a**b,
}
_COMPARISONS: Mapping[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
}
_OVER_LISTS: Mapping[str, Callable[[list[float]], float]] = {
    "SUM": sum,
    "AVG": lambda values: sum(values) / len(values),
    "MAX": max,
    "MIN": min,
}


class _Evaluator:
    """Evaluates one expression for every period; a period in which an operand has no data has no result."""

    def __init__(self, series: Callable[[str], Series], periods: Sequence[float]) -> None:
        self._series = series
        self._periods = periods

    def run(self, tree: ast.expr) -> Series:
        values = {period: self._value(tree, period) for period in self._periods}
        return {period: value for period, value in values.items() if value is not None}

    def _value(self, node: ast.expr, period: float) -> float | None:  # noqa: PLR0911 - one branch per kind of node
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            return float(node.value)
        if isinstance(node, ast.Name):
            return self._series(node.id).get(period)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            value = self._value(node.operand, period)
            return None if value is None else -value
        if isinstance(node, ast.BinOp):
            return self._binary(node, period)
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARISONS:
            left, right = self._value(node.left, period), self._value(node.comparators[0], period)
            if left is None or right is None:
                return None
            return float(_COMPARISONS[type(node.ops[0])](left, right))
        if isinstance(node, ast.BoolOp):
            values = [self._value(item, period) for item in node.values]
            if any(value is None for value in values):
                return None
            return float(all(values) if isinstance(node.op, ast.And) else any(values))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return self._call(node.func.id, node.args, period)
        raise MathError(f"{ast.unparse(node)} is not among the metric math that the rehearsal evaluates")

    def _binary(self, node: ast.BinOp, period: float) -> float | None:
        left, right = self._value(node.left, period), self._value(node.right, period)
        if left is None or right is None:
            return None
        if isinstance(node.op, ast.Div):
            # A division by zero gives no data point.
            return None if right == 0 else left / right
        if type(node.op) not in _OPERATORS:
            raise MathError(f"{ast.unparse(node)} is not among the metric math that the rehearsal evaluates")
        return _OPERATORS[type(node.op)](left, right)

    def _call(  # noqa: PLR0911 - one return per function
        self, name: str, arguments: list[ast.expr], period: float
    ) -> float | None:
        if name == "FILL" and len(arguments) == 2:
            value = self._value(arguments[0], period)
            if value is not None:
                return value
            if isinstance(arguments[1], ast.Name) and arguments[1].id == "REPEAT":
                earlier = [
                    p for p in self._periods if p < period and self._value(arguments[0], p) is not None
                ]
                return self._value(arguments[0], max(earlier)) if earlier else None
            return self._value(arguments[1], period)
        if name == "IF_" and len(arguments) in (2, 3):
            condition = self._value(arguments[0], period)
            if condition is None:
                return None
            if condition:
                return self._value(arguments[1], period)
            return self._value(arguments[2], period) if len(arguments) == 3 else None
        if name == "ABS" and len(arguments) == 1:
            value = self._value(arguments[0], period)
            return None if value is None else abs(value)
        if name in _OVER_LISTS and len(arguments) == 1 and isinstance(arguments[0], ast.List):
            values = [v for v in (self._value(item, period) for item in arguments[0].elts) if v is not None]
            return _OVER_LISTS[name](values) if values else None
        raise MathError(
            f"{name.rstrip('_')} with {len(arguments)} arguments is not evaluated in the rehearsal"
        )
