"""Write Evidently's report of a window of traffic against what a model learned from.

``make evidently WORKLOAD=claims ENV=dev HOURS=24`` takes the training data of the environment's approved
model and what its endpoint captured; ``BASELINE=`` and ``WINDOW=`` name files or folders instead, here or in
S3: Parquet, CSV or JSON lines of features, or captured traffic. It judges nothing: the monitor does.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [
    str(ROOT / part) for part in ("contract", "containers/monitoring", "containers/shared", "lambda")
]

from ml_contract.load import ContractError, load_workload  # noqa: E402 - of this project's folders

from tools.evidently.account import NothingThereError, baseline_of, capture_of  # noqa: E402
from tools.evidently.environment import EvidentlyError, run  # noqa: E402
from tools.evidently.tables import Hours, Table, TableError, fetch, read  # noqa: E402

if TYPE_CHECKING:
    from ml_contract.compiled import CompiledContract

#: Our distances and Evidently's. Where it tests, it holds the chance to the threshold: that is the rate then.
_METHODS = {
    ("psi", "number"): "psi",
    ("psi", "category"): "psi",
    ("js", "number"): "jensenshannon",
    ("js", "category"): "jensenshannon",
    ("wasserstein", "number"): "wasserstein",
    ("ks", "number"): "ks",
    ("ks", "category"): "chisquare",
    ("chi2", "category"): "chisquare",
}
CHANCES = frozenset({"ks", "chisquare"})


def columns_of(
    contract: CompiledContract, baseline: Table, window: Table
) -> tuple[dict[str, Any], list[str]]:
    """How Evidently is to judge each feature, and those that have no value on one of the sides."""
    from ml_statistics.baseline import rules

    rule_of = rules(contract)
    columns: dict[str, Any] = {}
    empty = []
    for feature in contract.features:
        if feature.name in contract.monitoring["ignore"]:
            continue
        if any(not table.frame[feature.name].drop_nulls().len() for table in (baseline, window)):
            empty.append(feature.name)
            continue
        rule = rule_of(feature.name)
        method = _METHODS[rule.distance, feature.type]
        threshold = contract.monitoring["false_discovery_rate"] if method in CHANCES else rule.threshold
        columns[feature.name] = {"kind": feature.type, "method": method, "threshold": threshold}
    return columns, empty


def write(contract: CompiledContract, baseline: Table, window: Table, out: Path) -> dict[str, Any]:
    """Write ``out`` (HTML) and beside it a JSON file of every feature's value; return those.

    Raises:
        EvidentlyError: see ``environment.run``.
        TableError: no feature has values on both sides.
    """
    columns, empty = columns_of(contract, baseline, window)
    if not columns:
        raise TableError(f"no feature has values on both sides: {', '.join(empty)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    numbers = out.with_suffix(".json")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, table in (("baseline", baseline), ("window", window)):
            table.frame.select(list(columns)).write_parquet(folder / f"{name}.parquet")
        (folder / "columns.json").write_text(json.dumps(columns))
        files = [str(folder / name) for name in ("baseline.parquet", "window.parquet", "columns.json")]
        run([*files, "--html", str(out.resolve()), "--json", str(numbers.resolve())])
    found: dict[str, Any] = json.loads(numbers.read_text())
    for name in empty:
        print(f"left out: {name} has no value on one of the sides")
    return found


def _tables(asked: argparse.Namespace, contract: CompiledContract) -> tuple[Table, Table]:
    import boto3

    def client(service: str = "s3") -> Any:
        name: Any = service
        return boto3.session.Session().client(name)

    until = asked.until or dt.datetime.now(dt.UTC)
    hours = (
        None if asked.hours is None else Hours(asked.hours, until.replace(minute=0, second=0, microsecond=0))
    )
    places = (
        (asked.baseline or baseline_of(client, asked.environment, contract), None),
        (asked.window or capture_of(client, asked.environment, contract), hours),
    )
    tables = []
    for place, among in places:
        with tempfile.TemporaryDirectory() as scratch:
            files = fetch(place, Path(scratch), client, among)
            table = read(files, contract, rows=asked.rows)
        print(f"{place}: {table.frame.height} rows of {len(files)} files")
        for note in table.notes:
            print(f"  {note}")
        tables.append(table)
    return tables[0], tables[1]


def _moment(text: str) -> dt.datetime:
    moment = dt.datetime.fromisoformat(text)
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)


def main(given: Sequence[str] | None = None) -> int:
    """Find the rows and have them compared; exit status 1 says why that is not possible."""
    from botocore.exceptions import BotoCoreError, ClientError

    parser = argparse.ArgumentParser(prog="python -m tools.evidently", description=__doc__)
    parser.add_argument("workload", help="its name, or the folder that has its workload.yaml")
    parser.add_argument("--environment", default="dev")
    parser.add_argument("--baseline", help="rows to compare with; left out: the approved model's")
    parser.add_argument("--window", help="rows to compare; left out: what the endpoint captured")
    parser.add_argument("--hours", type=int, help="of the window the last hours only, by its folders")
    parser.add_argument(
        "--until", type=_moment, help="their end, ISO 8601, UTC unless it says; left out: now"
    )
    parser.add_argument("--rows", type=int, default=200_000, help="of more on a side an even sample")
    parser.add_argument("--out", type=Path, default=Path("out") / "evidently.html")
    asked = parser.parse_args(given)
    if asked.rows < 1 or (asked.hours is not None and asked.hours < 1):
        parser.error(f"--rows and --hours must be at least 1, got {asked.rows} and {asked.hours}")
    folder = Path(asked.workload)
    try:
        contract = load_workload(folder if folder.is_dir() else ROOT / "workloads" / asked.workload).compiled
        drift = write(contract, *_tables(asked, contract), asked.out)
    except (
        ContractError,
        TableError,
        NothingThereError,
        EvidentlyError,
        ClientError,
        BotoCoreError,
    ) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name, found in sorted(drift.items()):
        beyond = (
            found["value"] < found["threshold"]
            if found["method"] in CHANCES
            else found["value"] >= found["threshold"]
        )
        print(
            f"{'drifted' if beyond else '':8} {name:32} {found['method']:14} {found['value']:.4g}"
            f" (threshold {found['threshold']:g})"
        )
    print(f"written to {asked.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
