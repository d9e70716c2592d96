"""Evidently's report: which rows are compared, by which methods, and what an account is asked for."""

from __future__ import annotations

import datetime as dt
import json
import pathlib
from typing import Any

import boto3
import moto
import polars as pl
import pytest
from container_support import features_of, make_contract, make_records
from ml_contract.compiled import CompiledContract
from monitor_support import lines

from tools.evidently import __main__ as evidently
from tools.evidently import environment
from tools.evidently.account import NothingThereError, baseline_of, capture_of
from tools.evidently.tables import Hours, Table, TableError, fetch, read

UNTIL = dt.datetime(2026, 11, 21, 16, tzinfo=dt.UTC)


@pytest.fixture
def contract(tmp_path: pathlib.Path) -> CompiledContract:
    return make_contract(tmp_path / "workload", "binary")


@pytest.fixture
def frame(contract: CompiledContract) -> pl.DataFrame:
    return features_of(make_records("binary", 80), contract).select(f.name for f in contract.features)


def nobody() -> Any:
    raise AssertionError("a local folder needs no client")


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_should_read_the_same_rows_from_every_format(
    kind: str, contract: CompiledContract, frame: pl.DataFrame, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "_SUCCESS").write_text("")
    for number, part in enumerate((frame.head(50), frame.tail(30))):
        path = folder / f"{number}.{kind}"
        {"parquet": part.write_parquet, "csv": part.write_csv, "jsonl": part.write_ndjson}[kind](path)
    table = read(fetch(str(folder), tmp_path, nobody, None), contract, rows=1_000)
    assert table.frame.equals(frame)
    assert table.notes == ()


def test_should_decode_captured_traffic_by_the_contract(
    contract: CompiledContract, frame: pl.DataFrame, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "x.jsonl").write_bytes(lines(make_records("binary", 80)) + b"\n{}\n")
    table = read(fetch(str(tmp_path), tmp_path, nobody, None), contract, rows=1_000)
    assert table.frame.equals(frame)
    assert len(table.notes) == 1
    assert "no captured invocation" in table.notes[0]


def test_should_take_the_hours_that_are_asked_for(contract: CompiledContract, tmp_path: pathlib.Path) -> None:
    for hour, count in (("13", 7), ("14", 11), ("15", 13), ("16", 17)):
        folder = tmp_path / "AllTraffic/2026/11/21" / hour
        folder.mkdir(parents=True)
        (folder / "x.jsonl").write_bytes(lines(make_records("binary", count)))
    files = fetch(str(tmp_path), tmp_path, nobody, Hours(2, UNTIL))
    assert read(files, contract, rows=1_000).frame.height == 11 + 13
    with pytest.raises(TableError, match="of the 1 hours before 2026-11-21T13:00Z"):
        fetch(str(tmp_path), tmp_path, nobody, Hours(1, UNTIL.replace(hour=13)))
    (tmp_path / "loose.jsonl").write_bytes(lines(make_records("binary", 1)))
    with pytest.raises(TableError, match="no folder of an hour"):
        fetch(str(tmp_path), tmp_path, nobody, Hours(2, UNTIL))


@moto.mock_aws
def test_should_fetch_from_s3(
    contract: CompiledContract, frame: pl.DataFrame, tmp_path: pathlib.Path
) -> None:
    s3 = boto3.client("s3", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    s3.create_bucket(Bucket="rows")
    frame.write_parquet(tmp_path / "data.parquet")
    s3.upload_file(str(tmp_path / "data.parquet"), "rows", "train/data.parquet")
    s3.put_object(Bucket="rows", Key="train/_SUCCESS", Body=b"")
    s3.put_object(Bucket="rows", Key="test/other.parquet", Body=b"no parquet")
    files = fetch("s3://rows/train/", tmp_path, lambda: s3, None)
    assert read(files, contract, rows=1_000).frame.equals(frame)
    with pytest.raises(TableError, match=r"has no \.parquet"):
        fetch("s3://rows/elsewhere/", tmp_path, lambda: s3, None)


def test_should_draw_evenly_from_many_rows(contract: CompiledContract, frame: pl.DataFrame) -> None:
    table = _written(frame, contract, 20)
    assert table.frame.height == 20
    assert table.notes == ("20 of 80 rows, drawn evenly",)
    assert _written(frame, contract, 20).frame.equals(table.frame)


def _written(frame: pl.DataFrame, contract: CompiledContract, rows: int) -> Table:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "x.parquet"
        frame.write_parquet(path)
        return read([path], contract, rows=rows)


def test_should_say_what_cannot_be_read(
    contract: CompiledContract, frame: pl.DataFrame, tmp_path: pathlib.Path
) -> None:
    first = contract.features[0].name
    frame.drop(first).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(TableError, match=f"lacks the features {first} of trips"):
        read([tmp_path / "a.parquet"], contract, rows=9)
    frame.write_csv(tmp_path / "b.csv")
    with pytest.raises(TableError, match="one format at a time, found csv and parquet"):
        read([tmp_path / "a.parquet", tmp_path / "b.csv"], contract, rows=9)
    with pytest.raises(TableError, match="must end in"):
        fetch(__file__, tmp_path, nobody, None)
    frame.clear().write_parquet(tmp_path / "c.parquet")
    with pytest.raises(TableError, match="has no row"):
        read([tmp_path / "c.parquet"], contract, rows=9)


def test_should_choose_evidentlys_methods_by_the_workloads_rules(
    frame: pl.DataFrame, tmp_path: pathlib.Path
) -> None:
    special = "distance: {distance: ks, threshold: 0.2}, weather: {distance: chi2, threshold: 0.3}"
    contract = make_contract(
        tmp_path / "other",
        "binary",
        **{"minimum_records: 50": f"false_discovery_rate: 0.02, fields: {{{special}}}"},
    )
    rows = frame.with_columns(pl.lit(None, pl.Float64).alias("passengers"))
    columns, empty = evidently.columns_of(contract, Table(frame), Table(rows))
    assert empty == ["passengers"]
    assert columns == {
        # Where Evidently tests, its threshold is a chance.
        "distance": {"kind": "number", "method": "ks", "threshold": 0.02},
        "weather": {"kind": "category", "method": "chisquare", "threshold": 0.02},
        "driver": {"kind": "category", "method": "psi", "threshold": 0.25},
        **{
            name: {"kind": "number", "method": "psi", "threshold": 0.25}
            for name in ("electric", "start_hour", "lead_days")
        },
    }


class Account:
    """What the deployed stacks and the approved model say."""

    def __init__(self, package: str = "arn:aws:sagemaker:x:model-package/trips/3", **capture: Any) -> None:
        self.package, self.capture = package, capture

    def client(self, service: str) -> Any:
        return self

    def describe_stacks(self, **request: str) -> dict[str, Any]:
        outputs = {
            "Dev-TripsModels": {"ApprovedModelParameter": "/approved"},
            "Dev-TripsServing": {"EndpointName": "dev-trips"},
        }[request["StackName"]]
        return {"Stacks": [{"Outputs": [{"OutputKey": k, "OutputValue": v} for k, v in outputs.items()]}]}

    def get_parameter(self, **request: str) -> dict[str, Any]:
        return {"Parameter": {"Value": self.package}}

    def describe_model_package(self, **request: str) -> dict[str, Any]:
        assert request["ModelPackageName"] == self.package
        uri = {"S3Uri": "s3://artifacts/trips/training/e1/prepare/baseline/statistics.json"}
        return {"DriftCheckBaselines": {"ModelDataQuality": {"Statistics": uri}}}

    def describe_endpoint(self, **request: str) -> dict[str, Any]:
        return {"EndpointName": request["EndpointName"], **self.capture}


def test_should_find_what_an_environment_has(contract: CompiledContract) -> None:
    account = Account(DataCaptureConfig={"DestinationS3Uri": "s3://artifacts/trips/capture/"})
    assert baseline_of(account.client, "dev", contract) == "s3://artifacts/trips/training/e1/prepare/train/"
    assert capture_of(account.client, "dev", contract) == "s3://artifacts/trips/capture/dev-trips/"


def test_should_say_what_an_environment_lacks(contract: CompiledContract) -> None:
    with pytest.raises(NothingThereError, match="captures nothing"):
        capture_of(Account().client, "dev", contract)
    with pytest.raises(NothingThereError, match="dev has approved no model of trips"):
        baseline_of(Account("none").client, "dev", contract)


def test_should_start_uv_or_the_python_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(environment.OVERRIDE, raising=False)
    assert "--locked" in environment.command()
    monkeypatch.setenv(environment.OVERRIDE, "/opt/evidently/bin/python")
    assert environment.command() == ["/opt/evidently/bin/python", str(environment.SCRIPT)]
    monkeypatch.setenv(environment.OVERRIDE, "/bin/false")
    with pytest.raises(environment.EvidentlyError, match="ended with 1"):
        environment.run([])


def test_should_hand_the_rows_on_and_tell_the_verdicts(
    contract: CompiledContract,
    frame: pl.DataFrame,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Evidently itself is played: what it is given is checked, and what is made of its answer."""
    frame.write_parquet(tmp_path / "rows.parquet")
    names = [feature.name for feature in contract.features]

    def run(arguments: list[str]) -> str:
        baseline, window, columns, _, html, _, numbers = arguments
        asked = json.loads(pathlib.Path(columns).read_text())
        assert pl.read_parquet(baseline).equals(frame.select(asked.keys()))
        assert pl.read_parquet(window).equals(frame.select(asked.keys()))
        pathlib.Path(html).write_text("<html>")
        values = {
            name: {"method": "psi", "threshold": 0.2, "value": 0.1 + 0.2 * (name == names[0])}
            for name in asked
        }
        pathlib.Path(numbers).write_text(json.dumps(values))
        return ""

    monkeypatch.setattr(evidently, "run", run)
    place, out = str(tmp_path / "rows.parquet"), tmp_path / "new" / "evidently.html"
    folder = str(tmp_path / "workload" / "trips")
    assert evidently.main([folder, "--baseline", place, "--window", place, "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert [line.split()[1] for line in told.splitlines() if line.startswith("drifted")] == [names[0]]
    assert out.read_text() == "<html>"
    missing = str(tmp_path / "nowhere")
    assert evidently.main([folder, "--baseline", place, "--window", missing, "--out", str(out)]) == 1
    assert "nowhere has no .parquet" in capsys.readouterr().err
