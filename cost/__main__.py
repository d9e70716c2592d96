"""``python -m cost``: what an environment will cost a month, from its synthesised templates."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from cost.advice import advise
from cost.assembly import AssemblyError, read_stacks
from cost.difference import difference
from cost.forecast import DEFAULT_REGION, forecast
from cost.load import loads_of, overridden
from cost.pricing import load_prices
from cost.shown import page, table

ROOT = Path(__file__).resolve().parent.parent
BAD_INPUT = 2


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m cost", description=__doc__)
    parser.add_argument(
        "--environment", default="dev", help="its stage, by the environment's name; all: every stack"
    )
    parser.add_argument(
        "--assembly", type=Path, default=ROOT / "cdk.out", help="a cloud assembly (make synth)"
    )
    parser.add_argument("--against", type=Path, help="an older assembly: print the difference only")
    parser.add_argument(
        "--workloads", type=Path, default=ROOT / "workloads", help="their load blocks are read"
    )
    parser.add_argument(
        "--load",
        action="append",
        default=[],
        metavar="[WORKLOAD:]records=N,predictions=N",
        help="a day; may come again",
    )
    parser.add_argument("--region", default=DEFAULT_REGION, help="of stacks that name none")
    parser.add_argument("--prices", type=Path, help="a price table; default: the newest")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--html", type=Path, metavar="PAGE", help="write a page with a plot as well")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    """Forecast; return the exit code."""
    asked = _arguments(given)
    try:
        return _forecast(asked)
    except (AssemblyError, ValueError) as error:
        # A contract's error is a ValueError too: its lines say where.
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT


def _forecast(asked: argparse.Namespace) -> int:
    workloads, loads = loads_of(asked.workloads)
    loads = overridden(loads, asked.load)
    stage = None if asked.environment == "all" else asked.environment[:1].upper() + asked.environment[1:]
    if asked.against is not None:
        changed = difference(
            asked.against, asked.assembly, stage=stage, workloads=workloads, loads=loads, region=asked.region
        )
        print(json.dumps(changed.to_json(), indent=2) if asked.json else changed.text())
        return 0
    every = read_stacks(asked.assembly)
    stacks = [stack for stack in every if stage is None or stack.stage == stage]
    if not stacks:
        known = ", ".join(sorted({stack.stage.lower() for stack in every if stack.stage is not None}))
        raise ValueError(f"--environment must be one of {known}, all, got {asked.environment!r}")
    prices = load_prices(asked.prices)
    found = forecast(stacks, workloads=workloads, loads=loads, prices=prices, region=asked.region)
    advice = advise(found, workloads)
    if asked.html is not None:
        text = page(found, title=f"What {asked.environment} costs", prices=prices, advice=advice)
        asked.html.parent.mkdir(parents=True, exist_ok=True)
        asked.html.write_text(text, encoding="utf-8")
    print(json.dumps(found.to_json() | {"advice": advice}, indent=2) if asked.json else table(found, advice))
    return 0


if __name__ == "__main__":
    sys.exit(main())
