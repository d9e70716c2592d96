"""How a record may change: what adds passes, what breaks senders or readers takes a new schema version.

A change is additive when every record that the old contract takes is taken by the new one, with the same
values in the same columns. Anything else is breaking: somebody sends what is refused from now on, or reads a
column that is gone or means something else. ``record.lock.json`` beside a workload holds the record that is
deployed and its ``schema_version``; a breaking change is refused unless that number is raised.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from ml_contract.problems import ContractError, Location, Problem, closest, join, short

if TYPE_CHECKING:
    from ml_contract.spec.workload import Workload

__all__ = [
    "LOCK_NAME",
    "Change",
    "breaking_problems",
    "changes",
    "lock_problems",
    "lock_text",
    "read_lock",
    "record_schema",
]

LOCK_NAME: Final = "record.lock.json"
#: What a field says of its values, beside its type.
_KEYS: Final = (
    "type",
    "source",
    "format",
    "required",
    "minimum",
    "maximum",
    "allowed",
    "pattern",
    "max_length",
    "missing",
    "sensitive",
)
_LESS: Final = {None: 0, "protected": 1, "pii": 2}
_WAY: Final = "or raise record.schema_version and record it with 'python -m ml_contract lock'"


class Loaded(Protocol):
    """A workload that was read, and its lines."""

    @property
    def workload(self) -> Workload: ...

    @property
    def path(self) -> Path: ...

    def problem(self, path: str, message: str) -> Problem: ...


@dataclass(frozen=True)
class Change:
    """One difference between two records. ``way`` says how to go on when it breaks."""

    path: Location
    breaking: bool
    message: str
    way: str = ""


def record_schema(workload: Workload) -> dict[str, Any]:
    """What senders and readers rely on, as plain data."""
    record = workload.record
    fields = {}
    for name, field in record.fields.items():
        data = field.model_dump(mode="json")
        data["source"] = data["source"] or name
        # Not what a field does not say; a bound of 0 says something.
        fields[name] = {
            key: data[key]
            for key in _KEYS
            if not (data[key] is None or data[key] is False or data[key] == [])
        }
    return {
        "schema_version": record.schema_version,
        "identifier": record.identifier,
        "event_time": record.event_time,
        "label": workload.label.model_dump(mode="json"),
        "fields": fields,
    }


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Every difference between two records, in the order of the new one; what is gone comes last."""
    return [*_roles(old, new), *_fields(old["fields"], new["fields"])]


def _roles(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for role, why in (
        ("identifier", "which record replaces which would change"),
        ("event_time", "every row would move to another time"),
    ):
        if old[role] != new[role]:
            yield Change(
                ("record", role),
                True,
                f"got {new[role]!r}, was {old[role]!r}: {why}",
                f"name {old[role]} again",
            )
    for key in sorted(old["label"].keys() | new["label"].keys()):
        was, now = old["label"].get(key), new["label"].get(key)
        if was != now:
            message = f"got {short(now)}, was {short(was)}: models and labels that exist mean the old one"
            yield Change(("label", key), True, message, "make it a workload of its own")


def _fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    gone = [name for name in old if name not in new]
    added = [name for name in new if name not in old]
    renamed = _renamed(old, new, gone, added)
    for name, field in new.items():
        here: Location = ("record", "fields", name)
        if name in old:
            yield from _values(here, old[name], field)
        elif name in renamed.values():
            continue
        elif field.get("required"):
            yield Change(
                (*here, "required"),
                True,
                "is a new required field: what senders send today would be quarantined",
                "leave it optional until every sender fills it",
            )
        else:
            yield Change(here, False, "is a new optional field")
    for name in gone:
        if name in renamed:
            yield Change(
                ("record", "fields", renamed[name]),
                True,
                f"was {name}: the column that readers know is gone",
                f"keep the name {name}; 'source' renames the incoming field only",
            )
            continue
        hint = closest(name, added)
        meant = f" ({hint} is new; is it the same?)" if hint else ""
        yield Change(
            ("record", "fields"),
            True,
            f"no longer has {name}{meant}: records that carry it would be quarantined, and readers lose it",
            f"keep {name} as an optional field",
        )


def _renamed(
    old: Mapping[str, Any], new: Mapping[str, Any], gone: list[str], added: list[str]
) -> dict[str, str]:
    """Columns that read the same incoming field under another name."""
    return {
        name: other
        for name in gone
        for other in added
        if old[name].get("source") == new[other].get("source")
        and old[name].get("type") == new[other].get("type")
    }


def _values(here: Location, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    """What changed in one field."""

    def differs(key: str) -> bool:
        return bool(old.get(key) != new.get(key))

    def change(key: str, breaking: bool, message: str, way: str = "") -> Change:
        return Change((*here, key), breaking, message, way)

    if differs("type"):
        yield change(
            "type",
            True,
            f"got {new['type']}, was {old['type']}: the column's type would change under its readers",
            "add a field of the new type beside it",
        )
        return
    if differs("source"):
        message = f"got {new.get('source')!r}, was {old.get('source')!r}: senders send the old name"
        yield change("source", True, message, "keep it, and rename in the sources that send the new name")
    if differs("format"):
        message = (
            f"got {new.get('format')!r}, was {old.get('format')!r}: what is sent today means another day"
        )
        yield change("format", True, message, "keep the format, and add a field for the new one")
    if differs("required"):
        now = bool(new.get("required"))
        message = (
            "is required from now on: records without it would be quarantined" if now else "is optional now"
        )
        yield change("required", now, message, "leave it optional until every sender fills it")
    for key, word, narrower in (("minimum", "below", 1), ("maximum", "above", -1)):
        if differs(key):
            yield _bound((*here, key), word, (old.get(key), new.get(key)), narrower)
    yield from _texts(here, old, new)
    if differs("sensitive"):
        was, now_is = old.get("sensitive"), new.get("sensitive")
        loosened = _LESS[now_is] < _LESS[was]
        message = f"got {now_is}, was {was}" + (": who may not see it today would see it" if loosened else "")
        yield change("sensitive", loosened, message, "ask the owner of the data first")


def _bound(place: Location, word: str, bounds: tuple[float | None, float | None], narrower: int) -> Change:
    was, now = bounds
    tighter = now is not None and (was is None or (now - was) * narrower > 0)
    message = f"got {_number(now)}, was {_number(was)}"
    if tighter:
        message += f": values {word} it would be quarantined"
    return Change(place, tighter, message, f"keep {_number(was)}, and judge it by a data quality rule")


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.15g}"


def _texts(here: Location, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    was, now = old.get("allowed"), new.get("allowed")
    if was != now and set(was or ()) != set(now or ()):
        lost = [] if now is None else sorted(set(was or ()) - set(now))
        if now is not None and (was is None or lost):
            what = f"{', '.join(map(repr, lost[:5]))} would be" if lost else "any other value would be"
            yield Change(
                (*here, "allowed"),
                True,
                f"allows less than before: {what} quarantined",
                "keep the values that are still sent",
            )
        else:
            yield Change((*here, "allowed"), False, "allows more values")
    if old.get("pattern") != new.get("pattern"):
        removed = new.get("pattern") is None
        message = (
            "any text is taken now"
            if removed
            else f"got {short(new['pattern'])}, was {short(old.get('pattern'))}: what matched may not now"
        )
        yield Change((*here, "pattern"), not removed, message, "keep it, or remove it and judge by a rule")
    longest, before = new.get("max_length"), old.get("max_length")
    if longest != before:
        tighter = longest is not None and (before is None or longest < before)
        message = f"got {longest}, was {before}" + (": longer texts would be quarantined" if tighter else "")
        yield Change((*here, "max_length"), tighter, message, f"keep {before}")
    gone_before, gone_now = set(old.get("missing", ())), set(new.get("missing", ()))
    if gone_before - gone_now:
        text = ", ".join(map(repr, sorted(gone_before - gone_now)))
        yield Change(
            (*here, "missing"), True, f"{text} was 'no value' and is a value now", "keep it among missing"
        )
    values = sorted(t for t in gone_now - gone_before if _was_value(t, old))
    if values:
        text = ", ".join(map(repr, values))
        yield Change(
            (*here, "missing"), True, f"{text} was a value and is 'no value' now", "take it out again"
        )
    elif gone_now - gone_before:
        yield Change((*here, "missing"), False, "names more texts for 'no value'")


def _was_value(text: str, old: Mapping[str, Any]) -> bool:
    """Whether the old contract may have taken the text as a value."""
    kind = old["type"]
    if kind == "string":
        return "allowed" not in old or text in old["allowed"]
    if kind == "boolean":
        return text.lower() in ("true", "false")
    # Numbers and dates come as texts too, and have digits.
    return any(c.isdigit() for c in text)


# --- the lock ------------------------------------------------------------------------------------------


def lock_text(workload: Workload) -> str:
    """The lock file's text: the same workload gives the same bytes."""
    return json.dumps(record_schema(workload), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def read_lock(path: Path) -> dict[str, Any] | None:
    """The recorded record, None when there is no file. Raises ContractError when it is none of ours."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ContractError([Problem(str(path), 1, "", f"cannot be read: {error}")]) from None
    missing = {"schema_version", "identifier", "event_time", "label", "fields"} - (
        found.keys() if isinstance(found, dict) else set()
    )
    if missing:
        message = (
            f"lacks {', '.join(sorted(missing))}; restore it, or write it with 'python -m ml_contract lock'"
        )
        raise ContractError([Problem(str(path), 1, "", message)])
    lock: dict[str, Any] = found
    return lock


def lock_problems(loaded: Loaded) -> list[Problem]:
    """What the workload breaks of the record in its lock file; nothing when it has none."""
    lock = read_lock(loaded.path.parent / LOCK_NAME)
    return [] if lock is None else breaking_problems(loaded, lock)


def breaking_problems(loaded: Loaded, old: Mapping[str, Any]) -> list[Problem]:
    """Every breaking change against an older record, with its line and the way forward.

    None when ``schema_version`` is higher: then they are meant. One that is lower is a problem of its own.
    """
    version = loaded.workload.record.schema_version
    if version > old["schema_version"]:
        return []
    if version < old["schema_version"]:
        message = f"got {version}, but {old['schema_version']} is recorded; versions only rise"
        return [loaded.problem("record.schema_version", message)]
    return [
        loaded.problem(join(change.path), f"{change.message}; {change.way}, {_WAY}")
        for change in changes(old, record_schema(loaded.workload))
        if change.breaking
    ]
