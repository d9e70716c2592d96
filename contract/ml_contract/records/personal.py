"""Values that look personal: e-mail and postal addresses, phone, card, account and social security numbers.

Standard library only: the jobs that curate run it on a sample of the fields that a contract does not mark
as sensitive. What it finds is a hint for people, and what it does not find is no proof: names, for one, look
like any text.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ml_contract.compiled import CompiledContract

__all__ = ["SAMPLE", "Finding", "kinds_of", "scan", "scanned_columns"]

#: Rows that are looked at. What stands in one row of a hundred is missed by one sample in 10**8.
SAMPLE: Final = 2_000
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,24}")
_IBAN = re.compile(r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}\b")
_CARD = re.compile(r"(?<![0-9])[3-6](?:[ -]?[0-9]){12,18}(?![0-9])")
#: Area numbers 000, 666 and 900-999 are never given (Social Security Administration, "SSN randomization").
_SSN = re.compile(r"(?<![0-9-])(?!000|666|9)[0-9]{3}-(?!00)[0-9]{2}-(?!0000)[0-9]{4}(?![0-9-])")
#: E.164 with its plus sign, or ten digits as North America writes them.
_PHONE = re.compile(
    r"(?<![0-9+])(?:\+[1-9](?:[ .()-]{0,2}[0-9]){7,14}"
    r"|\(?[2-9][0-9]{2}\)?[ .-][2-9][0-9]{2}[ .-][0-9]{4})(?![0-9])"
)
_ADDRESS = re.compile(
    r"\b[0-9]{1,5} (?:[A-Z0-9][\w.]* ){1,4}"
    r"(?:Street|St|Avenue|Ave|Road|Rd|Drive|Dr|Lane|Ln|Boulevard|Blvd|Court|Ct|Ridge|Hwy|Highway|Way)\b"
)


def _luhn(text: str) -> bool:
    """Whether the digits satisfy the check digit of card numbers (ISO/IEC 7812-1)."""
    digits = [int(character) for character in text if character.isdigit()]
    doubled = [2 * digit - 9 * (digit > 4) for digit in digits[-2::-2]]
    return 13 <= len(digits) <= 19 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _mod97(text: str) -> bool:
    """Whether an account number has the check digits of ISO 13616."""
    compact = text.replace(" ", "")
    moved = compact[4:] + compact[:4]
    return 15 <= len(compact) <= 34 and int("".join(str(int(c, 36)) for c in moved)) % 97 == 1


def _address_of_a_machine(text: str) -> bool:
    try:
        ipaddress.ip_address(text.strip())
    except ValueError:
        return False
    return True


def _found(pattern: re.Pattern[str], check: Callable[[str], bool] = lambda _: True) -> Callable[[str], bool]:
    return lambda text: any(check(match.group()) for match in pattern.finditer(text))


#: Kind -> how it is known, and the least share of values that makes it a finding. One digit string in ten
#: satisfies Luhn by chance, so a column of numbers is no column of cards before many do.
_KINDS: Final[Mapping[str, tuple[Callable[[str], bool], float]]] = {
    "email": (_found(_EMAIL), 0.005),
    "iban": (_found(_IBAN, _mod97), 0.005),
    "card": (_found(_CARD, _luhn), 0.3),
    "ssn": (_found(_SSN), 0.01),
    "phone": (_found(_PHONE), 0.01),
    "postal_address": (_found(_ADDRESS), 0.01),
    "ip_address": (_address_of_a_machine, 0.05),
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A field whose values look personal. The values themselves are nowhere in it."""

    column: str
    kind: str
    share: float
    values: int


def kinds_of(text: str) -> frozenset[str]:
    """What a text looks like."""
    return frozenset(kind for kind, (looks, _) in _KINDS.items() if looks(text))


def scanned_columns(contract: CompiledContract) -> list[str]:
    """The fields that are looked at: texts and whole numbers that nobody marked."""
    return [
        column.name
        for column in contract.columns
        # A text of a few allowed values tells nothing.
        if column.sensitive is None and column.type in ("string", "integer") and column.allowed is None
    ]


def scan(rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> list[Finding]:
    """The columns whose values look personal, by the share of values that do."""
    names = list(columns)
    counts = dict.fromkeys(names, 0)
    seen: dict[tuple[str, str], int] = {}
    for row in rows:
        for name in names:
            value = row.get(name)
            if value is None:
                continue
            counts[name] += 1
            for kind in kinds_of(str(value)):
                seen[name, kind] = seen.get((name, kind), 0) + 1
    return [
        Finding(column=name, kind=kind, share=round(found / counts[name], 4), values=counts[name])
        for (name, kind), found in sorted(seen.items())
        if found / counts[name] >= _KINDS[kind][1]
    ]
