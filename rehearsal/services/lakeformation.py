"""Lake Formation: who may grant what on which resource, and the grants that result.

Grants are kept and listed, and refused where Lake Formation refuses them: to who is no data lake
administrator and did not make the database or table, on a database, table or location that is not there.
Reads of data are not filtered by them; that is only recorded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from rehearsal import ministack_bridge as bridge
from rehearsal.services.engine import ApiError, Call, Record, Service, instead

__all__: list[str] = []

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
        if kind != "Catalog":
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
    admins = {admin["DataLakePrincipalIdentifier"] for admin in _settings(service).get("DataLakeAdmins", ())}
    if call.principal in admins:
        return
    table = resource.get("Table", resource.get("TableWithColumns"))
    made = set()
    if "Database" in resource:
        made = bridge.deployers_of("AWS::Glue::Database", resource["Database"]["Name"])
    elif table is not None:
        made = bridge.deployers_of("AWS::Glue::Table", str(table.get("Name", ""))) | bridge.deployers_of(
            "AWS::Glue::Database", table["DatabaseName"]
        )
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


# -- tags ---------------------------------------------------------------------------------------------------


@instead("lakeformation", "AddLFTagsToResource")
def _add_tags(service: Service, call: Call) -> dict[str, Any]:
    resource = _canonical(service, call.params["Resource"])
    _require_resource(service, resource)
    failures = []
    for pair in call.params["LFTags"]:
        tag = service.peek("LFTag", pair["TagKey"])
        unknown = [] if tag is None else [v for v in pair["TagValues"] if v not in tag.data["TagValues"]]
        if tag is None or unknown:
            detail = {
                "ErrorCode": "EntityNotFoundException",
                "ErrorMessage": "Tag key or value does not exist.",
            }
            failures.append({"LFTag": pair, "Error": detail})
            continue
        key = f"{json.dumps(resource, sort_keys=True)}|{pair['TagKey']}"
        with service.lock:
            record = service.peek("Tagged", key) or service.put("Tagged", key, {"Resource": resource})
            record.data.update(TagKey=pair["TagKey"], TagValues=list(pair["TagValues"]))
    return {"Failures": failures}


@instead("lakeformation", "RemoveLFTagsFromResource")
def _remove_tags(service: Service, call: Call) -> dict[str, Any]:
    resource = _canonical(service, call.params["Resource"])
    with service.lock:
        for pair in call.params["LFTags"]:
            key = f"{json.dumps(resource, sort_keys=True)}|{pair['TagKey']}"
            if service.peek("Tagged", key) is not None:
                service.remove("Tagged", key)
    return {"Failures": []}


@instead("lakeformation", "GetResourceLFTags")
def _resource_tags(service: Service, call: Call) -> dict[str, Any]:
    resource = _canonical(service, call.params["Resource"])
    (kind,) = resource
    with service.lock:
        pairs = [
            {"CatalogId": service.account, "TagKey": r.data["TagKey"], "TagValues": r.data["TagValues"]}
            for r in service.records.get("Tagged", {}).values()
            if r.data["Resource"] == resource
        ]
    return {"LFTagOnDatabase": pairs} if kind == "Database" else {"LFTagsOnTable": pairs}
