"""What every batch engine makes of the lake: the curated and the features table, prefixes, reports."""

from __future__ import annotations

from typing import Protocol

from aws_cdk import aws_glue as glue
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from ml_contract.compiled import CompiledContract

from constructs import Construct
from ml_lifecycle.data_lake import DataLake, IcebergTable, labels_place, month_projection, parquet_table

__all__ = ["EVENT_MONTH", "BatchTables", "Transform"]

#: Partition column of the features table: the month of the event (UTC).
EVENT_MONTH = "event_month"


class Transform(Protocol):
    """What a stack needs of a batch engine, whichever it is."""

    @property
    def curated_table(self) -> IcebergTable:
        """The curated rows."""
        ...

    @property
    def data_prefix(self) -> str:
        """Prefix of the curated and of the features zone."""
        ...

    @property
    def quality_prefix(self) -> str:
        """Prefix of the reports in the artifacts zone."""
        ...

    @property
    def features_uri(self) -> str:
        """Where the feature rows lie."""
        ...

    @property
    def features_role(self) -> iam.Role:
        """Role of the job that builds features."""
        ...

    @property
    def new_data_event(self) -> dict[str, object]:
        """Pattern of the event that says: there are new features."""
        ...

    @property
    def outputs(self) -> dict[str, str]:
        """Names under which an operator finds the engine."""
        ...

    def grant_start(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant starting the engine and looking at its runs."""
        ...

    def grant_read_features(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant reading the feature rows."""
        ...


class BatchTables:
    """The tables of a batch engine, as children of its construct.

    Their ids do not depend on the engine: a workload that outgrows one machine keeps its tables.
    """

    def __init__(
        self,
        scope: Construct,
        *,
        contract: CompiledContract,
        lake: DataLake,
        log_key: kms.IKey,
        log_retention_days: int,
        labels: bool = False,
    ) -> None:
        self.lake = lake
        #: Table and prefix of the labels that people give, in the curated zone.
        self._labels = labels_place(contract.name, contract.slug) if labels else None
        self.data_prefix = f"{contract.slug}/data/"
        self.quality_prefix = f"{contract.slug}/quality/"
        self.snapshots_prefix = f"{contract.slug}/snapshots/"
        #: Rows that break a rule whose severity is ``quarantine``; delivery's own quarantine lies beside.
        self.quarantine_prefix = f"{contract.slug}/curate-quarantine/"
        self.curated = IcebergTable(
            scope,
            "CuratedTable",
            zone=lake.curated,
            name=contract.name,
            columns=contract.glue_columns(),
            prefix=self.data_prefix,
            partition_by=[("month", contract.event_time)],
            log_key=log_key,
            log_retention_days=log_retention_days,
        )
        self.features: glue.CfnTable = parquet_table(
            scope,
            "FeaturesTable",
            zone=lake.features,
            name=contract.name,
            columns=contract.feature_columns(),
            prefix=self.data_prefix,
            partition_key=(EVENT_MONTH, "string"),
            projection=month_projection(EVENT_MONTH),
        )

    @property
    def features_uri(self) -> str:
        """Where the feature rows lie."""
        return self.lake.features.uri(self.data_prefix)

    def curate_arguments(self, raw_prefix: str, raw_table: glue.CfnTable | IcebergTable) -> dict[str, str]:
        """Arguments of the curate job by name, less what an engine adds."""
        # Of an Iceberg table the job asks its snapshot for files; of a folder it enters the partitions.
        raw = (
            {"raw_table": f"{raw_table.database_name}.{raw_table.name}"}
            if isinstance(raw_table, IcebergTable)
            else {"raw_catalog": f"{self.lake.raw.database_name}.{raw_table.ref}"}
        )
        return {
            "raw_uri": self.lake.raw.uri(raw_prefix),
            **raw,
            "curated_uri": self.lake.curated.uri(self.data_prefix),
            "curated_database": self.curated.database_name,
            "curated_table": self.curated.name,
            "quality_uri": self.lake.artifacts.uri(self.quality_prefix),
            "quarantine_uri": self.lake.raw.uri(self.quarantine_prefix),
        }

    def features_arguments(self, feature_group_name: str) -> dict[str, str]:
        """Arguments of the feature job by name, less what an engine adds."""
        labels = (
            {}
            if self._labels is None
            else {"labels_table": f"{self.lake.curated.database_name}.{self._labels[0]}"}
        )
        return {
            **labels,
            "curated_database": self.curated.database_name,
            "curated_table": self.curated.name,
            "features_uri": self.features_uri,
            "snapshots_uri": self.lake.features.uri(self.snapshots_prefix),
            "feature_group_name": feature_group_name,
        }

    def grant_curate(self, role: iam.Role, raw_prefix: str, raw_table: glue.CfnTable | IcebergTable) -> None:
        """Grant what curation touches: raw rows, the curated table, the report, the quarantine."""
        lake = self.lake
        if isinstance(raw_table, IcebergTable):
            raw_table.grant_read(role)
        else:
            lake.raw.grant_read(role, raw_prefix)
            lake.raw.grant_maintain_partitions(role, raw_table.ref)
        lake.raw.grant_read(role, self.quarantine_prefix)
        lake.raw.grant_write(role, self.quarantine_prefix, delete=True)
        self.curated.grant_commit(role)
        # A commit asks whether the metadata file that it is about to write is there: S3 says "not found" only
        # to who may list the bucket.
        lake.curated.grant_folder(role, self.data_prefix)
        lake.artifacts.grant_write(role, self.quality_prefix)

    def grant_labels(self, role: iam.Role) -> None:
        """Grant reading people's labels, where there are any.

        The stack that makes their table comes later: in Lake Formation it is that stack which grants.
        """
        if self._labels is not None:
            table, prefix = self._labels
            self.lake.curated.grant_read(role, prefix)
            self.lake.curated.grant_query_table(role, table, in_lake_formation=False)

    def grant_build(self, role: iam.Role) -> None:
        """Grant what building features touches, less the Feature Store."""
        self.curated.grant_read(role)
        self.grant_labels(role)
        for prefix in (self.data_prefix, self.snapshots_prefix):
            self.lake.features.grant_read(role, prefix)
            self.lake.features.grant_write(role, prefix, delete=True)
