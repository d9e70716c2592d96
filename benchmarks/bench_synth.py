"""Synthesis: the whole app against an empty CDK app on the same Python and Node, validation included."""

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
ROUNDS = 5
#: The smallest app that the validation accepts: a stack must hold a resource.
EMPTY = """
import aws_cdk as cdk
app = cdk.App()
cdk.CfnWaitConditionHandle(cdk.Stack(app, "Empty"), "Nothing")
app.synth()
"""


def run() -> Result:
    """Time both apps as the CDK CLI starts them, in turn: the same Node, Python, options and feature flags.

    Ratio and difference are taken of each round and the median counts: what else the machine does falls on
    both apps of a round.
    """
    settings = json.loads((ROOT / "cdk.json").read_text())
    *start, script = settings["app"].split()
    environment = {
        **os.environ,
        "CDK_CONTEXT_JSON": json.dumps(settings["context"]),
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("contract", "constructs", ".")),
    }
    seconds: dict[str, list[float]] = {"empty": [], "app": []}
    resources = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS + 1):
            for name, command in (("empty", ["-c", EMPTY]), ("app", [script])):
                out = Path(folder) / f"{name}{number}"
                started = time.perf_counter()
                subprocess.run(
                    [*start, *command],
                    check=True,
                    cwd=ROOT,
                    env={**environment, "CDK_OUTDIR": str(out)},
                )
                # The first round fills caches: compiled modules, staged code.
                if number:
                    seconds[name].append(time.perf_counter() - started)
            resources = sum(
                len(json.loads(template.read_text())["Resources"])
                for template in (Path(folder) / f"app{number}").rglob("*.template.json")
            )
    rounds = list(zip(seconds["empty"], seconds["app"], strict=True))
    return Result(
        name="synth",
        rows=(
            Row(
                what="whole app / empty app",
                value=statistics.median(app / empty for empty, app in rounds),
                goal=3.0,
            ),
            Row(
                what="per resource beyond the empty app",
                value=statistics.median(app - empty for empty, app in rounds) * 1000 / resources,
                goal=6.0,
                unit="ms",
            ),
            Row(what="whole app", value=statistics.median(seconds["app"]), unit="s"),
            Row(what="empty app", value=statistics.median(seconds["empty"]), unit="s"),
        ),
        raw={"resources": resources, "seconds": seconds},
    )
