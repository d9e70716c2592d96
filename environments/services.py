"""Services of an environment that not everybody wants: each is there where it is named."""

from __future__ import annotations

import re
from dataclasses import dataclass

from environments.refusal import refuse

__all__ = ["Dashboards", "Lustre", "Search", "SharedStorage", "Warehouse"]


@dataclass(frozen=True, kw_only=True)
class Warehouse:
    """Redshift Serverless on the lake; see the construct RedshiftWarehouse."""

    base_rpu: int = 8
    max_rpu: int = 32


@dataclass(frozen=True, kw_only=True)
class Dashboards:
    """A Quick Sight dashboard per workload, for ``readers``: ARNs of Quick Sight users or groups.

    It asks through the data scientists' Athena workgroup, so it needs ``governance``.
    """

    readers: tuple[str, ...]

    def __post_init__(self) -> None:
        pattern = re.compile(r"arn:aws[a-z-]*:quicksight:[a-z0-9-]+:[0-9]{12}:(user|group)/\S+")
        problems = [
            f"readers must hold ARNs of Quick Sight users or groups, got {reader!r}"
            for reader in self.readers
            if not pattern.fullmatch(reader)
        ]
        if not self.readers:
            problems.append("readers must hold at least one ARN, got none")
        refuse("dashboards", problems)


@dataclass(frozen=True, kw_only=True)
class Search:
    """A collection of OpenSearch Serverless for documents; see the construct DocumentSearch."""

    standby: bool = False


@dataclass(frozen=True, kw_only=True)
class Lustre:
    """FSx for Lustre over what lies below ``prefix`` of the artifacts zone; see the construct LustreCache."""

    prefix: str
    capacity_gib: int = 1_200
    throughput_mbps_per_tib: int = 125

    def __post_init__(self) -> None:
        if not self.prefix.endswith("/") or self.prefix.startswith("/"):
            refuse("lustre", [f"prefix must end with '/' and not start with it, got {self.prefix!r}"])


@dataclass(frozen=True, kw_only=True)
class SharedStorage:
    """EFS for files that jobs share; see the construct SharedFiles."""

    backups: bool = True
