"""Chapter: who may read which columns and rows, what is asked of the lake, and who read it."""

# ruff: noqa: S608 - names in the queries come from a checked contract and from stack outputs
from __future__ import annotations

import csv
import io
import time
from typing import TYPE_CHECKING, Any

from rehearsal.story.tale import Outputs, Tale
from rehearsal.story.telling import Evidence, Step, require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ml_contract.spec.governance import RowFilter

__all__ = ["STEPS"]

CHAPTER = "Govern"
STACK = "Governance"
ENGINE = "DuckDB stands for Athena's engine; tables, grants, roles and results are the deployed ones"


class Persona:
    """One of the people: the role that the Governance stack made, assumed through STS."""

    def __init__(self, tale: Tale, name: str) -> None:
        import boto3.session
        from botocore.config import Config

        outputs = governance(tale)
        title = "".join(part.title() for part in name.split("_"))
        self.name = name
        self.workgroup = outputs[f"{title}Workgroup"]
        self.role = outputs[f"{title}RoleArn"]
        answer = tale.cloud.client("sts").assume_role(RoleArn=self.role, RoleSessionName=f"a-{name}"[:64])
        given = answer["Credentials"]
        session: Any = boto3.session.Session(
            aws_access_key_id=given["AccessKeyId"],
            aws_secret_access_key=given["SecretAccessKey"],
            aws_session_token=given["SessionToken"],
            region_name=tale.cloud.server.environment()["AWS_REGION"],
        )
        self._session = session
        self._endpoint = tale.cloud.server.endpoint
        self._config = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, proxies={})
        self.athena = self.client("athena")

    def client(self, service: str) -> Any:
        """A boto3 client of the persona."""
        return self._session.client(service, endpoint_url=self._endpoint, config=self._config)

    def ask(self, sql: str, database: str) -> Answer:
        """Run a query in the persona's workgroup and wait for its end."""
        query_id = self.athena.start_query_execution(
            QueryString=sql,
            WorkGroup=self.workgroup,
            QueryExecutionContext={"Database": database},
        )["QueryExecutionId"]
        deadline = time.monotonic() + 60
        while True:
            execution = self.athena.get_query_execution(QueryExecutionId=query_id)["QueryExecution"]
            status = execution["Status"]
            if status["State"] in ("SUCCEEDED", "FAILED", "CANCELLED"):
                break
            require(time.monotonic() < deadline, f"a query of {self.name} takes more than a minute: {sql}")
            time.sleep(0.05)
        if status["State"] != "SUCCEEDED":
            return Answer([], [], status.get("StateChangeReason", status["State"]), execution)
        place = execution["ResultConfiguration"]["OutputLocation"].removeprefix("s3://")
        bucket, _, key = place.partition("/")
        body = self.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read().decode()
        names, *rows = list(csv.reader(io.StringIO(body)))
        return Answer(names, rows, None, execution)


class Answer:
    """What a query answered; ``refusal`` says why it did not."""

    def __init__(
        self, names: list[str], rows: list[list[str]], refusal: str | None, execution: Mapping[str, Any]
    ) -> None:
        self.names, self.rows, self.refusal, self.execution = names, rows, refusal, execution

    def column(self, name: str) -> list[str]:
        """The values of a column."""
        place = self.names.index(name)
        return [row[place] for row in self.rows]


def governed(tale: Tale) -> bool:
    """Whether the stage has switched governance on."""
    return any(stack.id.partition(" (")[0] == f"{tale.stage}/{STACK}" for stack in tale.stage_stacks)


def governance(tale: Tale) -> Outputs:
    """Outputs of the stack that all workloads share."""
    key = "outputs of governance"
    if key not in tale.known:
        stack = f"{tale.stage}/{STACK}"
        tale.known[key] = Outputs(stack, tale.cdk.outputs(stack))
    found: Outputs = tale.known[key]
    return found


def persona(tale: Tale, name: str) -> Persona:
    """A persona, assumed once."""
    key = f"persona {name}"
    if key not in tale.known:
        tale.known[key] = Persona(tale, name)
    found: Persona = tale.known[key]
    return found


def _tables(tale: Tale) -> tuple[str, str, str]:
    """Databases of raw, curated and features."""
    environment = tale.stage.lower()
    return f"{environment}_raw", f"{environment}_curated", f"{environment}_features"


def _sensitive(tale: Tale, kind: str) -> list[str]:
    return [column.name for column in tale.contract.columns if column.sensitive == kind]


# -- steps --------------------------------------------------------------------------------------------------


def _tags(tale: Tale, evidence: Evidence) -> None:
    lake = tale.cloud.client("lakeformation")
    environment = tale.stage.lower()
    evidence["tags"] = {
        tag["TagKey"]: tag["TagValues"]
        for tag in lake.list_lf_tags()["LFTags"]
        if tag["TagKey"].startswith(f"{environment}_")
    }
    require(evidence["tags"], "there are no LF-tags of this environment")
    wanted = {c.name: c.sensitive or "none" for c in tale.contract.columns}
    shown: dict[str, list[str]] = {}
    for database in _tables(tale):
        found = lake.get_resource_lf_tags(
            Resource={"Table": {"DatabaseName": database, "Name": tale.workload.name}}
        )
        table = {tag["TagKey"]: tag["TagValues"][0] for tag in found["LFTagsOnTable"]}
        require(
            table.get(f"{environment}_classification") == tale.workload.classification,
            f"{database}.{tale.workload.name} is tagged {table}, not {tale.workload.classification}",
        )
        for column in found["LFTagsOnColumns"]:
            tags = {tag["TagKey"]: tag["TagValues"][0] for tag in column["LFTags"]}
            kind = tags.get(f"{environment}_sensitivity")
            expected = wanted.get(column["Name"], "none")
            require(kind == expected, f"{database}: column {column['Name']} is tagged {kind}, not {expected}")
            if kind != "none":
                shown.setdefault(f"{database}: {kind}", []).append(column["Name"])
    evidence["marked_columns"] = shown
    resources = lake.list_resources()["ResourceInfoList"]
    evidence["locations_in_hybrid_mode"] = sum(1 for r in resources if r.get("HybridAccessEnabled"))
    require(
        evidence["locations_in_hybrid_mode"] == 0,
        "a location of the lake lets in who is not granted anything",
    )


def _grants(tale: Tale, evidence: Evidence) -> None:
    """A read that is allowed and one that is denied, per persona."""
    raw, curated, features = _tables(tale)
    name, rows = tale.workload.name, f'"{curated}"."{tale.workload.name}"'
    scientist, engineer = persona(tale, "data_scientist"), persona(tale, "data_engineer")
    evidence["engine"] = ENGINE
    checks: list[dict[str, Any]] = []
    evidence["queries"] = checks

    def ask(who: Persona, sql: str, database: str, *, allowed: bool) -> Answer:
        answer = who.ask(sql, database)
        checks.append(
            {
                "persona": who.name,
                "query": sql[:160],
                "allowed": answer.refusal is None,
                "rows": len(answer.rows),
                **({"refused_because": answer.refusal[:240]} if answer.refusal is not None else {}),
            }
        )
        require(
            (answer.refusal is None) == allowed,
            f"{who.name} was {'refused' if allowed else 'let'}: {sql}: {answer.refusal}",
        )
        return answer

    pii = _sensitive(tale, "pii")
    plain = next(c.name for c in tale.contract.columns if c.sensitive is None)
    every = ask(engineer, f"SELECT * FROM {rows}", curated, allowed=True)
    require(set(pii) <= set(every.names), f"the data engineer does not see {pii}")
    seen = ask(scientist, f"SELECT * FROM {rows}", curated, allowed=True)
    hidden = sorted(set(every.names) - set(seen.names))
    evidence["hidden_from_the_data_scientist"] = hidden
    require(hidden == sorted(pii), f"the data scientist does not see {hidden}, where {sorted(pii)} are pii")
    ask(scientist, f"SELECT {plain} FROM {rows}", curated, allowed=True)
    for column in pii:
        ask(scientist, f"SELECT {column} FROM {rows}", curated, allowed=False)
        # Neither by a condition nor by a way around the list of columns.
        ask(scientist, f"SELECT count(*) FROM {rows} WHERE {column} IS NOT NULL", curated, allowed=False)
    ask(scientist, f'SELECT count(*) FROM "{raw}"."{name}"', raw, allowed=False)
    _rows_filtered(tale, evidence, every, seen)
    mlops = persona(tale, "mlops_engineer")
    ask(mlops, f"SELECT count(*) FROM {rows}", curated, allowed=False)
    if "mlops_engineer" not in tale.workload.governance.row_filters:
        found = ask(mlops, f'SELECT * FROM "{features}"."{name}"', features, allowed=True)
        kept = set(found.names) & {*pii, *_sensitive(tale, "protected")}
        require(not kept, f"the MLOps engineer sees {sorted(kept)}")
    auditor = persona(tale, "auditor")
    ask(auditor, f"SELECT count(*) FROM {rows}", curated, allowed=False)
    # Past Athena, S3 itself lets no persona in.
    _refused_by_s3(tale, evidence, scientist)
    evidence["not_protected"] = (
        "results that an engineer keeps, jobs that read S3 by their own roles, what rare values tell together"
    )


def _rows_filtered(tale: Tale, evidence: Evidence, every: Answer, seen: Answer) -> None:
    rows: RowFilter | None = tale.workload.governance.row_filters.get("data_scientist")
    if rows is None:
        evidence["row_filter"] = "none: the workload narrows no persona"
        require(len(seen.rows) == len(every.rows), "the data scientist misses rows that nothing filters")
        return
    values = {str(value) for value in rows.values}
    expected = sum(1 for value in every.column(rows.field) if value in values)
    evidence["row_filter"] = {
        "expression": rows.expression(),
        "rows": len(every.rows),
        "rows_seen": len(seen.rows),
    }
    require(
        0 < expected < len(every.rows),
        f"the filter {rows.expression()} keeps {expected} of {len(every.rows)} rows and shows nothing",
    )
    require(
        len(seen.rows) == expected and set(seen.column(rows.field)) <= values,
        f"{rows.expression()} must leave {expected} of {len(every.rows)} rows, {len(seen.rows)} were seen",
    )


def _refused_by_s3(tale: Tale, evidence: Evidence, who: Persona) -> None:
    from botocore.exceptions import ClientError

    uri = tale.outputs("Data")["CuratedDataUri"]
    key = tale.cloud.objects.list(uri)[0].removeprefix("s3://")
    bucket, _, key = key.partition("/")
    try:
        who.client("s3").get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        evidence["the_same_by_s3"] = f"{error.response['Error']['Code']} for {who.name}"
        return
    require(False, f"{who.name} reads s3://{bucket}/{key} past Lake Formation")


def _masked(tale: Tale, evidence: Evidence) -> None:
    _, curated, _ = _tables(tale)
    view = f'"{curated}"."{tale.outputs("Data")["MaskedTable"]}"'
    scientist, engineer = persona(tale, "data_scientist"), persona(tale, "data_engineer")
    rows = tale.workload.governance.row_filters.get("data_scientist")
    where = "" if rows is None else f" WHERE {rows.expression()}"
    clear = engineer.ask(f'SELECT * FROM "{curated}"."{tale.workload.name}"{where}', curated)
    masked = scientist.ask(f"SELECT * FROM {view}", curated)
    require(masked.refusal is None, f"the data scientist is refused the masked view: {masked.refusal}")
    require(
        len(masked.rows) == len(clear.rows), f"{len(clear.rows)} rows, {len(masked.rows)} of them in the view"
    )
    evidence["rows"] = len(masked.rows)
    evidence["columns"] = {}
    for column in _sensitive(tale, "pii"):
        kind = tale.workload.governance.masks.get(column, "hash")
        before, after = clear.column(column), masked.column(column)
        require(not (set(before) - {""}) & set(after), f"values of {column} stand in the masked view")
        if kind == "hash":
            same = len(set(before) - {""}) == len(set(after) - {""})
            require(same, f"{column}: masks join {len(set(after))} values, there are {len(set(before))}")
        else:
            require(set(after) == {""}, f"{column} must be redacted, got {sorted(set(after))[:3]}")
        evidence["columns"][column] = {"mask": kind, "values": len(set(before)), "masks": len(set(after))}
    environment = tale.stage.lower()
    key = scientist.ask(f'SELECT * FROM "{environment}_governance"."mask_key"', curated)
    evidence["the_key"] = key.refusal
    require(key.refusal is not None, "the data scientist reads the key of the masks")
    evidence["what_it_is"] = "pseudonymised: HMAC-SHA-256 under a key that no persona reads; not anonymous"


def _personal(tale: Tale, evidence: Evidence) -> None:
    """What curation found in fields that nobody marked, and that it would find what is planted in one."""
    from ml_contract.records.personal import scan, scanned_columns

    report = tale.known["quality"]
    require("personal_data" in report, "the quality report says nothing of personal data")
    looked, found = report["personal_data"]["columns"], report["personal_data"]["found"]
    evidence |= {"fields_looked_at": looked, "found": found}
    require(looked == scanned_columns(tale.contract), f"other fields were looked at: {looked}")
    require(not found, f"values look personal in fields that nobody marked: {found}")
    if looked:
        column = looked[0]
        planted = [
            {column: f"somebody{number}@example.org" if number % 20 == 0 else "x"} for number in range(200)
        ]
        kinds = [(one.column, one.kind) for one in scan(planted, looked)]
        evidence["planted"] = f"e-mail addresses in every twentieth {column}: {kinds}"
        require(kinds == [(column, "email")], f"planted e-mail addresses were not found: {kinds}")


def _saved_queries(tale: Tale, evidence: Evidence) -> None:
    evidence["engine"] = ENGINE
    evidence["queries"] = []
    group = tale.cloud.client("athena").get_work_group(WorkGroup=persona(tale, "data_engineer").workgroup)
    settings = group["WorkGroup"]["Configuration"]
    evidence["workgroup"] = {
        "enforced": settings["EnforceWorkGroupConfiguration"],
        "bytes_scanned_cutoff": settings["BytesScannedCutoffPerQuery"],
        "engine": settings["EngineVersion"]["SelectedEngineVersion"],
        "encryption": settings["ResultConfiguration"]["EncryptionConfiguration"]["EncryptionOption"],
    }
    for name in ("data_engineer", "data_scientist"):
        who = persona(tale, name)
        ids = who.athena.list_named_queries(WorkGroup=who.workgroup)["NamedQueryIds"]
        own = [
            query
            for query in (who.athena.get_named_query(NamedQueryId=one)["NamedQuery"] for one in ids)
            if query["Name"].startswith(f"{tale.workload.name}: ")
        ]
        require(own, f"{name} has no saved query of {tale.workload.name}")
        for query in own:
            answer = who.ask(query["QueryString"], query["Database"])
            require(answer.refusal is None, f"{query['Name']} of {name} failed: {answer.refusal}")
            evidence["queries"].append(
                {
                    "persona": name,
                    "name": query["Name"],
                    "rows": len(answer.rows),
                    "first": dict(zip(answer.names, answer.rows[0], strict=True)) if answer.rows else None,
                    "scanned_bytes": answer.execution["Statistics"]["DataScannedInBytes"],
                }
            )
            if query["Name"].endswith("rows per month"):
                counted = sum(int(value) for value in answer.column("number_of_rows"))
                evidence.setdefault("rows_counted", {})[name] = counted


def _audit(tale: Tale, evidence: Evidence) -> None:
    files = tale.cloud.server.control("POST", "/trails/flush", {})["files"]
    evidence["delivered_now"] = len(files)
    outputs = governance(tale)
    every = tale.cloud.objects.list(outputs["TrailUri"], suffix=".json.gz")
    evidence["log_files"] = len(every)
    require(every, f"the trail has written nothing below {outputs['TrailUri']}")
    status = tale.cloud.client("cloudtrail").get_trail_status(Name=outputs["TrailName"])
    require(status["IsLogging"], f"the trail {outputs['TrailName']} does not log")
    auditor = persona(tale, "auditor")
    ids = auditor.athena.list_named_queries(WorkGroup=auditor.workgroup)["NamedQueryIds"]
    saved = [auditor.athena.get_named_query(NamedQueryId=one)["NamedQuery"] for one in ids]
    answers = {q["Name"]: auditor.ask(q["QueryString"], q["Database"]) for q in saved}
    for name, answer in answers.items():
        require(answer.refusal is None, f"the auditor's query {name!r} failed: {answer.refusal}")
    objects = next(a for n, a in answers.items() if "objects" in n)
    tables = next(a for n, a in answers.items() if "table" in n)
    evidence["who_touched_objects"] = [
        dict(zip(objects.names, row, strict=True)) | {"who": row[0].rsplit("/", 1)[-1]}
        for row in objects.rows[:12]
    ]
    evidence["who_was_let_into_or_refused_a_table"] = [
        {**dict(zip(tables.names, row, strict=True)), "who": row[0].rsplit("/", 1)[-1]} for row in tables.rows
    ]
    bucket = tale.outputs("Data")["CuratedDataUri"].removeprefix("s3://").partition("/")[0]
    writers = {
        row[0].rsplit("/", 1)[-1]
        for row in objects.rows
        if row[objects.names.index("bucket")] == bucket
        and row[objects.names.index("eventname")] == "PutObject"
    }
    evidence["who_changed_the_curated_zone"] = sorted(writers)
    require(writers, f"the trail does not say who wrote to {bucket}")
    errors = tables.names.index("errorcode")
    let_in = {row[0] for row in tables.rows if not row[errors]}
    refused = {row[0] for row in tables.rows if row[errors]}
    require(persona(tale, "data_scientist").role in let_in, "the trail does not tell what the scientist read")
    require(auditor.role in refused, "the trail does not tell that the auditor was refused the lake")
    denied = persona(tale, "data_scientist").ask(
        f'SELECT count(*) FROM "{outputs["AuditDatabase"]}"."cloudtrail"',
        outputs["AuditDatabase"],
    )
    evidence["the_trail_for_a_data_scientist"] = denied.refusal
    require(denied.refusal is not None, "the data scientist reads the audit trail")


STEPS = (
    Step(
        id="lake-tags",
        title="Tables and columns carry the tags of the contract; Lake Formation is in force",
        chapter=CHAPTER,
        run=_tags,
        capabilities=lambda _: ("data.governance",),
        when=governed,
    ),
    Step(
        id="personas",
        title="Each persona reads what it may, and is refused the rest: columns, rows, tables",
        chapter=CHAPTER,
        run=_grants,
        capabilities=lambda _: ("data.governance", "secure.personas"),
        when=governed,
    ),
    Step(
        id="masked-view",
        title="A masked view joins without telling who it is about",
        chapter=CHAPTER,
        run=_masked,
        capabilities=lambda _: ("secure.pii",),
        when=governed,
    ),
    Step(
        id="personal-data",
        title="Fields that nobody marked were searched for personal values",
        chapter=CHAPTER,
        run=_personal,
        capabilities=lambda _: ("secure.pii",),
        applies=lambda w: w.governance.scan,
    ),
    Step(
        id="saved-queries",
        title="The saved queries of the workload answer",
        chapter=CHAPTER,
        run=_saved_queries,
        capabilities=lambda _: ("analyse.athena",),
        when=governed,
    ),
    Step(
        id="audit-trail",
        title="The audit trail says who read and who changed what",
        chapter=CHAPTER,
        run=_audit,
        capabilities=lambda _: ("data.audit",),
        when=lambda tale: governed(tale) and governance(tale).get("TrailName") is not None,
    ),
)
