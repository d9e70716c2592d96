"""SageMaker Feature Store: an online store that answers, and an offline store in S3.

A record is checked against its feature group as the service checks it. Online the newest event time wins
until its time to live is over; offline every record is kept, with the time it was written: as Parquet files
in the service's own folder layout, or in an Iceberg table.
"""

from __future__ import annotations

import io
import re
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from rehearsal import ministack_bridge as bridge
from rehearsal.control import control
from rehearsal.executors import feature_store_iceberg as iceberg
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
    expires: datetime | None = None


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
        if offline.get("TableFormat") == "Iceberg":
            _database(service, settings["DataCatalogConfig"]["Database"])
            iceberg.create(service, record, settings["DataCatalogConfig"], resolved)
        else:
            _catalog(service, record, settings["DataCatalogConfig"], resolved)
    service.update(record, OfflineStoreConfig=settings, OfflineStoreStatus={"Status": "Active"})


@instead("sagemaker", "UpdateFeatureGroup")
def _updated(service: Service, call: Call) -> dict[str, Any]:
    record = service.get("FeatureGroup", call.params["FeatureGroupName"])
    given = [
        name for name in ("FeatureAdditions", "OnlineStoreConfig", "ThroughputConfig") if name in call.params
    ]
    if len(given) != 1:
        # "Use one of the following request parameters at a time" (API reference, UpdateFeatureGroup).
        raise ApiError(
            "ValidationException",
            "give one of FeatureAdditions, OnlineStoreConfig and ThroughputConfig at a time, got "
            f"{', '.join(given) or 'none'}",
        )
    change = call.params[given[0]]
    if given[0] == "FeatureAdditions":
        _add_features(service, record, change)
    else:
        merged = {**(record.data.get(given[0]) or {}), **change}
        if given[0] == "OnlineStoreConfig" and "TtlDuration" in change and not change["TtlDuration"]:
            # "To remove the default TtlDuration ... set the TtlDuration Unit and Value to null."
            del merged["TtlDuration"]
        settings: dict[str, Any] = {given[0]: merged}
        service.update(record, **settings)
    service.update(
        record, LastModifiedTime=service.runtime.clock.now(), LastUpdateStatus={"Status": "Successful"}
    )
    return {"FeatureGroupArn": record.arn}


def _add_features(service: Service, record: Record, added: Sequence[Mapping[str, Any]]) -> None:
    known = [*_definitions(record), *_ADDED]
    names = [item["FeatureName"] for item in added]
    twice = sorted({name for name in names if name in known or names.count(name) > 1})
    if twice:
        raise ApiError("ValidationException", f"features {', '.join(twice)} are there already")
    service.update(record, FeatureDefinitions=[*record.data["FeatureDefinitions"], *map(dict, added)])
    offline = record.data.get("OfflineStoreConfig") or {}
    catalog = offline.get("DataCatalogConfig")
    if catalog is None:
        return
    if offline.get("TableFormat") == "Iceberg":
        iceberg.add_columns(service, record, catalog, added)
        return
    client = service.runtime.client("glue", region=service.region)
    table = client.get_table(DatabaseName=catalog["Database"], Name=catalog["TableName"])["Table"]
    columns = table["StorageDescriptor"]["Columns"]
    # The three that the store adds stay last.
    columns[-len(_ADDED) : -len(_ADDED)] = [
        {"Name": item["FeatureName"], "Type": _HIVE[item["FeatureType"]]} for item in added
    ]
    kept = ("Name", "TableType", "PartitionKeys", "StorageDescriptor", "Parameters")
    client.update_table(
        DatabaseName=catalog["Database"], TableInput={k: table[k] for k in kept if k in table}
    )


def _catalog(service: Service, record: Record, catalog: Mapping[str, str], location: str) -> None:
    """Make the offline store's table, as the service does when the group is made."""
    _database(service, catalog["Database"])
    client = service.runtime.client("glue", region=service.region)
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


def _database(service: Service, name: str) -> None:
    try:
        service.runtime.client("glue", region=service.region).create_database(DatabaseInput={"Name": name})
    except ClientError as error:
        if error.response["Error"]["Code"] != "AlreadyExistsException":
            raise


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


def _stores(record: Record, params: Mapping[str, Any]) -> tuple[bool, bool]:
    online = bool((record.data.get("OnlineStoreConfig") or {}).get("EnableOnlineStore"))
    offline = record.data.get("OfflineStoreConfig") is not None
    wanted = params.get("TargetStores")
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
    _put(service, call, call.params, call.params.get("TtlDuration"))
    return {}


@instead(RUNTIME, "BatchWriteRecord")
def _batch_write_record(service: Service, call: Call) -> dict[str, Any]:
    errors = []
    for entry in call.params["Entries"]:
        try:
            _put(service, call, entry, entry.get("TtlDuration") or call.params.get("TtlDuration"))
        except ApiError as error:
            errors.append({"Entry": entry, "ErrorCode": error.code, "ErrorMessage": error.message})
    return {"Errors": errors, "UnprocessedEntries": []}


def _put(service: Service, call: Call, entry: Mapping[str, Any], ttl: Mapping[str, Any] | None) -> None:
    owner, record, group = _group(service, entry["FeatureGroupName"])
    values = _values(record, entry["Record"])
    moment = _moment(record, values[record.data["EventTimeFeatureName"]])
    identifier = values[record.data["RecordIdentifierFeatureName"]]
    online, offline = _stores(record, entry)
    if ttl is not None and not online:
        raise _invalid(f"TtlDuration is of the online store; record {identifier!r} does not go there")
    _require_key(service, record, call, ("kms:GenerateDataKey", "kms:Decrypt"))
    lasting = ttl or (record.data.get("OnlineStoreConfig") or {}).get("TtlDuration")
    with group.lock:
        if online:
            _keep(group, identifier, _Stored(moment, values, _expiry(moment, lasting)))
    if offline:
        _append(owner, record, group, values, moment, deleted=False)


def _expiry(moment: datetime, ttl: Mapping[str, Any] | None) -> datetime | None:
    """ExpiresAt is the event time and the duration (API reference, TtlDuration)."""
    if not ttl:
        return None
    return moment + timedelta(**{str(ttl["Unit"]).lower(): int(ttl["Value"])})


@instead(RUNTIME, "DeleteRecord")
def _delete_record(service: Service, call: Call) -> dict[str, Any]:
    owner, record, group = _group(service, call.params["FeatureGroupName"])
    identifier = call.params["RecordIdentifierValueAsString"]
    moment = _moment(record, call.params["EventTime"])
    online, offline = _stores(record, call.params)
    _require_key(service, record, call, ("kms:GenerateDataKey", "kms:Decrypt"))
    with group.lock:
        known = group.online.get(identifier)
        if online and call.params.get("DeletionMode") == "HardDelete":
            if known is not None and known.moment >= moment:
                raise _invalid(
                    f"EventTime: {call.params['EventTime']} is not later than that of the record; "
                    "nothing was deleted"
                )
            group.online.pop(identifier, None)
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
        service, record, group, call.params["RecordIdentifierValueAsString"], call.params.get("FeatureNames")
    )
    if found is None:
        return {}
    return {"Record": found[0], **_shown_expiry(found[1], call)}


def _shown_expiry(expires: datetime | None, call: Call) -> dict[str, str]:
    if call.params.get("ExpirationTimeResponse") != "Enabled":
        return {}
    return {"ExpiresAt": "null" if expires is None else expires.strftime("%Y-%m-%dT%H:%M:%SZ")}


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
                found = _found(service, record, group, identifier, wanted.get("FeatureNames"))
            except ApiError as error:
                errors.append({**shown, "ErrorCode": error.code, "ErrorMessage": error.message})
                continue
            if found is not None:
                records.append({**shown, "Record": found[0], **_shown_expiry(found[1], call)})
    return {"Records": records, "Errors": errors, "UnprocessedIdentifiers": []}


for _operation in ("ListRecords", "UpdateRecord"):

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
    """Keep a record whose event time is greater; another one is history (PutRecord)."""
    known = group.online.get(identifier)
    if known is None or known.moment < stored.moment:
        group.online[identifier] = stored


def _found(
    service: Service, record: Record, group: _Group, identifier: str, names: Sequence[str] | None
) -> tuple[list[dict[str, str]], datetime | None] | None:
    if not (record.data.get("OnlineStoreConfig") or {}).get("EnableOnlineStore"):
        raise _invalid(f"feature group {record.name} has no OnlineStore")
    unknown = sorted(set(names or ()) - set(_definitions(record)))
    if unknown:
        raise _invalid(f"features {unknown} are not defined in feature group {record.name}")
    with group.lock:
        stored = group.online.get(identifier)
        if (
            stored is not None
            and stored.expires is not None
            and stored.expires <= service.runtime.clock.now()
        ):
            # A record whose time is over is deleted for good.
            del group.online[identifier]
            stored = None
        values = None if stored is None or stored.values is None else dict(stored.values)
    if stored is None or values is None:
        return None
    found = [
        {"FeatureName": name, "ValueAsString": values[name]}
        for name in _definitions(record)
        if name in values and (not names or name in names)
    ]
    return found, stored.expires


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
            except (ClientError, OSError) as error:
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
    _require_offline(owner, record, bucket, prefix)
    now = runtime.clock.now()
    settings: dict[str, Any] = {}
    if storage.get("KmsKeyId"):
        settings = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": storage["KmsKeyId"]}

    def put(key: str, body: bytes) -> str:
        client.put_object(Bucket=bucket, Key=f"{prefix}/{key}", Body=body, **settings)
        return f"s3://{bucket}/{prefix}/{key}"

    if record.data["OfflineStoreConfig"].get("TableFormat") == "Iceberg":
        uris = iceberg.append(owner, record, _by_day(record, rows, now), put)
        runtime.ledger.ran("feature-store", record.name, records=len(rows), objects=len(uris))
        return uris
    hours: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        hours.setdefault(f"year={row['_moment']:%Y/month=%m/day=%d/hour=%H}", []).append(row)
    uris = []
    for hour, chosen in sorted(hours.items()):
        key = f"{hour}/{now:%Y%m%dT%H%M%SZ}_{uuid.uuid4().hex[:16]}.parquet"
        uris.append(put(key, _parquet(record, chosen, now)))
    runtime.ledger.ran("feature-store", record.name, records=len(rows), objects=len(uris))
    return uris


def _require_offline(owner: Service, record: Record, bucket: str, prefix: str) -> None:
    """Ask for what the service needs of the role beside writing (AmazonSageMakerFeatureStoreAccess).

    It looks at the bucket's ACL, gives each object one, and enters what it wrote into an Iceberg table.
    """
    role = str(record.data["RoleArn"])
    runtime = owner.runtime
    principal = runtime.identities.principal(runtime.identities.for_role(role).access_key_id)
    if principal is None:
        raise ValueError(f"{role} is no role")
    checks = [
        Check(action="s3:GetBucketAcl", resource=f"arn:aws:s3:::{bucket}"),
        Check(action="s3:PutObjectAcl", resource=f"arn:aws:s3:::{bucket}/{prefix}/x"),
    ]
    settings = record.data["OfflineStoreConfig"]
    tables = []
    if settings.get("TableFormat") == "Iceberg":
        catalog = settings["DataCatalogConfig"]
        table = f"table/{catalog['Database']}/{catalog['TableName']}"
        arn = f"arn:aws:glue:{owner.region}:{owner.account}:{table}"
        tables = [Check(action=action, resource=arn) for action in ("glue:GetTable", "glue:UpdateTable")]
    try:
        runtime.authorizer.require(principal, "s3", checks, owner.region)
        runtime.authorizer.require(principal, "glue", tables, owner.region)
    except AccessDeniedError as denied:
        raise ClientError(
            {"Error": {"Code": "AccessDenied", "Message": str(denied)}}, "PutObject"
        ) from denied


def _by_day(record: Record, rows: Sequence[Mapping[str, Any]], now: datetime) -> dict[str, Any]:
    """Rows as tables by the day of their event; all in one where event times are numbers."""
    event_time = record.data["EventTimeFeatureName"]
    days: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        value = row[event_time]
        days.setdefault(value[:10] if isinstance(value, str) else "", []).append(row)
    return {day: _arrow(record, chosen, now) for day, chosen in days.items()}


def _parquet(record: Record, rows: Sequence[Mapping[str, Any]], now: datetime) -> bytes:
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(_arrow(record, rows, now), sink, compression="snappy")
    return sink.getvalue()


def _arrow(record: Record, rows: Sequence[Mapping[str, Any]], now: datetime) -> Any:
    import pyarrow as pa

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
    # A record that came before a feature was added has no value of it.
    return pa.Table.from_pylist(
        [{name: row.get(name) for name in schema.names} for row in full], schema=schema
    )


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
