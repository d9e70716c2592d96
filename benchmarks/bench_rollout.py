"""From an approval to the last old instance gone, under traffic, in the rehearsal; no request may fail.

The figure is the rehearsal's: its clock bakes sixty times as fast, and instances are processes that start in
a second. What it finds is a promotion that loses requests, or never ends.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import tempfile

from benchmarks.result import Result, Row

ROOT = pathlib.Path(__file__).resolve().parent.parent
STRATEGIES = ("all_at_once", "canary", "linear", "rolling")
#: Of four virtual minutes of baking a step, and a second or two for a fleet to start.
GOAL_SECONDS = 60


def run() -> Result:
    """Play the good rollouts of the matrix and read seconds and failures from its report."""
    only = ",".join(f"rollout.{strategy}.good" for strategy in STRATEGIES)
    with tempfile.TemporaryDirectory(prefix="bench-rollout-") as out:
        command = [sys.executable, "-m", "rehearsal", "matrix", "--only", only, "--out", out]
        subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
        path = pathlib.Path(out) / "report.json"
        report = json.loads(path.read_text()) if path.exists() else {}
    played = {row["cell"]: row for row in report.get("matrix", ())}
    missing = [name for name in only.split(",") if played.get(name, {}).get("outcome") != "passed"]
    if missing:
        why = report.get("reason") or "there is no report"
        raise RuntimeError(f"{', '.join(missing)} did not pass ({why}); run: {' '.join(command)}")
    rows = []
    for strategy in STRATEGIES:
        row = played[f"rollout.{strategy}.good"]
        rows += [
            Row(
                what=f"{strategy}: from approval to the last old instance gone",
                value=row["seconds"],
                goal=GOAL_SECONDS,
                unit="s",
            ),
            Row(
                what=f"{strategy}: failed of {row['requests']} requests", value=row["failed"], goal=0, unit=""
            ),
        ]
    raw = {cell: {key: row[key] for key in ("seconds", "requests", "failed")} for cell, row in played.items()}
    return Result(name="rollout", rows=tuple(rows), raw=raw)
