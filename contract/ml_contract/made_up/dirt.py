"""What goes wrong on the way: bad, broken, repeated and late records. Seeded, for any workload."""

from __future__ import annotations

import datetime as dt
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

from ml_contract.compiled import Column, CompiledContract
from ml_contract.made_up.identifiers import NewIdentifiers
from ml_contract.records.dates import date_parser

__all__ = ["DELIVERED", "Dirt", "Message", "soil"]

Kind = Literal[
    "clean",
    "duplicate",
    "late",
    "wrong_type",
    "missing_identifier",
    "not_json",
    "not_utf8",
    "huge",
    "unknown_field",
    "unknown_label",
]
#: Kinds that pass the door: duplicates are dropped and late ones counted further on. All others are
#: quarantined.
DELIVERED: Final = frozenset({"clean", "duplicate", "late"})
HUGE_BYTES: Final = 100_000


@dataclass(frozen=True, kw_only=True)
class Dirt:
    """How many messages of each kind are added to the clean ones."""

    wrong_type: int = 0
    missing_identifier: int = 0
    not_json: int = 0
    not_utf8: int = 0
    huge: int = 0
    unknown_field: int = 0
    unknown_label: int = 0
    duplicate: int = 0
    late: int = 0

    def __post_init__(self) -> None:
        negative = [f.name for f in fields(self) if getattr(self, f.name) < 0]
        if negative:
            raise ValueError(f"counts must not be negative: {', '.join(negative)}")

    @property
    def total(self) -> int:
        """Messages added."""
        return sum(getattr(self, f.name) for f in fields(self))


@dataclass(frozen=True, slots=True)
class Message:
    """Bytes as a producer sends them, and what is wrong with them."""

    data: bytes
    kind: Kind


def soil(
    records: Sequence[Mapping[str, Any]], contract: CompiledContract, dirt: Dirt, seed: int
) -> list[Message]:
    """The records as messages, with dirt among them, in random order.

    Every dirty message is made from a record of the list with an identifier of its own, except duplicates
    (the very bytes of a clean message). Raises ValueError when the list is empty, or the workload cannot
    have a kind: no label to be unknown in a regression, no ``late_after_days`` for late records.
    """
    if dirt.total and not records:
        raise ValueError("dirt is made from clean records; give one at least")
    problems = []
    if dirt.unknown_label and contract.label.values is None:
        problems.append("unknown_label: a regression has no set of labels")
    if dirt.late and contract.late_after_days is None:
        problems.append("late: the workload names no late_after_days")
    if dirt.wrong_type and _typed_column(contract) is None:
        problems.append("wrong_type: no field is a number or a boolean")
    if problems:
        raise ValueError("; ".join(problems))
    identifiers = NewIdentifiers(records, contract)
    rng = random.Random(f"{contract.name}/{seed}/dirt")  # noqa: S311 - made-up data, not secrets
    clean = [Message(_json(r), "clean") for r in records]
    makers: dict[Kind, Callable[[dict[str, Any]], bytes]] = {
        "wrong_type": lambda r: _json(_with_wrong_type(r, contract)),
        "missing_identifier": lambda r: _json({k: v for k, v in r.items() if k != identifiers.source}),
        "not_json": lambda r: _json(r)[:-1],
        "not_utf8": lambda r: _json(r)[:-1] + b',"\xff\xfe":1}',
        "huge": lambda r: _json(r | {"padding": "x" * HUGE_BYTES}),
        "unknown_field": lambda r: _json(r | {"unexpected_field": 1}),
        "unknown_label": lambda r: _json(r | {contract.label_column.source: "a label never seen"}),
        "late": lambda r: _json(_late(r, contract)),
    }
    dirty = []
    for kind, make in makers.items():
        for _ in range(getattr(dirt, kind)):
            base = dict(rng.choice(records))
            base[identifiers.source] = identifiers.like(base[identifiers.source])
            dirty.append(Message(make(base), kind))
    repeated = [Message(rng.choice(clean).data, "duplicate") for _ in range(dirt.duplicate)]
    messages = [*clean, *dirty, *repeated]
    rng.shuffle(messages)
    return messages


def _json(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _typed_column(contract: CompiledContract) -> Column | None:
    """A field that a text cannot stand in for."""
    keys = (contract.identifier, contract.label.field)
    typed = [c for c in contract.columns if c.type in ("integer", "number", "boolean") and c.name not in keys]
    return typed[0] if typed else None


def _with_wrong_type(record: dict[str, Any], contract: CompiledContract) -> dict[str, Any]:
    column = _typed_column(contract)
    if column is None:
        return record
    return record | {column.source: "not of this type"}


def _late(record: dict[str, Any], contract: CompiledContract) -> dict[str, Any]:
    """Happened a year before it would have been in time, counted from when the record says it happened."""
    column = contract.by_name[contract.event_time]
    parse = date_parser(column.type, column.format)
    iso = parse(str(record[column.source]))
    if iso is None:
        raise ValueError(f"{column.source} of a clean record is no date: {record[column.source]!r}")
    moment = dt.datetime.fromisoformat(iso).replace(tzinfo=None)
    moment -= dt.timedelta(days=(contract.late_after_days or 0) + 366)
    if column.format is not None:
        text = moment.strftime(column.format)
    else:
        text = moment.date().isoformat() if column.type == "date" else moment.isoformat() + "Z"
    return record | {column.source: text}
