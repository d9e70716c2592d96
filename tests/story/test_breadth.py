"""The app with every option switched on: what only an account runs is deployed, checked and recorded."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import jsonschema
import pytest
from ml_contract.load import load_workload
from ruamel.yaml import YAML

from rehearsal.preflight import app_folder
from rehearsal.report.document import SCHEMA_PATH
from rehearsal.story.breadth import BREADTH, RESOURCES

ROOT = app_folder(None)
EXAMPLE = ROOT / "examples" / "everything"

pytestmark = [pytest.mark.slow, pytest.mark.rehearsal, pytest.mark.story]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of the recorded story."""
    out = tmp_path_factory.mktemp("breadth") / "out"
    options = ["--app", str(EXAMPLE), "--stage", "Every", "--workload", "everything", "--records", "200"]
    done = subprocess.run(
        [sys.executable, "-m", "rehearsal", "run", "--breadth", *options, "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


def test_should_pass_or_record_every_step(report: dict[str, Any]) -> None:
    jsonschema.validate(report, json.loads(SCHEMA_PATH.read_text()))
    assert report["outcome"] == "passed"
    expected = {s.id: "recorded" if s.recorded else "passed" for s in BREADTH}
    assert {s["id"]: s["status"] for s in report["steps"]} == expected
    assert report["ledger"]["failed"] == []


def test_should_show_the_resources_of_every_row_that_it_names(report: dict[str, Any]) -> None:
    shown = {
        c: set(s["evidence"]["made"])
        for s in report["steps"]
        for c in s["capabilities"]
        if "made" in s["evidence"]
    }

    assert shown == {row: set(types) for row, (_, types) in RESOURCES.items()}


def test_should_record_every_row_that_only_an_account_runs(report: dict[str, Any]) -> None:
    rows = YAML(typ="safe").load((ROOT / "docs" / "capabilities.yaml").read_text())
    named = {row["id"] for row in rows if row["rehearsal"] == "recorded"} & RESOURCES.keys()
    shown = {c for s in report["steps"] for c in s["capabilities"]}

    assert named <= shown


def test_should_say_of_each_service_that_nothing_ran(report: dict[str, Any]) -> None:
    recorded = {entry["kind"] for entry in report["ledger"]["recorded"]}

    assert {
        "kafka",
        "kinesisvideo",
        "redshift-serverless",
        "quicksight",
        "fsx",
        "dms",
        "datasync",
    } <= recorded
    assert {"opensearchserverless", "event-source-mapping"} <= recorded


def test_should_refuse_no_call(report: dict[str, Any]) -> None:
    assert report["iam"]["denied"] == []


def test_should_switch_on_what_each_row_needs() -> None:
    workload = load_workload(EXAMPLE / "workloads" / "everything").workload

    assert all(step.applies(workload) for step in BREADTH)
