"""Texts that match a regular expression, counted: different numbers give different texts. Standard library
only.

Reads the part of the syntax that identifiers and codes are described with: characters, escapes, classes,
groups, alternatives and repetitions. Every text is checked with ``re`` itself, so a misreading is an error,
never bad data.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

__all__ = ["PatternError", "Texts"]

#: Repetitions without an end, and long ones, are written this often (or as often as they must be).
REPEATED: Final = 9

_DIGITS: Final = string.digits
_WORD: Final = string.digits + string.ascii_letters + "_"
_PRINTED: Final = "".join(chr(c) for c in range(33, 127))
_CLASSES: Final = {"d": _DIGITS, "w": _WORD, "s": " "}
_ESCAPES: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v"}


class PatternError(ValueError):
    """A pattern whose texts cannot be made up, or that has no more of them."""


@dataclass(frozen=True)
class _Part:
    """A set of texts: how many there are, and the n-th."""

    size: int
    text: Callable[[int], str]


class Texts:
    """Texts that match ``pattern`` as a whole."""

    def __init__(self, pattern: str, *, max_length: int | None = None) -> None:
        self._matches = re.compile(rf"(?:{pattern})\Z").match
        self._pattern = pattern
        self._max_length = max_length
        # As many repetitions as fit the length: the more, the more different texts.
        for repeated in range(REPEATED, -1, -1):
            part = _Reader(pattern, repeated).whole()
            if self._fits(part.text(0)) and self._fits(part.text(part.size - 1)):
                self._part = part
                return
        raise PatternError(f"no text could be made up for the pattern {pattern!r}")

    @property
    def count(self) -> int:
        """How many different texts there are."""
        return self._part.size

    def __getitem__(self, n: int) -> str:
        """The n-th text."""
        if not 0 <= n < self._part.size:
            raise PatternError(
                f"the pattern {self._pattern!r} gives {self._part.size} texts, number {n} was asked for"
            )
        text = self._part.text(n)
        if not self._fits(text):
            raise PatternError(f"no text could be made up for the pattern {self._pattern!r}")
        return text

    def _fits(self, text: str) -> bool:
        return self._matches(text) is not None and (self._max_length is None or len(text) <= self._max_length)


class _Reader:
    """Reads a pattern from left to right."""

    def __init__(self, pattern: str, repeated: int) -> None:
        self._pattern = pattern
        self._at = 0
        self._repeated = repeated

    def whole(self) -> _Part:
        part = self._alternatives()
        if self._at != len(self._pattern):
            raise self._unknown()
        return part

    def _unknown(self) -> PatternError:
        return PatternError(f"no text could be made up for the pattern {self._pattern!r}")

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _next(self) -> str:
        character = self._peek()
        if not character:
            raise self._unknown()
        self._at += 1
        return character

    def _alternatives(self) -> _Part:
        parts = [self._sequence()]
        while self._peek() == "|":
            self._next()
            parts.append(self._sequence())
        return parts[0] if len(parts) == 1 else _either(parts)

    def _sequence(self) -> _Part:
        parts = []
        while self._peek() not in ("", "|", ")"):
            if self._peek() in "^$":
                self._next()
                continue
            parts.append(self._repetition(self._atom()))
        return _one_after_another(parts)

    def _atom(self) -> _Part:
        character = self._next()
        if character == "(":
            return self._group()
        if character == "[":
            return _any_of(self._class())
        if character == "\\":
            return _any_of(self._escape())
        if character == ".":
            return _any_of(string.ascii_lowercase)
        return _any_of(character)

    def _group(self) -> _Part:
        if self._peek() == "?":
            self._next()
            if self._next() != ":":
                raise self._unknown()
        part = self._alternatives()
        if self._next() != ")":
            raise self._unknown()
        return part

    def _escape(self) -> str:
        character = self._next()
        if character in _CLASSES:
            return _CLASSES[character]
        if character in _ESCAPES:
            return _ESCAPES[character]
        if character.isalnum():
            raise self._unknown()
        return character

    def _class(self) -> str:
        negated = self._peek() == "^"
        if negated:
            self._next()
        members = ""
        while self._peek() != "]" or not members:
            character = self._next()
            here = self._escape() if character == "\\" else character
            ranged = self._peek() == "-" and self._pattern[self._at + 1 : self._at + 2] not in ("", "]")
            if ranged and len(here) == 1:
                self._next()
                last = self._next()
                last = self._escape() if last == "\\" else last
                here = "".join(chr(c) for c in range(ord(here), ord(last[0]) + 1))
            members += here
        self._next()
        if negated:
            members = "".join(c for c in _PRINTED if c not in members)
        if not members:
            raise self._unknown()
        return "".join(dict.fromkeys(members))

    def _repetition(self, part: _Part) -> _Part:
        bounds = self._bounds()
        if bounds is None:
            return part
        if self._peek() in ("?", "+"):  # lazy or possessive: the same texts
            self._next()
        low, high = bounds
        times = max(low, self._repeated if high is None else min(high, self._repeated))
        return _one_after_another([part] * times)

    def _bounds(self) -> tuple[int, int | None] | None:
        simple: dict[str, tuple[int, int | None]] = {"?": (0, 1), "*": (0, None), "+": (1, None)}
        if self._peek() in simple:
            return simple[self._next()]
        match = re.compile(r"\{(\d+)(,(\d*))?\}").match(self._pattern, self._at)
        if match is None:
            return None
        self._at = match.end()
        low = int(match[1])
        if match[2] is None:
            return low, low
        return low, int(match[3]) if match[3] else None


def _any_of(characters: str) -> _Part:
    return _Part(len(characters), lambda n: characters[n])


def _either(parts: list[_Part]) -> _Part:
    def text(n: int) -> str:
        for part in parts:
            if n < part.size:
                return part.text(n)
            n -= part.size
        raise IndexError(n)

    return _Part(sum(part.size for part in parts), text)


def _one_after_another(parts: list[_Part]) -> _Part:
    """The last part counts fastest, as digits do."""
    size = 1
    for part in parts:
        size *= part.size

    def text(n: int) -> str:
        pieces = []
        for part in reversed(parts):
            n, here = divmod(n, part.size)
            pieces.append(part.text(here))
        return "".join(reversed(pieces))

    return _Part(size, text)
