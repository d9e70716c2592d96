"""How the lifecycle runs: one object per environment, in the order of promotion."""

from environments.dev import DEV
from environments.governance import Audit, Governance, Personas
from environments.gpu import GpuQueue
from environments.model import Environment, Network, Retention
from environments.prod import PROD
from environments.staging import STAGING
from environments.tables import Tables

ENVIRONMENTS: tuple[Environment, ...] = (DEV, STAGING, PROD)

__all__ = [
    "DEV",
    "ENVIRONMENTS",
    "PROD",
    "STAGING",
    "Audit",
    "Environment",
    "Governance",
    "GpuQueue",
    "Network",
    "Personas",
    "Retention",
    "Tables",
]
