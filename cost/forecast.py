"""The forecast: every usage of every resource, priced, and its sums."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cost.assembly import Resource, Stack
from cost.load import ASSUMPTIONS, Assumptions, Load, stated
from cost.pricing import PriceTable, load_prices
from cost.rules import FREE, RULES, Context
from cost.rules.base import State

if TYPE_CHECKING:
    from ml_contract.spec.workload import Workload

__all__ = ["DEFAULT_REGION", "SHARED", "Forecast", "Line", "Sum", "forecast"]

#: Where a template that names no region is priced.
DEFAULT_REGION: Final = "us-east-1"
#: What is no workload's own.
SHARED: Final = "shared"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One usage of one resource. ``usd`` a month; ``None``: the table has no price."""

    stack: str
    workload: str
    resource: str
    type: str
    service: str
    price: str
    unit: str
    quantity: float
    usd: float | None
    state: State
    why: str
    #: Whether the table says where the price was read.
    seen: bool = True


@dataclass(frozen=True, kw_only=True)
class Sum:
    """USD a month: at rest; with the approved models served and nobody asking; at the stated load."""

    rest: float
    idle: float
    load: float


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What the chosen stacks will cost a month."""

    region: str
    prices: str
    lines: Sequence[Line]
    #: Type of resource -> number of those that no rule knows.
    unknown: Mapping[str, int]
    loads: Mapping[str, Load]
    assumptions: Sequence[str]
    stacks: Sequence[str] = field(default_factory=tuple)

    def sum(self, of: Callable[[Line], bool] = lambda _: True) -> Sum:
        """Add up the lines that ``of`` holds for."""
        usd = {"rest": 0.0, "serving": 0.0, "load": 0.0}
        for line in self.lines:
            if line.usd is not None and of(line):
                usd[line.state] += line.usd
        idle = usd["rest"] + usd["serving"]
        return Sum(rest=usd["rest"], idle=idle, load=idle + usd["load"])

    @property
    def total(self) -> Sum:
        """Everything that is priced."""
        return self.sum()

    def by(self, name: str) -> dict[str, Sum]:
        """Sums by ``stack``, ``workload`` or ``service``, the dearest at load first."""
        keys = dict.fromkeys(str(getattr(line, name)) for line in self.lines)
        found = {key: self.sum(lambda line, key=key: getattr(line, name) == key) for key in keys}  # type: ignore[misc]
        return dict(sorted(found.items(), key=lambda item: (-item[1].load, item[0])))

    @property
    def not_priced(self) -> dict[str, str]:
        """What has no price: usage or type of resource -> why it is billed."""
        missing = {line.price: f"{line.type}: {line.why}" for line in self.lines if line.usd is None}
        return missing | {kind: f"{n} of a type that no rule knows" for kind, n in self.unknown.items()}

    @property
    def share_seen(self) -> float:
        """Part of the sum at load whose prices say where they were read."""
        total = self.total.load
        seen = self.sum(lambda line: line.seen).load
        return 1.0 if total == 0 else seen / total

    def to_json(self) -> dict[str, Any]:
        """Plain data: sums, lines, what is not priced."""
        return {
            "currency": "USD a month",
            "region": self.region,
            "prices": self.prices,
            "total": asdict(self.total),
            "share_of_prices_seen": round(self.share_seen, 4),
            **{
                f"by_{name}": {key: asdict(value) for key, value in self.by(name).items()}
                for name in ("stack", "workload", "service")
            },
            "loads": {name: asdict(load) for name, load in self.loads.items()},
            "not_priced": self.not_priced,
            "assumptions": list(self.assumptions),
            "lines": [asdict(line) for line in self.lines],
        }


def free(kind: str) -> str | None:
    """Why a type of resource costs nothing by itself; ``None`` when nobody says so."""
    if kind in FREE:
        return FREE[kind]
    return next(
        (why for known, why in FREE.items() if known.endswith("*") and kind.startswith(known[:-1])), None
    )


def forecast(
    stacks: Sequence[Stack],
    *,
    workloads: Mapping[str, Workload] | None = None,
    loads: Mapping[str, Load] | None = None,
    prices: PriceTable | None = None,
    region: str | None = None,
    assumptions: Assumptions = ASSUMPTIONS,
) -> Forecast:
    """Forecast what ``stacks`` cost a month.

    ``region`` is for stacks that name none (default: us-east-1). Workloads that are not given have no load.

    Raises:
        ValueError: the price table has no price at all for a region.
    """
    table = load_prices() if prices is None else prices
    known = {} if workloads is None else workloads
    given = {} if loads is None else loads
    deployed = {stack.workload for stack in stacks}
    here = {name: load for name, load in given.items() if name in deployed}
    fallback = DEFAULT_REGION if region is None else region
    regions = {stack.region or fallback for stack in stacks}
    missing = sorted(regions - set(table.regions))
    if missing:
        raise ValueError(
            f"region must be one of {', '.join(table.regions)} (prices of {table.date}), "
            f"got {', '.join(missing)}"
        )
    lines: list[Line] = []
    unknown: dict[str, int] = defaultdict(int)
    for stack in stacks:
        context = Context(
            stack=stack,
            load=here.get(stack.workload or ""),
            workload=known.get(stack.workload or ""),
            assumptions=assumptions,
            loads=here,
        )
        for resource in stack.resources.values():
            rule = RULES.get(resource.type)
            if rule is None:
                if free(resource.type) is None:
                    unknown[resource.type] += 1
                continue
            lines += _lines(resource, context, table, stack.region or fallback)
    return Forecast(
        region=", ".join(sorted(regions)) or fallback,
        prices=table.date,
        lines=lines,
        unknown=dict(unknown),
        loads=here,
        assumptions=stated(assumptions),
        stacks=[stack.id for stack in stacks],
    )


def _lines(resource: Resource, context: Context, table: PriceTable, region: str) -> list[Line]:
    found = []
    for usage in RULES[resource.type](resource, context):
        if usage.quantity == 0:
            continue
        price = table.prices.get(usage.price)
        unit = table.usd(usage.price, region)
        found.append(
            Line(
                stack=context.stack.id,
                workload=context.stack.workload or SHARED,
                resource=resource.id,
                type=resource.type,
                service=resource.type.split("::")[1] if price is None else price.service,
                price=usage.price,
                unit="" if price is None else price.unit,
                quantity=usage.quantity,
                usd=None if unit is None else unit * usage.quantity,
                state=_state(usage.state, resource, context.stack),
                why=usage.why,
                seen=price is not None and region in price.seen,
            )
        )
    return found


def _state(state: State, resource: Resource, stack: Stack) -> State:
    """What stands under a condition on a parameter in SSM is not there before somebody approves a model."""
    if state == "rest" and resource.condition is not None and stack.waits(resource.condition):
        return "serving"
    return state
