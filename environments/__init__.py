"""How the lifecycle runs: one object per environment, in the order of promotion."""

from environments.audit import AuditServices, ConfigRules, ImageScanning, SecurityHub, ThreatDetection
from environments.cost import BudgetAction, Cost
from environments.dev import DEV
from environments.governance import Audit, Governance, Personas
from environments.gpu import GpuQueue
from environments.hyperpod import HyperPod
from environments.model import Environment, Network, Retention
from environments.observability import Observability, Tracing
from environments.orchestration import Airflow, Orchestration
from environments.prod import PROD
from environments.security import Organisation, OwnKeys, OwnVpc, Perimeter, Security
from environments.services import (
    Dashboards,
    Lustre,
    Search,
    Services,
    SharedStorage,
    Tracking,
    Video,
    Warehouse,
)
from environments.staging import STAGING
from environments.studio import Catalog, Studio
from environments.tables import Tables

ENVIRONMENTS: tuple[Environment, ...] = (DEV, STAGING, PROD)


def chosen(name: str | None) -> tuple[Environment, ...]:
    """Return the environment of that name; every one when no name is given.

    Raises:
        ValueError: there is none of that name.
    """
    names = [environment.name for environment in ENVIRONMENTS]
    if name is not None and name not in names:
        raise ValueError(f"context key environment must be one of {', '.join(names)}, got {name!r}")
    return tuple(environment for environment in ENVIRONMENTS if name in (None, environment.name))


__all__ = [
    "DEV",
    "ENVIRONMENTS",
    "PROD",
    "STAGING",
    "Airflow",
    "Audit",
    "AuditServices",
    "BudgetAction",
    "Catalog",
    "ConfigRules",
    "Cost",
    "Dashboards",
    "Environment",
    "Governance",
    "GpuQueue",
    "HyperPod",
    "ImageScanning",
    "Lustre",
    "Network",
    "Observability",
    "Orchestration",
    "Organisation",
    "OwnKeys",
    "OwnVpc",
    "Perimeter",
    "Personas",
    "Retention",
    "Search",
    "Security",
    "SecurityHub",
    "Services",
    "SharedStorage",
    "Studio",
    "Tables",
    "ThreatDetection",
    "Tracing",
    "Tracking",
    "Video",
    "Warehouse",
    "chosen",
]
