"""Environments: what they say, and every problem of a wrong one at once."""

from __future__ import annotations

from typing import Any

import pytest

from environments import ENVIRONMENTS, PROD, Environment, Network, Retention, Tables


def test_should_stand_in_the_order_of_promotion_with_ids_for_the_cdk() -> None:
    assert [e.name for e in ENVIRONMENTS] == ["dev", "staging", "prod"]
    assert [e.id for e in ENVIRONMENTS] == ["Dev", "Staging", "Prod"]


def test_should_protect_production() -> None:
    assert PROD.production
    assert not PROD.destroy_data
    assert PROD.retention.log_days >= 365


def test_should_give_every_environment_a_network_of_its_own() -> None:
    assert len({e.network.cidr for e in ENVIRONMENTS}) == len(ENVIRONMENTS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "Dev"}, "name must be 2 to 10 lower-case letters and digits, got 'Dev'"),
        ({"account": "123", "region": "eu-central-1"}, "account must be 12 digits or None, got '123'"),
        (
            {"account": "1" * 12, "region": "europe"},
            "region must look like eu-central-1 or be None, got 'europe'",
        ),
        ({"account": "1" * 12}, "account and region go together, got '111111111111' and None"),
        (
            {"production": True, "destroy_data": True},
            "destroy_data must be False in a production environment",
        ),
        ({"alarm_email": "nobody"}, "alarm_email must be an address or None, got 'nobody'"),
        ({"budget_usd": 0}, "budget_usd must be at least 1 or None, got 0"),
        (
            {"lake_administrators": ("root",)},
            "lake_administrators must hold ARNs of IAM roles or users, got 'root'",
        ),
        ({"name": "X", "budget_usd": -1}, "name must .*; budget_usd must"),
    ],
)
def test_should_refuse_a_wrong_environment(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Environment(**{"name": "test", **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"log_days": 8}, r"log_days must be one of 1, 3, .*, got 8"),
        ({"raw_to_ia_days": 29}, "raw_to_ia_days must be at least 30, got 29"),
        ({"raw_to_glacier_days": 59}, r"at least 30 more than raw_to_ia_days \(30\), got 59"),
        ({"capture_days": 0}, "capture_days must be at least 1, got 0"),
        ({"access_log_days": 0, "log_days": 2}, "log_days must .*; access_log_days must"),
        (
            {"noncurrent_version_days": 365, "noncurrent_to_deep_archive_days": 186},
            r"at least 180 less than noncurrent_version_days \(365\), got 186",
        ),
        (
            {"access_logs_to_deep_archive_days": 0},
            "access_logs_to_deep_archive_days must be at least 1 or None",
        ),
        ({"raw_days": {"secret": 5}}, "raw_days must map public, internal, .* got 'secret': 5"),
        ({"raw_days": {"restricted": 0}}, "at least 1, got 'restricted': 0"),
    ],
)
def test_should_refuse_a_wrong_retention(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Retention(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_azs": 0}, "max_azs must be between 1 and 3, got 0"),
        ({"cidr": "10.0.0.0"}, r"cidr must have a prefix between /16 and /24, got /32"),
        ({"cidr": "somewhere"}, "cidr must be an IPv4 network such as 10.0.0.0/16, got 'somewhere'"),
        ({"cidr": "10.0.0.0/25"}, r"cidr must have a prefix between /16 and /24, got /25"),
    ],
)
def test_should_refuse_a_wrong_network(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Network(**options)


def test_should_take_the_latest_day_that_deep_archive_is_worth() -> None:
    kept = Retention(noncurrent_version_days=365, noncurrent_to_deep_archive_days=185)
    assert kept.noncurrent_to_deep_archive_days == 185


def test_should_keep_tables_in_order_everywhere() -> None:
    assert all(e.tables is not None for e in ENVIRONMENTS)
    with pytest.raises(ValueError, match="tables: snapshot_days must be at least 1, got 0; orphan_days must"):
        Tables(snapshot_days=0, orphan_days=0)
