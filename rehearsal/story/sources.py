"""Chapter: what does not stream arrives in batches: one landing, one quarantine, one audit record."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from rehearsal.story.databases import insert
from rehearsal.story.ingestion import read_parquet
from rehearsal.story.shares import dropping, reading, shares
from rehearsal.story.tale import Tale
from rehearsal.story.telling import Evidence, Step, StoryError, require, wait_until

if TYPE_CHECKING:
    from ml_contract.spec.workload import Workload

__all__ = ["STEPS", "Dropped", "spoilt_file", "written"]

CHAPTER = "Batch sources"
#: A batch takes a second or two; a busy machine may need far more.
BATCH_SECONDS = 120
Raw = dict[str, Any]
Put = Callable[[str, bytes], object]


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """One batch as it was dropped: what is in it, by what becomes of it."""

    files: dict[str, bytes]
    good: int
    bad: int
    #: Files that cannot be read; each counts as one record.
    broken: int
    identifiers: frozenset[str]

    @property
    def sent(self) -> int:
        """Records that were sent."""
        return self.good + self.bad + self.broken


# --- files ---------------------------------------------------------------------------------------------


def written(records: Sequence[Raw], source: Any, *, bad: Sequence[Raw] = ()) -> bytes:
    """The records as a file of the source's format; ``bad`` ones are spread among them."""
    column_of = {field: column for column, field in source.rename.items()}
    rows = [{column_of.get(name, name): value for name, value in r.items()} for r in (*bad, *records)]
    if source.format == "ndjson":
        return b"".join(json.dumps(r, ensure_ascii=False).encode() + b"\n" for r in rows)
    if source.format == "json":
        return json.dumps(rows, ensure_ascii=False).encode()
    if source.format == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), sink)
        return sink.getvalue()
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text, delimiter=source.delimiter, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_cell(row.get(name)) for name in names] for row in rows)
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def spoilt_file(source: Any) -> bytes:
    """A file that begins well and cannot be read to its end."""
    if source.format == "csv":
        return b'a"b\n"never closed\n'
    return b"PAR1 and no more" if source.format == "parquet" else b'[{"a": 1}, {'


def _batch(tale: Tale, name: str, *, broken: bool) -> Dropped:
    """The source's share of the records, some of them spoilt, and a file that nobody can read."""
    source: Any = tale.workload.sources[name]
    contract = tale.contract
    _, batches = shares(tale.inputs.initial, tale.workload)
    records = batches[name]
    key = contract.by_name[contract.identifier].source
    bad = [{**records[0], key: None}, {**records[1], contract.label_column.source: None, key: ""}]
    files = {f"claims.{source.format}": written(records, source, bad=bad)}
    # A line of NDJSON that is none spoils itself only: there is no unreadable file of that format.
    broken = broken and source.format != "ndjson"
    if broken:
        files[f"broken.{source.format}"] = spoilt_file(source)
    return Dropped(
        files=files,
        good=len(records),
        bad=len(bad),
        broken=int(broken),
        identifiers=frozenset(str(r[key]) for r in records),
    )


def _drop(source: Any, folder: str, batch: Dropped, put: Put) -> int:
    """Write the files, and their manifest last; return how many batches that makes."""
    for name, body in batch.files.items():
        put(f"{folder}{name}", body)
    if not source.manifest:
        return len(batch.files)
    entries = [
        {"name": name, "size": len(body), "sha256": sha256(body).hexdigest()}
        for name, body in batch.files.items()
    ]
    put(f"{folder}all.manifest.json", json.dumps({"files": entries}).encode())
    return 1


# --- what becomes of them ------------------------------------------------------------------------------


def _audits(tale: Tale, name: str) -> list[dict[str, Any]]:
    uri = f"{tale.outputs('Sources')['BatchesUri']}audit/{name}/"
    found = [tale.cloud.objects.read_json(o) for o in tale.cloud.objects.list(uri, suffix=".json")]
    return sorted(found, key=lambda record: str(record["ended_at"]))


def _landed(tale: Tale, name: str, batches: int) -> list[dict[str, Any]]:
    """Wait until the source has so many audit records; return those that are new."""
    before: set[str] = tale.known.setdefault(f"batches of {name}", set())

    def new() -> list[dict[str, Any]] | None:
        found = [a for a in _audits(tale, name) if a["batch"] not in before]
        return found if len(found) >= batches else None

    found: list[dict[str, Any]] = wait_until(f"the landing of {name}", new, seconds=BATCH_SECONDS)
    tale.cloud.idle()
    before |= {record["batch"] for record in found}
    return found


def _objects(tale: Tale, name: str) -> dict[str, bytes]:
    """Rows and quarantine of a source, by object."""
    outputs = tale.outputs("Data")
    found = [
        uri
        for place in ("RawDataUri", "QuarantineUri")
        for uri in tale.cloud.objects.list(outputs[place])
        if uri.rsplit("/", 1)[-1].startswith(f"{name}-")
    ]
    return {uri: tale.cloud.objects.read(uri) for uri in found}


def _account(tale: Tale, name: str, batch: Dropped, audits: Sequence[Raw], evidence: Evidence) -> None:
    """Compare what was dropped with the audit records, the raw zone and the quarantine."""
    totals = {key: sum(a[key] for a in audits) for key in ("read", "delivered", "quarantined", "deleted")}
    reasons: Counter[str] = Counter()
    for audit in audits:
        reasons.update(audit["reasons"])
    objects = _objects(tale, name)
    lines = [
        json.loads(line)
        for uri, body in objects.items()
        if uri.endswith(".jsonl")
        for line in body.splitlines()
    ]
    identifier = tale.contract.identifier
    rows = read_parquet(tale, tale.outputs("Data")["RawDataUri"], [identifier, "record_id"]).to_pylist()
    delivered = Counter(str(row[identifier]) for row in rows)
    evidence |= {
        "source": name,
        "owner": audits[0]["owner"],
        "sent": batch.sent,
        **totals,
        "reasons": dict(reasons),
        "outcomes": dict(Counter(f["outcome"] for a in audits for f in a["files"])),
        "an_audit_record": {k: v for k, v in audits[0].items() if k != "files"},
    }
    entry = next(e for e in tale.report.sources if e["source"] == name)
    entry |= {"batches": len(audits), "sent": batch.sent, **totals}
    records = tale.report.records
    records["sent"] += batch.sent
    records["delivered"] += totals["delivered"]
    records["quarantined"] += totals["quarantined"]
    records["lost"] += batch.sent - totals["delivered"] - totals["quarantined"]
    _enter_reasons(records, lines)
    require(
        totals["read"] == totals["delivered"] + totals["quarantined"], f"{name}: {totals} does not add up"
    )
    require(
        totals["delivered"] == batch.good, f"{name}: {totals['delivered']} landed, good were {batch.good}"
    )
    require(
        totals["quarantined"] == batch.bad + batch.broken == len(lines),
        f"{name}: {totals['quarantined']} and {len(lines)} lines in quarantine, bad were {batch.bad} records "
        f"and {batch.broken} files",
    )
    absent = [i for i in batch.identifiers if not delivered[i]]
    require(not absent, f"{name}: {len(absent)} good records are not in the raw zone")
    require(
        all(line["reasons"] and line["source"] == name for line in lines), f"{name}: a line has no reason"
    )


def _enter_reasons(records: dict[str, Any], lines: Sequence[Raw]) -> None:
    """Add to the reasons that the stream's chapter entered into the report."""
    known = {r["code"]: r for r in records.setdefault("reasons", [])}
    for line in lines:
        for code in {reason["code"] for reason in line["reasons"]}:
            message = next(r["message"] for r in line["reasons"] if r["code"] == code)
            entry = known.setdefault(code, {"code": code, "records": 0, "example": str(message)[:300]})
            entry["records"] += 1
    records["reasons"] = sorted(known.values(), key=lambda r: -int(r["records"]))


# --- steps ---------------------------------------------------------------------------------------------


def _drops(workload: Workload) -> list[str]:
    return [name for name in dropping(workload) if workload.sources[name].kind == "drop"]


def _writers(workload: Workload) -> list[str]:
    return [name for name in dropping(workload) if workload.sources[name].kind == "thirdparty"]


def _drop_folders(tale: Tale, evidence: Evidence) -> None:
    drop = tale.outputs("Sources")["DropUri"]
    told = []
    for name in _drops(tale.workload):
        source: Any = tale.workload.sources[name]
        batch = _batch(tale, name, broken=True)
        tale.known[f"dropped by {name}"] = batch
        count = _drop(source, f"{drop}{name}/first/", batch, tale.cloud.objects.write)
        one: Evidence = {"files": sorted(batch.files), "manifest": source.manifest}
        _account(tale, name, batch, _landed(tale, name, count), one)
        told.append(one)
    evidence["sources"] = told


def _again(tale: Tale, evidence: Evidence) -> None:
    """The same files under other names, then under the same: nothing changes."""
    drop = tale.outputs("Sources")["DropUri"]
    told = []
    for name in _drops(tale.workload):
        source: Any = tale.workload.sources[name]
        batch: Dropped = tale.known[f"dropped by {name}"]
        before = _objects(tale, name)
        outcomes = []
        for folder in ("second/", "first/"):
            count = _drop(source, f"{drop}{name}/{folder}", batch, tale.cloud.objects.write)
            audits = _landed(tale, name, count)
            outcomes += [a["outcome"] for a in audits]
            moved = sum(a["delivered"] + a["quarantined"] for a in audits)
            require(moved == 0, f"{name}: a second delivery of the same files moved {moved} records")
        after = _objects(tale, name)
        require(before == after, f"{name}: a second delivery of the same files changed the raw zone")
        told.append({"source": name, "outcomes": outcomes, "objects_unchanged": len(after)})
    evidence["sources"] = told


def _third_parties(tale: Tale, evidence: Evidence) -> None:
    evidence["third_parties"] = [_third_party(tale, name) for name in _writers(tale.workload)]


def _third_party(tale: Tale, name: str) -> Evidence:
    """Take the role as the other account, do what it may do, and be refused the rest."""
    source: Any = tale.workload.sources[name]
    construct_id = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    role = tale.outputs("Sources")[f"{construct_id}RoleArn"]
    bucket, _, prefix = tale.outputs("Sources")["DropUri"].removeprefix("s3://").partition("/")
    # Who signs with an account's number is that account.
    stranger = _client(tale, "sts", aws_access_key_id=source.account, aws_secret_access_key="x")  # noqa: S106

    def take(**given: str) -> Any:
        return stranger.assume_role(RoleArn=role, RoleSessionName="sender", **given)

    refused = [
        _denied("without an external id", take),
        _denied("with a wrong external id", lambda: take(ExternalId=f"not-{source.external_id}")),
    ]
    given = take(ExternalId=source.external_id)["Credentials"]
    s3 = _client(
        tale,
        "s3",
        aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"],
        aws_session_token=given["SessionToken"],
    )

    def put(key: str, body: bytes) -> None:
        s3.put_object(Bucket=bucket, Key=key, Body=body)

    batch = _batch(tale, name, broken=False)
    count = _drop(source, f"{prefix}{name}/", batch, put)
    key = f"{prefix}{name}/{next(iter(batch.files))}"
    refused += [
        _denied("writing into another folder", lambda: put(f"{prefix}elsewhere/file", b"x")),
        _denied("reading what it dropped", lambda: s3.get_object(Bucket=bucket, Key=key)),
    ]
    evidence: Evidence = {"account": source.account, "refused": refused}
    _account(tale, name, batch, _landed(tale, name, count), evidence)
    return evidence


def _denied(what: str, call: Callable[[], object]) -> str:
    """The call's refusal; a story in which it is let through has failed."""
    from botocore.exceptions import ClientError

    try:
        call()
    except ClientError as error:
        code = str(error.response["Error"]["Code"])
        require("AccessDenied" in code, f"{what}: refused as {code}, not as AccessDenied")
        return f"{what}: {code}"
    raise StoryError(f"{what} was let through")


# --- databases -----------------------------------------------------------------------------------------

#: Rows that come after the first run, and whether the second reads only these.
LATER_ROWS = 5
JOB_SECONDS = 300


def _tables(tale: Tale, evidence: Evidence) -> None:
    evidence["databases"] = [_table(tale, name) for name in reading(tale.workload)]


def _table(tale: Tale, name: str) -> Evidence:
    """Fill the database, have the job read it, add rows, have it read these."""
    source: Any = tale.workload.sources[name]
    contract = tale.contract
    _, batches = shares(tale.inputs.initial, tale.workload)
    records = batches[name]
    key = contract.by_name[contract.identifier].source
    rows = [{**records[0], key: None}, *records]
    audits = []
    read = []
    numbered = list(enumerate(rows, start=1))
    for part in (numbered[:-LATER_ROWS], numbered[-LATER_ROWS:]):
        insert(tale, source, part)
        found = _read_table(tale, name)
        read.append(sum(a["read"] for a in found))
        audits += found
    evidence: Evidence = {
        "table": source.table,
        "behind_the_connection": f"a SQLite file stands for {source.engine} {source.host}",
        "rows_read_by_each_run": read,
    }
    batch = Dropped(
        files={}, good=len(records), bad=1, broken=0, identifiers=frozenset(str(r[key]) for r in records)
    )
    _account(tale, name, batch, audits, evidence)
    require(
        read == [len(rows) - LATER_ROWS, LATER_ROWS],
        f"{name}: the runs read {read} rows; the bookmark should have left {LATER_ROWS} to the second",
    )
    return evidence


def _read_table(tale: Tale, name: str) -> list[Raw]:
    """Run the source's job to its end; the audit records of the files that it dropped."""
    construct_id = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    job = tale.outputs("Sources")[f"{construct_id}JobName"]
    glue = tale.cloud.client("glue")
    run = glue.start_job_run(JobName=job)["JobRunId"]

    def ended() -> Raw | None:
        found: Raw = glue.get_job_run(JobName=job, RunId=run)["JobRun"]
        return found if found["JobRunState"] in ("SUCCEEDED", "FAILED", "STOPPED", "TIMEOUT") else None

    found: Raw = wait_until(f"the end of job {job}", ended, seconds=JOB_SECONDS, every=0.5)
    require(found["JobRunState"] == "SUCCEEDED", f"job {job}: {found.get('ErrorMessage')}")
    folder = f"{tale.outputs('Sources')['DropUri']}{name}/{run}"
    files = tale.cloud.objects.list(folder, suffix=".parquet")
    require(files, f"job {job} dropped no file below {folder}")
    return _landed(tale, name, len(files))


def _client(tale: Tale, service: str, **credentials: str) -> Any:
    """A client of somebody who is not the operator."""
    import boto3.session
    from botocore.config import Config

    session: Any = boto3.session.Session(region_name=tale.cloud.server.environment()["AWS_REGION"])
    return session.client(
        service,
        endpoint_url=tale.cloud.server.endpoint,
        config=Config(
            retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, read_timeout=120, proxies={}
        ),
        **credentials,
    )


STEPS = (
    Step(
        id="drop",
        title="Files are dropped: good rows land, bad rows and a broken file go to quarantine",
        chapter=CHAPTER,
        run=_drop_folders,
        capabilities=lambda _: ("batch.drop", "batch.workflow", "data.validation", "data.manifest"),
        applies=lambda w: bool(_drops(w)),
    ),
    Step(
        id="drop-again",
        title="The same files again change nothing",
        chapter=CHAPTER,
        run=_again,
        capabilities=lambda _: ("batch.drop", "batch.workflow"),
        applies=lambda w: bool(_drops(w)),
    ),
    Step(
        id="third-party",
        title="Another account drops a file, and may do nothing else",
        chapter=CHAPTER,
        run=_third_parties,
        capabilities=lambda _: ("batch.thirdparty", "batch.workflow"),
        applies=lambda w: bool(_writers(w)),
    ),
    Step(
        id="read-table",
        title="A job reads what is new in a table of a database",
        chapter=CHAPTER,
        run=_tables,
        capabilities=lambda _: ("batch.jdbc", "batch.workflow"),
        applies=lambda w: bool(reading(w)),
    ),
)
