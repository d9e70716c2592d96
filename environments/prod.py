"""Production: three zones, long memories, nothing deletable."""

from environments.model import Environment, Network, Retention

PROD = Environment(
    name="prod",
    network=Network(cidr="10.30.0.0/16", max_azs=3),
    retention=Retention(log_days=365, access_log_days=731, noncurrent_version_days=365, capture_days=365),
    production=True,
    budget_usd=5_000,
)
