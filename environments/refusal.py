"""How a description of an environment is refused: all of its problems at once."""

from __future__ import annotations

from collections.abc import Sequence


def refuse(what: str, problems: Sequence[str]) -> None:
    """Raise ValueError with every problem, if there is one."""
    if problems:
        raise ValueError(f"{what}: " + "; ".join(problems))
