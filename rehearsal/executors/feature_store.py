"""SageMaker Feature Store: an online store that answers, and an offline store of Parquet files in S3.

A record is checked against its feature group as the service checks it. Online the newest event time wins;
offline every record is kept, with the time it was written, in the service's own folder layout.
"""

from __future__ import annotations

import io
import re
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from rehearsal import ministack_bridge as bridge
from rehearsal.control import control
from rehearsal.iam import AccessDeniedError
from rehearsal.ministack_bridge import Check
from rehearsal.services.engine import ApiError, after, instead

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime
    from rehearsal.services.engine import Call, Record, Service

__all__ = ["flush_offline"]

RUNTIME = "sagemaker-featurestore-runtime"
#: Columns that the offline store adds to those of the group.
_ADDED = ("write_time", "api_invocation_time", "is_deleted")
#: The offline store is written when no record has come for so long (real seconds); the service takes minutes.
_QUIET_SECONDS = 0.4
_MOST_ROWS = 10_000
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{3})?Z")
_CATALOG_DATABASE = "sagemaker_featurestore"
_HIVE = {"String": "string", "Integral": "bigint", "Fractional": "double"}


@dataclass
class _Stored:
    """A record of the online store; ``values`` is None once it was deleted."""

    moment: datetime
    values: dict[str, str] | None


@dataclass
class _Group:
    """The stores of one feature group."""

    online: dict[str, _Stored] = field(default_factory=dict)
    offline: list[dict[str, Any]] = field(default_factory=list)
    writing: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


_GROUPS: dict[tuple[str, datetime], _Group] = {}
_GROUPS_LOCK = threading.Lock()


# -- the group ----------------------------------------------------------------------------------------------


@after("sagemaker", "CreateFeatureGroup")
def _created(service: Service, call: Call, output: dict[str, Any]) -> None:
    del output
    record = service.get("FeatureGroup", call.params["FeatureGroupName"])
    definitions = {item["FeatureName"]: item["FeatureType"] for item in record.data["FeatureDefinitions"]}
    problems = [
        f"{member} {record.data[member]!r} is none of the feature definitions"
        for member in ("RecordIdentifierFeatureName", "EventTimeFeatureName")
        if record.data[member] not in definitions
    ]
    event_time = definitions.get(record.data["EventTimeFeatureName"], "String")
    if event_time not in ("String", "Fractional"):
        problems.append(f"the event time must be String or Fractional, got {event_time}")
    offline = record.data.get("OfflineStoreConfig")
    if offline is not None and not record.data.get("RoleArn"):
        problems.append("an offline store needs a RoleArn")
    if problems:
        service.remove("FeatureGroup", record.name)
        raise ApiError("ValidationException", "; ".join(problems))
    if offline is None:
        return
    role = str(record.data["RoleArn"])
    if not bridge.trusts(role, "sagemaker.amazonaws.com"):
        service.remove("FeatureGroup", record.name)
        raise ApiError("ValidationException", f"sagemaker.amazonaws.com may not assume {role}")
    stamp = int(record.created.timestamp())
    storage = offline["S3StorageConfig"]
    table = f"{record.name.replace('-', '_')}_{stamp}"
    resolved = (
        f"{storage['S3Uri'].rstrip('/')}/{service.account}/sagemaker/{service.region}/offline-store/"
        f"{record.name}-{stamp}/data"
    )
    settings: dict[str, Any] = {**offline, "S3StorageConfig": {**storage, "ResolvedOutputS3Uri": resolved}}
    if not offline.get("DisableGlueTableCreation", False):
        settings.setdefault(
            "DataCatalogConfig",
            {"TableName": table, "Catalog": "AwsDataCatalog", "Database": _CATALOG_DATABASE},
        )
        _catalog(service, record, settings["DataCatalogConfig"], resolved)
    service.update(record, OfflineStoreConfig=settings, OfflineStoreStatus={"Status": "Active"})


def _catalog(service: Service, record: Record, catalog: Mapping[str, str], location: str) -> None:
    """Make the offline store's table, as the service does when the group is made."""
    client = service.runtime.client("glue", region=service.region)
    try:
        client.create_database(DatabaseInput={"Name": catalog["Database"]})
    except ClientError as error:
        if error.response["Error"]["Code"] != "AlreadyExistsException":
            raise
    columns = [
        *({"Name": name, "Type": _HIVE[kind]} for name, kind in _definitions(record).items()),
        {"Name": "write_time", "Type": "timestamp"},
        {"Name": "api_invocation_time", "Type": "timestamp"},
        {"Name": "is_deleted", "Type": "boolean"},
    ]
    client.create_table(
        DatabaseName=catalog["Database"],
        TableInput={
            "Name": catalog["TableName"],
            "TableType": "EXTERNAL_TABLE",
            "PartitionKeys": [{"Name": name, "Type": "string"} for name in ("year", "month", "day", "hour")],
            "StorageDescriptor": {
                "Location": location,
                "Columns": columns,
                "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
                "OutputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
                "SerdeInfo": {
                    "SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"
                },
            },
        },
    )


def _definitions(record: Record) -> dict[str, str]:
    return {item["FeatureName"]: item["FeatureType"] for item in record.data["FeatureDefinitions"]}


def _group(service: Service, name: str) -> tuple[Service, Record, _Group]:
    """Find a group by name or ARN."""
    owner = service.runtime.service("sagemaker", service.region)
    record = owner.peek("FeatureGroup", name)
    if record is None:
        raise ApiError("ResourceNotFound", f"Feature Group with name {name} not found.", 404)
    with _GROUPS_LOCK:
        # A group made anew under an old name starts empty.
        return owner, record, _GROUPS.setdefault((record.arn, record.created), _Group())


def _invalid(message: str) -> ApiError:
    return ApiError("ValidationError", f"Validation Error: {message}")


def _stores(record: Record, call: Call) -> tuple[bool, bool]:
    online = bool((record.data.get("OnlineStoreConfig") or {}).get("EnableOnlineStore"))
    offline = record.data.get("OfflineStoreConfig") is not None
    wanted = call.params.get("TargetStores")
    if not wanted:
        return online, offline
    for store, there in (("OnlineStore", online), ("OfflineStore", offline)):
        if store in wanted and not there:
            raise _invalid(f"feature group {record.name} has no {store}")
    return "OnlineStore" in wanted, "OfflineStore" in wanted


def _require_key(service: Service, record: Record, call: Call, actions: Sequence[str]) -> None:
    """Check that the caller may use the online store's key; the operator is asked nothing."""
    key = ((record.data.get("OnlineStoreConfig") or {}).get("SecurityConfig") or {}).get("KmsKeyId")
    if call.principal is None or key is None:
        return
    runtime = service.runtime
    principal = runtime.identities.principal(runtime.identities.for_role(call.principal).access_key_id)
    arn = bridge.kms_key_arn(key, account=service.account, region=service.region)
    if principal is None or arn is None:
        raise ApiError("AccessForbidden", f"the key {key} of feature group {record.name} is not there", 403)
    try:
        checks = [Check(action=action, resource=arn) for action in actions]
        runtime.authorizer.require(principal, "kms", checks, service.region)
    except AccessDeniedError as denied:
        raise ApiError("AccessForbidden", str(denied), 403) from None


# -- records ------------------------------------------------------------------------------------------------


@instead(RUNTIME, "PutRecord")
def _put_record(service: Service, call: Call) -> dict[str, Any]:
    owner, record, group = _group(service, call.params["FeatureGroupName"])
    if call.params.get("TtlDuration"):
        raise ApiError("NotImplemented", "the rehearsal does not emulate TtlDuration", 501)
    values = _values(record, call.params["Record"])
    moment = _moment(record, values[record.data["EventTimeFeatureName"]])
    identifier = values[record.data["RecordIdentifierFeatureName"]]
    online, offline = _stores(record, call)
    _require_key(service, record, call, ("kms:GenerateDataKey", "kms:Decrypt"))
    with group.lock:
        if online:
            _keep(group, identifier, _Stored(moment, values))
    if offline:
        _append(owner, record, group, values, moment, deleted=False)
    return {}


@instead(RUNTIME, "DeleteRecord")
def _delete_record(service: Service, call: Call) -> dict[str, Any]:
    owner, record, group = _group(service, call.params["FeatureGroupName"])
    identifier = call.params["RecordIdentifierValueAsString"]
    moment = _moment(record, call.params["EventTime"])
    online, offline = _stores(record, call)
    _require_key(service, record, call, ("kms:GenerateDataKey", "kms:Decrypt"))
    with group.lock:
        known = group.online.get(identifier)
        if online and call.params.get("DeletionMode") == "HardDelete":
            if known is not None and known.moment <= moment:
                del group.online[identifier]
        elif online:
            _keep(group, identifier, _Stored(moment, None))
    if offline:
        values = {
            record.data["RecordIdentifierFeatureName"]: identifier,
            record.data["EventTimeFeatureName"]: call.params["EventTime"],
        }
        _append(owner, record, group, values, moment, deleted=True)
    return {}


@instead(RUNTIME, "GetRecord")
def _get_record(service: Service, call: Call) -> dict[str, Any]:
    _, record, group = _group(service, call.params["FeatureGroupName"])
    _require_key(service, record, call, ("kms:Decrypt",))
    found = _found(
        record, group, call.params["RecordIdentifierValueAsString"], call.params.get("FeatureNames")
    )
    return {} if found is None else {"Record": found}


@instead(RUNTIME, "BatchGetRecord")
def _batch_get_record(service: Service, call: Call) -> dict[str, Any]:
    records, errors = [], []
    for wanted in call.params["Identifiers"]:
        name = wanted["FeatureGroupName"]
        for identifier in wanted["RecordIdentifiersValueAsString"]:
            shown = {"FeatureGroupName": name, "RecordIdentifierValueAsString": identifier}
            try:
                _, record, group = _group(service, name)
                _require_key(service, record, call, ("kms:Decrypt",))
                found = _found(record, group, identifier, wanted.get("FeatureNames"))
            except ApiError as error:
                errors.append({**shown, "ErrorCode": error.code, "ErrorMessage": error.message})
                continue
            if found is not None:
                records.append({**shown, "Record": found})
    return {"Records": records, "Errors": errors, "UnprocessedIdentifiers": []}


for _operation in ("BatchWriteRecord", "ListRecords", "UpdateRecord"):

    @instead(RUNTIME, _operation)
    def _not_emulated(service: Service, call: Call) -> dict[str, Any]:
        raise service.not_emulated(call)


def _values(record: Record, given: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Check a record's features against the group.

    :raises ApiError: naming every feature that is unknown, doubled or not of its type, or a missing key
    """
    definitions = _definitions(record)
    values: dict[str, str] = {}
    problems = []
    for item in given:
        name = item["FeatureName"]
        value = item.get("ValueAsString")
        if name not in definitions:
            problems.append(f"feature {name!r} is not defined in feature group {record.name}")
        elif name in values:
            problems.append(f"feature {name!r} is given twice")
        elif value is None:
            problems.append(f"feature {name!r} has no value; leave a missing feature out")
        elif not _fits(value, definitions[name]):
            problems.append(f"feature {name!r} is {definitions[name]}, got {value!r}")
        else:
            values[name] = value
    for member in ("RecordIdentifierFeatureName", "EventTimeFeatureName"):
        if record.data[member] not in values and not problems:
            problems.append(f"the record lacks {record.data[member]!r}")
    if problems:
        raise _invalid("; ".join(problems))
    return values


def _fits(value: str, kind: str) -> bool:
    try:
        if kind == "Integral":
            int(value)
        elif kind == "Fractional":
            float(value)
    except ValueError:
        return False
    return True


def _moment(record: Record, value: str) -> datetime:
    """The event time of a record: ISO 8601 in UTC, or seconds since 1970 where the feature is Fractional."""
    name = record.data["EventTimeFeatureName"]
    if _definitions(record)[name] == "Fractional":
        return datetime.fromtimestamp(float(value), UTC)
    if not _TIME.fullmatch(value):
        form = "yyyy-MM-dd'T'HH:mm:ssZ or yyyy-MM-dd'T'HH:mm:ss.SSSZ"
        raise _invalid(f"event time {name!r} must look like {form}, got {value!r}")
    try:
        return datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        raise _invalid(f"event time {name!r} is no date, got {value!r}") from None


def _keep(group: _Group, identifier: str, stored: _Stored) -> None:
    known = group.online.get(identifier)
    if known is None or known.moment <= stored.moment:
        group.online[identifier] = stored


def _found(
    record: Record, group: _Group, identifier: str, names: Sequence[str] | None
) -> list[dict[str, str]] | None:
    if not (record.data.get("OnlineStoreConfig") or {}).get("EnableOnlineStore"):
        raise _invalid(f"feature group {record.name} has no OnlineStore")
    unknown = sorted(set(names or ()) - set(_definitions(record)))
    if unknown:
        raise _invalid(f"features {unknown} are not defined in feature group {record.name}")
    with group.lock:
        stored = group.online.get(identifier)
        values = None if stored is None or stored.values is None else dict(stored.values)
    if values is None:
        return None
    return [
        {"FeatureName": name, "ValueAsString": values[name]}
        for name in _definitions(record)
        if name in values and (not names or name in names)
    ]


# -- the offline store --------------------------------------------------------------------------------------


def _append(
    owner: Service,
    record: Record,
    group: _Group,
    values: Mapping[str, str],
    moment: datetime,
    *,
    deleted: bool,
) -> None:
    now = owner.runtime.clock.now()
    row: dict[str, Any] = {
        name: _typed(values.get(name), kind) for name, kind in _definitions(record).items()
    }
    row |= {"api_invocation_time": now, "is_deleted": deleted, "_moment": moment}
    with group.lock:
        group.offline.append(row)
        if group.writing:
            return
        group.writing = True
    owner.runtime.background(f"offline store of {record.name}", _write_when_quiet, owner, record, group)


def _typed(value: str | None, kind: str) -> Any:
    if value is None:
        return None
    return {"Integral": int, "Fractional": float, "String": str}[kind](value)


def _write_when_quiet(owner: Service, record: Record, group: _Group) -> None:
    seen = -1
    while True:
        with group.lock:
            waiting = len(group.offline)
            if waiting in (0, seen) or waiting >= _MOST_ROWS or owner.runtime.stopping.is_set():
                rows, group.offline = group.offline, []
                if not rows:
                    group.writing = False
                    return
            else:
                rows = []
        if rows:
            try:
                flush_offline(owner, record, rows)
            except ClientError as error:
                # The service repeats it until it can; records of an offline store are never dropped.
                with group.lock:
                    group.offline = [*rows, *group.offline]
                    group.writing = False
                text = f"{len(rows)} records wait, the next one tries again: {error}"
                owner.runtime.ledger.failed("feature-store", record.name, text)
                return
            seen = -1
            continue
        seen = waiting
        time.sleep(_QUIET_SECONDS)


def flush_offline(owner: Service, record: Record, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write rows below the group's folder, by the hour of their event, as its role; returns the URIs."""
    runtime = owner.runtime
    storage = record.data["OfflineStoreConfig"]["S3StorageConfig"]
    bucket, _, prefix = storage["ResolvedOutputS3Uri"].removeprefix("s3://").partition("/")
    role = str(record.data["RoleArn"])
    client = runtime.client("s3", role=role, region=owner.region)
    _require_offline(owner, role, bucket, prefix)
    now = runtime.clock.now()
    settings: dict[str, Any] = {}
    if storage.get("KmsKeyId"):
        settings = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": storage["KmsKeyId"]}
    hours: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        hours.setdefault(f"year={row['_moment']:%Y/month=%m/day=%d/hour=%H}", []).append(row)
    uris = []
    for hour, chosen in sorted(hours.items()):
        key = f"{prefix}/{hour}/{now:%Y%m%dT%H%M%SZ}_{uuid.uuid4().hex[:16]}.parquet"
        client.put_object(Bucket=bucket, Key=key, Body=_parquet(record, chosen, now), **settings)
        uris.append(f"s3://{bucket}/{key}")
    runtime.ledger.ran("feature-store", record.name, records=len(rows), objects=len(uris))
    return uris


def _require_offline(owner: Service, role: str, bucket: str, prefix: str) -> None:
    """Ask for what the service needs of the role beside writing (AmazonSageMakerFeatureStoreAccess).

    It looks at the bucket's ACL, and gives each object one.
    """
    runtime = owner.runtime
    principal = runtime.identities.principal(runtime.identities.for_role(role).access_key_id)
    if principal is None:
        raise ValueError(f"{role} is no role")
    checks = [
        Check(action="s3:GetBucketAcl", resource=f"arn:aws:s3:::{bucket}"),
        Check(action="s3:PutObjectAcl", resource=f"arn:aws:s3:::{bucket}/{prefix}/x"),
    ]
    try:
        runtime.authorizer.require(principal, "s3", checks, owner.region)
    except AccessDeniedError as denied:
        raise ClientError(
            {"Error": {"Code": "AccessDenied", "Message": str(denied)}}, "PutObject"
        ) from denied


def _parquet(record: Record, rows: Sequence[Mapping[str, Any]], now: datetime) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"String": pa.string(), "Integral": pa.int64(), "Fractional": pa.float64()}
    moment = pa.timestamp("ms", tz="UTC")
    schema = pa.schema(
        [
            *(pa.field(name, kinds[kind]) for name, kind in _definitions(record).items()),
            pa.field("write_time", moment),
            pa.field("api_invocation_time", moment),
            pa.field("is_deleted", pa.bool_()),
        ]
    )
    full = [{**row, "write_time": now} for row in rows]
    table = pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in full], schema=schema)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="snappy")
    return sink.getvalue()


@control("GET", "/feature-store")
def _status(runtime: Runtime, body: dict[str, Any]) -> dict[str, Any]:
    """Return, per feature group, how many records are online and how many wait for the offline store."""
    del runtime, body
    with _GROUPS_LOCK:
        groups = dict(_GROUPS)
    return {
        "feature_groups": {
            arn: {
                "online": sum(stored.values is not None for stored in group.online.values()),
                "offline_waiting": len(group.offline),
            }
            for (arn, _), group in groups.items()
        }
    }
