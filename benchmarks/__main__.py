"""Run the benchmarks: ``python -m benchmarks [NAME ...]`` prints a table and writes ``results.json``."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import pathlib
import platform
import sys
import time

from rich.console import Console
from rich.table import Table

from benchmarks.result import Result

HERE = pathlib.Path(__file__).parent
NAMES = (
    "synth",
    "verify",
    "growth",
    "features",
    "point_in_time",
    "transform",
    "drift",
    "ingest",
    "lake",
    "serving",
    "rehearsal",
    "rollout",
    "pipeline",
    "torch",
    "training",
)
VERSIONS = (
    "aws-cdk-lib",
    "msgspec",
    "orjson",
    "onnxruntime",
    "xgboost-cpu",
    "torch",
    "uvicorn",
    "starlette",
    "pyspark",
    "ministack",
)


def machine() -> dict[str, object]:
    """Say on what the figures were taken."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    model = (
        next(
            (
                line.partition(":")[2].strip()
                for line in cpuinfo.read_text().splitlines()
                if line.startswith("model name")
            ),
            platform.processor(),
        )
        if cpuinfo.exists()
        else platform.processor()
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Name the versions that were measured."""
    found = {}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def table(results: list[Result]) -> Table:
    """Lay the rows out for people."""
    view = Table(title="Benchmarks: ratios of things measured side by side in one run")
    for column in ("benchmark", "what", "measured", "goal", ""):
        view.add_column(column, justify="right" if column in ("measured", "goal") else "left")
    for result in results:
        if result.skipped:
            view.add_row(result.name, result.skipped, "-", "-", "[yellow]skipped[/]")
        for row in result.rows:
            goal = "" if row.goal is None else f"{'≤' if row.at_most else '≥'} {row.goal:g} {row.unit}"
            verdict = "" if row.met is None else "[green]met[/]" if row.met else "[red]missed[/]"
            view.add_row(result.name, row.what, f"{row.value:.2f} {row.unit}", goal, verdict)
    return view


def write(path: pathlib.Path, results: list[Result]) -> None:
    """Put results in the place of the earlier ones of their names."""
    known = json.loads(path.read_text())["results"] if path.exists() else []
    named = {result.name for result in results}
    kept = [old for old in known if old["name"] in NAMES and old["name"] not in named]
    document = {
        "machine": machine(),
        "versions": versions(),
        "results": sorted(
            [*kept, *(result.as_json() for result in results)], key=lambda item: str(item["name"])
        ),
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def main(argv: list[str]) -> int:
    """Run the named benchmarks, all by default."""
    unknown = [name for name in argv if name not in NAMES]
    if unknown:
        print(f"error: unknown benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    console = Console()
    results: list[Result] = []
    path = HERE / "results.json"
    for name in argv or NAMES:
        console.print(f"measuring {name} ...")
        started = time.monotonic()
        results.append(importlib.import_module(f"benchmarks.bench_{name}").run())
        console.print(f"measured {name} in {time.monotonic() - started:.0f} s")
        # After each: what one has measured another one reads, and a failure loses nothing.
        write(path, results)
    console.print(table(results))
    console.print(f"written to {path}")
    return 0 if all(row.met is not False for result in results for row in result.rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
