"""Entry of the image: ``curate`` or ``build_features``, each with ``--name value`` arguments."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from ml_runtime.job import base_folder, run_job

from ml_batch.curate import curate
from ml_batch.features import build_features

#: By command: what does it, which arguments it needs, which it may have.
COMMANDS: dict[str, tuple[Callable[[dict[str, str]], None], Sequence[str], Sequence[str]]] = {
    "curate": (
        curate,
        ("contract", "raw_uri", "curated_uri", "curated_database", "curated_table", "quality_uri", "run_id"),
        ("aws_region", "quarantine_uri", "raw_table", "raw_catalog"),
    ),
    "build_features": (
        build_features,
        (
            "contract",
            "curated_database",
            "curated_table",
            "features_uri",
            "snapshots_uri",
            "feature_group_name",
            "run_id",
        ),
        (
            "aws_region",
            "ingest",
            "ingest_from",
            "ingest_until",
            "curated_snapshot_id",
            "labels_table",
            "labels_snapshot_id",
        ),
    ),
}


def main(argv: Sequence[str]) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="ml_batch", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (_, required, optional) in COMMANDS.items():
        command = commands.add_parser(name, allow_abbrev=False)
        for argument in required:
            # A state machine hands a run's name over in the environment: it can format no list of arguments.
            given_by = os.environ.get("RUN_ID") if argument == "run_id" else None
            command.add_argument(f"--{argument}", default=given_by, required=given_by is None)
        for argument in optional:
            command.add_argument(f"--{argument}")
    given = {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}
    work = COMMANDS[given.pop("command")][0]
    return run_job(lambda: work(given), base_folder() / "output" / "message")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
