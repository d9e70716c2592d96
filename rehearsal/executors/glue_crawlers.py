"""AWS Glue crawlers: they look at what lies in S3 and write what they find into the Data Catalog.

A crawler acts as its role. It reads Parquet: the schema comes from a file's footer, partitions from
``name=value`` folders. A target of another kind or format fails the crawl and says so.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from rehearsal.executors.glue import assumed_role, finished
from rehearsal.services.engine import ApiError, instead

if TYPE_CHECKING:
    from rehearsal.services.engine import Call, Record, Service

__all__ = ["CrawlError", "start_crawl"]

_BATCH = 100
_FOOTER = 1024 * 1024
_HIVE = {
    "bool": "boolean",
    "int8": "tinyint",
    "int16": "smallint",
    "int32": "int",
    "int64": "bigint",
    "float": "float",
    "double": "double",
    "string": "string",
    "large_string": "string",
    "date32[day]": "date",
    "binary": "binary",
}
_PARQUET = {
    "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
    "OutputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
    "SerdeInfo": {
        "SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
        "Parameters": {"serialization.format": "1"},
    },
}


class CrawlError(Exception):
    """A crawl that cannot be done; the text is its error message."""


@dataclass
class Found:
    """What a crawl changed."""

    tables_created: int = 0
    tables_updated: int = 0
    partitions_created: int = 0
    partitions_deleted: int = 0
    messages: list[str] = field(default_factory=list)


for _operation in ("GetCrawler", "GetCrawlers", "ListCrawlers", "DeleteCrawler"):
    instead("glue", _operation)(lambda service, call: service.generic(call))


@instead("glue", "CreateCrawler")
def _create_crawler(service: Service, call: Call) -> dict[str, Any]:
    _check(call.params)
    service.generic(call)
    record = service.get("Crawler", call.params["Name"])
    schedule = record.data.pop("Schedule", None)
    service.update(record, State="READY", CrawlElapsedTime=0, CreationTime=record.created, Version=1)
    service.update(record, LastUpdated=record.created, Schedule=_schedule(schedule))
    return {}


@instead("glue", "UpdateCrawler")
def _update_crawler(service: Service, call: Call) -> dict[str, Any]:
    record = service.get("Crawler", call.params["Name"])
    if record.data["State"] != "READY":
        raise ApiError("CrawlerRunningException", f"Crawler {record.name} is running")
    changes = dict(call.params)
    if "Schedule" in changes:
        changes["Schedule"] = _schedule(changes["Schedule"])
    _check({**record.data, **changes})
    service.update(
        record, **changes, Version=record.data["Version"] + 1, LastUpdated=service.runtime.clock.now()
    )
    return {}


def _schedule(expression: str | None) -> dict[str, str] | None:
    return None if not expression else {"ScheduleExpression": expression, "State": "SCHEDULED"}


def _check(params: Mapping[str, Any]) -> None:
    """Refuse what CreateCrawler refuses."""
    policy = params.get("SchemaChangePolicy", {})
    if params["Targets"].get("CatalogTargets") and policy.get("DeleteBehavior", "LOG") != "LOG":
        raise ApiError(
            "InvalidInputException", "SchemaChangePolicy.DeleteBehavior must be LOG for catalog targets"
        )
    if params["Targets"].get("S3Targets") and not params.get("DatabaseName"):
        raise ApiError("InvalidInputException", "DatabaseName is required for S3 targets")
    try:
        json.loads(params.get("Configuration") or "{}")
    except ValueError as error:
        raise ApiError("InvalidInputException", f"Configuration is not JSON: {error}") from None


@instead("glue", "StartCrawler")
def _start_crawler(service: Service, call: Call) -> dict[str, Any]:
    start_crawl(service, call.params["Name"])
    return {}


@instead("glue", "StopCrawler")
def _stop_crawler(service: Service, call: Call) -> dict[str, Any]:
    record = service.get("Crawler", call.params["Name"])
    if record.data["State"] == "READY":
        raise ApiError("CrawlerNotRunningException", f"Crawler {record.name} is not running")
    raise ApiError(
        "CrawlerStoppingException", f"crawler {record.name} is about to end; a crawl here is short"
    )


@instead("glue", "GetCrawlerMetrics")
def _get_crawler_metrics(service: Service, call: Call) -> dict[str, Any]:
    wanted = call.params.get("CrawlerNameList")
    with service.lock:
        crawlers = [
            r for r in service.records.get("Crawler", {}).values() if wanted in (None, []) or r.name in wanted
        ]
        crawls = list(service.records.get("Crawl", {}).values())
    metrics = []
    for crawler in crawlers:
        last = next((crawl for crawl in crawls[::-1] if crawl.data["Crawler"] == crawler.name), None)
        seconds = 0.0 if last is None else float(last.data.get("Seconds", 0.0))
        found = Found() if last is None else last.data["Found"]
        metrics.append(
            {
                "CrawlerName": crawler.name,
                "TimeLeftSeconds": 0.0,
                "StillEstimating": False,
                "LastRuntimeSeconds": seconds,
                "MedianRuntimeSeconds": seconds,
                "TablesCreated": found.tables_created,
                "TablesUpdated": found.tables_updated,
                "TablesDeleted": 0,
            }
        )
    return {"CrawlerMetricsList": metrics}


def start_crawl(service: Service, name: str, *, workflow: str | None = None) -> Record:
    """Start a crawl; ``workflow`` is the run of a workflow that asks for it.

    :raises ApiError: the crawler does not exist or runs, or its role cannot be assumed
    """
    crawler = service.get("Crawler", name)
    role = assumed_role(service, str(crawler.data["Role"]))
    with service.lock:
        if crawler.data["State"] != "READY":
            raise ApiError("CrawlerRunningException", f"Crawler with name {name} has already started")
        crawler.data["State"] = "RUNNING"
    crawl = service.put("Crawl", uuid.uuid4().hex, {"Crawler": name, "State": "RUNNING", "Found": Found()})
    crawl.status = workflow
    service.runtime.background(f"glue crawler {name}", _crawl, service, crawler, crawl, role)
    return crawl


def _crawl(service: Service, crawler: Record, crawl: Record, role: str) -> None:
    runtime = service.runtime
    found: Found = crawl.data["Found"]
    start, began = runtime.clock.now(), time.monotonic()
    state, message = "SUCCEEDED", None
    _emit(service, crawler, "Started", found)
    try:
        s3 = runtime.client("s3", role=role, region=service.region)
        glue = runtime.client("glue", role=role, region=service.region)
        _Crawl(glue, s3, crawler.data, found).run()
    except (CrawlError, ClientError, BotoCoreError) as error:
        state, message = "FAILED", str(error)
    seconds = time.monotonic() - began
    last = {
        "Status": state,
        "ErrorMessage": message,
        "LogGroup": "/aws-glue/crawlers",
        "LogStream": crawler.name,
        "MessagePrefix": crawl.name,
        "StartTime": start,
    }
    service.update(crawl, State=state, Seconds=seconds)
    service.update(
        crawler,
        State="READY",
        CrawlElapsedTime=round(seconds * 1000),
        LastCrawl={key: value for key, value in last.items() if value is not None},
    )
    group = f"arn:aws:logs:{service.region}:{service.account}:log-group:/aws-glue/crawlers:log-stream:x"
    actions = ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents", "logs:AssociateKmsKey")
    runtime.authorizer.note_service_use(role, actions, group, service.region)
    runtime.authorizer.note_service_use(role, ("cloudwatch:PutMetricData",), "*", service.region)
    detail = {
        "tables_created": found.tables_created,
        "tables_updated": found.tables_updated,
        "partitions_created": found.partitions_created,
        "messages": found.messages,
    }
    if message is None:
        runtime.ledger.ran("glue-crawler", crawler.name, **detail)
    else:
        runtime.ledger.failed("glue-crawler", crawler.name, message, **detail)
    ended = "Succeeded" if message is None else "Failed"
    _emit(service, crawler, ended, found, seconds=seconds, message=message)
    finished(service, "Crawler", crawl)


def _emit(
    service: Service,
    crawler: Record,
    state: str,
    found: Found,
    *,
    seconds: float = 0.0,
    message: str | None = None,
) -> None:
    detail = {
        "accountId": service.account,
        "crawlerName": crawler.name,
        "state": state,
        "message": message or f"The crawler {crawler.name} {state.lower()}",
        "tablesCreated": str(found.tables_created),
        "tablesUpdated": str(found.tables_updated),
        "partitionsCreated": str(found.partitions_created),
        "partitionsDeleted": str(found.partitions_deleted),
        "runningTime (sec)": str(round(seconds)),
    }
    service.runtime.emit("aws.glue", "Glue Crawler State Change", detail, region=service.region)


# -- what it finds ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Crawl:
    """One crawl: the clients of its role, what it is told, what it changes."""

    glue: Any
    s3: Any
    settings: Mapping[str, Any]
    found: Found

    def run(self) -> None:
        """Look at every target."""
        targets = {kind: given for kind, given in self.settings["Targets"].items() if given}
        unknown = sorted(set(targets) - {"S3Targets", "CatalogTargets"})
        if unknown or not targets:
            kinds = ", ".join(unknown) or "none"
            raise CrawlError(f"targets of kind {kinds} are not emulated; here: S3Targets, CatalogTargets")
        for target in targets.get("CatalogTargets", ()):
            for name in target["Tables"]:
                self._bring_up(target["DatabaseName"], self._table(target["DatabaseName"], name))
        for target in targets.get("S3Targets", ()):
            self._s3_target(target)

    def _table(self, database: str, name: str) -> dict[str, Any]:
        table: dict[str, Any] = self.glue.get_table(DatabaseName=database, Name=name)["Table"]
        return table

    def _bring_up(self, database: str, table: Mapping[str, Any]) -> None:
        """Bring a table's partitions up to what lies at its location."""
        location = str(table["StorageDescriptor"]["Location"])
        keys = [key["Name"] for key in table.get("PartitionKeys", ())]
        folders = _folders(self.s3, location, ())
        if not keys:
            self._check_schema(database, table, [files[0] for _, _, files in folders])
            return
        here = {tuple(values): files for names, values, files in folders if list(names) == keys}
        strays = [files[0] for names, _, files in folders if list(names) != keys]
        if strays:
            self.found.messages.append(f"{len(strays)} folders are no partition of {keys}, e.g. {strays[0]}")
        known = self._known_partitions(database, table["Name"])
        new = [values for values in sorted(here) if values not in known]
        self._check_schema(database, table, [here[values][0] for values in new])
        self._add_partitions(database, table, new, keys)
        gone = sorted(known - set(here))
        if gone:
            self._drop_partitions(database, table, gone)

    def _s3_target(self, target: Mapping[str, Any]) -> None:
        path = str(target["Path"])
        folders = _folders(self.s3, path, target.get("Exclusions", ()))
        if not folders:
            self.found.messages.append(f"no file under {path}")
            return
        database = self.settings["DatabaseName"]
        folder = re.sub(r"\W", "_", path.rstrip("/").rpartition("/")[2]).lower()
        name = f"{self.settings.get('TablePrefix', '')}{folder}"
        try:
            table = self._table(database, name)
        except ClientError as error:
            if error.response["Error"]["Code"] != "EntityNotFoundException":
                raise
            self._create_table(database, name, path, folders[0])
            table = self._table(database, name)
        self._bring_up(database, table)

    def _create_table(
        self, database: str, name: str, path: str, folder: tuple[tuple[str, ...], tuple[str, ...], list[str]]
    ) -> None:
        location = path if path.endswith("/") else f"{path}/"
        names, _, files = folder
        storage = {**_PARQUET, "Location": location, "Columns": _columns(self.s3, files[0])}
        self.glue.create_table(
            DatabaseName=database,
            TableInput={
                "Name": name,
                "TableType": "EXTERNAL_TABLE",
                "Parameters": {"classification": "parquet", "CrawlerSchemaDeserializerVersion": "1.0"},
                "PartitionKeys": [{"Name": key, "Type": "string"} for key in names],
                "StorageDescriptor": storage,
            },
        )
        self.found.tables_created += 1

    def _check_schema(self, database: str, table: Mapping[str, Any], files: list[str]) -> None:
        """Compare files with the table's columns and do what the schema change policy says."""
        columns = {column["Name"]: column["Type"] for column in table["StorageDescriptor"]["Columns"]}
        new: dict[str, str] = {}
        for file in files:
            try:
                present = _columns(self.s3, file)
            except CrawlError as error:
                # A file that cannot be read never stops a crawl.
                self.found.messages.append(str(error))
                continue
            for column in present:
                name, kind = column["Name"], column["Type"]
                if name not in columns:
                    new[name] = kind
                elif columns[name] != kind:
                    text = f"{file}: column {name} is {kind}, the table says {columns[name]}"
                    self.found.messages.append(text)
        if not new:
            return
        policy = self.settings.get("SchemaChangePolicy", {})
        if policy.get("UpdateBehavior", "UPDATE_IN_DATABASE") == "LOG":
            self.found.messages.append(f"columns that the table lacks: {', '.join(sorted(new))}")
            return
        kept = ("Name", "Description", "Owner", "Retention", "PartitionKeys", "TableType", "Parameters")
        storage = dict(table["StorageDescriptor"])
        added = [{"Name": name, "Type": kind} for name, kind in sorted(new.items())]
        storage["Columns"] = [*storage["Columns"], *added]
        update = {key: table[key] for key in kept if table.get(key)}
        self.glue.update_table(DatabaseName=database, TableInput={**update, "StorageDescriptor": storage})
        self.found.tables_updated += 1

    def _known_partitions(self, database: str, table: str) -> set[tuple[str, ...]]:
        pages = self.glue.get_paginator("get_partitions").paginate(DatabaseName=database, TableName=table)
        return {tuple(one["Values"]) for page in pages for one in page["Partitions"]}

    def _add_partitions(
        self, database: str, table: Mapping[str, Any], new: list[tuple[str, ...]], keys: list[str]
    ) -> None:
        location = str(table["StorageDescriptor"]["Location"]).rstrip("/")
        inputs = []
        for values in new:
            folder = "/".join(f"{key}={value}" for key, value in zip(keys, values, strict=True))
            storage = {**table["StorageDescriptor"], "Location": f"{location}/{folder}/"}
            parameters = {"classification": table.get("Parameters", {}).get("classification", "parquet")}
            inputs.append({"Values": list(values), "StorageDescriptor": storage, "Parameters": parameters})
        for start in range(0, len(inputs), _BATCH):
            batch = inputs[start : start + _BATCH]
            answer = self.glue.batch_create_partition(
                DatabaseName=database, TableName=table["Name"], PartitionInputList=batch
            )
            errors = answer.get("Errors", ())
            if errors:
                raise CrawlError(f"{len(errors)} partitions were not created; first: {errors[0]}")
            self.found.partitions_created += len(batch)

    def _drop_partitions(self, database: str, table: Mapping[str, Any], gone: list[tuple[str, ...]]) -> None:
        policy = self.settings.get("SchemaChangePolicy", {})
        behaviour = policy.get("DeleteBehavior", "DEPRECATE_IN_DATABASE")
        if self.settings["Targets"].get("CatalogTargets") or behaviour == "LOG":
            text = f"{len(gone)} partitions have no files any more, e.g. {'/'.join(gone[0])}"
            self.found.messages.append(text)
        elif behaviour == "DELETE_FROM_DATABASE":
            for values in gone:
                self.glue.delete_partition(
                    DatabaseName=database, TableName=table["Name"], PartitionValues=list(values)
                )
            self.found.partitions_deleted += len(gone)
        else:
            raise CrawlError(
                "DeleteBehavior DEPRECATE_IN_DATABASE is not emulated; use LOG or DELETE_FROM_DATABASE"
            )


def _folders(
    s3: Any, location: str, exclusions: tuple[str, ...] | list[str]
) -> list[tuple[tuple[str, ...], tuple[str, ...], list[str]]]:
    """Folders with files under a location: names and values of their ``name=value`` parts, and the files."""
    if exclusions:
        raise CrawlError(f"exclusions are not emulated, got {list(exclusions)}")
    bucket, _, prefix = location.removeprefix("s3://").partition("/")
    prefix = prefix if prefix.endswith("/") or not prefix else f"{prefix}/"
    folders: dict[str, list[str]] = {}
    for key in _keys(s3, bucket, prefix):
        relative = key[len(prefix) :]
        parts = relative.split("/")
        if relative and not any(part.startswith(("_", ".")) for part in parts) and not key.endswith("/"):
            folders.setdefault("/".join(parts[:-1]), []).append(f"s3://{bucket}/{key}")
    found = []
    for folder, files in sorted(folders.items()):
        pairs = [part.partition("=") for part in folder.split("/") if part]
        names = tuple(name if sign else "" for name, sign, _ in pairs)
        found.append((names, tuple(value for _, _, value in pairs), files))
    return found


def _keys(s3: Any, bucket: str, prefix: str) -> Iterator[str]:
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", ()):
            yield item["Key"]


def _columns(s3: Any, uri: str) -> list[dict[str, str]]:
    """Columns of a Parquet file by its footer.

    :raises CrawlError: it is no Parquet file, or has a type that is not emulated
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    bucket, _, key = uri.removeprefix("s3://").partition("/")
    size = s3.head_object(Bucket=bucket, Key=key)["ContentLength"]
    start = max(0, size - _FOOTER)
    end = s3.get_object(Bucket=bucket, Key=key, Range=f"bytes={start}-")["Body"].read() if size else b""
    try:
        schema = pq.read_schema(pa.BufferReader(end))
    except (pa.ArrowException, OSError) as error:
        first = str(error).splitlines()[0]
        raise CrawlError(f"{uri} is not Parquet that can be read: {first}") from None
    return [{"Name": item.name, "Type": _hive(uri, item.name, str(item.type))} for item in schema]


def _hive(uri: str, name: str, arrow: str) -> str:
    if arrow.startswith("timestamp"):
        return "timestamp"
    if arrow.startswith("decimal128"):
        return arrow.replace("decimal128", "decimal").replace(" ", "")
    if arrow not in _HIVE:
        raise CrawlError(f"{uri}: column {name} is {arrow}, which is not emulated")
    return _HIVE[arrow]
