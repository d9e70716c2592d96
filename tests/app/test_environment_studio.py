"""What an environment says of audit services, Studio and the catalog, and what it cannot say."""

from __future__ import annotations

from typing import Any

import pytest

from environments import (
    AuditServices,
    Catalog,
    ConfigRules,
    Environment,
    Governance,
    ImageScanning,
    Network,
    SecurityHub,
    Studio,
)


def test_should_have_none_of_it_by_default() -> None:
    environment = Environment(name="dev")
    assert not environment.audit_services.any
    assert environment.studio is None
    assert environment.catalog is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConfigRules(without=("Everything",)), "without must hold some of Buckets.*'Everything'"),
        (lambda: ConfigRules(retention_days=0), "retention_days must be at least 1, got 0"),
        (lambda: SecurityHub(standards=("iso",)), "standards must hold some of fsbp.*got 'iso'"),  # type: ignore[arg-type]
        (lambda: SecurityHub(standards=()), "standards must hold at least one"),
        (lambda: ImageScanning(repositories=()), "repositories must be 1 to 100 patterns, got 0"),
        (
            lambda: Studio(personas=("boss",), idle_minutes=5),  # type: ignore[arg-type]
            "personas must hold some of data_sc.*'boss'; idle_minutes must be between 60 and 525600, got 5",
        ),
        (lambda: Catalog(personas=(), instance_types=()), "at least one, got none; instance_types must"),
        (lambda: Environment(name="dev", studio=Studio(), catalog=Catalog()), "studio needs.*catalog needs"),
        (
            lambda: Environment(
                name="dev",
                governance=Governance(),
                studio=Studio(),
                network=Network(interface_endpoints=False),
            ),
            "studio needs network.interface_endpoints",
        ),
    ],
)
def test_should_refuse_what_cannot_be(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_should_know_whether_there_is_one() -> None:
    assert AuditServices(config=ConfigRules()).any
