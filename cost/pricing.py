"""The price table: dated list prices, each with the page it comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PRICES", "Price", "PriceTable", "load_prices"]

PRICES = Path(__file__).with_name("prices")


@dataclass(frozen=True, kw_only=True)
class Price:
    """What one unit costs. ``usd`` and ``seen`` by region; ``seen`` says where the number was read."""

    id: str
    service: str
    unit: str
    source: str
    usd: Mapping[str, float]
    seen: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class PriceTable:
    """Prices of one day."""

    date: str
    note: Sequence[str]
    prices: Mapping[str, Price]

    def usd(self, price: str, region: str) -> float | None:
        """Price of one unit; ``None`` where the table has none for the region."""
        found = self.prices.get(price)
        return None if found is None else found.usd.get(region)

    @property
    def regions(self) -> tuple[str, ...]:
        """Regions that have a price."""
        return tuple(sorted({region for price in self.prices.values() for region in price.usd}))


def load_prices(path: Path | None = None) -> PriceTable:
    """Read a price table; without ``path`` the newest that comes with the program.

    Raises:
        ValueError: a price is no positive number, has no known source, or stands twice.
    """
    chosen = sorted(PRICES.glob("*.json"))[-1] if path is None else path
    document = json.loads(chosen.read_text(encoding="utf-8"))
    sources: Mapping[str, str] = document["sources"]
    prices: dict[str, Price] = {}
    problems = []
    for row in document["prices"]:
        name = row["id"]
        if name in prices:
            problems.append(f"{name} stands twice")
        if row["source"] not in sources:
            problems.append(f"{name}: source must be one of {', '.join(sorted(sources))}")
        problems += [
            f"{name}: a price must be greater than 0, got {usd} in {region}"
            for region, usd in row["usd"].items()
            if not usd > 0
        ]
        prices[name] = Price(
            id=name,
            service=row["service"],
            unit=row["unit"],
            source=sources.get(row["source"], ""),
            usd=row["usd"],
            seen=row.get("seen", {}),
        )
    if problems:
        raise ValueError(f"{chosen.name}: " + "; ".join(problems))
    return PriceTable(date=document["date"], note=document["note"], prices=prices)
