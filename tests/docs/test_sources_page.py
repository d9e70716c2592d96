"""The manifest of sources is what the workloads and the environments say."""

from __future__ import annotations

from pathlib import Path

from ml_contract.extracts.source_manifest import source_entries, source_table
from ml_contract.load import discover_workloads, load_workload

from environments import ENVIRONMENTS
from tools.sources import PAGE, manifest

ROOT = Path(__file__).resolve().parents[2]


def test_should_be_current() -> None:
    expected = manifest(discover_workloads(ROOT / "workloads"), ENVIRONMENTS)
    assert PAGE.read_text(encoding="utf-8") == expected, "run python -m tools.sources"


def test_should_name_every_source_with_owner_freshness_and_class() -> None:
    workload = load_workload(ROOT / "workloads" / "claims_fraud").workload
    entries = {e.source: e for e in source_entries(workload)}
    assert set(entries) == {"stream", *workload.sources}
    partner = entries["partner_claims"]
    assert (partner.owner, partner.fresh_within_hours) == ("partner-integration@example.com", 48)
    assert partner.classification == workload.classification
    assert partner.lands == entries["stream"].lands
    lines = source_table(tuple(entries.values())).splitlines()
    assert len({line.count(" | ") for line in lines if not line.startswith("|---")}) == 1
