"""The lock file of feature groups: additions follow, breaks are refused, a new version stands beside."""

from __future__ import annotations

from pathlib import Path

import pytest
from ml_contract.__main__ import main
from ml_contract.evolution.feature_lock import LOCK_NAME, FeatureLock, GroupVersion, breaks
from ml_contract.load import ContractError, load_workload

YAML = """
version: 1
name: pumps
title: Pumps that fail
owner: plant@example.com
record:
  identifier: pump
  event_time: read_at
  fields:
    pump: {type: string, required: true}
    read_at: {type: timestamp, required: true}
    pressure: {type: number}
    flow: {type: number}
    seal: {type: string}
    failed: {type: boolean}
label: {task: binary, field: failed, values: [false, true]}
features:
  store: {online: true}
acceptance: {metric: auc, at_least: 0.5}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "workload.yaml").write_text(YAML)
    return tmp_path


def change(folder: Path, old: str, new: str) -> None:
    file = folder / "workload.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def problems(folder: Path) -> str:
    with pytest.raises(ContractError) as caught:
        load_workload(folder)
    return str(caught.value)


def test_should_have_one_group_named_by_its_schema_without_a_lock(folder: Path) -> None:
    (version,), active = load_workload(folder).feature_groups
    assert (version.number, active) == (1, 1)
    change(folder, "seal: {type: string}", "seal: {type: number}")
    (other,), _ = load_workload(folder).feature_groups
    assert other.suffix != version.suffix


def test_should_add_features_to_the_locked_group_and_record_them(folder: Path) -> None:
    assert main(["features", str(folder)]) == 0
    (before,), _ = load_workload(folder).feature_groups
    # In the contract the new one stands before the others; a group gets it last.
    change(folder, "    pressure:", "    age: {type: integer}\n    pressure:")
    (after,), _ = load_workload(folder).feature_groups
    assert after.suffix == before.suffix
    assert after.definitions == (*before.definitions, ("age", "Fractional"))
    lock = FeatureLock.read(folder)
    assert lock is not None
    assert lock.newest == before, "loading writes nothing"
    assert main(["features", str(folder)]) == 0
    assert (FeatureLock.read(folder) or lock).newest == after
    # Recorded once, it cannot be taken back unnoticed.
    change(folder, "    age: {type: integer}\n", "")
    assert "feature age goes" in problems(folder)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("    flow: {type: number}\n", "", "feature flow goes"),
        ("seal: {type: string}", "seal: {type: number}", "feature seal was String and becomes Fractional"),
        ("store: {online: true}", "store: {online: false}", "online True becomes False"),
        ("online: true", "offline_format: Iceberg", "offline_format 'Glue' becomes 'Iceberg'"),
        ("online: true", "storage: InMemory", "storage 'Standard' becomes 'InMemory'"),
        ("event_time: read_at", "event_time: seen_at", "the event time 'read_at' becomes 'seen_at'"),
    ],
    ids=["removed", "retyped", "offline", "format", "tier", "event time"],
)
def test_should_refuse_what_no_group_can_follow_and_name_the_way(
    folder: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, reason: str
) -> None:
    change(folder, "    read_at:", "    seen_at: {type: timestamp, required: true}\n    read_at:")
    assert main(["features", str(folder)]) == 0
    change(folder, old, new)
    said = problems(folder)
    assert reason in said
    assert f"python -m ml_contract features {folder} --new-version" in said
    assert main(["features", str(folder)]) == 1
    assert reason in capsys.readouterr().err
    assert main(["features", str(folder), "--new-version"]) == 0
    versions, active = load_workload(folder).feature_groups
    assert [v.number for v in versions] == [1, 2]
    assert active == 1, "readers move when somebody says so"
    assert versions[1].suffix.startswith("v2-")


def test_should_switch_readers_and_let_go_of_what_nobody_uses(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["features", str(folder)]) == 0
    change(folder, "    flow: {type: number}\n", "")
    assert main(["features", str(folder), "--new-version"]) == 0
    assert main(["features", str(folder), "--remove", "1"]) == 1
    assert "version 1 is the active one" in capsys.readouterr().err
    assert main(["features", str(folder), "--activate", "3"]) == 1
    assert "there is no version 3; there are 1, 2" in capsys.readouterr().err
    assert main(["features", str(folder), "--activate", "2", "--remove", "1"]) == 0
    versions, active = load_workload(folder).feature_groups
    assert ([v.number for v in versions], active) == ([2], 2)


def test_should_write_the_same_bytes_for_the_same_lock_and_read_them_again(folder: Path) -> None:
    assert main(["features", str(folder)]) == 0
    text = (folder / LOCK_NAME).read_bytes()
    lock = FeatureLock.read(folder)
    assert lock is not None
    lock.write(folder)
    assert (folder / LOCK_NAME).read_bytes() == text
    wanted = GroupVersion.of(load_workload(folder).compiled)
    assert breaks(lock.newest, wanted) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read: JSONDecodeError"),
        ("{}", "cannot be read: KeyError"),
        ('{"format": 2, "active": 1, "versions": []}', "is of format 2; this reader knows format 1"),
        ('{"format": 1, "active": 1, "versions": []}', "numbers must rise"),
    ],
    ids=["json", "keys", "format", "none"],
)
def test_should_say_what_is_wrong_with_a_lock_file(folder: Path, text: str, said: str) -> None:
    (folder / LOCK_NAME).write_text(text)
    assert said in problems(folder)


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("{online: false, ttl_days: 3}", "ttl_days goes with online: true"),
        ("{online: false, storage: InMemory}", "storage InMemory goes with online: true"),
        ("{throughput: {mode: provisioned}}", "mode provisioned needs read_units and write_units"),
        ("{throughput: {read_units: 3}}", "go with mode provisioned"),
        (
            "{storage: InMemory, throughput: {mode: provisioned, read_units: 1, write_units: 1}}",
            "storage InMemory is on demand only",
        ),
    ],
    ids=["ttl", "tier", "units missing", "units on demand", "memory"],
)
def test_should_refuse_stores_that_do_not_go_together(folder: Path, store: str, said: str) -> None:
    change(folder, "{online: true}", store)
    assert said in problems(folder)
