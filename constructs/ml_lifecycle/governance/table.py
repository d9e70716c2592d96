"""What one table is, as LF-tags, and which of its rows a persona sees."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aws_cdk import aws_lakeformation as lakeformation

from constructs import Construct, IDependable
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.governance.personas import NARROWED, READS, PersonaName, Personas
from ml_lifecycle.governance.tags import TAGS, LakeTags
from ml_lifecycle.pseudo import ACCOUNT


@dataclass(frozen=True, kw_only=True)
class RowsOf:
    """The rows of ``column`` that meet ``expression``, a condition as Lake Formation takes it (PartiQL)."""

    column: str
    expression: str


class TableGovernance(Construct):
    """Define what a table of ``zone`` is and who sees which of its rows.

    Tags: the table's ``classification``; ``sensitive`` columns by their own sensitivity, the others ``none``.
    Where ``row_filters`` narrow a persona, the table is tagged ``filtered``: grants by tags no longer reach
    it for data scientists and MLOps engineers, and each of them gets a data-cell filter instead, with its
    rows and without the columns that it may not see. A persona whose filter needs a column that the table
    does not have is granted nothing on it.

    ``depends_on`` is what makes the table. A data-cell filter cannot be changed: its name ends in a hash of
    its content, so that CloudFormation makes the new one before it removes the old.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        tags: LakeTags,
        personas: Personas,
        zone: Zone,
        table_name: str,
        columns: Sequence[str],
        classification: str,
        sensitive: Mapping[str, str] | None = None,
        row_filters: Mapping[PersonaName, RowsOf] | None = None,
        depends_on: Sequence[IDependable] = (),
    ) -> None:
        super().__init__(scope, construct_id)
        marked = {} if sensitive is None else dict(sensitive)
        filters = {} if row_filters is None else dict(row_filters)
        problems = [f"sensitive names {name!r}, which is no column" for name in marked if name not in columns]
        problems += [
            f"row_filters must be of {', '.join(NARROWED)}, got {name!r}"
            for name in filters
            if name not in NARROWED
        ]
        if classification not in TAGS["classification"]:
            problems.append(
                f"classification must be one of {', '.join(TAGS['classification'])}, got {classification!r}"
            )
        if zone.database_name is None:
            problems.append(f"zone must have a database, got zone {zone.node.id} without one")
        if problems:
            raise ValueError("table governance: " + "; ".join(problems))
        self._zone, self._table, self._depends_on = zone, table_name, tuple(depends_on)
        self._tag(tags, marked, classification, "filtered" if filters else "all")
        if filters and classification in personas.readable:
            for persona in NARROWED:
                self._narrow(personas, persona, list(columns), marked, filters.get(persona))

    def _tag(self, tags: LakeTags, marked: Mapping[str, str], classification: str, rows: str) -> None:
        made = lakeformation.CfnTagAssociation
        table = tags.associate(
            self,
            "Table",
            resource=made.ResourceProperty(
                table=made.TableResourceProperty(
                    catalog_id=ACCOUNT, database_name=str(self._zone.database_name), name=self._table
                )
            ),
            classification=classification,
            sensitivity="none",
            rows=rows,
        )
        table.node.add_dependency(*self._depends_on)
        for sensitivity in TAGS["sensitivity"]:
            names = [name for name, kind in marked.items() if kind == sensitivity]
            if not names:
                continue
            columns = tags.associate(
                self,
                sensitivity.title(),
                resource=made.ResourceProperty(
                    table_with_columns=made.TableWithColumnsResourceProperty(
                        catalog_id=ACCOUNT,
                        database_name=str(self._zone.database_name),
                        name=self._table,
                        column_names=names,
                    )
                ),
                sensitivity=sensitivity,
            )
            columns.node.add_dependency(table)

    def _narrow(
        self,
        personas: Personas,
        persona: PersonaName,
        columns: list[str],
        marked: Mapping[str, str],
        rows: RowsOf | None,
    ) -> None:
        zones, sensitivities = READS[persona]
        if self._zone.node.id.lower() not in zones or (rows is not None and rows.column not in columns):
            return
        hidden = sorted(name for name, kind in marked.items() if kind not in sensitivities)
        content = json.dumps([None if rows is None else rows.expression, hidden])
        digest = hashlib.sha256(content.encode()).hexdigest()[:8]
        title = "".join(part.title() for part in persona.split("_"))
        made = lakeformation.CfnDataCellsFilter
        cells = made(
            self,
            f"{title}Cells",
            table_catalog_id=ACCOUNT,
            database_name=str(self._zone.database_name),
            table_name=self._table,
            name=f"{persona}-{digest}",
            column_wildcard=made.ColumnWildcardProperty(excluded_column_names=hidden),
            row_filter=made.RowFilterProperty(all_rows_wildcard={})
            if rows is None
            else made.RowFilterProperty(filter_expression=rows.expression),
        )
        cells.node.add_dependency(*self._depends_on)
        role = personas.roles[persona]
        granted = lakeformation.CfnPrincipalPermissions
        granted(
            self,
            f"{title}Grant",
            principal=granted.DataLakePrincipalProperty(data_lake_principal_identifier=role.role_arn),
            resource=granted.ResourceProperty(
                data_cells_filter=granted.DataCellsFilterResourceProperty(
                    table_catalog_id=ACCOUNT,
                    database_name=str(self._zone.database_name),
                    table_name=self._table,
                    name=cells.name,
                )
            ),
            permissions=["SELECT"],
            permissions_with_grant_option=[],
        ).add_resource_dependency(cells)
