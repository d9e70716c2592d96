"""``python -m ml_contract``: ``check PATH...`` says what is wrong, ``features PATH`` records the feature
group, ``lock PATH`` records the record's schema, ``schema`` prints the JSON Schema.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ml_contract.commands.features import record_features
from ml_contract.commands.record import check_against, record_lock
from ml_contract.extracts.json_schema import schema_text
from ml_contract.load import (
    YAML_NAME,
    ContractError,
    LoadedWorkload,
    Problem,
    discover_workloads,
    load_workload,
)


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
    check.add_argument(
        "--against", type=Path, metavar="OLD", help="an older workload.yaml or a lock file: what breaks?"
    )
    lock = commands.add_parser("lock", help="record the record's schema in record.lock.json")
    lock.add_argument("path", type=Path, help="a workload.yaml or its folder")
    commands.add_parser("schema", help="print the JSON Schema of workload.yaml")
    features = commands.add_parser("features", help="record the feature group in features.lock.json")
    features.add_argument("path", type=Path, help="a workload.yaml or its folder")
    features.add_argument(
        "--new-version",
        action="store_true",
        help="another group beside the old one",
    )
    features.add_argument("--activate", type=int, metavar="N", help="the version that readers use now")
    features.add_argument("--remove", type=int, metavar="N", help="let go of a version that nobody uses")
    options = parser.parse_args(arguments)
    if options.command == "features":
        return record_features(
            options.path,
            new_version=options.new_version,
            activate=options.activate,
            remove=options.remove,
        )
    if options.command == "schema":
        sys.stdout.write(schema_text())
        return 0
    if options.command == "lock":
        return record_lock(options.path)
    if options.against is not None:
        return max(check_against(path, options.against) for path in options.path)
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
