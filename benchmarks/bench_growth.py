"""Growth: 1, 10 and 100 workloads in one environment, against AWS's quotas and against a straight line.

``GROWTH=1,10`` in the environment takes other sizes; the largest takes minutes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.result import Result, Row
from verify.tables.quotas import QUOTAS, Quota

ROOT = Path(__file__).resolve().parent.parent
#: A worked example without options of its own: what every workload brings.
TEMPLATE = "machine_health"
SIZES = (1, 10, 100)
#: Quotas whose use a row of its own shows; of each the largest thing there is.
SHOWN = (
    ("resources", "resources of the largest stack"),
    ("inline", "inline policies of the largest role"),
    ("widgets", "widgets of the largest dashboard"),
    ("widget-alarms", "alarms of the largest alarm widget"),
    ("rules", "event rules of the environment"),
    ("alarms", "alarms of the environment"),
    ("saved-queries", "saved queries of the environment"),
    ("roles", "roles of the environment"),
    ("stacks", "stacks of the environment"),
    ("buckets", "buckets of the environment"),
    ("feature-groups", "feature groups of the environment"),
    ("outputs", "outputs of the largest stack"),
    ("managed", "characters of the largest managed policy"),
    ("bucket-policy", "largest bucket policy"),
    ("key-policy", "largest key policy"),
    ("template", "bytes of the largest template"),
    ("dashboard-metrics", "metrics of the largest dashboard"),
    ("delivery-actions", "actions of the delivery pipeline, deploying by builds"),
)
#: The development environment, and the pipeline that delivers it by builds: two actions a stack are too many.
APP = """
import dataclasses
import sys
from pathlib import Path
import aws_cdk as cdk
import app
from environments import chosen
from stacks.delivery import DeliveryStack
built = app.build(cdk.App(), Path(sys.argv[1]))
[dev] = chosen("dev")
delivery = dataclasses.replace(app.DELIVERY, waves={}, deploys_by="build")
DeliveryStack(built, "Delivery", delivery=delivery, stages=[(dev, built.node.find_child(dev.id))])
built.synth()
"""


def workloads(folder: Path, count: int) -> Path:
    """Make ``count`` workloads out of one, each with a name of its own."""
    for number in range(count):
        name = f"grown_{number:03}"
        made = folder / name
        shutil.copytree(ROOT / "workloads" / TEMPLATE, made, ignore=shutil.ignore_patterns("__pycache__"))
        for file in made.iterdir():
            if file.suffix in (".yaml", ".json", ".py"):
                file.write_text(file.read_text().replace(TEMPLATE, name))
    return folder


def _synthesise(folder: Path, out: Path) -> float:
    """Synthesise the development environment with the workloads of a folder; seconds."""
    settings = json.loads((ROOT / "cdk.json").read_text())
    start = settings["app"].split()[:-1]
    environment = {
        **os.environ,
        "CDK_CONTEXT_JSON": json.dumps({**settings["context"], "environment": "dev"}),
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("contract", "constructs", ".")),
        "CDK_OUTDIR": str(out),
    }
    started = time.perf_counter()
    subprocess.run(
        [*start, "-c", APP, str(folder)], check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - started


def _measured(out: Path) -> dict[str, Any]:
    """The largest use of each quota, with its share, and the resources there are."""
    from verify.checks.quotas import measures
    from verify.context import Context

    context = Context.of(out)
    largest: dict[str, dict[str, Any]] = {}
    for item in measures(context):
        if item.quota not in largest or item.value > largest[item.quota]["value"]:
            largest[item.quota] = {"value": item.value, "share": item.share, "place": item.place}
    total = sum(len(stack.resources) for stack in context.assembly.stacks.values())
    return {"resources": total, "largest": largest}


def run() -> Result:
    """Synthesise the largest once, the others twice, of which the better counts: the first fills caches."""
    sizes = tuple(int(size) for size in os.environ.get("GROWTH", "").split(",") if size) or SIZES
    raw: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as base:
        for size in sizes:
            folder, out = Path(base) / f"workloads-{size}", Path(base) / f"out-{size}"
            workloads(folder, size)
            seconds = [_synthesise(folder, out) for _ in range(1 if size == sizes[-1] else 2)]
            raw[str(size)] = {"seconds": min(seconds), **_measured(out)}
            shutil.rmtree(out)
    small, large = sizes[0], sizes[-1]
    first, last = raw[str(small)], raw[str(large)]
    middle = raw[str(sizes[len(sizes) // 2])]
    rows = []
    if large > sizes[len(sizes) // 2]:
        between = sizes[len(sizes) // 2]
        # What a workload more costs while there are few, and while there are many: linear is 1.
        early = (middle["seconds"] - first["seconds"]) / max(1, between - small)
        late = (last["seconds"] - middle["seconds"]) / (large - between)
        rows.append(Row(what=f"seconds a workload, {large} against {between}", value=late / early, goal=1.25))
    each = (last["resources"] - first["resources"]) / max(1, large - small)
    rows.append(Row(what="resources a workload", value=each, unit=""))
    rows += [
        Row(
            what=f"{what}, {large} workloads, of the quota{_way_out(last['largest'][quota], QUOTAS[quota])}",
            value=last["largest"][quota]["share"],
            # What AWS raises on request is no limit of the design, and the check says so beforehand.
            goal=None if QUOTAS[quota].soft else 1.0,
        )
        for quota, what in SHOWN
        if quota in last["largest"]
    ]
    # CDK Pipelines makes and executes a change set of each stack in an action of its own.
    actions = 2 * last["largest"]["stacks"]["value"] / QUOTAS["delivery-actions"].most
    over = ' (over: Delivery(deploys_by="build"))' if actions > 1 else ""
    what = f"actions of a delivery by two for each stack, {large} workloads in one environment, of the quota"
    rows.append(Row(what=f"{what}{over}", value=actions))
    return Result(name="growth", rows=tuple(rows), raw=raw)


def _way_out(used: dict[str, Any], quota: Quota) -> str:
    """What to do about a quota that is too small."""
    if used["share"] <= 1:
        return ""
    if quota.soft:
        return f" (over: ask AWS for {used['value']} {quota.what}, or spread over accounts)"
    return f" (over, and AWS does not raise it: {used['value']} at {used['place']})"
