"""What people were told last, in a parameter: who is to say it, so that it is said once and never lost.

::

    nothing -> "2026-11: 5 USD, told by <request>" -> "2026-11: 5 USD"

Who writes the first claim on a text publishes it, then writes the text itself. A function that dies between
the two is tried again by Lambda under the same request id, finds its own claim, and publishes: again, if it
had come so far. A claim whose function never came back is void after ``PATIENCE``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

__all__ = ["PATIENCE", "Told"]

#: Longer than three attempts of a function and the waits between them.
PATIENCE: Final = timedelta(hours=1)


class Told:
    """The parameter. Needs ``ssm:GetParameterHistory`` and ``ssm:PutParameter`` on it."""

    def __init__(self, ssm: Any, parameter_name: str) -> None:
        self._ssm = ssm
        self._name = parameter_name

    def is_mine(self, text: str, request: str, *, now: datetime) -> bool:
        """Whether this request is to say ``text``; of requests at once, one is."""
        mine = _claim(text, request)
        owner = self._owner(text, now)
        if owner is None:
            self._put(mine)
            # Of claims at once, the version that SSM gave the lowest number counts, for all who read it.
            owner = self._owner(text, now)
        return owner == mine

    def said(self, text: str) -> None:
        """Note that ``text`` was said."""
        self._put(text)

    def _owner(self, text: str, now: datetime) -> str | None:
        """The text itself when it was said, else the first claim on it that is not void; None without one."""
        claims: list[str] = []
        for version in reversed(self._versions()):
            value = version["Value"]
            if value == text:
                return text
            if not value.startswith(_claim(text, "")):
                break
            if now - version["LastModifiedDate"] < PATIENCE:
                claims.append(value)
        return claims[-1] if claims else None

    def _versions(self) -> Sequence[dict[str, Any]]:
        pages = self._ssm.get_paginator("get_parameter_history").paginate(Name=self._name)
        found = [version for page in pages for version in page["Parameters"]]
        return sorted(found, key=lambda version: version["Version"])

    def _put(self, value: str) -> None:
        self._ssm.put_parameter(Name=self._name, Value=value, Type="String", Overwrite=True)


def _claim(text: str, request: str) -> str:
    return f"{text}, told by {request}"
