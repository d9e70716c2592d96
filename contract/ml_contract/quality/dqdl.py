"""AWS Glue's Data Quality Definition Language, read into values: the subset that every engine evaluates.

A rule type, operator or option outside of the subset is a ``DqdlError``: an unknown rule must never pass.
Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Logic = Literal["and", "or"]
Operand: TypeAlias = "float | str | Keyword"


class DqdlError(ValueError):
    """The ruleset is not DQDL, or uses what no engine here evaluates."""


@dataclass(frozen=True)
class Keyword:
    """``NULL``, ``EMPTY`` or ``WHITESPACES_ONLY``."""

    name: str


KEYWORDS = {name: Keyword(name) for name in ("NULL", "EMPTY", "WHITESPACES_ONLY")}


@dataclass(frozen=True)
class Condition:
    """What a value has to satisfy."""

    operator: str
    operands: tuple[Operand, ...]


@dataclass(frozen=True)
class Rule:
    """One rule."""

    kind: str
    parameters: tuple[str, ...]
    condition: Condition | None
    threshold: Condition | None
    where: str | None
    text: str

    @property
    def kinds(self) -> tuple[str, ...]:
        """The rule type."""
        return (self.kind,)


@dataclass(frozen=True)
class Composite:
    """Rules joined by one operator."""

    operator: Logic
    parts: tuple[Rule | Composite, ...]
    text: str

    @property
    def kinds(self) -> tuple[str, ...]:
        """The rule types of its parts."""
        return tuple(kind for part in self.parts for kind in part.kinds)


@dataclass(frozen=True)
class Signature:
    """What a rule type takes."""

    parameters: int
    #: ``required``, ``none`` or ``optional``.
    condition: str
    threshold: bool = False
    more_parameters: bool = False


RULES = {
    "RowCount": Signature(0, "required"),
    "ColumnCount": Signature(0, "required"),
    "ColumnExists": Signature(1, "none"),
    "ColumnDataType": Signature(1, "required", threshold=True),
    "IsComplete": Signature(1, "none"),
    "Completeness": Signature(1, "required"),
    "IsUnique": Signature(1, "none"),
    "Uniqueness": Signature(1, "required"),
    "UniqueValueRatio": Signature(1, "required"),
    "DistinctValuesCount": Signature(1, "required"),
    "IsPrimaryKey": Signature(1, "none", more_parameters=True),
    "ColumnValues": Signature(1, "required", threshold=True),
    "ColumnLength": Signature(1, "required", threshold=True),
    "Mean": Signature(1, "required"),
    "Sum": Signature(1, "required"),
    "StandardDeviation": Signature(1, "required"),
    "CustomSql": Signature(1, "required"),
}

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)"""
    r"""|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<symbol>!=|>=|<=|[=<>()\[\],]))""",
    re.DOTALL,
)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int


def parse(ruleset: str) -> tuple[Rule | Composite, ...]:
    """Read ``Rules = [ ... ]``."""
    return _Parser(ruleset).ruleset()


def _tokens(text: str) -> list[_Token]:
    tokens, at = [], 0
    end = len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise DqdlError(f"cannot read the ruleset from here: {text[at : at + 40]!r}")
        kind = match.lastgroup
        tokens.append(_Token(kind, match.group(kind), match.start(kind), match.end(kind)))
        at = match.end()
    return tokens


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self._at = 0

    # -- the tokens ------------------------------------------------------------------------------------

    def _peek(self) -> _Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _next(self) -> _Token:
        token = self._peek()
        if token is None:
            raise DqdlError("the ruleset ends too early")
        self._at += 1
        return token

    def _is(self, text: str) -> bool:
        token = self._peek()
        return token is not None and token.kind != "string" and token.text == text

    def _take(self, text: str) -> bool:
        if self._is(text):
            self._at += 1
            return True
        return False

    def _expect(self, text: str) -> None:
        token = self._next()
        if token.kind == "string" or token.text != text:
            raise DqdlError(f"expected {text!r}, got {token.text!r} in {self._text[token.start :][:40]!r}")

    # -- the grammar -----------------------------------------------------------------------------------

    def ruleset(self) -> tuple[Rule | Composite, ...]:
        self._expect("Rules")
        self._expect("=")
        self._expect("[")
        rules = [self._rule()]
        while self._take(","):
            rules.append(self._rule())
        self._expect("]")
        left = self._peek()
        if left is not None:
            raise DqdlError(f"only Rules are evaluated here, got {left.text!r} after them")
        return tuple(rules)

    def _rule(self) -> Rule | Composite:
        start = self._at
        if not self._is("("):
            return self._simple()
        parts = [self._group()]
        operators: set[Logic] = set()
        while True:
            operator = self._logic()
            if operator is None:
                break
            operators.add(operator)
            parts.append(self._group())
        if not operators:
            return parts[0]
        if len(operators) > 1:
            raise DqdlError("and and or stand in one rule; put one of them in parentheses")
        return Composite(operators.pop(), tuple(parts), self._source(start))

    def _group(self) -> Rule | Composite:
        self._expect("(")
        rule = self._rule()
        self._expect(")")
        return rule

    def _logic(self) -> Logic | None:
        if self._take("and") or self._take("AND"):
            return "and"
        if self._take("or") or self._take("OR"):
            return "or"
        return None

    def _simple(self) -> Rule:
        start = self._at
        kind = self._next()
        signature = RULES.get(kind.text) if kind.kind == "name" else None
        if signature is None:
            raise DqdlError(f"rule type {kind.text!r} is not known here; known: {', '.join(sorted(RULES))}")
        parameters = [self._string(kind.text) for _ in range(signature.parameters)]
        while signature.more_parameters and (token := self._peek()) is not None and token.kind == "string":
            parameters.append(self._string(kind.text))
        condition = self._condition()
        if (condition is None) != (signature.condition == "none"):
            takes = "no condition" if signature.condition == "none" else "a condition"
            raise DqdlError(f"{kind.text} takes {takes}: {self._source(start)!r}")
        where, threshold = self._options(signature, kind.text)
        return Rule(kind.text, tuple(parameters), condition, threshold, where, self._source(start))

    def _options(self, signature: Signature, kind: str) -> tuple[str | None, Condition | None]:
        where: str | None = None
        threshold: Condition | None = None
        while True:
            if self._take("where"):
                where = self._string(kind)
            elif self._take("with"):
                self._expect("threshold")
                if not signature.threshold:
                    raise DqdlError(f"{kind} takes no threshold")
                threshold = self._condition()
                if threshold is None:
                    raise DqdlError(f"{kind}: a threshold needs a condition")
            else:
                return where, threshold

    def _condition(self) -> Condition | None:
        negated = "not " if self._take("not") else ""
        for operator in ("=", "!=", ">=", "<=", ">", "<"):
            if not negated and self._take(operator):
                return Condition(operator, (self._operand(),))
        if self._take("between"):
            low = self._operand()
            self._expect("and")
            return Condition(f"{negated}between", (low, self._operand()))
        if self._take("in"):
            return Condition(f"{negated}in", self._list())
        if self._take("matches"):
            return Condition(f"{negated}matches", (self._operand(),))
        if negated:
            raise DqdlError("not is followed by between, in or matches")
        return None

    def _list(self) -> tuple[Operand, ...]:
        self._expect("[")
        operands = [self._operand()]
        while self._take(","):
            operands.append(self._operand())
        self._expect("]")
        return tuple(operands)

    def _operand(self) -> Operand:
        token = self._next()
        if token.kind == "number":
            return float(token.text)
        if token.kind == "string":
            return _unquoted(token.text)
        if token.text in KEYWORDS:
            return KEYWORDS[token.text]
        raise DqdlError(
            f"operand {token.text!r} is not known here; known: numbers, strings, {', '.join(KEYWORDS)}"
        )

    def _string(self, what: str) -> str:
        token = self._next()
        if token.kind != "string":
            raise DqdlError(f"{what} wants a text in double quotes, got {token.text!r}")
        return _unquoted(token.text)

    def _source(self, start: int) -> str:
        used: Sequence[_Token] = self._tokens[start : self._at]
        return self._text[used[0].start : used[-1].end]


def _unquoted(text: str) -> str:
    """Only an escaped quote loses its backslash: regular expressions keep theirs."""
    return text[1:-1].replace('\\"', '"')
