"""What Lake Formation lets a principal do with a table: the grants that reach it, evaluated.

A grant reaches a table by its name, by a wildcard, by its columns, by a data-cell filter or by LF-tags, which
columns inherit from their table and tables from their database. What several grants give is united: a column
is seen in the rows of every grant that shows it (Lake Formation, "Data filtering and cell-level security").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rehearsal import ministack_bridge as bridge

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime
    from rehearsal.services.engine import Service

__all__ = [
    "EVERYONE",
    "SUPER",
    "Access",
    "Cells",
    "database_permissions",
    "effective_tags",
    "is_open",
    "registration_of",
    "table_access",
]

#: The group of everybody whom IAM lets in, and the permission that contains the others.
EVERYONE = "IAM_ALLOWED_PRINCIPALS"
SUPER = frozenset({"ALL", "SELECT", "DESCRIBE", "INSERT", "DELETE", "ALTER", "DROP", "CREATE_TABLE"})
#: What a data lake administrator may do to any entry of the catalog, without a grant (Lake Formation,
#: "Implicit Lake Formation permissions"). Reading rows is not among it.
_ADMINISTRATOR = frozenset({"DESCRIBE", "ALTER", "DROP", "CREATE_TABLE"})


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Columns, and the rows in which they are seen; ``rows`` is a condition, None for all of them."""

    columns: frozenset[str]
    rows: str | None = None


@dataclass(frozen=True, kw_only=True)
class Access:
    """What a principal may do with a table: ``permissions`` on it, and the ``cells`` that it may read.

    ``by_iam``: Lake Formation does not govern the table for this principal, policies of IAM alone decide.
    """

    permissions: frozenset[str] = frozenset()
    cells: tuple[Cells, ...] = ()
    by_iam: bool = False

    @property
    def columns(self) -> frozenset[str]:
        """Every column that is seen in some row."""
        return frozenset().union(*(cells.columns for cells in self.cells))

    @property
    def described(self) -> bool:
        """Whether the table may be known at all; every permission on it implies that."""
        return self.by_iam or bool(self.permissions) or bool(self.cells)


def is_open(service: Service, database: str, table: str | None = None) -> bool:
    """Say whether IAM alone decides on a database or table: ``IAM_ALLOWED_PRINCIPALS`` has it all.

    That is the default of what is made in an account or a database whose settings say so.
    """
    name = f"{database}/{table}" if table is not None else database
    closed = service.peek("Closed", name)
    if closed is not None:
        return False
    kind = "CreateDatabaseDefaultPermissions" if table is None else "CreateTableDefaultPermissions"
    catalog = service.peek("Catalog", database)
    if table is not None and catalog is not None and kind in catalog.data:
        return bool(catalog.data[kind])
    settings = service.peek("Settings", "settings")
    return settings is None or bool(settings.data.get(kind, [EVERYONE]))


def effective_tags(
    service: Service, database: str, table: str | None = None, column: str | None = None
) -> dict[str, str]:
    """Return the LF-tags of a database, table or column, inherited ones included."""
    found = _own_tags(service, database)
    if table is not None:
        found |= _own_tags(service, database, table)
        if column is not None:
            found |= _own_tags(service, database, table, column)
    return found


def _own_tags(
    service: Service, database: str, table: str | None = None, column: str | None = None
) -> dict[str, str]:
    record = service.peek("Tagged", tag_place(database, table, column))
    return {} if record is None else dict(record.data["Tags"])


def tag_place(database: str, table: str | None = None, column: str | None = None) -> str:
    """Return the name under which the tags of a database, table or column are kept."""
    return "|".join(part for part in (database, table, column) if part is not None)


def _matches(tags: Mapping[str, str], expression: Iterable[Mapping[str, Any]]) -> bool:
    return all(tags.get(wanted["TagKey"]) in wanted["TagValues"] for wanted in expression)


def _implied(permissions: Iterable[str]) -> frozenset[str]:
    given = frozenset(permissions)
    return SUPER if "ALL" in given else given


def _grants(service: Service, principal: str) -> list[tuple[Mapping[str, Any], frozenset[str]]]:
    with service.lock:
        return [
            (record.data["Resource"], _implied(record.data["Permissions"]))
            for record in service.records.get("Grant", {}).values()
            if record.data["Principal"]["DataLakePrincipalIdentifier"] == principal
        ]


def administrators(service: Service) -> frozenset[str]:
    """Return the ARNs of the data lake administrators."""
    record = service.peek("Settings", "settings")
    admins = () if record is None else record.data.get("DataLakeAdmins", ())
    return frozenset(admin["DataLakePrincipalIdentifier"] for admin in admins)


def database_permissions(service: Service, principal: str, database: str) -> frozenset[str]:
    """Return what a principal may do with a database."""
    found: set[str] = set()
    if is_open(service, database):
        return SUPER
    if principal in administrators(service):
        found |= _ADMINISTRATOR
    if principal in bridge.deployers_of("AWS::Glue::Database", database):
        found |= SUPER
    for resource, permissions in _grants(service, principal):
        policy = resource.get("LFTagPolicy")
        if resource.get("Database", {}).get("Name") == database or (
            policy is not None
            and policy["ResourceType"] == "DATABASE"
            and _matches(effective_tags(service, database), policy["Expression"])
        ):
            found |= permissions
    return frozenset(found)


def table_access(
    service: Service, principal: str | None, database: str, table: str, columns: Sequence[str]
) -> Access:
    """Return what a principal may do with a table that has ``columns``. None is the operator: everything."""
    every = frozenset(columns)
    if principal is None or is_open(service, database, table):
        return Access(permissions=SUPER, cells=(Cells(columns=every),), by_iam=True)
    permissions: set[str] = set()
    cells: list[Cells] = []

    def note(given: frozenset[str], seen: frozenset[str], rows: str | None = None) -> None:
        if "SELECT" in given and seen:
            cells.append(Cells(columns=seen & every, rows=rows))
        permissions.update(given)

    if principal in administrators(service):
        permissions |= _ADMINISTRATOR
    maker = service.peek("Maker", f"{database}/{table}")
    if maker is not None and maker.data["Principal"] == principal:
        note(SUPER, every)
    for resource, given in _grants(service, principal):
        for seen, rows in _reached(service, resource, database, table, every):
            note(given, seen, rows)
    return Access(permissions=frozenset(permissions), cells=_united(cells))


def _reached(
    service: Service, resource: Mapping[str, Any], database: str, table: str, every: frozenset[str]
) -> Iterable[tuple[frozenset[str], str | None]]:
    """Yield the columns, and the rows, of a table that a grant's resource means."""
    ((kind, place),) = resource.items()
    if kind == "LFTagPolicy" and place["ResourceType"] == "TABLE":
        seen = frozenset(
            column
            for column in every
            if _matches(effective_tags(service, database, table, column), place["Expression"])
        )
        if seen:
            yield seen, None
    elif kind in ("Table", "TableWithColumns") and place["DatabaseName"] == database:
        if place.get("Name", table) != table:
            return
        if kind == "Table":
            yield every, None
        elif "ColumnNames" in place:
            yield frozenset(place["ColumnNames"]), None
        else:
            yield every - frozenset(place.get("ColumnWildcard", {}).get("ExcludedColumnNames", ())), None
    elif kind == "DataCellsFilter":
        if (place["DatabaseName"], place["TableName"]) != (database, table):
            return
        record = service.peek("DataCellsFilter", f"{database}/{table}/{place['Name']}")
        if record is not None:
            shown = frozenset(record.data.get("ColumnNames", ())) or every - frozenset(
                record.data.get("ColumnWildcard", {}).get("ExcludedColumnNames", ())
            )
            yield shown, record.data.get("RowFilter", {}).get("FilterExpression")


def _united(cells: Sequence[Cells]) -> tuple[Cells, ...]:
    """Bring together what shows the same rows."""
    by_rows: dict[str | None, frozenset[str]] = {}
    for one in cells:
        by_rows[one.rows] = by_rows.get(one.rows, frozenset()) | one.columns
    return tuple(Cells(columns=columns, rows=rows) for rows, columns in by_rows.items())


def registration_of(service: Service, uri: str) -> Mapping[str, Any] | None:
    """Return the registration of the location that holds ``s3://bucket/key``; None when none does."""
    arn = "arn:aws:s3:::" + uri.removeprefix("s3://").removeprefix("s3a://")
    with service.lock:
        records = list(service.records.get("Resource", {}).values())
    found = [r for r in records if arn == r.name or arn.startswith(r.name.rstrip("/") + "/")]
    return max(found, key=lambda r: len(r.name)).data if found else None


def lake_formation(runtime: Runtime, region: str | None = None) -> Service:
    """Return the state of Lake Formation."""
    return runtime.service("lakeformation", region)
