"""What a hyperparameter may be. SageMaker hands every one over as a text."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

__all__ = ["Choice", "Number", "Task", "Value"]

Task = Literal["binary", "multiclass", "regression"]


@dataclasses.dataclass(frozen=True)
class Number:
    """A number within limits; ``whole`` for integers."""

    minimum: float | None = None
    maximum: float | None = None
    whole: bool = False
    above_minimum: bool = False

    def read(self, text: str) -> float | int:
        """Return the number. Raises ValueError saying what is allowed."""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        low = "" if self.minimum is None else f" {'above' if self.above_minimum else 'from'} {self.minimum:g}"
        high = "" if self.maximum is None else f" up to {self.maximum:g}"
        wrong = (
            not math.isfinite(value)
            or (self.whole and value != int(value))
            or (
                self.minimum is not None
                and (value < self.minimum or (self.above_minimum and value == self.minimum))
            )
            or (self.maximum is not None and value > self.maximum)
        )
        if wrong:
            raise ValueError(f"must be {'an integer' if self.whole else 'a number'}{low}{high}")
        return int(value) if self.whole else value


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of some words."""

    values: tuple[str, ...]

    def read(self, text: str) -> str:
        """Return the word. Raises ValueError saying what is allowed."""
        if text not in self.values:
            raise ValueError(f"must be one of {', '.join(self.values)}")
        return text


Value = Number | Choice
