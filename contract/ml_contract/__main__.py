"""``python -m ml_contract``: ``check PATH...`` says what is wrong; ``schema`` prints the JSON Schema."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ml_contract.load import (
    YAML_NAME,
    ContractError,
    LoadedWorkload,
    Problem,
    discover_workloads,
    load_workload,
)
from ml_contract.schema import schema_text


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 all right, 1 problems found, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m ml_contract", description="Work with workload contracts."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="read workloads and report every problem")
    check.add_argument(
        "path", nargs="+", type=Path, help="a workload.yaml, its folder, or a folder of such folders"
    )
    commands.add_parser("schema", help="print the JSON Schema of workload.yaml")
    options = parser.parse_args(arguments)
    if options.command == "schema":
        sys.stdout.write(schema_text())
        return 0
    return _check(options.path)


def _check(paths: Sequence[Path]) -> int:
    problems: list[Problem] = []
    for path in paths:
        try:
            for loaded in _load(path):
                contract = loaded.compiled
                sys.stdout.write(
                    f"{loaded.path}: {contract.name}: {len(contract.columns)} fields, "
                    f"{len(contract.features)} features, "
                    f"label {contract.label.field} ({contract.label.task})\n"
                )
        except ContractError as error:
            problems += error.problems
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    return 1 if problems else 0


def _load(path: Path) -> tuple[LoadedWorkload, ...]:
    if path.is_dir() and not (path / YAML_NAME).exists() and any(path.glob(f"*/{YAML_NAME}")):
        return discover_workloads(path)
    return (load_workload(path),)


if __name__ == "__main__":
    sys.exit(main())
