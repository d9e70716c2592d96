"""The workload that docs/workloads.md tells one to write works as it says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from ml_contract.__main__ import main
from ml_contract.features.row import row_function
from ml_contract.load import ContractError, load_workload
from ml_contract.made_up.synthetic import generate
from ml_contract.quality.rules import parsed_rules, severity_of
from ml_contract.records.codec import Record, RecordCodec

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "workloads.md").read_text()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "workloads" / "pump_failures"
    path.mkdir(parents=True)
    for name, content in re.findall(r"```\w+ file=(\S+)\n(.*?)```", TEXT, re.DOTALL):
        (path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    return Path("workloads/pump_failures")


def test_should_check_the_documented_workload(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(folder)]) == 0
    shown = re.search(r"ml_contract check workloads/pump_failures\n(.*)\n```", TEXT)
    assert shown is not None
    assert capsys.readouterr().out.strip() == shown[1]


def test_should_run_the_documented_workload(folder: Path) -> None:
    contract = load_workload(folder).compiled
    function = row_function(contract)
    codec = RecordCodec(contract)
    for record in generate(contract, 50, 1):
        result = codec.decode(json.dumps(record).encode())
        assert isinstance(result, Record)
        features = function(result.values)
        assert set(features) == {f.name for f in contract.features}
        assert features["weekend"] in (0.0, 1.0)
        assert features["strain"] in ("high", "normal")


def test_should_load_the_documented_preparation(folder: Path) -> None:
    from ruamel.yaml import YAML

    shown = re.search(r"```yaml blocks\n(.*?)```", TEXT, re.DOTALL)
    assert shown is not None
    yaml = YAML(typ="safe")
    blocks = yaml.load(shown[1])
    whole = yaml.load((folder / "workload.yaml").read_text())
    whole["features"] |= blocks["features"]
    whole["training"] = blocks["training"]
    (folder / "workload.yaml").write_text(json.dumps(whole))
    contract = load_workload(folder).compiled
    assert set(contract.fit.impute) == {"seal", "flow_m3h"}
    assert contract.fit.encode["strain"]["kind"] == "target"
    assert contract.group_key == "site"


def test_should_load_the_documented_batch_block(folder: Path) -> None:
    shown = re.search(r"```yaml batch\n(.*?)```", TEXT, re.DOTALL)
    assert shown is not None
    file = folder / "workload.yaml"
    text = file.read_text()
    assert "\nbatch:" not in text
    file.write_text(f"{text}\n{shown[1]}")
    compiled = load_workload(folder).compiled
    severities = {rule.text: severity_of(rule, compiled) for rule in parsed_rules(compiled)}
    assert severities['Mean "pressure_bar" between 1 and 400'] == "warn"
    assert set(severities.values()) == {"stop", "quarantine", "warn"}
    assert compiled.batch["dedup"] == {"keep": "latest_arrival"}


def test_should_give_the_documented_error(folder: Path) -> None:
    file = folder / "workload.yaml"
    file.write_text(file.read_text().replace("read_at: {type: timestamp", "read_at: {type: timestap"))
    with pytest.raises(ContractError) as caught:
        load_workload(folder)
    assert str(caught.value.problems[0]) in TEXT


def test_should_name_every_operation_and_reason() -> None:
    import typing

    from ml_contract.expressions import Expr
    from ml_contract.records import codec

    methods = {name for name, member in vars(Expr).items() if callable(member) and not name.startswith("_")}
    for name in methods - {"to_json", "from_json", "columns", "walk"}:
        assert re.search(rf"\.{name}\(", TEXT), name
    for code in typing.get_args(codec.Code):
        assert f"`{code}`" in TEXT, code


def test_should_load_the_documented_labelling(folder: Path) -> None:
    from ml_contract.extracts.label_rules import shown_fields

    shown = re.search(r"```yaml labelling\n(.*?)```", TEXT, re.DOTALL)
    assert shown is not None
    file = folder / "workload.yaml"
    file.write_text(f"{file.read_text()}\n{shown[1]}")
    workload = load_workload(folder).workload
    assert workload.labelling is not None
    assert workload.labelling.titles == {"false": "Went on", "true": "Failed"}
    assert "technician" in shown_fields(workload)
