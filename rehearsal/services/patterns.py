"""Regular expressions of AWS's models and schemas, which are written for Java's engine."""

from __future__ import annotations

import functools
import re
from typing import Any

import regex  # type: ignore[import-untyped]

__all__ = ["compiled"]


@functools.cache
def compiled(pattern: str) -> Any:
    """Compile a pattern of Java's syntax."""
    translated = re.sub(r"\\u([0-9A-Fa-f]{4})", _code_unit, pattern)
    # Java takes a counted ``$``; it says no more than what stands before it.
    translated = re.sub(r"\$\{\d+,\d+\}", "", translated).replace("\\z", "\\Z")
    return regex.compile(translated)


def _code_unit(match: re.Match[str]) -> str:
    """Render a UTF-16 code unit of a class: halves of a pair mean every character beyond the basic plane."""
    unit = int(match.group(1), 16)
    if unit in (0xD800, 0xDC00):
        return "\\U00010000" if unit == 0xD800 else ""
    if unit in (0xDBFF, 0xDFFF):
        return "" if unit == 0xDBFF else "\\U0010ffff"
    return match.group(0)
