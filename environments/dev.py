"""Development: small and cheap; its data may be deleted, with the second consent."""

from environments.cost import Cost
from environments.governance import Governance
from environments.model import Environment, Network, Retention
from environments.tables import Tables

DEV = Environment(
    name="dev",
    network=Network(cidr="10.10.0.0/16", max_azs=2, interface_endpoints=False),
    retention=Retention(log_days=30, access_log_days=90, noncurrent_version_days=30, capture_days=30),
    tables=Tables(snapshot_days=2, snapshots_kept=2),
    destroy_data=True,
    budget_usd=500,
    governance=Governance(),
    cost=Cost(stop_idle_after_hours=72, small_streams=True),
)
