"""The whole story in its quick form: fewer records, the same steps."""

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
from rehearsal.story import STORY
from rehearsal.story.matrix import CELLS as MATRIX
from rehearsal.story.operations import CELLS as OPERATIONS

ROOT = app_folder(None)
RECORDS = 600


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of a rehearsal of the worked example."""
    out = tmp_path_factory.mktemp("rehearsal") / "out"
    done = subprocess.run(
        [sys.executable, "-m", "rehearsal", "run", "--records", str(RECORDS), "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert (out / "report.html").exists()
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


CLAIMS = load_workload(ROOT / "workloads" / "claims_fraud").workload

pytestmark = [pytest.mark.slow, pytest.mark.rehearsal, pytest.mark.story]


def evidence(report: dict[str, Any], step_id: str) -> dict[str, Any]:
    found: dict[str, Any] = next(s["evidence"] for s in report["steps"] if s["id"] == step_id)
    return found


def test_should_pass_every_step(report: dict[str, Any]) -> None:
    jsonschema.validate(report, json.loads(SCHEMA_PATH.read_text()))
    assert report["outcome"] == "passed"
    told = [s for s in STORY if s.applies(CLAIMS)]
    assert [s["id"] for s in report["steps"]] == [s.id for s in told]
    recorded = {s["id"] for s in report["steps"] if s["status"] == "recorded"}
    assert recorded == {s.id for s in told if s.recorded}
    assert report["ledger"]["failed"] == []


def test_should_lose_no_record(report: dict[str, Any]) -> None:
    records = report["records"]

    assert records["lost"] == 0
    assert records["sent"] == records["delivered"] + records["quarantined"]
    assert records["quarantined"] > 0
    assert records["duplicates_dropped"] > 0


def test_should_serve_the_retrained_model_without_a_failed_request(report: dict[str, Any]) -> None:
    assert report["traffic"]["canary"]["failed"] == 0
    assert report["traffic"]["canary"]["requests"] > 100
    assert report["model"]["version"] == 2
    assert report["drift"]["after"]["auc"] > report["drift"]["before"]["auc"]
    assert [entry["status"] for entry in report["model"]["history"]] == ["Approved", "Approved", "Rejected"]


def test_should_roll_the_broken_model_back(report: dict[str, Any]) -> None:
    assert report["traffic"]["rollback"]["failed"] > 0
    assert evidence(report, "rollback")["stack"] == "UPDATE_ROLLBACK_COMPLETE"
    assert evidence(report, "restored")["broken_version_is"] == "Rejected"


def test_should_show_every_capability_that_is_claimed_to_run(report: dict[str, Any]) -> None:
    rows = YAML(typ="safe").load((ROOT / "docs" / "capabilities.yaml").read_text())
    shown = {c for s in report["steps"] if s["status"] == "passed" for c in s["capabilities"]}

    claimed = {row["id"] for row in rows if row["rehearsal"] == "ran"}
    played = {capability for cell in (*MATRIX, *OPERATIONS) for capability in cell.capabilities}
    # What the other examples alone switch on.
    assert claimed - shown - played == {"stream.flink", "storage.modes"}


def test_should_refuse_only_who_was_to_be_refused(report: dict[str, Any]) -> None:
    """People and another account try what they may not; no function, job or service is refused anything."""
    refused = {entry["role"] for entry in report["iam"]["denied"]}

    assert refused
    assert [role for role in refused if "-Personas" not in role and "-BrokerClaimsRole" not in role] == []
    assert report["iam"]["roles"] > 5


def test_should_leave_nothing_running(report: dict[str, Any]) -> None:
    endpoint = evidence(report, "bootstrap")["endpoint"]
    running = subprocess.run(["ps", "ax", "-o", "args"], capture_output=True, text=True, check=True).stdout

    assert f"rehearsal.server {endpoint.rsplit(':', 1)[1]} " not in running
