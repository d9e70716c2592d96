"""What a change costs: two forecasts, old and new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cost.assembly import read_stacks
from cost.forecast import Forecast, Sum, forecast

if TYPE_CHECKING:
    from ml_contract.spec.workload import Workload

    from cost.load import Load

__all__ = ["Change", "Difference", "difference"]

#: Less than half a cent a month is no change of the bill.
LEAST_USD = 0.005


@dataclass(frozen=True, kw_only=True)
class Change:
    """What one stack costs more (or less) of one service, in USD a month."""

    stack: str
    service: str
    rest: float
    idle: float
    load: float


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Two forecasts. ``changes`` are the stacks and services whose sums differ, the greatest first."""

    old: Sum
    new: Sum
    changes: Sequence[Change]
    #: Usages that the new assembly has and the table does not price.
    not_priced: Mapping[str, str]
    prices: str

    @property
    def usd_per_month(self) -> float:
        """What it costs more a month at the stated load; negative: less."""
        return self.new.load - self.old.load

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"usd_per_month": round(self.usd_per_month, 2), **asdict(self)}

    def text(self) -> str:
        """Lines for people."""
        first = (
            f"cost: {_signed(self.new.load - self.old.load)} USD a month at the stated load, "
            f"{_signed(self.new.rest - self.old.rest)} at rest "
            f"(now {self.new.load:.2f} and {self.new.rest:.2f}; list prices of {self.prices})"
        )
        lines = [
            f"  {c.stack}, {c.service}: {_signed(c.load)} ({_signed(c.rest)} at rest)" for c in self.changes
        ]
        missing = [f"  not priced: {name} ({why})" for name, why in self.not_priced.items()]
        return "\n".join([first, *lines, *missing])


def _signed(usd: float) -> str:
    return f"{usd:+.2f}"


def difference(
    old_assembly: Path,
    new_assembly: Path,
    *,
    stage: str | None = None,
    workloads: Mapping[str, Workload] | None = None,
    loads: Mapping[str, Load] | None = None,
    region: str | None = None,
) -> Difference:
    """Compare what two cloud assemblies cost a month; ``stage`` picks one stage of both (``Dev``).

    An old assembly that is not there costs nothing. Both are forecast with the same loads and prices, so that
    only the change of the templates is seen.

    Raises:
        AssemblyError: the new folder is no cloud assembly.
    """
    before = () if not (old_assembly / "manifest.json").is_file() else read_stacks(old_assembly)
    after = read_stacks(new_assembly)
    old, new = (
        forecast(
            [s for s in stacks if stage is None or s.stage == stage],
            workloads=workloads,
            loads=loads,
            region=region,
        )
        for stacks in (before, after)
    )
    return Difference(
        old=old.total,
        new=new.total,
        changes=_changes(old, new),
        not_priced={k: why for k, why in new.not_priced.items() if k not in old.not_priced},
        prices=new.prices,
    )


def _changes(old: Forecast, new: Forecast) -> list[Change]:
    keys = dict.fromkeys((line.stack, line.service) for f in (old, new) for line in f.lines)
    found = []
    for stack, service in keys:
        before, after = (
            f.sum(lambda line, s=stack, v=service: line.stack == s and line.service == v)  # type: ignore[misc]
            for f in (old, new)
        )
        change = Change(
            stack=stack,
            service=service,
            rest=after.rest - before.rest,
            idle=after.idle - before.idle,
            load=after.load - before.load,
        )
        if max(abs(change.rest), abs(change.idle), abs(change.load)) >= LEAST_USD:
            found.append(change)
    return sorted(found, key=lambda c: -abs(c.load))
