"""The batch landing: what lands, what is quarantined, what a second delivery, a crash or a bad file does."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pyarrow.parquet as pq
import pytest
from batch_landing import handler as module
from batch_landing.errors import BadEventError, IncompleteBatchError, MisconfiguredError
from batch_landing.settings import Settings
from batch_landing.storage import Store
from ml_contract.load import load_workload
from ml_contract.records.landing import LandingSpec
from moto import mock_aws

from workloads.claims_fraud.generate import generate

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = load_workload(ROOT / "workloads" / "claims_fraud").compiled
SOURCES = [
    LandingSpec(name="lines", kind="drop", owner="team", schema_version=1, format="ndjson"),
    LandingSpec(name="table", kind="drop", owner="team", schema_version=1, format="csv", manifest=True),
]
DROP = "claims-fraud/drop/"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The function's surroundings: its environment, its files, its buckets."""
    (tmp_path / "contract.json").write_text(CONTRACT.to_json())
    (tmp_path / "sources.json").write_text(json.dumps([s.to_json() for s in SOURCES]))
    for name, value in {
        "DROP_URI": f"s3://drop/{DROP}",
        "DATA_URI": "s3://raw/claims-fraud/data/",
        "QUARANTINE_URI": "s3://raw/claims-fraud/quarantine/",
        "BATCHES_URI": "s3://raw/claims-fraud/batches/",
        "DELETIONS_URI": "s3://raw/claims-fraud/deletions/",
        "LARGEST_FILE_BYTES": "1000000",
        "ENVIRONMENT_NAME": "dev",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
    }.items():
        monkeypatch.setenv(name, value)
    settings = Settings.from_environment
    monkeypatch.setattr(module.Settings, "from_environment", lambda variables: settings(variables, tmp_path))
    with mock_aws():
        client = boto3.client("s3")
        for bucket in ("drop", "raw"):
            client.create_bucket(
                Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
            )
            client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        _forget()
        yield client
    _forget()


def _forget() -> None:
    for cached in (module._settings, module._landing, module._cloudwatch):
        cached.cache_clear()


def put(s3: Any, name: str, body: bytes) -> dict[str, Any]:
    """Drop a file; what EventBridge tells of it."""
    answer = s3.put_object(Bucket="drop", Key=f"{DROP}{name}", Body=body)
    return {"key": f"{DROP}{name}", "version-id": answer["VersionId"]}


def deliver(dropped: dict[str, Any]) -> dict[str, Any]:
    """What the state machine does with an object."""
    batch = module.handler({"task": "check", "object": dropped}, None)
    if batch["status"] == "skip":
        return batch
    files = [
        module.handler({"task": "land", "source": batch["source"], "file": f}, None) for f in batch["files"]
    ]
    started = "2026-11-21T00:00:00Z"
    return module.handler({"task": "finish", "batch": batch, "files": files, "started_at": started}, None)


def contents(s3: Any, prefix: str) -> dict[str, bytes]:
    """Objects of the raw zone below a prefix."""
    found = s3.list_objects_v2(Bucket="raw", Prefix=f"claims-fraud/{prefix}").get("Contents", [])
    return {o["Key"]: s3.get_object(Bucket="raw", Key=o["Key"])["Body"].read() for o in found}


def lines(records: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(r).encode() + b"\n" for r in records)


def csv_of(records: list[dict[str, Any]]) -> bytes:
    names = list(records[0])
    body = [",".join(names)]
    body += [",".join("" if r[n] is None else str(r[n]) for n in names) for r in records]
    return "\n".join(body).encode()


def rows_of(s3: Any) -> list[dict[str, Any]]:
    tables = [pq.read_table(io.BytesIO(body)) for body in contents(s3, "data/").values()]
    return [row for table in tables for row in table.to_pylist()]


def quarantined(s3: Any) -> list[dict[str, Any]]:
    return [json.loads(li) for body in contents(s3, "quarantine/").values() for li in body.splitlines()]


def test_should_land_good_rows_and_quarantine_bad_ones(s3: Any) -> None:
    good = generate(5, 1)
    bad = {**good[0], "age": "old"}
    summary = deliver(put(s3, "lines/a.ndjson", lines([*good, bad]) + b"{nonsense\n"))
    assert (summary["outcome"], summary["read"]) == ("landed", 7)
    assert (summary["delivered"], summary["quarantined"]) == (5, 2)
    assert {r["policy_number"] for r in rows_of(s3)} == {g["policy_number"] for g in good}
    assert sorted(q["reasons"][0]["code"] for q in quarantined(s3)) == ["not_json", "wrong_type"]
    assert base64.b64decode(quarantined(s3)[0]["data_base64"]) == json.dumps(bad).encode()


def test_should_give_a_line_the_record_id_of_the_same_bytes_on_the_stream(s3: Any) -> None:
    record = json.dumps(generate(1, 1)[0]).encode()
    deliver(put(s3, "lines/a.ndjson", record + b"\r\n"))
    assert rows_of(s3)[0]["record_id"] == hashlib.blake2b(record, digest_size=16).hexdigest()


def test_should_keep_one_audit_record_per_batch(s3: Any) -> None:
    dropped = put(s3, "lines/a.ndjson", lines(generate(3, 1)))
    deliver(dropped)
    deliver(dropped)
    (audit,) = contents(s3, "batches/audit/").values()
    record = json.loads(audit)
    assert (record["source"], record["owner"], record["schema_version"]) == ("lines", "team", 1)
    assert record["read"] == record["delivered"] + record["quarantined"] == 3
    (file,) = record["files"]
    assert file["version"] == dropped["version-id"]
    assert file["etag"]


def test_should_change_nothing_when_the_same_content_is_delivered_again(s3: Any) -> None:
    body = lines(generate(3, 1))
    deliver(put(s3, "lines/a.ndjson", body))
    before = contents(s3, "data/")
    again = deliver(put(s3, "lines/renamed.ndjson", body))
    assert (again["outcome"], again["delivered"]) == ("repeated", 0)
    assert contents(s3, "data/") == before


@pytest.mark.parametrize("writes_before", range(4))
def test_should_give_the_same_rows_when_it_is_killed_and_run_again(
    s3: Any, monkeypatch: pytest.MonkeyPatch, writes_before: int
) -> None:
    """Killed before each of the writes: claim, rows, quarantine, result."""
    dropped = put(s3, "lines/a.ndjson", lines(generate(4, 1)) + b"[]\n")
    left = iter([True] * writes_before)
    with monkeypatch.context() as patched:
        for name in ("claim", "upload", "write"):
            patched.setattr(Store, name, _dying(getattr(Store, name), left))
        with pytest.raises(KeyboardInterrupt):
            deliver(dropped)
    summary = deliver(dropped)
    assert (summary["outcome"], summary["delivered"], summary["quarantined"]) == ("landed", 4, 1)
    assert len(rows_of(s3)) == 4
    assert len(quarantined(s3)) == 1


def _dying(original: Any, left: Iterator[bool]) -> Any:
    def write(self: Store, *given: Any) -> Any:
        if not next(left, False):
            raise KeyboardInterrupt
        return original(self, *given)

    return write


def test_should_land_a_batch_when_its_manifest_is_there(s3: Any) -> None:
    first, second = csv_of(generate(3, 1)), csv_of(generate(2, 2))
    assert deliver(put(s3, "table/1.csv", first))["status"] == "skip"
    put(s3, "table/2.csv", second)
    manifest = {
        "files": [
            {"name": "1.csv", "size": len(first), "sha256": hashlib.sha256(first).hexdigest()},
            {"name": "2.csv", "size": len(second)},
        ]
    }
    summary = deliver(put(s3, "table/all.manifest.json", json.dumps(manifest).encode()))
    assert (summary["outcome"], summary["delivered"], summary["files"]) == ("landed", 5, 2)


@pytest.mark.parametrize("present", [b"", None])
def test_should_wait_for_files_that_are_absent_or_shorter(s3: Any, present: bytes | None) -> None:
    if present is not None:
        put(s3, "table/1.csv", present)
    manifest = {"files": [{"name": "1.csv", "size": 10}]}
    dropped = put(s3, "table/all.manifest.json", json.dumps(manifest).encode())
    with pytest.raises(IncompleteBatchError, match="1 of 1 files of table"):
        deliver(dropped)


@pytest.mark.parametrize(
    ("manifest", "why"),
    [
        (b"{", "no manifest"),
        (b"[]", "no manifest"),
        (b'{"files": []}', "a list of 1 to 400 files"),
        (b'{"files": [{"name": "../x", "size": 1}]}', "beside or below the manifest"),
        (b'{"files": [{"name": "x"}]}', "a name and a size"),
        (b'{"files": [{"name": "x", "size": 1}, {"name": "x", "size": 1}]}', "named twice"),
        (b'{"files": [{"name": "x", "size": 1, "sha256": "abc"}]}', "64 hexadecimal digits"),
    ],
)
def test_should_refuse_a_manifest_that_says_nothing(s3: Any, manifest: bytes, why: str) -> None:
    summary = deliver(put(s3, "table/all.manifest.json", manifest))
    assert summary["outcome"] == "refused"
    assert why in summary["reason"]


def test_should_quarantine_a_broken_file_and_land_the_others(s3: Any) -> None:
    good, broken = csv_of(generate(3, 1)), b'policy_number,age\n"1,2\n'
    for name, body in (("good.csv", good), ("broken.csv", broken)):
        put(s3, f"table/{name}", body)
    files = [{"name": "good.csv", "size": len(good)}, {"name": "broken.csv", "size": len(broken)}]
    summary = deliver(put(s3, "table/all.manifest.json", json.dumps({"files": files}).encode()))
    assert (summary["outcome"], summary["delivered"], summary["quarantined"]) == ("landed", 3, 1)
    (line,) = quarantined(s3)
    assert line["reasons"][0]["code"] == "unreadable_file"
    assert line["file"] == f"s3://drop/{DROP}table/broken.csv"
    assert base64.b64decode(line["data_base64"]) == broken


def test_should_quarantine_a_file_whose_checksum_is_another(s3: Any) -> None:
    body = csv_of(generate(3, 1))
    put(s3, "table/1.csv", body)
    wrong = json.dumps({"files": [{"name": "1.csv", "size": len(body), "sha256": "0" * 64}]}).encode()
    assert deliver(put(s3, "table/a.manifest.json", wrong))["outcome"] == "refused"
    assert quarantined(s3)[0]["reasons"][0]["code"] == "checksum_mismatch"
    right = wrong.replace(b"0" * 64, hashlib.sha256(body).hexdigest().encode())
    assert deliver(put(s3, "table/b.manifest.json", right))["delivered"] == 3


def test_should_quarantine_a_file_that_is_too_large(s3: Any) -> None:
    summary = deliver(put(s3, "lines/a.ndjson", b" " * 1_000_001))
    assert (summary["outcome"], summary["reasons"]) == ("refused", {"too_large": 1})


def test_should_run_a_failed_batch_again(s3: Any) -> None:
    dropped = put(s3, "lines/a.ndjson", lines(generate(2, 1)))
    batch = module.handler({"task": "check", "object": dropped}, None)
    failed = {"task": "finish", "batch": batch, "started_at": "2026-11-21T00:00:00Z"}
    failed["files"] = [{"file": "a", "outcome": "failed", "reason": "killed"}]
    assert module.handler(failed, None)["outcome"] == "failed"
    assert deliver(dropped)["outcome"] == "landed"
    (audit,) = contents(s3, "batches/audit/").values()
    assert json.loads(audit)["outcome"] == "landed"


def test_should_refuse_what_is_no_task_and_no_source(s3: Any) -> None:
    with pytest.raises(BadEventError, match="check, land or finish"):
        module.handler({"task": "tell"}, None)
    with pytest.raises(BadEventError, match="below no source's folder"):
        module.handler({"task": "check", "object": {"key": f"{DROP}other/a"}}, None)


def test_should_name_every_wrong_setting_at_once(tmp_path: Path) -> None:
    with pytest.raises(MisconfiguredError) as caught:
        Settings.from_environment({}, tmp_path)
    for name in ("DROP_URI", "LARGEST_FILE_BYTES", "contract.json", "sources.json"):
        assert name in str(caught.value)


@pytest.mark.parametrize("name", ["lines/", "lines/_SUCCESS", "lines/a/_temporary/0/x", "lines/run_$folder$"])
def test_should_leave_alone_what_writers_leave_beside_files(s3: Any, name: str) -> None:
    assert deliver(put(s3, name, b""))["status"] == "skip"


def test_should_say_that_a_batch_stays_incomplete_when_asked_for_the_last_time(s3: Any) -> None:
    dropped = put(s3, "table/all.manifest.json", b'{"files": [{"name": "1.csv", "size": 10}]}')
    batch = module.handler({"task": "check", "object": dropped, "last": True}, None)
    assert batch["status"] == "incomplete"
    event = {"task": "finish", "batch": batch, "files": [], "started_at": "2026-11-21T00:00:00Z"}
    assert module.handler(event, None)["outcome"] == "incomplete"
