# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["evidently==0.7.23", "pandas>=2.2,<3", "pyarrow>=19"]
# ///
"""Compare two Parquet files by Evidently; run in an environment of its own (see ``environment.py``).

``report.py BASELINE WINDOW COLUMNS --html FILE --json FILE`` writes both; ``COLUMNS`` is a JSON object of
``{"<column>": {"kind": "number" | "category", "method": "<Evidently's>", "threshold": 0.1}}``.
``--time`` writes nothing and prints the seconds from both files to the numbers.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import pandas as pd
from evidently import DataDefinition, Dataset, Report  # type: ignore[import-not-found]
from evidently.presets import DataDriftPreset, DataSummaryPreset  # type: ignore[import-not-found]


def compared(baseline: Path, window: Path, columns: dict[str, Any], *, summary: bool) -> Any:
    """Evidently's snapshot: the drift of every column, and what the columns hold where ``summary`` asks."""
    named = {
        kind: [name for name, column in columns.items() if column["kind"] == kind]
        for kind in ("number", "category")
    }
    definition = DataDefinition(numerical_columns=named["number"], categorical_columns=named["category"])
    before, after = (
        Dataset.from_pandas(pd.read_parquet(file, columns=list(columns)), data_definition=definition)
        for file in (baseline, window)
    )
    drift = DataDriftPreset(
        columns=list(columns),
        per_column_method={name: column["method"] for name, column in columns.items()},
        per_column_threshold={name: column["threshold"] for name, column in columns.items()},
    )
    return Report([drift, *([DataSummaryPreset()] if summary else [])]).run(after, before)


def drift_of(snapshot: Any) -> dict[str, Any]:
    """Value and threshold of every column; a p-value has drifted below its threshold, a distance above."""
    found = {}
    for metric in snapshot.dict()["metrics"]:
        config = metric["config"]
        if config.get("type", "").endswith("ValueDrift"):
            found[config["column"]] = {
                "method": config["method"],
                "value": float(metric["value"]),
                "threshold": config["threshold"],
            }
    return found


def main() -> None:
    """Compare, and write or time it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("baseline", type=Path)
    parser.add_argument("window", type=Path)
    parser.add_argument("columns", type=Path)
    parser.add_argument("--html", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--time", action="store_true")
    asked = parser.parse_args()
    columns = json.loads(asked.columns.read_text())
    started = time.perf_counter()
    snapshot = compared(asked.baseline, asked.window, columns, summary=not asked.time)
    drift = drift_of(snapshot)
    if missing := columns.keys() - drift.keys():
        raise RuntimeError(f"Evidently measured no drift of {', '.join(sorted(missing))}")
    if asked.time:
        print(time.perf_counter() - started)
        return
    snapshot.save_html(str(asked.html))
    asked.json.write_text(json.dumps(drift, indent=1) + "\n")


if __name__ == "__main__":
    main()
