"""What the tables of one workload are, who sees which of their rows, and what anyone asks of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import aws_cdk as cdk
from aws_cdk import aws_glue as glue
from aws_cdk import aws_lakeformation as lakeformation
from ml_contract.load import LoadedWorkload
from ml_lifecycle.analysis import questions
from ml_lifecycle.data_lake import DataLake, Zone, json_table
from ml_lifecycle.governance import MaskedView, RowsOf, TableGovernance
from ml_lifecycle.pseudo import ACCOUNT

from constructs import Construct, IDependable
from stacks.governance import GovernanceStack

_REASONS = "array<struct<code:string,field:string,value:string,allowed:string,message:string>>"
#: What the record transform writes of a refused record; the record itself may name a person.
_QUARANTINE = (
    ("received_at", "string"),
    ("record_id", "string"),
    ("reasons", _REASONS),
    ("data_base64", "string"),
)


class WorkloadGovernance(Construct):
    """Tags, filters, the masked view and the saved queries of one workload."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        workload: LoadedWorkload,
        governance: GovernanceStack,
        lake: DataLake,
        quarantine_prefix: str,
        depends_on: Sequence[IDependable],
    ) -> None:
        super().__init__(scope, construct_id)
        self._workload, self._governance, self._lake = workload, governance, lake
        spec, contract = workload.workload, workload.compiled
        columns = contract.glue_columns()
        self._table("Raw", lake.raw, contract.name, columns, depends_on)
        self._table("Curated", lake.curated, contract.name, columns, depends_on)
        self._table("FeatureRows", lake.features, contract.name, contract.feature_columns(), depends_on)
        quarantine = json_table(
            self,
            "QuarantineTable",
            zone=lake.raw,
            name=f"{contract.name}_quarantine",
            columns=_QUARANTINE,
            prefix=quarantine_prefix,
            partition_key=("ingest_date", "string"),
        )
        self._table(
            "Quarantine",
            lake.raw,
            quarantine.ref,
            _QUARANTINE,
            [quarantine],
            sensitive={"data_base64": "pii", "reasons": "pii"},
        )
        self.masked = self._masked(columns, depends_on)
        database = {zone.node.id: str(zone.database_name) for zone in (lake.raw, lake.curated, lake.features)}
        asked = questions(
            contract,
            raw=database["Raw"],
            curated=database["Curated"],
            quarantine=f"{contract.name}_quarantine",
        )
        engineers = governance.workgroups["data_engineer"]
        engineers.save(asked, scope=self)
        # What a scientist may not run is not put before one.
        theirs = Construct(self, "ForScientists")
        governance.workgroups["data_scientist"].save(
            [query for query in asked if query.database == database["Curated"]], scope=theirs
        )
        cdk.CfnOutput(scope, "MaskedTable", value=self.masked.name)
        cdk.CfnOutput(scope, "RowFilters", value=",".join(sorted(spec.governance.row_filters)) or "none")

    def _table(
        self,
        construct_id: str,
        zone: Zone,
        name: str,
        columns: Sequence[tuple[str, str]],
        depends_on: Sequence[IDependable],
        *,
        sensitive: Mapping[str, str] | None = None,
    ) -> TableGovernance:
        return govern_table(
            self,
            construct_id,
            workload=self._workload,
            governance=self._governance,
            zone=zone,
            table_name=name,
            columns=[column for column, _ in columns],
            sensitive=sensitive,
            depends_on=depends_on,
        )

    def _masked(self, columns: Sequence[tuple[str, str]], depends_on: Sequence[IDependable]) -> MaskedView:
        spec, contract = self._workload.workload, self._workload.compiled
        rows = spec.governance.row_filters.get("data_scientist")
        view = MaskedView(
            self,
            "Masked",
            key=self._governance.mask_key,
            zone=self._lake.curated,
            table_name=contract.name,
            columns=columns,
            masks={
                column.name: spec.governance.masks.get(column.name, "hash")
                for column in contract.columns
                if column.sensitive == "pii"
            },
            condition=None if rows is None else rows.expression(),
            depends_on=depends_on,
        )
        if spec.classification in self._governance.personas.readable:
            self._grant_view(view.table)
        return view

    def _grant_view(self, view: glue.CfnTable) -> None:
        name = lakeformation.CfnPrincipalPermissions
        role = self._governance.personas.roles["data_scientist"]
        name(
            self,
            "MaskedForScientists",
            principal=name.DataLakePrincipalProperty(data_lake_principal_identifier=role.role_arn),
            resource=name.ResourceProperty(
                table=name.TableResourceProperty(
                    catalog_id=ACCOUNT, database_name=str(self._lake.curated.database_name), name=view.ref
                )
            ),
            permissions=["SELECT", "DESCRIBE"],
            permissions_with_grant_option=[],
        )


def govern_table(
    scope: Construct,
    construct_id: str,
    *,
    workload: LoadedWorkload,
    governance: GovernanceStack,
    zone: Zone,
    table_name: str,
    columns: Sequence[str],
    sensitive: Mapping[str, str] | None = None,
    depends_on: Sequence[IDependable] = (),
) -> TableGovernance:
    """Define what a table of the workload is; ``sensitive`` says it of columns that no contract names."""
    spec, contract = workload.workload, workload.compiled
    marked = {c.name: c.sensitive for c in contract.columns if c.sensitive is not None and c.name in columns}
    return TableGovernance(
        scope,
        construct_id,
        tags=governance.tags_of_lake,
        personas=governance.personas,
        zone=zone,
        table_name=table_name,
        columns=columns,
        classification=spec.classification,
        sensitive=marked if sensitive is None else sensitive,
        row_filters={
            persona: RowsOf(column=rows.field, expression=rows.expression())
            for persona, rows in spec.governance.row_filters.items()
        },
        depends_on=depends_on,
    )
