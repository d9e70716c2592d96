"""Texts that are numbers and moments: what both engines of the batch jobs convert, whatever else casts take.

Standard library only; the patterns mean the same to Java's and to Rust's regular expressions.
"""

from __future__ import annotations

from typing import Final

__all__ = ["LARGEST", "MOMENT", "NUMBER", "PLAIN", "WHOLE"]

_CLOCK: Final = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?"
_ZONE: Final = r"(Z|[+-](0[0-9]|1[0-7]):[0-5][0-9])"

NUMBER: Final = r"^ *[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)? *$"
WHOLE: Final = r"^ *[+-]?[0-9]{1,19}(\.0*)? *$"
#: ISO 8601, a day or a second of it.
MOMENT: Final = rf"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}([T ]{_CLOCK}{_ZONE}?)?$"
#: Doubles beyond these are no 64-bit integers.
LARGEST: Final = 2.0**63
#: Between these a fraction reads the same however a language writes numbers.
PLAIN: Final = (1e-3, 1e7)
