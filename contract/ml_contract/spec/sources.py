"""Batch sources of a workload: the ``sources`` block of ``workload.yaml``.

Whatever a source is, its files end in one drop bucket and take one way from there: read, checked record by
record, landed as Parquet of the raw table, refused ones in quarantine, an audit record per batch. The kinds
differ in who brings the files.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from ml_contract.spec.blocks import Classification, Slug, Strict

__all__ = [
    "DEFAULT_PORTS",
    "SCHEDULE",
    "DataSyncSource",
    "DmsSource",
    "DropSource",
    "JdbcSource",
    "Source",
    "SourceName",
    "Sources",
    "ThirdPartySource",
]

FileFormat = Literal["csv", "json", "ndjson", "parquet"]
Engine = Literal["postgresql", "mysql", "redshift", "oracle", "sqlserver"]
#: Also a folder of the drop bucket and part of construct ids.
SourceName = Slug
Schedule = Annotated[str, Field(description="UTC; an EventBridge cron(...) or rate(...) expression.")]

SCHEDULE: Final = re.compile(r"(cron|rate)\(.+\)")
#: Where the engines listen when nothing else is said.
DEFAULT_PORTS: Final[dict[str, int]] = {
    "postgresql": 5432,
    "mysql": 3306,
    "redshift": 5439,
    "oracle": 1521,
    "sqlserver": 1433,
}
_HOST: Final = r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$"
_DATABASE_NAME: Final = r"^[A-Za-z_][A-Za-z0-9_$#.-]{0,127}$"
_TABLE: Final = r"^([A-Za-z_][A-Za-z0-9_$#]{0,127}\.)?[A-Za-z_][A-Za-z0-9_$#]{0,127}$"
_COLUMN: Final = r"^[A-Za-z_][A-Za-z0-9_$#]{0,127}$"
_KEPT_IN: Final = r"^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:\S+$"
_AGENT: Final = r"^arn:aws[a-z-]*:datasync:[a-z0-9-]+:[0-9]{12}:agent/agent-[0-9a-z]{17}$"
_FOLDER: Final = r"^/([A-Za-z0-9 _.@=+-]+/)*([A-Za-z0-9 _.@=+-]+)?$"

Host = Annotated[str, Field(pattern=_HOST, description="DNS name or address.")]
Port = Annotated[int, Field(ge=1, le=65_535)]
ColumnOfTable = Annotated[str, Field(pattern=_COLUMN)]
SecretArn = Annotated[
    str,
    Field(
        pattern=_KEPT_IN,
        description="Secret with the keys username and password; without it one is made, to be filled.",
    ),
]


class _Source(Strict):
    """What every source has."""

    owner: str = Field(min_length=3, description="Who answers for what it sends: a team or an address.")
    description: str | None = None
    schema_version: int = Field(
        default=1,
        ge=1,
        description="Version of the record that it sends; raised with a breaking change of the contract.",
    )
    fresh_within_hours: int | None = Field(
        default=24,
        ge=1,
        # CloudWatch, PutMetricAlarm: with periods of an hour an alarm looks back a week at most.
        le=168,
        description="An alarm goes off when no batch arrived for so long; null for none.",
    )
    classification: Classification | None = Field(
        default=None, description="The workload's when it is not given."
    )
    rename: dict[str, str] = Field(
        default_factory=dict, description="Column of the source -> field of the record, where they differ."
    )
    ignore: tuple[str, ...] = Field(
        default=(), description="Columns of the source that are no field; any other unknown one is refused."
    )

    @model_validator(mode="after")
    def _columns(self) -> Self:
        both = sorted(set(self.rename) & set(self.ignore))
        if both:
            raise ValueError(f"{both[0]!r} is both renamed and ignored; keep it in one of them")
        twice = sorted({t for t in self.rename.values() if list(self.rename.values()).count(t) > 1})
        if twice:
            raise ValueError(f"rename gives {twice[0]!r} to two columns; keep one")
        return self


class _Files(Strict):
    """How files are written."""

    format: FileFormat = Field(
        default="csv",
        description="ndjson is one JSON object a line; json one array of objects, at most 64 MiB.",
    )
    delimiter: Literal[",", ";", "\t", "|"] = Field(default=",", description="Of CSV files.")
    manifest: bool = Field(
        default=False,
        description="Files wait for a <name>.manifest.json that names all of a batch with size and sha256.",
    )

    @model_validator(mode="after")
    def _written(self) -> Self:
        if self.delimiter != "," and self.format != "csv":
            raise ValueError(f"delimiter goes with format: csv, not with {self.format}; remove it")
        return self


class _Database(Strict):
    """Where a database is and who may read it."""

    engine: Engine
    host: Host
    port: Port | None = Field(default=None, description="The engine's usual one when it is not given.")
    database: str = Field(pattern=_DATABASE_NAME)
    secret_arn: SecretArn | None = None

    @property
    def endpoint_port(self) -> int:
        """The port, or the engine's usual one."""
        return self.port if self.port is not None else DEFAULT_PORTS[self.engine]


class DropSource(_Source, _Files):
    """Files that somebody of this account puts into a folder of the drop bucket."""

    kind: Literal["drop"]
    accelerate: bool = Field(
        default=False, description="S3 Transfer Acceleration of the drop bucket, for senders far away."
    )


class JdbcSource(_Source, _Database):
    """A table of a database that a Glue job reads on a schedule: what is new since the last time."""

    kind: Literal["jdbc"]
    table: str = Field(pattern=_TABLE, description="<schema>.<table>")
    columns: tuple[ColumnOfTable, ...] | None = Field(
        default=None, min_length=1, description="The columns to read; all that are not ignored by default."
    )
    bookmark: tuple[ColumnOfTable, ...] = Field(
        min_length=1, description="Columns that only grow and tell which rows are new; none may be empty."
    )
    schedule: Schedule = "cron(0 1 * * ? *)"

    @model_validator(mode="after")
    def _table(self) -> Self:
        problems = []
        if not SCHEDULE.fullmatch(self.schedule):
            problems.append(f"schedule must be cron(...) or rate(...), got {self.schedule!r}")
        missing = [c for c in self.bookmark if self.columns is not None and c not in self.columns]
        if missing:
            problems.append(f"bookmark column {missing[0]!r} is not among columns; add it there")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class DmsSource(_Source, _Database):
    """Tables that AWS DMS Serverless copies, and whose changes it goes on sending, as Parquet."""

    kind: Literal["dms"]
    tables: tuple[Annotated[str, Field(pattern=_TABLE)], ...] = Field(
        min_length=1, description="<schema>.<table>, each with records of this workload."
    )
    mode: Literal["full_load", "change_data", "full_load_and_change_data"] = "full_load_and_change_data"
    # AWS DMS, ComputeConfig: the capacities that a serverless replication knows.
    maximum_capacity: Literal[1, 2, 4, 8, 16, 32, 64, 128, 192, 256, 384] = Field(
        default=4, description="DMS capacity units of 2 GB each."
    )
    certificate_arn: str | None = Field(
        default=None,
        pattern=r"^arn:aws[a-z-]*:dms:[a-z0-9-]+:[0-9]{12}:cert:\S+$",
        description="What proves the server's TLS: mysql and oracle need it, the others have none.",
    )

    @model_validator(mode="after")
    def _tables(self) -> Self:
        bare = [t for t in self.tables if "." not in t]
        if bare:
            raise ValueError(f"tables must be <schema>.<table>, got {bare[0]!r}")
        if self.engine == "redshift":
            raise ValueError("DMS reads no redshift; use kind: jdbc")
        proves = self.engine in ("mysql", "oracle")
        if proves != (self.certificate_arn is not None):
            fix = "add it" if proves else "remove it"
            raise ValueError(
                f"certificate_arn goes with mysql and oracle, the engine is {self.engine}; {fix}"
            )
        return self


class DataSyncSource(_Source, _Files):
    """Files on a file server or an object store that AWS DataSync brings on a schedule."""

    kind: Literal["datasync"]
    location: Literal["nfs", "smb", "object_storage"]
    server: Host
    folder: str = Field(default="/", pattern=_FOLDER, description="Folder (share, key prefix) to read.")
    bucket: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9.\-_]{3,63}$", description="Of an object_storage location."
    )
    agents: tuple[Annotated[str, Field(pattern=_AGENT)], ...] = Field(
        min_length=1, max_length=4, description="ARNs of the DataSync agents that reach the server."
    )
    user: str | None = Field(
        default=None, min_length=1, description="User of an smb share, access key of an object_storage."
    )
    secret_arn: SecretArn | None = None
    schedule: Schedule = "rate(1 day)"

    @model_validator(mode="after")
    def _location(self) -> Self:
        problems = []
        if not SCHEDULE.fullmatch(self.schedule):
            problems.append(f"schedule must be cron(...) or rate(...), got {self.schedule!r}")
        if (self.location == "object_storage") != (self.bucket is not None):
            problems.append(f"bucket goes with location: object_storage, got {self.bucket!r}")
        if self.location == "nfs" and self.secret_arn is not None:
            problems.append("an NFS server takes no secret; remove secret_arn")
        if (self.location == "nfs") == (self.user is not None):
            problems.append(f"user goes with location: smb and object_storage, got {self.user!r}")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class ThirdPartySource(_Source, _Files):
    """Another account: it drops files (write) or reads a zone (read), by a role with an external id."""

    kind: Literal["thirdparty"]
    account: str = Field(pattern=r"^[0-9]{12}$", description="The account that may take the role.")
    # IAM User Guide, "Access to AWS accounts owned by third parties".
    external_id: str = Field(pattern=r"^[A-Za-z0-9+=,.@:/-]{8,1224}$")
    access: Literal["write", "read"] = "write"
    zone: Literal["raw", "curated", "features"] = Field(
        default="curated", description="What a reader reads: this workload's part of the zone."
    )
    accelerate: bool = False


Source = Annotated[
    DropSource | JdbcSource | DmsSource | DataSyncSource | ThirdPartySource, Field(discriminator="kind")
]
Sources = dict[SourceName, Source]


def lands(source: Source) -> bool:
    """Whether files of the source arrive in the drop bucket: all but readers."""
    return not (isinstance(source, ThirdPartySource) and source.access == "read")
