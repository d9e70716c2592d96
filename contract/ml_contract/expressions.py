"""Expressions over the fields of a record: one tree, lowered to every engine.

``features.py`` of a workload builds them with ordinary operators::

    FEATURES = {
        "share": col("part") / col("whole"),
        "at_night": when(col("hour").is_between(6, 21)).then("day").otherwise("night"),
    }

The tree is plain data (``to_json``), so it travels inside the compiled contract.
``ml_contract.features.frame`` lowers it to polars, pandas and Spark, ``ml_contract.features.row`` compiles it
to a Python function. What an expression means is the same on all of them:

- Numbers are 64-bit floats, whatever the field's type. Integers beyond 2**53 lose digits.
- ``None`` is a missing value. Arithmetic, comparison and text functions of a missing value are missing;
  ``&``, ``|`` and ``~`` follow SQL's three-valued logic; a missing condition of ``when`` counts as false.
- A number that is not finite (NaN, an overflow) is missing. So is the quotient of a division by zero, the
  logarithm of what is not positive, and a text that is no number.
- Text functions work on ASCII where languages differ: ``lower`` changes A to Z only, ``strip`` removes
  blanks, tabs, line feeds, carriage returns, vertical tabs and form feeds.

Standard library only: this module runs in Lambda functions, Glue jobs and containers.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

__all__ = ["Expr", "ExpressionError", "Type", "col", "lit", "type_of", "when"]

Type = Literal["number", "string", "boolean", "date", "timestamp", "null"]
Scalar = float | int | str | bool | dt.date | dt.datetime | None

MAX_DEPTH: Final = 200
MAX_MAPPED_VALUES: Final = 200


class ExpressionError(ValueError):
    """An expression that cannot be built, read or typed."""


class Expr:
    """A node: an operation, its operand expressions and its parameters (plain JSON values)."""

    __slots__ = ("args", "depth", "op", "params")

    op: str
    args: tuple[Expr, ...]
    params: tuple[Any, ...]
    depth: int

    def __init__(self, op: str, args: Iterable[Expr] = (), params: Iterable[Any] = ()) -> None:
        self.op = op
        self.args = tuple(args)
        self.params = tuple(params)
        self.depth = 1 + max((a.depth for a in self.args), default=0)
        if self.depth > MAX_DEPTH:
            raise ExpressionError(
                f"an expression may nest {MAX_DEPTH} deep, got {self.depth}; name a part as a feature"
            )

    # --- operators ------------------------------------------------------------------------------------

    def __add__(self, other: Expr | Scalar) -> Expr:
        return Expr("add", (self, _operand(other)))

    def __radd__(self, other: Scalar) -> Expr:
        return Expr("add", (_operand(other), self))

    def __sub__(self, other: Expr | Scalar) -> Expr:
        return Expr("sub", (self, _operand(other)))

    def __rsub__(self, other: Scalar) -> Expr:
        return Expr("sub", (_operand(other), self))

    def __mul__(self, other: Expr | Scalar) -> Expr:
        return Expr("mul", (self, _operand(other)))

    def __rmul__(self, other: Scalar) -> Expr:
        return Expr("mul", (_operand(other), self))

    def __truediv__(self, other: Expr | Scalar) -> Expr:
        return Expr("div", (self, _operand(other)))

    def __rtruediv__(self, other: Scalar) -> Expr:
        return Expr("div", (_operand(other), self))

    def __neg__(self) -> Expr:
        return Expr("neg", (self,))

    def __eq__(self, other: object) -> Expr:  # type: ignore[override]
        return Expr("eq", (self, _operand(other)))

    def __ne__(self, other: object) -> Expr:  # type: ignore[override]
        return Expr("ne", (self, _operand(other)))

    def __lt__(self, other: Expr | Scalar) -> Expr:
        return Expr("lt", (self, _operand(other)))

    def __le__(self, other: Expr | Scalar) -> Expr:
        return Expr("le", (self, _operand(other)))

    def __gt__(self, other: Expr | Scalar) -> Expr:
        return Expr("gt", (self, _operand(other)))

    def __ge__(self, other: Expr | Scalar) -> Expr:
        return Expr("ge", (self, _operand(other)))

    def __and__(self, other: Expr | bool) -> Expr:
        return Expr("and", (self, _operand(other)))

    def __rand__(self, other: bool) -> Expr:
        return Expr("and", (_operand(other), self))

    def __or__(self, other: Expr | bool) -> Expr:
        return Expr("or", (self, _operand(other)))

    def __ror__(self, other: bool) -> Expr:
        return Expr("or", (_operand(other), self))

    def __invert__(self) -> Expr:
        return Expr("not", (self,))

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise ExpressionError(
            "an expression has no truth value of its own; combine conditions with & | ~ (not and, or, not), "
            "use is_between for a < x < b, and when(...).then(...).otherwise(...) for if"
        )

    # --- missing values, sets, intervals --------------------------------------------------------------

    def is_null(self) -> Expr:
        """True where there is no value."""
        return Expr("is_null", (self,))

    def fill_null(self, value: Expr | Scalar) -> Expr:
        """``value`` where there is none."""
        return Expr("fill_null", (self, _operand(value)))

    def is_in(self, values: Iterable[float | str]) -> Expr:
        """True where the value is one of ``values``; missing where it is missing."""
        listed = [_parameter(v) for v in values]
        kinds = {"string" if isinstance(v, str) else "number" for v in listed}
        if len(kinds) != 1:
            raise ExpressionError(f"is_in needs numbers only or texts only, and at least one; got {listed}")
        return Expr("is_in", (self,), listed)

    def is_between(self, lower: float, upper: float) -> Expr:
        """True where ``lower <= value <= upper``."""
        return Expr("is_between", (self,), (_number("lower", lower), _number("upper", upper)))

    def cut(
        self, edges: Sequence[float], labels: Sequence[str], *, below: str = "below", above: str = "above"
    ) -> Expr:
        """Name of the interval: ``edges[i] <= value < edges[i + 1]`` is ``labels[i]``."""
        rising = [_number("edges", e) for e in edges]
        names = [str(label) for label in labels]
        if len(rising) < 2 or rising != sorted(set(rising)):
            raise ExpressionError(f"cut needs two edges or more that rise, got {rising}")
        if len(names) != len(rising) - 1:
            raise ExpressionError(f"{len(rising)} edges make {len(rising) - 1} labels, got {len(names)}")
        return Expr("cut", (self,), (rising, names, below, above))

    def map_values(
        self, mapping: Mapping[str, str] | Mapping[str, float], *, default: str | float | None = None
    ) -> Expr:
        """The value that ``mapping`` gives to a text, else ``default``. Missing stays missing."""
        pairs = [[key, _parameter(value)] for key, value in mapping.items()]
        if not pairs or len(pairs) > MAX_MAPPED_VALUES or not all(isinstance(key, str) for key, _ in pairs):
            raise ExpressionError(
                f"map_values needs 1 to {MAX_MAPPED_VALUES} texts to map, got {len(pairs)} entries"
            )
        kinds = {"string" if isinstance(value, str) else "number" for _, value in pairs}
        fallback = None if default is None else _parameter(default)
        if fallback is not None:
            kinds.add("string" if isinstance(fallback, str) else "number")
        if len(kinds) != 1:
            raise ExpressionError("map_values must give texts only or numbers only, its default included")
        return Expr("map_values", (self,), (pairs, fallback))

    # --- dates ----------------------------------------------------------------------------------------

    def year(self) -> Expr:
        """Year of a date or timestamp (UTC)."""
        return Expr("year", (self,))

    def month(self) -> Expr:
        """Month, 1 to 12."""
        return Expr("month", (self,))

    def day(self) -> Expr:
        """Day of the month, 1 to 31."""
        return Expr("day", (self,))

    def weekday(self) -> Expr:
        """1 (Monday) to 7 (Sunday)."""
        return Expr("weekday", (self,))

    def hour(self) -> Expr:
        """Hour of a timestamp (UTC), 0 to 23."""
        return Expr("hour", (self,))

    def days_between(self, until: Expr) -> Expr:
        """Calendar days (UTC) from this date to ``until``; negative when ``until`` is the earlier one."""
        return Expr("days_between", (self, _operand(until)))

    # --- texts ----------------------------------------------------------------------------------------

    def lower(self) -> Expr:
        """A to Z as a to z."""
        return Expr("lower", (self,))

    def strip(self) -> Expr:
        """Without white space (ASCII) at both ends."""
        return Expr("strip", (self,))

    def length(self) -> Expr:
        """Number of characters (code points)."""
        return Expr("length", (self,))

    def contains(self, text: str) -> Expr:
        """True where ``text`` occurs, taken literally."""
        return Expr("contains", (self,), (_text("contains", text),))

    def starts_with(self, text: str) -> Expr:
        """True where the value begins with ``text``."""
        return Expr("starts_with", (self,), (_text("starts_with", text),))

    # --- numbers --------------------------------------------------------------------------------------

    def abs(self) -> Expr:
        """Without its sign."""
        return Expr("abs", (self,))

    def floor(self) -> Expr:
        """Greatest whole number that is not above."""
        return Expr("floor", (self,))

    def log1p(self) -> Expr:
        """Natural logarithm of ``1 + x``; missing for ``x <= -1``. Engines may differ in the last bit."""
        return Expr("log1p", (self,))

    def clip(self, lower: float | None = None, upper: float | None = None) -> Expr:
        """``lower`` where the value is below it, ``upper`` where it is above it."""
        low = None if lower is None else _number("lower", lower)
        high = None if upper is None else _number("upper", upper)
        if low is None and high is None:
            raise ExpressionError("clip needs lower, upper or both")
        if low is not None and high is not None and low > high:
            raise ExpressionError(f"clip: lower {low:g} is above upper {high:g}")
        return Expr("clip", (self,), (low, high))

    def cast(self, to: Literal["number", "string"]) -> Expr:
        """As another type.

        Number: true is 1 and false 0; a text is read when it is a plain decimal (``-12.5``), else missing.
        String: ``true`` or ``false``; a whole number below 2**53 without decimal point, any other number is
        missing.
        """
        if to not in ("number", "string"):
            raise ExpressionError(f"cast goes to 'number' or 'string', got {to!r}")
        return Expr("cast", (self,), (to,))

    # --- as data --------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; ``from_json`` reads it back."""
        data: dict[str, Any] = {"op": self.op}
        if self.args:
            data["args"] = [a.to_json() for a in self.args]
        if self.params:
            data["params"] = [_plain(p) for p in self.params]
        return data

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Expr:
        """The expression that ``to_json`` wrote."""
        op = data["op"]
        if op not in _SIGNATURES:
            raise ExpressionError(
                f"unknown operation {op!r}; this reader knows {', '.join(sorted(_SIGNATURES))}"
            )
        return Expr(
            op,
            [Expr.from_json(a) for a in data.get("args", ())],
            [_from_plain(p) for p in data.get("params", ())],
        )

    def columns(self) -> set[str]:
        """Names of the fields it reads."""
        return {node.params[0] for node in self.walk() if node.op == "col"}

    def walk(self) -> Iterator[Expr]:
        """This node and every one below it."""
        yield self
        for argument in self.args:
            yield from argument.walk()

    def __repr__(self) -> str:
        inner = ", ".join([*(repr(a) for a in self.args), *(repr(p) for p in self.params)])
        return f"{self.op}({inner})"


class When:
    """``when(condition)``: needs ``then``."""

    __slots__ = ("_branches", "_condition")

    def __init__(self, branches: tuple[tuple[Expr, Expr], ...], condition: Expr) -> None:
        self._branches = branches
        self._condition = condition

    def then(self, value: Expr | Scalar) -> Then:
        """The value where the condition is true."""
        return Then((*self._branches, (self._condition, _operand(value))))


class Then(Expr):
    """``when(...).then(...)``: missing elsewhere, until ``when`` or ``otherwise`` follow."""

    __slots__ = ("_branches",)

    def __init__(self, branches: tuple[tuple[Expr, Expr], ...]) -> None:
        self._branches = branches
        chained = _chain(branches, lit(None))
        super().__init__(chained.op, chained.args, chained.params)

    def when(self, condition: Expr) -> When:
        """A further condition, asked where the earlier ones are not true."""
        return When(self._branches, _operand(condition))

    def otherwise(self, value: Expr | Scalar) -> Expr:
        """The value where no condition is true."""
        return _chain(self._branches, _operand(value))


def col(name: str) -> Expr:
    """The field of that name (the column's name, not the source's)."""
    if not isinstance(name, str) or not name:
        raise ExpressionError(f"col needs the name of a field, got {name!r}")
    return Expr("col", (), (name,))


def lit(value: Scalar) -> Expr:
    """A constant: number, text, boolean, date, timestamp or None."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ExpressionError(f"a constant must be finite, got {value}")
    if isinstance(value, dt.datetime):
        if value.tzinfo is not None:
            value = value.astimezone(dt.UTC).replace(tzinfo=None)
    elif not isinstance(value, bool | int | float | str | dt.date | None):
        raise ExpressionError(f"a constant is a number, text, boolean, date or None, got {value!r}")
    return Expr("lit", (), (value,))


def when(condition: Expr) -> When:
    """Start of ``when(condition).then(a).otherwise(b)``."""
    return When((), _operand(condition))


def _chain(branches: tuple[tuple[Expr, Expr], ...], otherwise: Expr) -> Expr:
    result = otherwise
    for condition, value in reversed(branches):
        result = Expr("when", (condition, value, result))
    return result


def _operand(value: object) -> Expr:
    if isinstance(value, Expr):
        return value
    if isinstance(value, When):
        raise ExpressionError("when(...) needs .then(value) before it is an expression")
    return lit(value)  # type: ignore[arg-type]


def _number(what: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ExpressionError(f"{what} must be a finite number, got {value!r}")
    return float(value)


def _text(what: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ExpressionError(f"{what} needs a text that is not empty, got {value!r}")
    return value


def _parameter(value: object) -> float | str:
    return value if isinstance(value, str) else _number("a value", value)


def _plain(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return {"timestamp": value.isoformat()}
    if isinstance(value, dt.date):
        return {"date": value.isoformat()}
    return value


def _from_plain(value: Any) -> Any:
    if isinstance(value, dict):
        if "timestamp" in value:
            return dt.datetime.fromisoformat(value["timestamp"])
        return dt.date.fromisoformat(value["date"])
    return value


# --- types --------------------------------------------------------------------------------------------

_DATES = ("date", "timestamp")
#: Operation -> (types its operands may have, type of the result). Others are typed below.
_SIGNATURES: Final[dict[str, tuple[tuple[str, ...], Type] | None]] = {
    "add": (("number",), "number"),
    "sub": (("number",), "number"),
    "mul": (("number",), "number"),
    "div": (("number",), "number"),
    "neg": (("number",), "number"),
    "abs": (("number",), "number"),
    "floor": (("number",), "number"),
    "log1p": (("number",), "number"),
    "clip": (("number",), "number"),
    "cut": (("number",), "string"),
    "is_between": (("number",), "boolean"),
    "and": (("boolean",), "boolean"),
    "or": (("boolean",), "boolean"),
    "not": (("boolean",), "boolean"),
    "year": (_DATES, "number"),
    "month": (_DATES, "number"),
    "day": (_DATES, "number"),
    "weekday": (_DATES, "number"),
    "hour": (("timestamp",), "number"),
    "days_between": (_DATES, "number"),
    "lower": (("string",), "string"),
    "strip": (("string",), "string"),
    "length": (("string",), "number"),
    "contains": (("string",), "boolean"),
    "starts_with": (("string",), "boolean"),
    "is_null": (("number", "string", "boolean", "date", "timestamp"), "boolean"),
    "col": None,
    "lit": None,
    "eq": None,
    "ne": None,
    "lt": None,
    "le": None,
    "gt": None,
    "ge": None,
    "fill_null": None,
    "is_in": None,
    "map_values": None,
    "when": None,
    "cast": None,
}
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")


def type_of(expression: Expr, columns: Mapping[str, str]) -> Type:  # noqa: PLR0911, PLR0912
    """Type of ``expression`` over fields of the given types.

    ``columns`` maps a name to a field type (integer, number, string, boolean, date, timestamp).
    Raises ExpressionError that names the operation, the types it got and those it takes.
    """
    op = expression.op
    if op == "col":
        name = expression.params[0]
        if name not in columns:
            raise ExpressionError(f"unknown field {name!r}")
        kind = columns[name]
        return "number" if kind == "integer" else kind  # type: ignore[return-value]
    if op == "lit":
        return _type_of_literal(expression.params[0])
    types = [type_of(a, columns) for a in expression.args]
    signature = _SIGNATURES[op]
    if signature is not None:
        accepted, result = signature
        for got in types:
            if got not in accepted:
                raise ExpressionError(f"{op} takes {' or '.join(accepted)}, got {got}{_hint(got, accepted)}")
        return result
    if op in _COMPARISONS:
        if types[0] != types[1] or types[0] == "null":
            raise ExpressionError(
                f"{op} compares values of one type, got {types[0]} and {types[1]}{_null_hint(types)}"
            )
        if types[0] == "boolean" and op not in ("eq", "ne"):
            raise ExpressionError(f"{op} has no meaning for boolean")
        return "boolean"
    if op == "fill_null":
        if types[0] != types[1]:
            raise ExpressionError(f"fill_null needs a value of the same type, got {types[0]} and {types[1]}")
        return types[0]
    if op == "is_in":
        wanted = "string" if isinstance(expression.params[0], str) else "number"
        if types[0] != wanted:
            raise ExpressionError(f"is_in has {wanted} values, the expression is {types[0]}")
        return "boolean"
    if op == "map_values":
        if types[0] != "string":
            raise ExpressionError(f"map_values maps string, got {types[0]}{_hint(types[0], ('string',))}")
        return "string" if isinstance(expression.params[0][0][1], str) else "number"
    if op == "when":
        if types[0] != "boolean":
            raise ExpressionError(f"when needs a condition (boolean), got {types[0]}")
        known = [t for t in types[1:] if t != "null"]
        if not known:
            raise ExpressionError(
                "when gives no value on any branch; one of then and otherwise must have a type"
            )
        if len(set(known)) != 1:
            raise ExpressionError(
                f"when gives {known[0]} on one branch and {known[1]} on another; make them one type"
            )
        return known[0]
    # cast
    to: Type = expression.params[0]
    if types[0] not in ("number", "string", "boolean"):
        raise ExpressionError(f"cast to {to} takes number, string or boolean, got {types[0]}")
    return to


def _type_of_literal(value: object) -> Type:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "timestamp" if isinstance(value, dt.datetime) else "date"


def _hint(got: str, accepted: tuple[str, ...]) -> str:
    if "number" in accepted and got in ("boolean", "string"):
        return "; use .cast('number')"
    if "string" in accepted and got in ("boolean", "number"):
        return "; use .cast('string')"
    if got in _DATES and "number" in accepted:
        return "; use .year(), .month(), .day() or .days_between(other)"
    return ""


def _null_hint(types: Sequence[str]) -> str:
    return "; use is_null() to ask for a missing value" if "null" in types else ""
