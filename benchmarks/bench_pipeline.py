"""The critical path of the delivery pipeline: of the whole app on paper, of a small app as it was played.

On paper: stages, actions and run orders of the synthesised pipeline. An action takes what its like took in
the rehearsal's pipeline; the builds whose commands are cut short there (``Synth``, ``Rehearse``) take what
their commands take, each measured here and now or by another benchmark. What nobody has measured is left
out, and named. AWS takes its own time for a stack: the count of stack steps on the path says how often that
counts.

In the rehearsal: the actions of the cell ``deliver.pipeline``, as its CodePipeline ran them. A person's time
for an approval is in neither.

``BENCH_PIPELINE_REPORT`` names the ``report.json`` of an operations play that has the cell, in place of a
play; ``BENCH_PIPELINE_TESTS=1`` runs ``make test`` too, which takes the longest of all.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.critical_path import Action, Leg, actions_of, critical_path, in_sequence, resolved
from benchmarks.result import Result, Row

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).with_name("results.json")
CELL = "deliver.pipeline"
#: Beyond its actions an execution only passes from one to the next.
GOAL_PLAYED = 1.25
#: Commands of builds that are measured here. Without network the audit cannot be asked.
COMMANDS: Mapping[str, Sequence[str]] = {
    "make setup": ("make", "-s", "setup"),
    "make lint": ("make", "-s", "lint"),
    "make audit": ("make", "-s", "audit"),
}
SYNTH, VERIFY, TEST, REHEARSE = "make synth", "make verify", "make test", "make rehearse"
STACK_STEPS = ("prepare", "deploy")


class Durations:
    """Seconds of actions and commands, each with its source; and what was asked for and is unknown."""

    def __init__(self) -> None:
        self.of_commands: dict[str, tuple[float, str]] = {}
        self.of_kinds: dict[str, tuple[float, str]] = {"approval": (0.0, "a person's time is not counted")}
        self.left_out: dict[str, str] = {}

    def seconds(self, action: Action) -> float:
        """Of an action on paper."""
        if action.kind in self.of_kinds:
            return self.of_kinds[action.kind][0]
        if not action.commands:
            self.left_out[action.place] = "its kind was not played, and its commands are unknown"
        return sum(self._command(command) for command in action.commands)

    def _command(self, command: str) -> float:
        # make rehearse RECORDS=1000 is make rehearse.
        name = " ".join(command.split()[:2])
        if name not in self.of_commands:
            self.left_out.setdefault(name, "nobody has measured it")
        return self.of_commands.get(name, (0.0, ""))[0]


def run() -> Result:
    """Synthesise, measure the commands of builds, play or read the rehearsal's pipeline, lay the paths."""
    durations = Durations()
    with tempfile.TemporaryDirectory(prefix="bench-pipeline-") as scratch:
        out = Path(scratch)
        template = _measured(durations, out)
        report = Path(os.environ.get("BENCH_PIPELINE_REPORT") or _played(out))
        played = _cell(report)
        small = actions_of(
            json.loads((report.parent / "delivery" / "small.out" / "Delivery.template.json").read_text())
        )
    synth = durations.of_commands[SYNTH][0]
    whole = actions_of(template)
    for kind, seconds in resolved(played, small).items():
        if kind not in ("build", "approval"):
            source = f"median of {len(seconds)} in the rehearsal's pipeline"
            durations.of_kinds[kind] = (statistics.median(seconds), source)
    waited = sum(float(each["seconds"]) for each in played if _kind(small, each) == "approval")
    took = {each["action"]: 0.0 if _kind(small, each) == "approval" else each["seconds"] for each in played}
    rehearsed = critical_path(small, lambda action: float(took[action.place]))
    ended = max(float(each["began_after"]) + float(each["seconds"]) for each in played) - waited
    paper = critical_path(whole, durations.seconds)
    apart = in_sequence(whole, durations.seconds)
    without = f" without {', '.join(durations.left_out)}" if durations.left_out else ""
    on_path = Counter(leg.action.kind for leg in paper)
    return Result(
        name="pipeline",
        rows=(
            *_rows("rehearsed", rehearsed, len(small), synth),
            Row(
                what="rehearsed: from the commit to its end, without a person's time / critical path",
                value=ended / _length(rehearsed),
                goal=GOAL_PLAYED,
            ),
            *_rows(f"on paper{without}", paper, len(whole), synth),
            Row(what="on paper: one action after another / critical path", value=apart / _length(paper)),
            Row(
                what="on paper: stack steps on the path (change sets made, executed)",
                value=sum(on_path[kind] for kind in STACK_STEPS),
                unit="",
            ),
        ),
        raw={
            "synth_seconds": synth,
            "durations": {**durations.of_kinds, **durations.of_commands},
            "left_out": durations.left_out,
            "rehearsed": _told(rehearsed),
            "on_paper": _told(paper),
        },
    )


# -- durations -----------------------------------------------------------------------------------------------


def _measured(durations: Durations, out: Path) -> dict[str, Any]:
    """Measure the commands of builds; return the template of the pipeline that one of them synthesised."""
    assembly = out / "cdk.out"
    synthesise = ["tools/cdk", "synth", "--quiet", "--no-notices", "--no-lookups", "--output", str(assembly)]
    # The first one fills caches: compiled modules, staged code.
    first, second = _timed(synthesise), _timed(synthesise)
    durations.of_commands[SYNTH] = (min(first, second), "measured in this run, the better of two")
    commands = {VERIFY: ("tools/python", "-m", "verify", str(assembly)), **COMMANDS}
    if os.environ.get("BENCH_PIPELINE_TESTS"):
        commands[TEST] = ("make", "-s", "test")
    for name, command in commands.items():
        try:
            durations.of_commands[name] = (_timed(command), "measured in this run")
        except subprocess.CalledProcessError as error:
            durations.left_out[name] = f"it ended with {error.returncode}: {_last(error.stdout)}"
    _remembered(durations)
    template: dict[str, Any] = json.loads((assembly / "Delivery.template.json").read_text())
    return template


def _remembered(durations: Durations) -> None:
    """What other runs on this machine have measured and wrote into the results."""
    known = json.loads(RESULTS.read_text())["results"] if RESULTS.exists() else []
    raw: dict[str, Any] = {result["name"]: result["raw"] for result in known}
    if "seconds" in raw.get("rehearsal", {}):
        durations.of_commands[REHEARSE] = (raw["rehearsal"]["seconds"], "the benchmark `rehearsal`")
    else:
        durations.left_out[REHEARSE] = "the benchmark `rehearsal` has not been run"
    if TEST not in durations.of_commands:
        before = raw.get("pipeline", {}).get("durations", {}).get(TEST)
        if before is not None:
            durations.of_commands[TEST] = (before[0], "measured in an earlier run of this benchmark")
        else:
            durations.left_out[TEST] = "BENCH_PIPELINE_TESTS=1 runs it"


def _timed(command: Sequence[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return time.perf_counter() - started


def _last(said: str | None) -> str:
    lines = (said or "").strip().splitlines()
    return lines[-1][:200] if lines else "it said nothing"


# -- the rehearsal -------------------------------------------------------------------------------------------


def _played(out: Path) -> str:
    """Play the cell; return its report."""
    folder = out / "play"
    command = [sys.executable, "-m", "rehearsal", "operations", "--only", CELL, "--out", str(folder)]
    code = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False).returncode
    if code:
        raise RuntimeError(f"the rehearsal failed with exit code {code}; run: {' '.join(command)}")
    return str(folder / "report.json")


def _cell(report: Path) -> list[dict[str, Any]]:
    """The actions of the cell in a report."""
    document = json.loads(report.read_text())
    outcomes = [row["outcome"] for row in document["cells"] if row["cell"] == CELL]
    found = [step for step in document["steps"] if step["id"] == CELL.replace(".", "-")]
    if not found or outcomes != ["passed"]:
        raise RuntimeError(f"{CELL} did not pass in {report}")
    actions: list[dict[str, Any]] = found[0]["evidence"]["actions"]
    return actions


def _kind(actions: Sequence[Action], played: Mapping[str, Any]) -> str:
    return next(action.kind for action in actions if action.place == played["action"])


# -- rows ----------------------------------------------------------------------------------------------------


def _length(path: Sequence[Leg]) -> float:
    return sum(leg.seconds for leg in path)


def _rows(where: str, path: Sequence[Leg], actions: int, synth: float) -> list[Row]:
    longest = max(path, key=lambda leg: leg.seconds)
    return [
        Row(
            what=f"{where}: critical path, {len(path)} of {actions} actions / synth",
            value=_length(path) / synth,
        ),
        Row(
            what=f"{where}: share of {longest.action.place}, the longest action",
            value=longest.seconds / _length(path),
            unit="",
        ),
    ]


def _told(path: Sequence[Leg]) -> list[dict[str, Any]]:
    return [
        {"action": leg.action.place, "seconds": round(leg.seconds, 1), "beside": leg.beside} for leg in path
    ]
