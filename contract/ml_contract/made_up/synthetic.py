"""Records made up for any workload, and drift for any records. Standard library only, seeded.

The generator knows nothing but the contract: values lie within its bounds, and the label follows from a few
fields, so that a model has something to learn. A workload with a story of its own brings a ``generate.py``.
"""

from __future__ import annotations

import datetime as dt
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ml_contract.compiled import Column, CompiledContract
from ml_contract.made_up.identifiers import NewIdentifiers
from ml_contract.made_up.patterns import PatternError, Texts
from ml_contract.records.dates import date_parser

__all__ = ["Drift", "drift_records", "generate"]

#: Records begin to happen here; a later day would make the output depend on the day it is made.
FIRST_DAY: Final = dt.datetime(2015, 1, 1)
DAYS: Final = 60
MISSING_SHARE: Final = 0.05


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How live records differ from those a model was trained on.

    ``covariate`` (0 to 1) moves what is measured, ``prior`` is the new share of the positive (or last)
    class, and ``concept`` (0 to 1) is the share of records in which what is measured means something else
    for the label.
    """

    covariate: float = 0.0
    prior: float | None = None
    concept: float = 0.0

    def __post_init__(self) -> None:
        problems = [
            f"{name} must lie between 0 and 1, got {value}"
            for name, value in (
                ("covariate", self.covariate),
                ("prior", self.prior),
                ("concept", self.concept),
            )
            if value is not None and not 0 <= value <= 1
        ]
        if problems:
            raise ValueError("; ".join(problems))


# --- records from nothing ------------------------------------------------------------------------------


def generate(
    contract: CompiledContract, n: int, seed: int, *, drift: Drift | None = None
) -> list[dict[str, Any]]:
    """``n`` records under source names; the same for the same contract and seed, whatever ``n``'s rest.

    Raises ValueError for a field whose pattern is too free to be made up: such a workload needs a
    ``generate.py`` or a data file.
    """
    if n < 0:
        raise ValueError(f"n must not be negative, got {n}")
    signal = _Signal(contract)
    makers = {c.name: _maker(c, contract, seed) for c in contract.columns}
    records = []
    for i in range(n):
        rng = _random(f"{contract.name}/{seed}/{i}")
        values = {name: make(rng, i) for name, make in makers.items()}
        values[contract.label.field] = signal.label(values, rng)
        for column in contract.columns:
            optional = not column.required and column.name != contract.label.field
            if optional and rng.random() < MISSING_SHARE:
                values[column.name] = column.missing[0] if column.missing else None
        records.append({c.source: values[c.name] for c in contract.columns})
    return records if drift is None else drift_records(records, contract, drift, seed)


def _random(seed: str) -> random.Random:
    return random.Random(seed)  # noqa: S311 - made-up data, not secrets


class _Signal:
    """Label from the fields: a hidden score, with noise."""

    def __init__(self, contract: CompiledContract) -> None:
        rng = _random(f"{contract.name}/signal")
        self._contract = contract
        usable = [
            c
            for c in contract.columns
            if c.name not in (contract.identifier, contract.event_time, contract.label.field)
            and c.sensitive is None
            and c.type in ("integer", "number", "string", "boolean")
        ]
        self._weights = {c.name: rng.choice((-1.0, 1.0)) * rng.uniform(0.8, 1.6) for c in usable[:8]}
        self._columns = {c.name: c for c in usable[:8]}
        self._texts: dict[tuple[str, str], float] = {}

    def label(self, values: Mapping[str, Any], rng: random.Random) -> Any:
        score = sum(weight * self._position(name, values[name]) for name, weight in self._weights.items())
        score += rng.gauss(0.0, 0.35)
        label = self._contract.label
        if label.values is None:
            return _regression_value(self._contract.label_column, score)
        spread = math.sqrt(sum(w * w for w in self._weights.values()) / 3.0) + 0.1
        # The standard normal distribution function makes the classes about as frequent as each other.
        share = 0.5 * (1.0 + math.erf(score / spread / math.sqrt(2.0)))
        chosen = label.values[min(int(share * len(label.values)), len(label.values) - 1)]
        return _class_value(self._contract.label_column, chosen)

    def _position(self, name: str, value: Any) -> float:
        """Where the value lies, -1 to 1."""
        column = self._columns[name]
        if isinstance(value, bool):
            return 1.0 if value else -1.0
        if isinstance(value, str):
            key = (name, value)
            if key not in self._texts:
                self._texts[key] = _random(f"{name}={value}").choice((-1.0, 1.0))
            return self._texts[key]
        low, high = _bounds(column)
        return 2.0 * (value - low) / (high - low) - 1.0 if high > low else 0.0


def _regression_value(column: Column, score: float) -> float:
    low, high = _bounds(column)
    share = 0.5 * (1.0 + math.tanh(score / 3.0))
    value = low + share * (high - low)
    return round(value) if column.type == "integer" else round(value, 4)


def _class_value(column: Column, text: str) -> Any:
    if column.type == "integer":
        return int(text)
    return text == "true" if column.type == "boolean" else text


def _bounds(column: Column) -> tuple[float, float]:
    low, high = column.minimum, column.maximum
    if low is None and high is None:
        return 0.0, 100.0
    if low is None:
        return float(high or 0.0) - 100.0, float(high or 0.0)
    return (low, low + 100.0) if high is None else (low, high)


def _maker(  # noqa: PLR0911 - one per type
    column: Column, contract: CompiledContract, seed: int
) -> Callable[[random.Random, int], Any]:
    if column.name == contract.identifier:
        return _identifier(column, seed)
    if column.name == contract.label.field and contract.label.values is not None:
        return lambda _rng, _i: None
    if column.type in ("date", "timestamp"):
        return _date(column, event=column.name == contract.event_time)
    if column.type == "boolean":
        return lambda rng, _i: rng.random() < 0.5
    if column.type == "string":
        return _text(column)
    low, high = _bounds(column)
    if column.type == "integer":
        first, last = math.ceil(low), math.floor(high)
        return lambda rng, _i: rng.randint(first, last)
    # Two decimals where they fit between the bounds: prices and shares look like that.
    digits = 2 if high - low > 1 else 6
    return lambda rng, _i: min(max(round(rng.uniform(low, high), digits), low), high)


def _identifier(column: Column, seed: int) -> Callable[[random.Random, int], Any]:
    """Counted identifiers; seeds that differ modulo 1,000 give others, where the field has room."""
    block = seed % 1000 * 1_000_000
    if column.type == "integer":
        first = 0 if column.minimum is None else math.ceil(column.minimum)
        room = column.maximum is None or column.maximum - first >= 1_000_000_000
        start = first + (block if room else 0)
        return lambda _rng, i: start + i
    if column.pattern is None:
        width = min(column.max_length or 12, 12)
        start = block if width >= 9 else 0
        return lambda _rng, i: f"{start + i:0{width}d}"
    texts = _texts(column)
    start = block if texts.count >= 1_000_000_000 else 0
    return lambda _rng, i: texts[start + i]


def _text(column: Column) -> Callable[[random.Random, int], Any]:
    if column.allowed is not None:
        allowed = column.allowed
        return lambda rng, _i: rng.choice(allowed)
    if column.pattern is not None:
        texts = _texts(column)
        # Few enough to come again: codes do.
        step = max(texts.count // 50, 1)
        return lambda rng, _i: texts[rng.randrange(min(texts.count, 50)) * step]
    names = [f"{column.name[:12]}-{letter}"[: column.max_length] for letter in "abcdef"]
    return lambda rng, _i: rng.choice(names)


def _date(column: Column, *, event: bool) -> Callable[[random.Random, int], str]:
    parse = date_parser(column.type, column.format)

    def make(rng: random.Random, _i: int) -> str:
        moment = FIRST_DAY + dt.timedelta(seconds=rng.randrange(DAYS * 86_400))
        if not event:
            moment -= dt.timedelta(days=rng.randrange(3650))
        if column.format is not None:
            text = moment.strftime(column.format)
        else:
            text = moment.date().isoformat() if column.type == "date" else moment.isoformat() + "Z"
        if parse(text) is None:
            raise ValueError(f"{column.name}: dates of the format {column.format!r} cannot be made up")
        return text

    return make


def _texts(column: Column) -> Texts:
    try:
        return Texts(column.pattern or "", max_length=column.max_length)
    except PatternError as error:
        raise ValueError(
            f"{column.name}: {error}; give the workload a generate.py or rehearse with DATA=file.csv"
        ) from None


# --- drift of records that are there -------------------------------------------------------------------


def drift_records(
    records: Sequence[Mapping[str, Any]],
    contract: CompiledContract,
    drift: Drift,
    seed: int,
    *,
    new_identifiers: bool = False,
) -> list[dict[str, Any]]:
    """Records as they might look later. Every one still fits the contract; dates stay.

    Identifiers stay too, so that a drifted record replaces the one it was made from; with
    ``new_identifiers`` it is another record.

    - ``covariate`` moves numbers by that part of the way to an end of the range they have, and lets one
      value of a text stand for the others as often.
    - ``prior`` picks records anew so that the class has that share; a record picked twice gets a new
      identifier.
    - ``concept`` turns the meaning of fields around in that part of the records: numbers are mirrored in
      their range, texts change places. They come from one corner of the table, the rarest value of one
      field: a model trained on old and new records can tell them apart, one trained before is wrong there.
    """
    rng = _random(f"{contract.name}/{seed}/drift")
    result = [dict(r) for r in records]
    if drift.prior is not None and contract.label.values is not None and result:
        result = _with_prior(result, contract, drift.prior, rng)
    if new_identifiers:
        identifiers = NewIdentifiers(result, contract)
        for record in result:
            record[identifiers.source] = identifiers.like(record[identifiers.source])
    remaps = [_Remap(c, result, rng) for c in _movable(contract)]
    corner = _Corner(remaps, contract, rng)
    for record in result:
        if drift.concept and rng.random() < drift.concept:
            for remap in remaps:
                record[remap.source] = remap.turned(record.get(remap.source))
            corner.mark(record)
        if drift.covariate:
            for remap in remaps:
                record[remap.source] = remap.moved(record.get(remap.source), drift.covariate, rng)
    return result


def _movable(contract: CompiledContract) -> list[Column]:
    keys = (contract.identifier, contract.event_time, contract.label.field)
    return [
        c
        for c in contract.columns
        if c.name not in keys and c.sensitive != "pii" and c.type not in ("date", "timestamp")
    ]


def _with_prior(
    records: list[dict[str, Any]], contract: CompiledContract, prior: float, rng: random.Random
) -> list[dict[str, Any]]:
    values = contract.label.values or ()
    source = contract.label_column.source
    positive = [r for r in records if _text_of(r.get(source)) == values[-1]]
    others = [r for r in records if _text_of(r.get(source)) != values[-1]]
    if not positive or not others:
        return records
    wanted = round(prior * len(records))
    picked = [*_drawn(positive, wanted, rng), *_drawn(others, len(records) - wanted, rng)]
    rng.shuffle(picked)
    return _with_new_identifiers(picked, contract)


def _drawn(records: list[dict[str, Any]], n: int, rng: random.Random) -> list[dict[str, Any]]:
    """``n`` records, each as often as the others at most once more."""
    whole, rest = divmod(n, len(records))
    return [dict(r) for r in [*records * whole, *rng.sample(records, rest)]]


def _with_new_identifiers(records: list[dict[str, Any]], contract: CompiledContract) -> list[dict[str, Any]]:
    """Every identifier once: a record that comes again gets a new one."""
    identifiers = NewIdentifiers(records, contract)
    seen: set[Any] = set()
    for record in records:
        key = record[identifiers.source]
        if key in seen:
            record[identifiers.source] = identifiers.like(key)
        seen.add(key)
    return records


def _text_of(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


class _Corner:
    """Where the new meaning holds: the rarest value of one text field, or the edge of a number's range.

    Without it a model that learns from old and new records could not know which meaning is asked for.
    """

    def __init__(self, remaps: Sequence[_Remap], contract: CompiledContract, rng: random.Random) -> None:
        features = {c for f in contract.features for c in f.expression.columns()}
        usable = [r for r in remaps if r.column in features and r.rarest is not None]
        texts = [r for r in usable if not r.numeric and r.kinds > 2]
        candidates = texts if texts else usable
        self._remap = rng.choice(candidates) if candidates else None

    def mark(self, record: dict[str, Any]) -> None:
        if self._remap is not None:
            record[self._remap.source] = self._remap.rarest


class _Remap:
    """Changes the values of one field among those it has."""

    def __init__(self, column: Column, records: Sequence[Mapping[str, Any]], rng: random.Random) -> None:
        self.source = column.source
        self.column = column.name
        self._gaps = {None, "", *column.missing}
        self.numeric = column.type in ("integer", "number")
        self._whole = column.type == "integer"
        values = [r.get(column.source) for r in records]
        present = [v for v in values if v not in self._gaps]
        self._turn: dict[Any, Any] = {}
        self.kinds = 0
        self.rarest: Any = None
        self._goal: Any = None
        if self.numeric:
            numbers = [float(v) for v in present if v is not None]
            self._low, self._high = (min(numbers), max(numbers)) if numbers else (0.0, 0.0)
            self._goal = self._high if rng.random() < 0.7 else self._low
            self.rarest = max((v for v in present if v is not None), key=float, default=None)
        elif present:
            kinds = sorted(set(present), key=str)
            self._turn = dict(zip(kinds, [*kinds[1:], kinds[0]], strict=True))
            self._goal = rng.choice(kinds)
            self.kinds = len(kinds)
            self.rarest = min(kinds, key=present.count)

    def turned(self, value: Any) -> Any:
        if value is None or value in self._gaps:
            return value
        if self.numeric:
            return self._like(value, self._low + self._high - float(value))
        return self._turn[value]

    def moved(self, value: Any, strength: float, rng: random.Random) -> Any:
        if value is None or value in self._gaps:
            return value
        if self.numeric:
            number = float(value)
            return self._like(value, number + 0.6 * strength * (self._goal - number))
        return self._goal if rng.random() < 0.6 * strength else value

    def _like(self, value: Any, number: float) -> Any:
        """The number as the value was given: a text stays one (CSV), an integer field stays whole."""
        inside = min(max(number, self._low), self._high)
        rounded: float = round(inside) if self._whole else inside
        return str(rounded) if isinstance(value, str) else rounded
