"""The Glue Data Catalog as Lake Formation lets a principal see and change it.

Tables stay ministack's. In front of them stands, after IAM, what Lake Formation granted: a table that is not
granted is refused, a column that is not granted is not shown, who makes a table owns it. Where
``IAM_ALLOWED_PRINCIPALS`` has a table, IAM alone decides, as in an account that never used Lake Formation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rehearsal import ministack_bridge as bridge
from rehearsal.services.engine import ApiError, Call, Service, instead
from rehearsal.services.lake_access import (
    Access,
    database_permissions,
    is_open,
    registration_of,
    table_access,
)
from rehearsal.services.lakeformation import columns_of

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["install", "refuse"]

#: What an operation on a table needs, any one of these (Lake Formation, "Lake Formation permissions
#: reference" and "Underlying data access control"). Nothing named: any permission on the table will do.
_NEEDS: Mapping[str, tuple[str, ...]] = {
    "GetTable": (),
    "GetTableVersion": (),
    "GetTableVersions": (),
    "GetPartition": (),
    "GetPartitions": (),
    "BatchGetPartition": (),
    "UpdateTable": ("ALTER",),
    "DeleteTable": ("DROP",),
    "CreatePartition": ("ALTER", "INSERT"),
    "BatchCreatePartition": ("ALTER", "INSERT"),
    "UpdatePartition": ("ALTER", "INSERT"),
    "BatchUpdatePartition": ("ALTER", "INSERT"),
    "DeletePartition": ("ALTER", "DELETE"),
    "BatchDeletePartition": ("ALTER", "DELETE"),
}


def install(runtime: Runtime) -> None:
    """Note how each database of a stack was made: its template may leave its tables to Lake Formation."""

    def made(name: str, props: Mapping[str, Any]) -> None:
        _note_database(_lake(runtime.service("glue", bridge.current_region())), name, props["DatabaseInput"])

    bridge.extend_type("AWS::Glue::Database", after=made)


def _lake(service: Service) -> Service:
    return service.runtime.service("lakeformation", service.region)


def _note_database(lake: Service, name: str, given: Mapping[str, Any]) -> None:
    kept = {key: given[key] for key in ("CreateTableDefaultPermissions",) if key in given}
    with lake.lock:
        record = lake.peek("Catalog", name)
        if record is None:
            lake.put("Catalog", name, kept)
        else:
            record.data = {**record.data, **kept}


def _table_of(call: Call) -> tuple[str, str]:
    p = call.params
    name = p["TableInput"]["Name"] if "TableInput" in p else p.get("TableName", p.get("Name"))
    return str(p["DatabaseName"]), str(name)


def refuse(needed: str, what: str) -> ApiError:
    """Return Lake Formation's refusal."""
    return ApiError(
        "AccessDeniedException", f"Insufficient Lake Formation permission(s): Required {needed} on {what}"
    )


def _access(service: Service, call: Call, database: str, table: str) -> Access:
    """Return the caller's access; raise Lake Formation's refusal when the operation needs more."""
    lake = _lake(service)
    needs = _NEEDS[call.operation]
    if is_open(lake, database, table):
        return Access(by_iam=True)
    access = table_access(lake, call.principal, database, table, columns_of(lake, database, table))
    if not access.described:
        raise refuse("Describe", table)
    if needs and not access.by_iam and not access.permissions & set(needs):
        raise refuse(needs[0].title(), table)
    return access


def _guarded(operation: str) -> Callable[[Service, Call], dict[str, Any]]:
    def guarded(service: Service, call: Call) -> dict[str, Any]:
        access = Access(by_iam=True) if call.principal is None else _access(service, call, *_table_of(call))
        output = service.forward(call)
        if operation == "DeleteTable":
            lake = _lake(service)
            name = "/".join(_table_of(call))
            if lake.peek("Maker", name) is not None:
                lake.remove("Maker", name)
        if "Table" in output and not access.by_iam:
            output["Table"] = _shown(output["Table"], access)
        return output

    return guarded


for _operation in _NEEDS:
    instead("glue", _operation)(_guarded(_operation))
# Served as it is, but asked for by its own ARN: ministack takes a database's name for a table's.
instead("glue", "GetDatabase")(lambda service, call: service.forward(call))


def _shown(table: Mapping[str, Any], access: Access) -> dict[str, Any]:
    """Return a table with the columns that its reader may know of.

    Who may read some columns sees those; who may only describe or change the table sees all.
    """
    out = {**table, "IsRegisteredWithLakeFormation": True}
    if not access.cells or access.permissions & {"ALTER", "INSERT", "DROP", "ALL"}:
        return out
    descriptor = dict(out.get("StorageDescriptor", {}))
    descriptor["Columns"] = [c for c in descriptor.get("Columns", ()) if c["Name"] in access.columns]
    out["StorageDescriptor"] = descriptor
    return out


@instead("glue", "GetTables")
def _get_tables(service: Service, call: Call) -> dict[str, Any]:
    output = service.forward(call)
    if call.principal is None:
        return output
    lake, database = _lake(service), call.params["DatabaseName"]
    found = []
    for table in output.get("TableList", ()):
        if is_open(lake, database, table["Name"]):
            found.append(table)
            continue
        columns = columns_of(lake, database, table["Name"])
        access = table_access(lake, call.principal, database, table["Name"], columns)
        # What is not granted is not listed, and no error.
        if access.described:
            found.append(_shown(table, access))
    return {**output, "TableList": found}


@instead("glue", "CreateDatabase")
def _create_database(service: Service, call: Call) -> dict[str, Any]:
    output = service.forward(call)
    _note_database(_lake(service), call.params["DatabaseInput"]["Name"], call.params["DatabaseInput"])
    return output


@instead("glue", "CreateTable")
def _create_table(service: Service, call: Call) -> dict[str, Any]:
    lake = _lake(service)
    database, table = _table_of(call)
    if call.principal is not None and not is_open(lake, database, table):
        if not database_permissions(lake, call.principal, database) & {"CREATE_TABLE"}:
            raise refuse("Create Table", database)
        location = call.params["TableInput"].get("StorageDescriptor", {}).get("Location")
        if location and registration_of(lake, location) is not None:
            _require_location(lake, call.principal, location)
    output = service.forward(call)
    if call.principal is not None:
        with lake.lock:
            # Who makes a table has every permission on it ("Implicit Lake Formation permissions").
            if lake.peek("Maker", f"{database}/{table}") is not None:
                lake.remove("Maker", f"{database}/{table}")
            lake.put("Maker", f"{database}/{table}", {"Principal": call.principal})
    return output


def _require_location(lake: Service, principal: str, location: str) -> None:
    """Raise unless the principal may point tables at a registered location."""
    arn = "arn:aws:s3:::" + location.removeprefix("s3://").removeprefix("s3a://")
    with lake.lock:
        granted = [
            record.data["Resource"]["DataLocation"]["ResourceArn"]
            for record in lake.records.get("Grant", {}).values()
            if record.data["Principal"]["DataLakePrincipalIdentifier"] == principal
            and "DataLocation" in record.data["Resource"]
        ]
    if not any(arn == place or arn.startswith(place.rstrip("/") + "/") for place in granted):
        raise refuse("Data Location Access", location)
