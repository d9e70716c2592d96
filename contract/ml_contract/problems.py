"""What is wrong with a workload, and where: the words and places of every message."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeAlias

__all__ = [
    "ContractError",
    "Lines",
    "Location",
    "Problem",
    "closest",
    "join",
    "nearest",
    "short",
    "split",
    "suggest",
]

#: Keys and positions from the root of a file to a value.
Location: TypeAlias = tuple[str | int, ...]
#: Line of every value of a file.
Lines: TypeAlias = Mapping[Location, int]


@dataclass(frozen=True, order=True)
class Problem:
    """One thing to mend, with the place."""

    file: str
    line: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}"
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class ContractError(ValueError):
    """A workload that cannot be used; ``problems`` lists everything that is wrong with it."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(str(p) for p in self.problems))


def suggest(got: str, allowed: Iterable[str]) -> str:
    """The end of a message: the name that was probably meant, or all there are when they are few."""
    names = list(allowed)
    close = closest(got, names)
    if close is not None:
        return f"; did you mean {close}?"
    return f"; known here: {', '.join(names)}" if 0 < len(names) <= 30 and got not in names else ""


def closest(got: str, names: Iterable[str]) -> str | None:
    """The name that was probably meant."""
    close = get_close_matches(got, list(names), n=1, cutoff=0.6)
    return close[0] if close else None


def short(value: object) -> str:
    """The value as a message shows it."""
    if isinstance(value, str):
        text = repr(value)
    else:
        try:
            text = json.dumps(value, ensure_ascii=False)
        except (TypeError, ValueError):
            text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def join(path: Location) -> str:
    """``training.split.seed``, ``features.exclude[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def split(path: str) -> Location:
    """What ``join`` wrote, as a location."""
    parts: list[str | int] = []
    for part in path.replace("]", "").split("."):
        name, *indexes = part.split("[")
        if name:
            parts.append(name)
        parts += [int(i) for i in indexes]
    return tuple(parts)


def nearest(lines: Lines, path: Location) -> int:
    """Line of a value; of the nearest enclosing one when it is not written."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)
