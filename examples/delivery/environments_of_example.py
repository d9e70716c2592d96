"""The environments of the example: three accounts, two Regions, production in two waves."""

from __future__ import annotations

from environments import Environment, Network, Retention
from environments.delivery import ConnectionSource, Delivery

#: Accounts of documentation; put your own in their place.
TOOLING, WORK, LIVE = "111111111111", "222222222222", "333333333333"
HOME, ABROAD = "eu-central-1", "us-east-1"

_LONG = Retention(log_days=365, access_log_days=731, noncurrent_version_days=365, capture_days=365)

ENVIRONMENTS = (
    Environment(name="dev", account=WORK, region=HOME, network=Network(interface_endpoints=False)),
    Environment(name="staging", account=WORK, region=HOME, network=Network(cidr="10.20.0.0/16")),
    Environment(
        name="prodeu",
        account=LIVE,
        region=HOME,
        network=Network(cidr="10.30.0.0/16"),
        retention=_LONG,
        production=True,
    ),
    Environment(
        name="produs",
        account=LIVE,
        region=ABROAD,
        network=Network(cidr="10.40.0.0/16"),
        retention=_LONG,
        production=True,
    ),
)

#: What ``cdk.context.json`` would hold: with an account and a Region the CDK asks AWS once for the zones, and
#: a pipeline has nobody to ask.
ZONES = {
    f"availability-zones:account={account}:region={region}": [f"{region}{zone}" for zone in "abc"]
    for account, region in sorted({(str(each.account), str(each.region)) for each in ENVIRONMENTS})
}

#: Releases by tag; the first Region shows for as long as the second approval takes what the change does.
DELIVERY = Delivery(
    source=ConnectionSource(
        connection_arn=f"arn:aws:codeconnections:{HOME}:{TOOLING}:connection/0a1b2c3d-0000-4000-8000-000000000000",
        repository="example/ml-lifecycle",
        tags=["v*"],
    ),
    account=TOOLING,
    region=HOME,
    waves={"Work": ["dev", "staging"], "Europe": ["prodeu"], "America": ["produs"]},
    email="platform@example.com",
)
