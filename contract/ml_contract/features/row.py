"""Features of one record: the expressions compiled to a Python function. Standard library only.

The serving container calls it per request, so it is generated code: one straight line of local variables per
feature, no tree walk, microseconds per record.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from ml_contract.compiled import CompiledContract
from ml_contract.expressions import Expr, type_of

__all__ = ["RowFunction", "row_function"]

RowFunction = Callable[[Mapping[str, object]], dict[str, float | str | None]]

#: White space that ``strip`` removes, on every engine.
BLANKS: Final = " \t\n\r\x0b\x0c"
#: A text that ``cast("number")`` reads.
DECIMAL: Final = r"[+-]?[0-9]{1,300}(?:\.[0-9]{1,300})?"
#: Whole numbers up to here are exact in a 64-bit float.
EXACT: Final = 2.0**53

_LOWER: Final = {ord(c): ord(c) + 32 for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
_COMPARE: Final = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_ARITHMETIC: Final = {"add": "+", "sub": "-", "mul": "*"}
#: Operations whose result may be infinite or NaN until it is looked at.
UNBOUNDED: Final = frozenset({"add", "sub", "mul", "div"})


def row_function(contract: CompiledContract) -> RowFunction:
    """Function from typed values under column names to feature values under feature names.

    Values are what ``RecordCodec`` gives: numbers, texts, booleans; a date as ISO text or
    ``datetime.date``, a timestamp as ISO text (UTC) or ``datetime.datetime``; None or no entry where there
    is none. Results are floats and texts; None is missing.
    """
    writer = _Writer(contract.types)
    results = []
    for feature in contract.features:
        value = writer.finite(feature.expression)
        if type_of(feature.expression, contract.types) == "boolean":
            value = writer.assign(f"None if {value} is None else 1.0 if {value} else 0.0")
        results.append(f"{feature.name!r}: {value}")
    lines = ["def features(record):", "    get = record.get"]
    lines += [f"    {line}" for line in writer.lines]
    lines.append("    return {" + ", ".join(results) + "}")
    namespace: dict[str, Any] = dict(writer.constants)
    # The text is made from operation names of a closed set and from repr() of names and numbers only.
    exec(compile("\n".join(lines), f"<features of {contract.name}>", "exec"), namespace)  # noqa: S102
    function: RowFunction = namespace["features"]
    return function


class _Writer:
    """Writes statements; every sub-expression becomes a local variable, written once."""

    def __init__(self, types: Mapping[str, str]) -> None:
        self.types = types
        self.lines: list[str] = []
        self.constants: dict[str, Any] = {
            "_date": _date,
            "_timestamp": _timestamp,
            "_log1p": _log1p,
            "_number_of": _number_of,
            "_text_of": _text_of,
            "_lower": _LOWER,
            "_floor": _floor,
        }
        self._known: dict[str, str] = {}
        self._finite: dict[str, str] = {}
        self._count = 0

    def assign(self, code: str) -> str:
        name = f"v{self._count}"
        self._count += 1
        self.lines.append(f"{name} = {code}")
        return name

    def constant(self, value: object) -> str:
        name = f"_c{len(self.constants)}"
        self.constants[name] = value
        return name

    def finite(self, node: Expr) -> str:
        """Variable that holds the value of ``node``, missing where it is not finite."""
        value = self.value(node)
        if not may_overflow(node):
            return value
        if value not in self._finite:
            self._finite[value] = self.assign(
                f"None if {value} is None or {value} - {value} != 0.0 else {value}"
            )
        return self._finite[value]

    def value(self, node: Expr) -> str:
        key = repr(node.to_json())
        if key not in self._known:
            self._known[key] = self._write(node)
        return self._known[key]

    def _write(self, node: Expr) -> str:  # noqa: PLR0911, PLR0912
        op = node.op
        if op == "col":
            return self._column(node.params[0])
        if op == "lit":
            value = node.params[0]
            if isinstance(value, bool) or value is None:
                return repr(value)
            if isinstance(value, int | float):
                return self.constant(float(value))
            return self.constant(value)
        if op in _ARITHMETIC:
            a, b = (self.value(x) for x in node.args)
            return self.assign(f"None if {a} is None or {b} is None else {a} {_ARITHMETIC[op]} {b}")
        if op == "div":
            a, b = (self.value(x) for x in node.args)
            return self.assign(f"None if {a} is None or {b} is None or {b} == 0.0 else {a} / {b}")
        if op == "when":
            return self._when(node)
        arguments = [self.finite(x) for x in node.args]
        a = arguments[0]
        if op in _COMPARE:
            b = arguments[1]
            return self.assign(f"None if {a} is None or {b} is None else {a} {_COMPARE[op]} {b}")
        if op == "and":
            b = arguments[1]
            return self.assign(
                f"False if {a} is False or {b} is False else None if {a} is None or {b} is None else True"
            )
        if op == "or":
            b = arguments[1]
            return self.assign(
                f"True if {a} is True or {b} is True else None if {a} is None or {b} is None else False"
            )
        if op == "is_null":
            return self.assign(f"{a} is None")
        if op == "fill_null":
            return self.assign(f"{arguments[1]} if {a} is None else {a}")
        simple = {
            "not": f"not {a}",
            "neg": f"-{a}",
            "abs": f"abs({a})",
            "floor": f"_floor({a})",
            "log1p": f"_log1p({a})",
            "year": f"float({a}.year)",
            "month": f"float({a}.month)",
            "day": f"float({a}.day)",
            "hour": f"float({a}.hour)",
            "weekday": f"float({a}.isoweekday())",
            "lower": f"{a}.translate(_lower)",
            "strip": f"{a}.strip({BLANKS!r})",
            "length": f"float(len({a}))",
        }.get(op)
        if simple is not None:
            return self.assign(f"None if {a} is None else {simple}")
        return self.assign(f"None if {a} is None else {self._parametrised(node, arguments)}")

    def _parametrised(self, node: Expr, arguments: list[str]) -> str:  # noqa: PLR0911
        op, a, params = node.op, arguments[0], node.params
        if op == "days_between":
            b = arguments[1]
            return f"None if {b} is None else float({b}.toordinal() - {a}.toordinal())"
        if op == "is_in":
            return f"{a} in {self.constant(frozenset(params))}"
        if op == "is_between":
            return f"{self.constant(params[0])} <= {a} <= {self.constant(params[1])}"
        if op == "contains":
            return f"{self.constant(params[0])} in {a}"
        if op == "starts_with":
            return f"{a}.startswith({self.constant(params[0])})"
        if op == "clip":
            low, high = params
            code = a if low is None else f"({self.constant(low)} if {a} < {self.constant(low)} else {a})"
            return (
                code
                if high is None
                else f"({self.constant(high)} if {a} > {self.constant(high)} else {code})"
            )
        if op == "map_values":
            pairs, default = params
            table = {key: value if isinstance(value, str) else float(value) for key, value in pairs}
            fallback = default if default is None or isinstance(default, str) else float(default)
            return f"{self.constant(table)}.get({a}, {self.constant(fallback)})"
        if op == "cut":
            edges, labels, below, above = params
            code = self.constant(above)
            for edge, label in reversed(list(zip(edges, [below, *labels], strict=True))):
                code = f"{self.constant(label)} if {a} < {self.constant(edge)} else {code}"
            return f"({code})"
        # cast
        source = type_of(node.args[0], self.types)
        if params[0] == source:
            return a
        if params[0] == "number":
            return f"(1.0 if {a} else 0.0)" if source == "boolean" else f"_number_of({a})"
        return f"('true' if {a} else 'false')" if source == "boolean" else f"_text_of({a})"

    def _when(self, node: Expr) -> str:
        condition, then, otherwise = node.args
        c = self.finite(condition)
        a, b = self.finite(then), self.finite(otherwise)
        return self.assign(f"{a} if {c} else {b}")

    def _column(self, name: str) -> str:
        raw = self.assign(f"get({name!r})")
        kind = self.types[name]
        if kind in ("integer", "number"):
            number = self.assign(f"None if {raw} is None else float({raw})")
            return self.assign(f"None if {number} is None or {number} - {number} != 0.0 else {number}")
        if kind in ("date", "timestamp"):
            return self.assign(f"None if {raw} is None else _{kind}({raw})")
        return raw


def may_overflow(node: Expr) -> bool:
    """True when the value may be infinite or NaN before it is looked at."""
    return node.op in UNBOUNDED


def _date(value: object) -> dt.date:
    if isinstance(value, dt.datetime):
        return value.date()
    if isinstance(value, dt.date):
        return value
    return dt.date.fromisoformat(str(value)[:10])


def _timestamp(value: object) -> dt.datetime:
    if isinstance(value, dt.datetime):
        moment = value
    elif isinstance(value, dt.date):
        moment = dt.datetime(value.year, value.month, value.day)
    else:
        moment = dt.datetime.fromisoformat(str(value))
    return moment if moment.tzinfo is None else moment.astimezone(dt.UTC).replace(tzinfo=None)


def _log1p(value: float) -> float | None:
    return math.log(value + 1.0) if value > -1.0 else None


def _floor(value: float) -> float:
    return float(math.floor(value)) if abs(value) < EXACT else value


def _number_of(
    value: str, *, matches: Callable[[str], object] = re.compile(DECIMAL).fullmatch
) -> float | None:
    if matches(value) is None:
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _text_of(value: float) -> str | None:
    return str(int(value)) if abs(value) < EXACT and value == int(value) else None
