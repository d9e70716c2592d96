"""Seconds per step of a rehearsal of 1,000 generated claims, set-up excluded."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import tempfile

from benchmarks.result import Result, Row

ROOT = pathlib.Path(__file__).resolve().parent.parent
RECORDS = 1000
GOAL_SECONDS = 300


def run() -> Result:
    """Rehearse once and read the seconds from its report."""
    with tempfile.TemporaryDirectory(prefix="bench-rehearsal-") as out:
        command = [
            sys.executable,
            "-m",
            "rehearsal",
            "run",
            "--records",
            str(RECORDS),
            "--seed",
            "7",
            "--out",
            out,
        ]
        code = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False).returncode
        if code:
            raise RuntimeError(f"the rehearsal failed with exit code {code}; run: {' '.join(command)}")
        report = json.loads((pathlib.Path(out) / "report.json").read_text())
    steps = {step["id"]: step["seconds"] for step in report["steps"]}
    rows = [Row(what=f"rehearsal of {RECORDS} records", value=report["seconds"], goal=GOAL_SECONDS, unit="s")]
    rows += [Row(what=f"step {name}", value=seconds, unit="s") for name, seconds in steps.items()]
    return Result(name="rehearsal", rows=tuple(rows), raw={"seconds": report["seconds"], "steps": steps})
