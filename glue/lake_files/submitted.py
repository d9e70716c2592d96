"""What a script needs of a service that submits it to Spark: its arguments and its session."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@contextmanager
def submitted(
    argv: Sequence[str], required: Sequence[str], optional: Sequence[str]
) -> Iterator[tuple[SparkSession, dict[str, str]]]:
    """Read ``--name value`` arguments (``--run_id`` among them) and open the session; close it at the end."""
    from pyspark.sql import SparkSession

    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in (*required, "run_id"):
        parser.add_argument(f"--{name}", required=True)
    for name in optional:
        parser.add_argument(f"--{name}")
    found = vars(parser.parse_args(list(argv)[1:]))
    spark = SparkSession.builder.getOrCreate()
    try:
        yield spark, {name: value for name, value in found.items() if value is not None}
    finally:
        spark.stop()
