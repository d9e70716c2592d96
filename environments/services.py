"""Services of an environment that not everybody wants: each is there where it is named."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from environments.refusal import refuse

__all__ = [
    "Dashboards",
    "Lustre",
    "Search",
    "Services",
    "SharedStorage",
    "Tracking",
    "Video",
    "Warehouse",
]


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
    throughput_mbps_per_tib: Literal[125, 250, 500, 1000] = 125

    def __post_init__(self) -> None:
        if not self.prefix.endswith("/") or self.prefix.startswith("/"):
            refuse("lustre", [f"prefix must end with '/' and not start with it, got {self.prefix!r}"])


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """A managed MLflow tracking server for workloads with ``training.track: mlflow``; see TrackingServer.

    Their training jobs run in the VPC without network isolation, to reach it.
    """

    size: Literal["Small", "Medium", "Large"] = "Small"


@dataclass(frozen=True, kw_only=True)
class SharedStorage:
    """EFS for files that jobs share; see the construct SharedFiles."""

    backups: bool = True


@dataclass(frozen=True, kw_only=True)
class Video:
    """A camera's stream; pictures land below ``video/`` of the raw zone; see the construct VideoSource."""

    name: str
    retention_hours: int = 24
    interval_seconds: int = 3

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]{1,60}", self.name):
            refuse(
                "video",
                [
                    "name must be 2 to 61 lower-case letters, digits and hyphens and begin with a letter, "
                    f"got {self.name!r}"
                ],
            )


@dataclass(frozen=True, kw_only=True)
class Services:
    """What an environment has beside its workloads; nothing, unless it is named."""

    warehouse: Warehouse | None = None
    dashboards: Dashboards | None = None
    search: Search | None = None
    lustre: Lustre | None = None
    shared_storage: SharedStorage | None = None
    tracking: Tracking | None = None
    videos: tuple[Video, ...] = ()

    def __post_init__(self) -> None:
        names = [video.name for video in self.videos]
        twice = sorted({name for name in names if names.count(name) > 1})
        refuse("services", [f"videos must have names of their own, got {name!r} twice" for name in twice])

    @property
    def any(self) -> bool:
        """Whether there is one that stands in the shared stack."""
        shared = (self.warehouse, self.search, self.lustre, self.shared_storage, self.tracking)
        return any(one is not None for one in shared) or bool(self.videos)
