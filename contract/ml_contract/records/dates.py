"""Dates and timestamps as texts: from a field's format to ISO 8601 in UTC. Standard library only."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

__all__ = ["DateParser", "FormatError", "date_parser"]

#: From text to ISO text, None when it is no date of the format. A date becomes ``2015-01-25``, a timestamp
#: ``2015-01-25T13:00:00.000Z``: UTC, milliseconds, always as wide.
DateParser = Callable[[str], str | None]

#: Dates repeat; a parser remembers this many.
REMEMBERED: Final = 65_536

_DIRECTIVES: Final = frozenset("YymdHMSfzbBjpI%")
_NUMERIC: Final = {"Y": r"([0-9]{4})", "m": r"([0-9]{1,2})", "d": r"([0-9]{1,2})"}
_ISO_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_ISO_TIMESTAMP: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]{1,9})?)?(Z|[+-][0-9]{2}(:?[0-9]{2})?)?)?"
)


class FormatError(ValueError):
    """A format that does not say which day it is."""


def date_parser(kind: str, format: str | None) -> DateParser:
    """Parser of a ``date`` or ``timestamp`` field. Without a format texts are ISO 8601; without an offset,
    UTC.

    Raises FormatError when the format has an unknown directive, or no year, month and day.
    """
    parse: DateParser
    if format is None:
        parse = _iso_date if kind == "date" else _iso_timestamp
    else:
        _check(kind, format)
        parse = _formatted(kind, format)
    return lru_cache(maxsize=REMEMBERED)(parse)


def _check(kind: str, format: str) -> None:
    directives = re.findall(r"%(.?)", format)
    unknown = [d for d in directives if d not in _DIRECTIVES]
    if unknown:
        known = " ".join(f"%{d}" for d in sorted(_DIRECTIVES))
        raise FormatError(f"got {format!r}; %{unknown[0]} is not known, these are: {known}")
    have = set(directives)
    if not have & set("Yy") or not ("j" in have or (have & set("mbB") and "d" in have)):
        raise FormatError(f"got {format!r}; a {kind} needs year, month and day, e.g. %Y-%m-%d")
    if kind == "date" and have & set("HMSfzpI"):
        raise FormatError(f"got {format!r}; a date has no time of day, make the field a timestamp")


def _formatted(kind: str, format: str) -> DateParser:
    pieces = re.split(r"%(.)", format)
    names = pieces[1::2]
    if kind == "date" and sorted(names) == ["Y", "d", "m"]:
        return _numeric_date(pieces)

    def parse(text: str) -> str | None:
        try:
            moment = dt.datetime.strptime(text, format)
        except ValueError:
            return None
        return moment.date().isoformat() if kind == "date" else _utc(moment)

    return parse


def _numeric_date(pieces: list[str]) -> DateParser:
    """Year, month and day in digits: a regular expression is several times faster than strptime."""
    names = pieces[1::2]
    pattern = re.escape(pieces[0])
    for name, after in zip(names, pieces[2::2], strict=True):
        pattern += _NUMERIC[name] + re.escape(after)
    matches = re.compile(pattern).fullmatch
    year, month, day = (names.index(name) + 1 for name in "Ymd")

    def parse(text: str) -> str | None:
        match = matches(text)
        if match is None:
            return None
        try:
            return dt.date(int(match[year]), int(match[month]), int(match[day])).isoformat()
        except ValueError:
            return None

    return parse


def _iso_date(text: str) -> str | None:
    if _ISO_DATE.fullmatch(text) is None:
        return None
    try:
        return dt.date.fromisoformat(text).isoformat()
    except ValueError:
        return None


def _iso_timestamp(text: str) -> str | None:
    if _ISO_TIMESTAMP.fullmatch(text) is None:
        return None
    try:
        return _utc(dt.datetime.fromisoformat(text))
    except ValueError:
        return None


def _utc(moment: dt.datetime) -> str | None:
    if moment.tzinfo is not None:
        try:
            moment = moment.astimezone(dt.UTC)
        except OverflowError:
            return None
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
