"""The environment of the example: every option that an environment has."""

from __future__ import annotations

from environments import Audit, Environment, Governance, GpuQueue, Network, Retention, Tables

EVERYTHING = Environment(
    name="every",
    network=Network(cidr="10.90.0.0/16", max_azs=3, interface_endpoints=True),
    retention=Retention(log_days=30),
    destroy_data=True,
    alarm_email="platform@example.com",
    budget_usd=100,
    governance=Governance(reads_up_to="internal", audit=Audit(retention_days=30)),
    tables=Tables(),
    gpu=GpuQueue(
        image="123456789012.dkr.ecr.us-east-1.amazonaws.com/photos:1",
        prefix="photos/",
        instance_types=("g6",),
    ),
)
