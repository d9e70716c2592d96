"""What an environment says of security, and what it cannot say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from environments import DEV, Organisation, OwnKeys, OwnVpc, Perimeter, Security

VPC: dict[str, Any] = {
    "vpc_id": "vpc-0123456789abcdef0",
    "cidr": "10.9.0.0/16",
    "subnet_ids": ("subnet-0123456789abcdef0",),
    "availability_zones": ("eu-central-1a",),
    "s3_prefix_list_id": "pl-01234567",
}


def test_should_switch_nothing_on_by_default() -> None:
    security = DEV.security
    assert security == Security()
    assert (security.organisation, security.vpc, security.perimeter) == (None, None, None)
    assert not security.keys_by_classification
    assert security.keys.given == {}


def test_should_name_the_keys_that_are_brought() -> None:
    key = "arn:aws:kms:eu-central-1:111122223333:key/mrk-0123456789abcdef0123456789abcdef"
    assert OwnKeys(logs=key).given == {"logs": key}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Organisation(boundary_arn="Everyone"), "boundary_arn must be the ARN of a managed policy"),
        (lambda: Organisation(names={"Queue": "a"}), "names must map CloudFormation types or '\\*'"),
        (lambda: Organisation(names={"*": "("}), "must be a regular expression, got '\\('"),
        (lambda: Organisation(tags={"aws:x": "1"}), "tags must have keys of 1 to 128 characters"),
        (lambda: OwnKeys(data="alias/x"), "data must be the ARN of a KMS key, got 'alias/x'"),
        (
            lambda: OwnVpc(**{**VPC, "vpc_id": "x", "cidr": "y"}),
            "vpc_id must look like .* cidr must be an IPv4",
        ),
        (lambda: OwnVpc(**{**VPC, "availability_zones": ()}), "the zone of each, got 1 and 0"),
        (lambda: Perimeter(organization_id="acme"), "organization_id must look like o-0123456789"),
        (lambda: Perimeter(more_buckets=("arn:x",)), "more_buckets must hold names of buckets, got 'arn:x'"),
        (
            lambda: Security(key_administrators=("arn:aws:iam::111122223333:role/A",)),
            "key_administrators need keys_by_classification=True",
        ),
        (lambda: Security(key_administrators=("A",), keys_by_classification=True), "ARNs of IAM roles"),
        (lambda: Security(vpc=OwnVpc(**VPC), perimeter=Perimeter()), "its endpoints are its owner's"),
    ],
)
def test_should_refuse_what_cannot_be(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(DEV, security=make())
