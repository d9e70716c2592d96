"""The environment of the example: what operations can switch on, on a small account."""

from __future__ import annotations

from environments import (
    BudgetAction,
    Cost,
    Environment,
    Governance,
    Network,
    Observability,
    Organisation,
    Perimeter,
    Retention,
    Security,
    Tables,
    Tracing,
)

OPERATIONS = Environment(
    name="ops",
    network=Network(cidr="10.80.0.0/16", max_azs=2, interface_endpoints=False),
    retention=Retention(log_days=30, access_log_days=90, noncurrent_version_days=30, capture_days=30),
    tables=Tables(snapshot_days=2, snapshots_kept=2),
    destroy_data=True,
    # Where the play's own collector listens while it is asked; traces begin with who asks for predictions.
    tracing=Tracing(endpoint="http://127.0.0.1:4318", sample_ratio=1e-9),
    observability=Observability(platform=True, silent_endpoint_hours=24),
    alarm_email="platform@example.com",
    budget_usd=500,
    # Thirty days: other cells let days pass without a request.
    cost=Cost(
        stop_idle_after_hours=720,
        small_streams=True,
        budget_action=BudgetAction(roles=("ops-analysts",)),
    ),
    governance=Governance(),
    security=Security(
        organisation=Organisation(tags={"cost-center": "4711"}, required_tags=("cost-center",)),
        keys_by_classification=True,
        perimeter=Perimeter(),
    ),
)
