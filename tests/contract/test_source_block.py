"""The sources block: what it takes, what it refuses, what the documentation shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ml_contract.__main__ import main
from ml_contract.extracts.source_manifest import source_entries
from ml_contract.load import ContractError, load_workload
from ml_contract.spec.sources import DataSyncSource, DmsSource, DropSource, JdbcSource, ThirdPartySource
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / "docs" / "workloads.md").read_text()
BASE = """
version: 1
name: parcels
title: Parcels that arrive late
owner: logistics@example.com
classification: internal
record:
  identifier: parcel
  event_time: sent_at
  fields:
    parcel: {type: string, required: true}
    sent_at: {type: timestamp, required: true}
    weight_kg: {type: number, source: Weight}
    minutes_late: {type: number}
label: {task: regression, field: minutes_late}
acceptance: {metric: rmse, at_most: 30}
sources:
  drop_box: %s
"""
DROP: dict[str, Any] = {"kind": "drop", "owner": "team-a"}
JDBC: dict[str, Any] = {
    "kind": "jdbc",
    "owner": "team-a",
    "engine": "postgresql",
    "host": "db.example.com",
    "database": "parcels",
    "table": "public.parcels",
    "bookmark": ["changed_at"],
}
DMS: dict[str, Any] = {
    "kind": "dms",
    "owner": "team-a",
    "engine": "postgresql",
    "host": "db.example.com",
    "database": "parcels",
    "tables": ["public.parcels"],
}
SYNC: dict[str, Any] = {
    "kind": "datasync",
    "owner": "team-a",
    "location": "nfs",
    "server": "files.example.com",
    "agents": ["arn:aws:datasync:eu-central-1:123456789012:agent/agent-0123456789abcdef0"],
}
THIRD: dict[str, Any] = {
    "kind": "thirdparty",
    "owner": "team-a",
    "account": "210987654321",
    "external_id": "agreed-upon-1",
}


def load(folder: Path, source: dict[str, Any]) -> Any:
    folder.mkdir(exist_ok=True)
    (folder / "workload.yaml").write_text(BASE % json.dumps(source))
    return load_workload(folder).workload.sources["drop_box"]


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (DROP, DropSource),
        (JDBC, JdbcSource),
        (DMS, DmsSource),
        (SYNC, DataSyncSource),
        (THIRD, ThirdPartySource),
    ],
)
def test_should_read_each_kind_with_its_defaults(tmp_path: Path, source: dict[str, Any], kind: type) -> None:
    found = load(tmp_path / "parcels", source)
    assert type(found) is kind
    assert (found.schema_version, found.fresh_within_hours, found.classification) == (1, 24, None)


def test_should_know_where_engines_listen(tmp_path: Path) -> None:
    assert load(tmp_path / "parcels", JDBC).endpoint_port == 5432
    assert load(tmp_path / "parcels", {**JDBC, "port": 6000}).endpoint_port == 6000


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({**DROP, "kind": "ftp"}, "got 'ftp'; allowed: drop, jdbc, dms, datasync, thirdparty"),
    ({"kind": "drop"}, "is missing; add it"),
    ({**DROP, "formt": "csv"}, "unknown key; did you mean format?"),
    ({**DROP, "format": "parquet", "delimiter": ";"}, "delimiter goes with format: csv, not with parquet"),
    ({**DROP, "fresh_within_hours": 200}, "got 200; at most 168 is allowed"),
    ({**DROP, "schema_version": 2}, "got 2, but the record's is 1; raise record.schema_version first"),
    ({**DROP, "classification": "restricted"}, "got restricted, but the workload it lands in is internal"),
    (
        {**DROP, "rename": {"kg": "weigth_kg"}},
        "got 'weigth_kg', which is no field of the record; did you mean",
    ),
    ({**DROP, "rename": {"kg": "Weight", "lb": "Weight"}}, "rename gives 'Weight' to two columns"),
    ({**DROP, "ignore": ["Weight"]}, "got 'Weight', which is a field of the record"),
    ({**DROP, "ignore": ["a", "a"]}, "got 'a' a second time"),
    ({**DROP, "rename": {"a": "Weight"}, "ignore": ["a"]}, "'a' is both renamed and ignored"),
    ({**JDBC, "table": "parcels; drop table x"}, "must match"),
    ({**JDBC, "bookmark": []}, "at least 1"),
    ({**JDBC, "columns": ["parcel"]}, "bookmark column 'changed_at' is not among columns"),
    ({**JDBC, "schedule": "daily"}, "schedule must be cron(...) or rate(...), got 'daily'"),
    ({**JDBC, "engine": "sqlite"}, "got 'sqlite'; allowed: postgresql, mysql, redshift, oracle, sqlserver"),
    ({**DMS, "tables": ["parcels"]}, "tables must be <schema>.<table>, got 'parcels'"),
    ({**DMS, "engine": "redshift"}, "DMS reads no redshift; use kind: jdbc"),
    ({**DMS, "engine": "oracle"}, "certificate_arn goes with mysql and oracle, the engine is oracle; add it"),
    ({**DMS, "maximum_capacity": 5}, "got 5; allowed: 1, 2, 4, 8"),
    ({**SYNC, "bucket": "abc"}, "bucket goes with location: object_storage"),
    ({**SYNC, "location": "smb"}, "user goes with location: smb and object_storage, got None"),
    ({**SYNC, "agents": []}, "at least 1"),
    ({**THIRD, "account": "1234"}, "must match"),
    ({**THIRD, "external_id": "short"}, "must match"),
    ({**THIRD, "access": "read", "format": "csv"}, "goes with access: write; a reader sends nothing"),
]


@pytest.mark.parametrize(("source", "why"), REFUSED)
def test_should_refuse_with_place_value_and_way(tmp_path: Path, source: dict[str, Any], why: str) -> None:
    with pytest.raises(ContractError) as caught:
        load(tmp_path / "parcels", source)
    found = [p for p in caught.value.problems if why in p.message]
    assert len(found) == 1, str(caught.value)
    assert found[0].path.startswith("sources.drop_box")
    assert found[0].line == 18


def test_should_refuse_two_names_with_one_construct_id(tmp_path: Path) -> None:
    folder = tmp_path / "parcels"
    folder.mkdir()
    two = (BASE % json.dumps(DROP)) + f"  drop__box: {json.dumps(DROP)}\n"
    (folder / "workload.yaml").write_text(two)
    with pytest.raises(ContractError, match="construct id DropBox, which drop_box has too"):
        load_workload(folder)


@pytest.fixture
def pumps(tmp_path: Path) -> Path:
    folder = tmp_path / "pump_failures"
    folder.mkdir()
    for name in ("workload.yaml", "features.py"):
        shown = re.search(rf"```\w+ file={re.escape(name)}\n(.*?)```", DOCS, re.DOTALL)
        assert shown is not None
        (folder / name).write_text(shown[1])
    return folder


def test_should_load_the_documented_sources(pumps: Path) -> None:
    shown = re.search(r"```yaml sources\n(.*?)```", DOCS, re.DOTALL)
    assert shown is not None
    yaml = YAML(typ="safe")
    whole = yaml.load((pumps / "workload.yaml").read_text()) | yaml.load(shown[1])
    (pumps / "workload.yaml").write_text(json.dumps(whole))
    workload = load_workload(pumps).workload
    assert {s.kind for s in workload.sources.values()} == {"drop", "thirdparty", "jdbc", "dms", "datasync"}
    entries = {e.source: e for e in source_entries(workload)}
    assert entries["historian"].sends == "postgresql table public.readings, cron(0 1 * * ? *)"
    assert entries["ledger"].sends == "sqlserver dbo.readings: full load and change data"


def test_should_give_the_documented_refusal_of_a_breaking_change(pumps: Path) -> None:
    assert main(["lock", str(pumps)]) == 0
    file = pumps / "workload.yaml"
    file.write_text(file.read_text().replace("maximum: 90", "maximum: 80"))
    with pytest.raises(ContractError) as caught:
        load_workload(pumps)
    (problem,) = caught.value.problems
    assert f"workloads/pump_failures/workload.yaml:{problem.line}: {problem.path}: {problem.message}" in DOCS
