"""The cross-checks and the forecast of cost together against the synth whose assembly they read."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.result import Result, Row

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 3


def run() -> Result:
    """Time all three as programs of their own, in turn; ratios are taken of each round, the median counts."""
    settings = json.loads((ROOT / "cdk.json").read_text())
    *start, script = settings["app"].split()
    environment = {
        **os.environ,
        "CDK_CONTEXT_JSON": json.dumps(settings["context"]),
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("contract", "constructs", ".")),
    }
    seconds: dict[str, list[float]] = {"synth": [], "verify": [], "cost": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS + 1):
            out = Path(folder) / f"out{number}"
            commands = {
                "synth": [*start, script],
                "verify": [start[0], "-m", "verify", str(out)],
                "cost": [start[0], "-m", "cost", "--environment", "all", "--assembly", str(out)],
            }
            for name, command in commands.items():
                started = time.perf_counter()
                done = subprocess.run(
                    command,
                    cwd=ROOT,
                    env={**environment, "CDK_OUTDIR": str(out)},
                    stdout=subprocess.DEVNULL,
                    check=False,
                )
                if done.returncode:
                    raise RuntimeError(f"{name} ended with {done.returncode}; run it by hand to see why")
                # The first round fills caches: compiled modules, staged code.
                if number:
                    seconds[name].append(time.perf_counter() - started)
    rounds = list(zip(seconds["synth"], seconds["verify"], seconds["cost"], strict=True))
    return Result(
        name="verify",
        rows=(
            Row(
                what="verify and cost / synth",
                value=statistics.median((verify + cost) / synth for synth, verify, cost in rounds),
                goal=2.0,
            ),
            Row(what="verify", value=statistics.median(seconds["verify"]), unit="s"),
            Row(what="cost", value=statistics.median(seconds["cost"]), unit="s"),
            Row(what="synth", value=statistics.median(seconds["synth"]), unit="s"),
        ),
        raw={"seconds": seconds},
    )
