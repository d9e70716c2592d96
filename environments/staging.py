"""Staging: as production is, with shorter memories."""

from environments.model import Environment, Network, Retention

STAGING = Environment(
    name="staging",
    network=Network(cidr="10.20.0.0/16", max_azs=2),
    retention=Retention(log_days=90, capture_days=60),
    budget_usd=1_500,
)
