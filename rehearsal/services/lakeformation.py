"""Lake Formation: who may grant what on which resource, and the grants that result.

Grants are kept and listed, and refused where Lake Formation refuses them: to who is no data lake
administrator and did not make the database or table, on a database, table or location that is not there.
What they let a principal see is evaluated by `lake_access`, for the catalog and for Athena.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from rehearsal import ministack_bridge as bridge
from rehearsal.services.engine import ApiError, Call, Record, Service, instead
from rehearsal.services.lake_access import EVERYONE, administrators, effective_tags, tag_place

__all__ = ["columns_of"]

_SETTINGS = "settings"


def _settings(service: Service) -> dict[str, Any]:
    record = service.peek("Settings", _SETTINGS)
    return {} if record is None else record.data


@instead("lakeformation", "PutDataLakeSettings")
def _put_settings(service: Service, call: Call) -> dict[str, Any]:
    given = call.params["DataLakeSettings"]
    record = service.peek("Settings", _SETTINGS)
    if record is None:
        service.put("Settings", _SETTINGS, given)
    else:
        record.data = dict(given)
    return {}


@instead("lakeformation", "GetDataLakeSettings")
def _get_settings(service: Service, call: Call) -> dict[str, Any]:
    del call
    everyone = [
        {"Principal": {"DataLakePrincipalIdentifier": "IAM_ALLOWED_PRINCIPALS"}, "Permissions": ["ALL"]}
    ]
    default = {
        "DataLakeAdmins": [],
        "CreateDatabaseDefaultPermissions": everyone,
        "CreateTableDefaultPermissions": everyone,
    }
    return {"DataLakeSettings": {**default, **_settings(service)}}


# -- grants -------------------------------------------------------------------------------------------------


def _canonical(service: Service, resource: Mapping[str, Any]) -> dict[str, Any]:
    """Return a resource with its catalog named, so that two ways to write it are one."""
    out: dict[str, Any] = {}
    for kind, value in resource.items():
        part = dict(value)
        if kind not in ("Catalog", "DataCellsFilter"):
            part.setdefault("CatalogId", service.account)
        out[kind] = part
    return out


def _key(principal: str, resource: Mapping[str, Any]) -> str:
    return f"{principal}|{json.dumps(resource, sort_keys=True)}"


def _require_resource(service: Service, resource: Mapping[str, Any]) -> None:
    """Raise Lake Formation's error for a resource that is not there."""
    glue = service.runtime.client("glue", region=service.region)
    table = resource.get("Table", resource.get("TableWithColumns"))
    try:
        if "Database" in resource:
            glue.get_database(Name=resource["Database"]["Name"])
        elif table is not None:
            glue.get_database(Name=table["DatabaseName"])
            if "Name" in table:
                glue.get_table(DatabaseName=table["DatabaseName"], Name=table["Name"])
        elif "LFTagPolicy" in resource:
            for wanted in resource["LFTagPolicy"]["Expression"]:
                known = _tag(service, wanted["TagKey"]).data["TagValues"]
                unknown = [value for value in wanted["TagValues"] if value not in known]
                if unknown:
                    message = f"Tag value does not exist: {wanted['TagKey']} = {', '.join(unknown)}"
                    raise ApiError("EntityNotFoundException", message)
        elif "DataCellsFilter" in resource:
            _filter(service, resource["DataCellsFilter"])
        elif "DataLocation" in resource:
            arn = resource["DataLocation"]["ResourceArn"]
            registered = [record.name for record in service.records.get("Resource", {}).values()]
            if not any(arn == known or arn.startswith(known.rstrip("/") + "/") for known in registered):
                raise ApiError("InvalidInputException", f"Resource is not registered: {arn}")
    except ClientError as error:
        if error.response["Error"]["Code"] == "EntityNotFoundException":
            raise ApiError("EntityNotFoundException", error.response["Error"]["Message"]) from error
        raise


def _require_grantor(
    service: Service, call: Call, resource: Mapping[str, Any], permissions: list[str]
) -> None:
    """Raise unless the caller is an administrator, made the resource, or may pass its permissions on."""
    if call.principal is None:
        return
    if call.principal in administrators(service):
        return
    table = resource.get("Table", resource.get("TableWithColumns"))
    if "DataCellsFilter" in resource:
        place = resource["DataCellsFilter"]
        table = {"DatabaseName": place["DatabaseName"], "Name": place["TableName"]}
    made = set()
    if "Database" in resource:
        made = bridge.deployers_of("AWS::Glue::Database", resource["Database"]["Name"])
    elif table is not None:
        made = bridge.deployers_of("AWS::Glue::Table", str(table.get("Name", ""))) | bridge.deployers_of(
            "AWS::Glue::Database", table["DatabaseName"]
        )
    if table is not None:
        maker = service.peek("Maker", f"{table['DatabaseName']}/{table.get('Name')}")
        made |= set() if maker is None else {maker.data["Principal"]}
    if call.principal in made:
        return
    own = service.peek("Grant", _key(call.principal, resource))
    passable = set() if own is None else set(own.data["PermissionsWithGrantOption"])
    if not set(permissions) <= passable:
        raise ApiError(
            "AccessDeniedException",
            f"Insufficient Lake Formation permission(s): {call.principal} is no data lake administrator; "
            f"Required grant option on {json.dumps(resource, sort_keys=True)}",
        )


def _grant(service: Service, call: Call, entry: Mapping[str, Any]) -> None:
    resource = _canonical(service, entry["Resource"])
    principal = entry["Principal"]["DataLakePrincipalIdentifier"]
    _require_resource(service, resource)
    _require_grantor(service, call, resource, entry["Permissions"])
    if principal.startswith("arn:") and ":role/" in principal and not bridge.role_exists(principal):
        raise ApiError("InvalidInputException", f"Invalid principal: {principal} does not exist")
    with service.lock:
        record = service.peek("Grant", _key(principal, resource))
        if record is None:
            data = {
                "Principal": dict(entry["Principal"]),
                "Resource": resource,
                "Permissions": [],
                "PermissionsWithGrantOption": [],
            }
            record = service.put("Grant", _key(principal, resource), data)
        for member in ("Permissions", "PermissionsWithGrantOption"):
            there = record.data[member]
            record.data[member] = [*there, *(p for p in entry.get(member, ()) if p not in there)]


def _revoke(service: Service, call: Call, entry: Mapping[str, Any]) -> None:
    resource = _canonical(service, entry["Resource"])
    principal = entry["Principal"]["DataLakePrincipalIdentifier"]
    _require_grantor(service, call, resource, entry["Permissions"])
    if principal == EVERYONE:
        _close(service, resource)
        return
    with service.lock:
        record = service.peek("Grant", _key(principal, resource))
        if record is None or not set(entry["Permissions"]) <= set(record.data["Permissions"]):
            raise ApiError(
                "InvalidInputException", "No permissions revoked. Grantee does not have: permissions"
            )
        for member in ("Permissions", "PermissionsWithGrantOption"):
            gone = set(entry.get(member, ())) | (
                set(entry["Permissions"]) if member != "Permissions" else set()
            )
            record.data[member] = [p for p in record.data[member] if p not in gone]
        if not record.data["Permissions"]:
            service.remove("Grant", record.name)


def _close(service: Service, resource: Mapping[str, Any]) -> None:
    """Take a database or table from those whom IAM alone lets in: from now on grants decide."""
    table = resource.get("Table")
    name = resource["Database"]["Name"] if table is None else f"{table['DatabaseName']}/{table['Name']}"
    if service.peek("Closed", name) is None:
        service.put("Closed", name, {})


@instead("lakeformation", "GrantPermissions")
def _grant_permissions(service: Service, call: Call) -> dict[str, Any]:
    _grant(service, call, call.params)
    return {}


@instead("lakeformation", "RevokePermissions")
def _revoke_permissions(service: Service, call: Call) -> dict[str, Any]:
    _revoke(service, call, call.params)
    return {}


def _batch(service: Service, call: Call, one: Any) -> dict[str, Any]:
    failures = []
    for entry in call.params["Entries"]:
        try:
            one(service, call, entry)
        except ApiError as error:
            failures.append(
                {"RequestEntry": entry, "Error": {"ErrorCode": error.code, "ErrorMessage": error.message}}
            )
    return {"Failures": failures}


@instead("lakeformation", "BatchGrantPermissions")
def _batch_grant(service: Service, call: Call) -> dict[str, Any]:
    return _batch(service, call, _grant)


@instead("lakeformation", "BatchRevokePermissions")
def _batch_revoke(service: Service, call: Call) -> dict[str, Any]:
    return _batch(service, call, _revoke)


@instead("lakeformation", "ListPermissions")
def _list_permissions(service: Service, call: Call) -> dict[str, Any]:
    wanted = call.params.get("Principal", {}).get("DataLakePrincipalIdentifier")
    resource = call.params.get("Resource")
    canonical = None if resource is None else _canonical(service, resource)
    kind = call.params.get("ResourceType")

    def matches(record: Record) -> bool:
        kinds = {name.upper().replace("WITHCOLUMNS", "") for name in record.data["Resource"]}
        return (
            wanted in (None, record.data["Principal"]["DataLakePrincipalIdentifier"])
            and canonical in (None, record.data["Resource"])
            and (kind is None or kind.replace("_", "") in kinds)
        )

    with service.lock:
        grants = [
            dict(record.data) for record in service.records.get("Grant", {}).values() if matches(record)
        ]
    return {"PrincipalResourcePermissions": grants}


# -- LF-tags ------------------------------------------------------------------------------------------------


def _require_administrator(service: Service, call: Call, action: str) -> None:
    """Raise unless the caller is a data lake administrator, or the operator."""
    if call.principal is not None and call.principal not in administrators(service):
        raise ApiError(
            "AccessDeniedException",
            f"Insufficient Lake Formation permission(s): Required {action}; {call.principal} is no data lake "
            "administrator",
        )


@instead("lakeformation", "CreateLFTag")
def _create_tag(service: Service, call: Call) -> dict[str, Any]:
    _require_administrator(service, call, "Create LF-Tag")
    key = call.params["TagKey"]
    if service.peek("LFTag", key) is not None:
        raise ApiError("InvalidInputException", f"Tag key already exists: {key}")
    values = list(dict.fromkeys(call.params["TagValues"]))
    service.put("LFTag", key, {"TagKey": key, "TagValues": values, "CatalogId": service.account})
    return {}


@instead("lakeformation", "GetLFTag")
def _get_tag(service: Service, call: Call) -> dict[str, Any]:
    return dict(_tag(service, call.params["TagKey"]).data)


@instead("lakeformation", "ListLFTags")
def _list_tags(service: Service, call: Call) -> dict[str, Any]:
    del call
    with service.lock:
        return {"LFTags": [dict(record.data) for record in service.records.get("LFTag", {}).values()]}


@instead("lakeformation", "UpdateLFTag")
def _update_tag(service: Service, call: Call) -> dict[str, Any]:
    _require_administrator(service, call, "Alter LF-Tag")
    record = _tag(service, call.params["TagKey"])
    gone = set(call.params.get("TagValuesToDelete", ()))
    with service.lock:
        used = {tagged.data["Tags"].get(record.name) for tagged in service.records.get("Tagged", {}).values()}
        if gone & used:
            names = ", ".join(sorted(gone & used))
            raise ApiError("InvalidInputException", f"Tag value is in use and cannot be deleted: {names}")
        values = [value for value in record.data["TagValues"] if value not in gone]
        new = [value for value in call.params.get("TagValuesToAdd", ()) if value not in values]
        record.data["TagValues"] = [*values, *new]
    return {}


@instead("lakeformation", "DeleteLFTag")
def _delete_tag(service: Service, call: Call) -> dict[str, Any]:
    _require_administrator(service, call, "Drop LF-Tag")
    key = _tag(service, call.params["TagKey"]).name
    with service.lock:
        # What it was assigned to loses it (DeleteLFTag).
        for tagged in service.records.get("Tagged", {}).values():
            tagged.data["Tags"].pop(key, None)
        service.remove("LFTag", key)
    return {}


def _tag(service: Service, key: str) -> Record:
    record = service.peek("LFTag", key)
    if record is None:
        raise ApiError("EntityNotFoundException", f"Tag key does not exist: {key}")
    return record


def _places(resource: Mapping[str, Any]) -> list[str]:
    """Return where the tags of a resource are kept: one place, or one per column."""
    ((kind, place),) = resource.items()
    if kind == "Database":
        return [tag_place(place["Name"])]
    if kind == "Table":
        return [tag_place(place["DatabaseName"], place["Name"])]
    if kind == "TableWithColumns" and "ColumnNames" in place:
        return [tag_place(place["DatabaseName"], place["Name"], name) for name in place["ColumnNames"]]
    raise ApiError(
        "InvalidInputException", f"LF-tags go on databases, tables and named columns, not on {kind}"
    )


@instead("lakeformation", "AddLFTagsToResource")
def _add_tags(service: Service, call: Call) -> dict[str, Any]:
    resource = _canonical(service, call.params["Resource"])
    _require_administrator(service, call, "Associate LF-Tag")
    _require_resource(service, resource)
    failures = []
    for pair in call.params["LFTags"]:
        tag = service.peek("LFTag", pair["TagKey"])
        unknown = [] if tag is None else [v for v in pair["TagValues"] if v not in tag.data["TagValues"]]
        if tag is None or unknown or len(pair["TagValues"]) != 1:
            detail = {
                "ErrorCode": "EntityNotFoundException",
                "ErrorMessage": "Tag key or value does not exist.",
            }
            failures.append({"LFTag": pair, "Error": detail})
            continue
        with service.lock:
            for place in _places(resource):
                record = service.peek("Tagged", place) or service.put("Tagged", place, {"Tags": {}})
                record.data["Tags"][pair["TagKey"]] = pair["TagValues"][0]
    return {"Failures": failures}


@instead("lakeformation", "RemoveLFTagsFromResource")
def _remove_tags(service: Service, call: Call) -> dict[str, Any]:
    _require_administrator(service, call, "Associate LF-Tag")
    with service.lock:
        for place in _places(_canonical(service, call.params["Resource"])):
            record = service.peek("Tagged", place)
            if record is not None:
                for pair in call.params["LFTags"]:
                    record.data["Tags"].pop(pair["TagKey"], None)
    return {"Failures": []}


@instead("lakeformation", "GetResourceLFTags")
def _resource_tags(service: Service, call: Call) -> dict[str, Any]:
    resource = _canonical(service, call.params["Resource"])
    ((kind, place),) = resource.items()

    def pairs(tags: Mapping[str, str]) -> list[dict[str, Any]]:
        return [
            {"CatalogId": service.account, "TagKey": key, "TagValues": [value]}
            for key, value in sorted(tags.items())
        ]

    if kind == "Database":
        return {"LFTagOnDatabase": pairs(effective_tags(service, place["Name"]))}
    database, table = place["DatabaseName"], place["Name"]
    columns = place.get("ColumnNames")
    if columns is None:
        columns = columns_of(service, database, table)
    return {
        "LFTagOnDatabase": pairs(effective_tags(service, database)),
        "LFTagsOnTable": pairs(effective_tags(service, database, table)),
        "LFTagsOnColumns": [
            {"Name": name, "LFTags": pairs(effective_tags(service, database, table, name))}
            for name in columns
        ],
    }


def columns_of(service: Service, database: str, table: str) -> list[str]:
    """Return the columns of a table of the catalog, its partition keys last."""
    glue = service.runtime.forwarding_client("glue", region=service.region)
    try:
        found = glue.get_table(DatabaseName=database, Name=table)["Table"]
    except ClientError as error:
        raise ApiError(error.response["Error"]["Code"], error.response["Error"]["Message"]) from error
    members = [*found.get("StorageDescriptor", {}).get("Columns", ()), *found.get("PartitionKeys", ())]
    return [str(column["Name"]) for column in members]


# -- data-cell filters --------------------------------------------------------------------------------------


@instead("lakeformation", "CreateDataCellsFilter")
def _create_filter(service: Service, call: Call) -> dict[str, Any]:
    data = call.params["TableData"]
    database, table = data["DatabaseName"], data["TableName"]
    _require_grantor(service, call, {"Table": {"DatabaseName": database, "Name": table}}, ["SELECT"])
    columns = columns_of(service, database, table)
    if ("ColumnNames" in data) == ("ColumnWildcard" in data):
        raise ApiError("InvalidInputException", "Exactly one of ColumnNames and ColumnWildcard is needed")
    named = [*data.get("ColumnNames", ()), *data.get("ColumnWildcard", {}).get("ExcludedColumnNames", ())]
    unknown = sorted(set(named) - set(columns))
    if unknown:
        raise ApiError("InvalidInputException", f"Column(s) not found in {table}: {', '.join(unknown)}")
    rows = data.get("RowFilter", {})
    if ("FilterExpression" in rows) == ("AllRowsWildcard" in rows):
        raise ApiError(
            "InvalidInputException", "Exactly one of FilterExpression and AllRowsWildcard is needed"
        )
    if "FilterExpression" in rows:
        _require_condition(rows["FilterExpression"], columns)
    name = f"{database}/{table}/{data['Name']}"
    if service.peek("DataCellsFilter", name) is not None:
        raise ApiError("AlreadyExistsException", f"Filter already exists: {data['Name']}")
    service.put(
        "DataCellsFilter", name, {**data, "TableCatalogId": data.get("TableCatalogId", service.account)}
    )
    return {}


def _require_condition(text: str, columns: list[str]) -> None:
    """Raise Lake Formation's error for a row filter that is no condition on columns of the table."""
    import sqlglot
    from sqlglot import exp

    try:
        condition = sqlglot.parse_one(text, read="athena")
    except sqlglot.errors.ParseError as error:
        raise ApiError("InvalidInputException", f"Invalid filter expression: {text}: {error}") from error
    unknown = sorted({column.name for column in condition.find_all(exp.Column)} - set(columns))
    if unknown or condition.find(exp.Select) is not None:
        raise ApiError(
            "InvalidInputException", f"Unsupported filter expression, or unknown column(s) {unknown}: {text}"
        )


@instead("lakeformation", "DeleteDataCellsFilter")
def _delete_filter(service: Service, call: Call) -> dict[str, Any]:
    p = call.params
    table = {"Table": {"DatabaseName": p["DatabaseName"], "Name": p["TableName"]}}
    _require_grantor(service, call, table, ["SELECT"])
    service.remove("DataCellsFilter", _filter(service, p).name)
    return {}


@instead("lakeformation", "GetDataCellsFilter")
def _get_filter(service: Service, call: Call) -> dict[str, Any]:
    return {"DataCellsFilter": dict(_filter(service, call.params).data)}


@instead("lakeformation", "ListDataCellsFilter")
def _list_filters(service: Service, call: Call) -> dict[str, Any]:
    wanted = call.params.get("Table", {})
    with service.lock:
        return {
            "DataCellsFilters": [
                dict(record.data)
                for record in service.records.get("DataCellsFilter", {}).values()
                if wanted.get("Name") in (None, record.data["TableName"])
                and wanted.get("DatabaseName") in (None, record.data["DatabaseName"])
            ]
        }


def _filter(service: Service, place: Mapping[str, Any]) -> Record:
    database = place["DatabaseName"]
    record = service.peek("DataCellsFilter", f"{database}/{place['TableName']}/{place['Name']}")
    if record is None:
        raise ApiError("EntityNotFoundException", f"Filter does not exist: {place['Name']}")
    return record
