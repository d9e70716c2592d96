"""Write ``docs/sources.md``: the manifest of sources, from the workloads and the environments."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from ml_contract.extracts.source_manifest import source_entries, source_table
from ml_contract.load import LoadedWorkload, discover_workloads

from environments import ENVIRONMENTS, Environment

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "sources.md"

HEAD = """# Sources

What sends records, who answers for it, how fresh and how sensitive it is, where it ends. Generated from the
workloads and the environments by `python -m tools.sources`; a test fails when it is not current. Every
source, streamed or not, ends as Parquet of one raw table, with one quarantine.
"""


def manifest(workloads: Sequence[LoadedWorkload], environments: Sequence[Environment]) -> str:
    """The whole page."""
    parts = [HEAD]
    for loaded in workloads:
        workload = loaded.workload
        entries = source_entries(workload)
        parts.append(f"## {workload.title}\n")
        parts.append(
            f"Workload `{workload.name}`, owner {workload.owner}, record version "
            f"{workload.record.schema_version}, {len(workload.record.fields)} fields.\n"
        )
        parts.append(source_table(entries) + "\n")
        described = [e for e in entries if e.description and e.source != "stream"]
        parts += [f"- `{e.source}`: {e.description}" for e in described]
        if described:
            parts.append("")
    parts.append("## Where they end, by environment\n")
    parts.append(
        "| Environment | Raw table | Quarantine and audit records | Old versions kept |\n|---|---|---|---|"
    )
    for environment in environments:
        for loaded in workloads:
            slug, table = loaded.workload.slug, f"{environment.name}_raw.{loaded.workload.name}"
            parts.append(
                f"| {environment.name} | `{table}` | `{slug}/quarantine/`, `{slug}/batches/audit/` | "
                f"{environment.retention.noncurrent_version_days} days |"
            )
    return "\n".join(parts) + "\n"


def main() -> None:
    """Write the page in place."""
    PAGE.write_text(manifest(discover_workloads(ROOT / "workloads"), ENVIRONMENTS), encoding="utf-8")


if __name__ == "__main__":
    main()
