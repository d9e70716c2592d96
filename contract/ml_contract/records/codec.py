"""Records at the door: bytes to typed values, or every reason why not. Needs msgspec only.

Two paths lead to the same answer. The fast one decodes into a struct made from the contract: types, ranges,
patterns and allowed values are checked in C while the JSON is read. Whatever that refuses goes the slow
way, field by field, which collects all reasons, and accepts what CSV sources send: numbers as texts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Protocol

import msgspec

from ml_contract.compiled import Column, CompiledContract
from ml_contract.records.dates import DateParser, date_parser

__all__ = ["MAX_RECORD_BYTES", "Reason", "Record", "RecordCodec", "Rejected"]

#: Longest record in bytes. A row of a table is far shorter, and what a transform Lambda answers for a whole
#: batch must fit 6 MB (Lambda quotas, "Invocation payload").
MAX_RECORD_BYTES: Final = 65_536
_SHOWN: Final = 100
_INT64: Final = 2**63
#: A pattern that is one class of plain ASCII characters and a number of times: ``[0-9]{1,12}``.
_CHARACTERS: Final = re.compile(r"(\[[A-Za-z0-9_-]+\])\{([0-9]+)(?:,([0-9]+))?\}")
#: Texts remembered per field that has a pattern.
_REMEMBERED: Final = 1_024

_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,19}(\.0*)?")
_DECIMAL: Final = re.compile(r"[+-]?([0-9]{1,400}(\.[0-9]{0,400})?|\.[0-9]{1,400})([eE][+-]?[0-9]{1,4})?")

Code = Literal[
    "not_utf8",
    "not_json",
    "not_an_object",
    "too_large",
    "wrong_type",
    "missing_required",
    "unknown_field",
    "not_allowed",
    "out_of_range",
    "pattern",
    "too_long",
    "unparseable_date",
    "unknown_label",
    # Of files (ml_contract.records.landing):
    "malformed_row",
    "unreadable_file",
    "checksum_mismatch",
]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a record is rejected. ``field`` is the column's name (the incoming one when it is unknown)."""

    code: Code
    field: str | None
    value: str | None
    allowed: str | None
    message: str

    def to_json(self) -> dict[str, str | None]:
        """As it stands in the quarantine."""
        return {
            "code": self.code,
            "field": self.field,
            "value": self.value,
            "allowed": self.allowed,
            "message": self.message,
        }


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that the contract refuses, with every reason."""

    reasons: tuple[Reason, ...]


class Record(msgspec.Struct):
    """A record that fits; ``RecordCodec`` makes one subclass per contract, with a field per column."""

    if TYPE_CHECKING:  # delivery's columns, fields of every subclass
        record_id: str
        received_at: str

    @property
    def values(self) -> dict[str, Any]:
        """Typed values under column names; dates as ISO texts, None where there is no value."""
        typed = msgspec.structs.astuple(self)
        return {name: typed[i] for name, i in _COLUMNS[type(self)]}


#: Columns of every struct in the contract's order, with their place in the struct.
_COLUMNS: Final[dict[type[Record], tuple[tuple[str, int], ...]]] = {}


class _Encode(Protocol):
    def __call__(self, record: Record, *, record_id: str, received_at: str) -> bytes: ...


class RecordCodec:
    """Decoder and encoder of one workload's records.

    ``inference=True`` is for requests to a model: no field is required then, nor is the label, and the
    window features are fields of numbers.
    """

    #: ``decode(data)``: the record in ``data`` (one JSON object, UTF-8), or every reason why it is refused.
    decode: Callable[[bytes], Record | Rejected]
    #: ``encode(record, record_id=..., received_at=...)``: one JSON line under column names, delivery's two
    #: columns last. Both are kept in the record.
    encode: _Encode

    def __init__(
        self, contract: CompiledContract, *, max_bytes: int = MAX_RECORD_BYTES, inference: bool = False
    ) -> None:
        contract = contract.for_requests if inference else contract
        self.contract = contract
        self.max_bytes = max_bytes
        required = frozenset() if inference else frozenset(c.name for c in contract.columns if c.required)
        self._checks = [
            _FieldCheck(c, contract, required=c.name in required) for c in _in_order(contract, required)
        ]
        self._by_source = {check.column.source: i for i, check in enumerate(self._checks)}
        self._type = _struct(contract, required)
        self._any = msgspec.json.Decoder().decode
        self.decode = _decoder(self._type, self._checks, self._slow, max_bytes)
        self.encode = _encoder(contract, [check.column for check in self._checks])

    def check(self, values: Mapping[str, Any]) -> Record | Rejected:
        """The same for values under source names: JSON values, or the texts of a CSV row."""
        reasons: list[Reason] = []
        typed: list[Any] = [None] * len(self._checks)
        for source, value in values.items():
            position = self._by_source.get(source)
            if position is None:
                reasons.append(
                    Reason(
                        "unknown_field",
                        _shown(source),
                        _shown(value),
                        None,
                        f"{_shown(source)} is no field of the record",
                    )
                )
                continue
            check = self._checks[position]
            result = check(value)
            if isinstance(result, Reason):
                reasons.append(result)
            else:
                typed[position] = result
        for position, check in enumerate(self._checks):
            if (
                check.required
                and typed[position] is None
                and not any(r.field == check.column.name for r in reasons)
            ):
                reasons.append(
                    Reason(
                        "missing_required", check.column.name, None, None, f"{check.column.name} has no value"
                    )
                )
        return Rejected(tuple(reasons)) if reasons else self._type(*typed)

    def _slow(self, data: bytes) -> Record | Rejected:
        if len(data) > self.max_bytes:
            shown, allowed = f"{len(data)} bytes", f"{self.max_bytes} bytes"
            message = f"a record of {len(data):,} bytes; at most {self.max_bytes:,}"
            return Rejected((Reason("too_large", None, shown, allowed, message),))
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            return _refused("not_utf8", f"byte 0x{data[error.start]:02x} at {error.start} is not UTF-8")
        try:
            value = self._any(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
            return _refused("not_json", str(error)[:200])
        if not isinstance(value, dict):
            return _refused("not_an_object", f"a JSON object is needed, got {type(value).__name__}")
        return self.check(value)


def _refused(code: Code, message: str) -> Rejected:
    return Rejected((Reason(code, None, None, None, message),))


# --- the fast path ------------------------------------------------------------------------------------


def _struct(contract: CompiledContract, required: frozenset[str]) -> type[Record]:
    """Struct type with a field per column, named f0, f1, ... and read under its source name.

    Delivery's two columns are fields as well, so that one call encodes the whole line. Their type admits
    no value: a record that brings one is refused here and goes to the slow path, which knows no such field.
    """
    fields: list[Any] = []
    rename = {}
    columns = _in_order(contract, required)
    for i, column in enumerate(columns):
        kind = _annotation(column, contract)
        if column.missing:
            kind = kind | Literal[column.missing]
        fields.append((f"f{i}", kind) if column.name in required else (f"f{i}", kind | None, None))
        rename[f"f{i}"] = column.source
    for name in ("record_id", "received_at"):
        fields.append((name, msgspec.UnsetType, msgspec.UNSET))
        rename[name] = _delivery_key(name, contract)
    struct: Any = msgspec.defstruct(
        f"Record_{contract.name}",
        fields,
        bases=(Record,),
        rename=rename,
        forbid_unknown_fields=True,
        gc=False,
    )
    place = {column.name: i for i, column in enumerate(columns)}
    _COLUMNS[struct] = tuple((c.name, place[c.name]) for c in contract.columns)
    made: type[Record] = struct
    return made


def _in_order(contract: CompiledContract, required: frozenset[str]) -> list[Column]:
    """Columns in the order of the struct: those without a default first, as structs have them; then renamed
    ones, so that their keys stand near the beginning of a line.
    """
    return sorted(contract.columns, key=lambda c: (c.name not in required, c.source == c.name))


def _delivery_key(name: str, contract: CompiledContract) -> str:
    """The name under which the struct writes a column of delivery, one that no source field has."""
    sources = {c.source for c in contract.columns}
    while name in sources:
        name = f"{name} of delivery"
    return name


def _annotation(column: Column, contract: CompiledContract) -> Any:  # noqa: PLR0911 - one per type
    label_values = contract.label.values if column.name == contract.label.field else None
    if column.type == "boolean":
        return bool
    if column.type == "integer":
        if label_values is not None:
            return Literal[tuple(int(v) for v in label_values)]
        low = -_INT64 if column.minimum is None else math.ceil(column.minimum)
        high = _INT64 - 1 if column.maximum is None else math.floor(column.maximum)
        return Annotated[int, msgspec.Meta(ge=low, le=high)]
    if column.type == "number":
        return Annotated[float, msgspec.Meta(ge=column.minimum, le=column.maximum)]
    if column.type == "string":
        choices = label_values if label_values is not None else column.allowed
        if choices is not None and column.pattern is None and column.max_length is None:
            # One Literal with the missing texts: msgspec allows one per union.
            return Literal[tuple(dict.fromkeys((*choices, *column.missing)))]
        simple = _characters(column)
        if simple is not None and not column.missing:
            return Annotated[str, msgspec.Meta(min_length=max(simple[1], 1), max_length=simple[2])]
        return Annotated[str, msgspec.Meta(min_length=1, max_length=column.max_length)]
    return Annotated[str, msgspec.Meta(min_length=1)]


def _characters(column: Column) -> tuple[str, int, int] | None:
    """Characters, least and greatest length, when the pattern says no more than these."""
    simple = None if column.pattern is None else _CHARACTERS.fullmatch(column.pattern)
    if simple is None:
        return None
    matches = _whole(simple[1])
    characters = "".join(c for c in map(chr, range(128)) if matches(c))
    low, high = int(simple[2]), int(simple[3] or simple[2])
    return characters, low, high if column.max_length is None else min(high, column.max_length)


def _decoder(
    struct: type[Record],
    checks: list[_FieldCheck],
    slow: Callable[[bytes], Record | Rejected],
    max_bytes: int,
) -> Callable[[bytes], Record | Rejected]:
    """Decode into the struct, then what C cannot: patterns, dates to ISO texts, 'missing' texts to None.

    Written as one function without calls or loops of its own; whatever it does not accept goes to ``slow``.
    """
    lines = [
        "def decode(data):",
        f"    if len(data) > {max_bytes}: return slow(data)",
        "    try: r = fast(data)",
        "    except ERRORS: return slow(data)",
    ]
    namespace: dict[str, Any] = {
        "ERRORS": (msgspec.MsgspecError, UnicodeDecodeError, RecursionError),
        "fast": msgspec.json.Decoder(struct).decode,
        "slow": slow,
    }
    for i, check in enumerate(checks):
        column = check.column
        body: list[str] = []
        if check.parse_date is not None:
            namespace[f"p{i}"] = check.parse_date
            body += [f"r.f{i} = x = p{i}(x)", "if x is None: return slow(data)"]
        if column.pattern is not None:
            body.append(f"if {_mismatch(column, i, namespace)}: return slow(data)")
        if column.missing:
            namespace[f"m{i}"] = column.missing[0] if len(column.missing) == 1 else frozenset(column.missing)
            gone = "return slow(data)" if check.required else f"r.f{i} = None"
            test = "==" if len(column.missing) == 1 else "in"
            otherwise = ["else:", *(f"    {line}" for line in body)] if body else []
            body = [f"if x {test} m{i}: {gone}", *otherwise]
        if body and not check.required:
            body = ["if x is not None:", *(f"    {line}" for line in body)]
        if body:
            lines += [f"    x = r.f{i}", *(f"    {line}" for line in body)]
    lines.append("    return r")
    # Made from numbers and fixed text only.
    exec(compile("\n".join(lines), f"<decode {struct.__name__}>", "exec"), namespace)  # noqa: S102
    function: Callable[[bytes], Record | Rejected] = namespace["decode"]
    return function


def _mismatch(column: Column, i: int, namespace: dict[str, Any]) -> str:
    """Code that is true when the text ``x`` does not match the column's pattern."""
    simple = _characters(column)
    if simple is None:
        namespace[f"g{i}"], namespace[f"k{i}"] = _remembering(column.pattern or "")
        return f"x not in g{i} and not k{i}(x)"
    # Codes and numbers are so many characters of one class: nothing is left when these are stripped. The
    # struct checks the length already, unless it has to let 'missing' texts pass.
    characters, low, high = simple
    namespace[f"c{i}"] = characters
    return f"x.strip(c{i})" + (f" or not {low} <= len(x) <= {high}" if column.missing else "")


def _remembering(pattern: str) -> tuple[set[str], Callable[[str], bool]]:
    """Texts that are known to match, and the check of another one: states and cities come again and again."""
    known: set[str] = set()
    matches = _whole(pattern)

    def check(text: str) -> bool:
        if matches(text) is None:
            return False
        if len(known) < _REMEMBERED:
            known.add(text)
        return True

    return known, check


def _whole(pattern: str) -> Callable[[str], re.Match[str] | None]:
    """Match of a whole text."""
    return re.compile(rf"(?:{pattern})\Z").match


def _encoder(contract: CompiledContract, columns: list[Column]) -> _Encode:
    """Encoder under column names: the struct writes source names, which are replaced in the line.

    ``"name":`` with two plain quotes occurs as a key only: inside a text every quote has a backslash before
    it, and a text that is a value is followed by a comma or a brace. So bytes may be replaced without
    reading the JSON again.
    """
    pairs = {
        msgspec.json.encode(written) + b":": msgspec.json.encode(wanted) + b":"
        for written, wanted in (
            *((c.source, c.name) for c in columns),
            *((_delivery_key(name, contract), name) for name in ("record_id", "received_at")),
        )
        if written != wanted
    }
    names_change_places = bool(set(pairs) & set(pairs.values()))
    pattern = re.compile(b"|".join(re.escape(key) for key in pairs))
    namespace: dict[str, Any] = {
        "encode_lines": msgspec.json.Encoder().encode_lines,
        "all_at_once": lambda line: pattern.sub(lambda match: pairs[match[0]], line),
    }
    replaced = "".join(f".replace({old!r}, {new!r}, 1)" for old, new in pairs.items())
    line = (
        "all_at_once(encode_lines((record,)))"
        if names_change_places
        else f"encode_lines((record,)){replaced}"
    )
    lines = [
        "def encode(record, *, record_id, received_at):",
        "    record.record_id = record_id",
        "    record.received_at = received_at",
        f"    return {line}",
    ]
    # Made from repr() of names and fixed text only.
    exec(compile("\n".join(lines), f"<encode {contract.name}>", "exec"), namespace)  # noqa: S102
    function: _Encode = namespace["encode"]
    return function


# --- the slow path ------------------------------------------------------------------------------------


class _FieldCheck:
    """Check of one field: a raw value to a typed one, None for no value, or the reason."""

    def __init__(self, column: Column, contract: CompiledContract, *, required: bool) -> None:
        self.column = column
        self.required = required
        self.parse_date: DateParser | None = (
            date_parser(column.type, column.format) if column.type in ("date", "timestamp") else None
        )
        self._missing = frozenset(column.missing)
        self._matches = None if column.pattern is None else _whole(column.pattern)
        is_label = column.name == contract.label.field
        self._label = contract.label.values if is_label else None

    def __call__(self, value: Any) -> Any:
        if value is None or value == "" or (isinstance(value, str) and value in self._missing):
            return None
        kind = self.column.type
        if kind == "integer":
            typed = self._integer(value)
        elif kind == "number":
            typed = self._number(value)
        elif kind == "boolean":
            typed = self._boolean(value)
        elif kind == "string":
            typed = self._string(value)
        else:
            typed = self._date(value)
        if (
            self._label is not None
            and not isinstance(typed, Reason)
            and _class_text(typed) not in self._label
        ):
            allowed = ", ".join(self._label)
            return self._reason("unknown_label", value, allowed, f"is not a known label; known: {allowed}")
        return typed

    def _integer(self, value: Any) -> Any:
        number: int | None = None
        if isinstance(value, str) and _WHOLE.fullmatch(value):
            number = int(value.partition(".")[0])
        elif isinstance(value, float) and value.is_integer():
            number = int(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            number = value
        if number is None:
            return self._wrong_type(value, "a whole number")
        if not -_INT64 <= number < _INT64:
            return self._reason("out_of_range", value, "64 bits", "does not fit 64 bits")
        return self._in_range(number, value)

    def _number(self, value: Any) -> Any:
        number: float | None = None
        if isinstance(value, str) and _DECIMAL.fullmatch(value):
            number = float(value)
        elif isinstance(value, float | int) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
        if number is None:
            return self._wrong_type(value, "a number")
        if not math.isfinite(number):
            return self._reason("out_of_range", value, "finite", "is not finite")
        return self._in_range(number, value)

    def _in_range(self, number: float, value: Any) -> Any:
        low, high = self.column.minimum, self.column.maximum
        if (low is not None and number < low) or (high is not None and number > high):
            allowed = (
                f"{'' if low is None else f'{low:.15g}'} to {'' if high is None else f'{high:.15g}'}".strip()
            )
            return self._reason("out_of_range", value, allowed, f"is out of range {allowed}")
        return number

    def _boolean(self, value: Any) -> Any:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        return self._wrong_type(value, "true or false")

    def _string(self, value: Any) -> Any:
        if not isinstance(value, str):
            return self._wrong_type(value, "a text")
        column = self.column
        if self._label is not None:
            return value
        if column.allowed is not None and value not in column.allowed:
            allowed = ", ".join(column.allowed)
            return self._reason("not_allowed", value, allowed, f"is not allowed; allowed: {allowed}")
        if self._matches is not None and self._matches(value) is None:
            return self._reason("pattern", value, column.pattern, f"does not match {column.pattern}")
        if column.max_length is not None and len(value) > column.max_length:
            return self._reason(
                "too_long",
                value,
                f"{column.max_length} characters",
                f"has {len(value)} characters; at most {column.max_length}",
            )
        return value

    def _date(self, value: Any) -> Any:
        if not isinstance(value, str) or self.parse_date is None:
            return self._wrong_type(value, f"a {self.column.type} as text")
        parsed = self.parse_date(value)
        if parsed is None:
            form = self.column.format or "ISO 8601"
            return self._reason(
                "unparseable_date", value, form, f"is no {self.column.type} of the form {form}"
            )
        return parsed

    def _wrong_type(self, value: Any, wanted: str) -> Reason:
        return self._reason("wrong_type", value, wanted, f"is not {wanted}")

    def _reason(self, code: Code, value: Any, allowed: str | None, message: str) -> Reason:
        shown = _shown(value)
        return Reason(code, self.column.name, shown, allowed, f"{self.column.name}: {shown} {message}")


def _class_text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=repr).decode()
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
