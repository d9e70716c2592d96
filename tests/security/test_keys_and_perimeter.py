"""Keys by classification, own keys, a VPC that is there, and what endpoints let through."""

from __future__ import annotations

import json
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_kms as kms
from cdk_support import Template, only, resources, synthesise_stacks
from ml_lifecycle.foundation import ExistingVpc, Keys, Network, Perimeter

ORGANISATION = "o-0123456789"
KEY = "arn:aws:kms:eu-central-1:111122223333:key/11111111-2222-3333-4444-555555555555"
ADMIN = "arn:aws:iam::111122223333:role/Keys"
EXISTING = ExistingVpc(
    vpc_id="vpc-0123456789abcdef0",
    cidr="10.9.0.0/16",
    subnet_ids=("subnet-0123456789abcdef0",),
    availability_zones=("eu-central-1a",),
    s3_prefix_list_id="pl-01234567",
)
CLASSES = {"confidential": ["parcels", "orders"], "public": ["weather"]}


def _network(stack: cdk.Stack, **options: Any) -> None:
    Network(stack, "Network", log_key=kms.Key(stack, "Key"), **options)


def _keys(stack: cdk.Stack, **options: Any) -> None:
    keys = Keys(stack, "Keys", classifications=CLASSES, role_tags={"env": "dev"}, **options)
    assert keys.data_key_of("restricted") is keys.data_key
    assert keys.data_key_of("public") is keys.by_classification["public"]


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Template]:
    return synthesise_stacks(
        tmp_path_factory.mktemp("keys"),
        {
            "Classes": _keys,
            "Administered": lambda stack: _keys(stack, administrators=[ADMIN]),
            "Own": lambda stack: Keys(stack, "Keys", own={"data": KEY, "logs": KEY}),
            "Plain": _network,
            "Account": lambda stack: _network(stack, perimeter=Perimeter(more_buckets=("models",))),
            "Organisation": lambda stack: _network(
                stack, perimeter=Perimeter(organization_id="o-0123456789")
            ),
            "Existing": lambda stack: _network(stack, existing=EXISTING),
        },
    )


def _policy(template: Template, key: str) -> dict[str, Template]:
    (found,) = [k for name, k in resources(template, "AWS::KMS::Key").items() if name.startswith(key)]
    return {s["Sid"]: s for s in found["Properties"]["KeyPolicy"]["Statement"]}


def test_should_let_roles_of_its_workloads_alone_use_a_classifications_key(
    templates: dict[str, Template],
) -> None:
    policy = _policy(templates["Classes"], "KeysConfidential")
    assert set(policy) == {"AdministrationByIam", "RolesOfItsWorkloads", "GrantsToServices"}
    assert policy["RolesOfItsWorkloads"]["Condition"]["StringEquals"] == {
        "aws:PrincipalTag/env": "dev",
        "aws:PrincipalTag/ml-lifecycle:workload": ["orders", "parcels"],
        "kms:CallerAccount": {"Ref": "AWS::AccountId"},
    }
    assert policy["GrantsToServices"]["Condition"]["Bool"] == {"kms:GrantIsForAWSResource": "true"}
    administration = set(policy["AdministrationByIam"]["Action"])
    assert not administration & {"kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey", "kms:CreateGrant"}
    for statement in policy.values():
        actions = statement["Action"]
        assert "*" not in json.dumps(actions), statement["Sid"]


def test_should_hand_administration_to_named_roles_and_the_root_user(templates: dict[str, Template]) -> None:
    policy = _policy(templates["Administered"], "KeysPublic")
    named = json.dumps(policy["Administrators"]["Principal"])
    assert ADMIN in named
    assert "cfn-exec-role" in named
    assert "aws:PrincipalArn" in policy["RootUser"]["Condition"]["ArnEquals"]
    assert "AdministrationByIam" not in policy


def test_should_make_no_key_that_is_brought(templates: dict[str, Template]) -> None:
    assert [*resources(templates["Own"], "AWS::KMS::Key")] == ["KeysMessagesE856B267"]
    with pytest.raises(ValueError, match="own must name data, logs, messages, got lake"):
        Keys(cdk.Stack(cdk.App(), "S"), "Keys", own={"lake": KEY})  # type: ignore[dict-item]


def test_should_let_everything_through_by_default(templates: dict[str, Template]) -> None:
    endpoints = resources(templates["Plain"], "AWS::EC2::VPCEndpoint").values()
    assert endpoints
    assert not any("PolicyDocument" in endpoint["Properties"] for endpoint in endpoints)


@pytest.mark.parametrize(
    ("stack", "expected"),
    [
        ("Account", {"aws:PrincipalAccount", "aws:ResourceAccount"}),
        ("Organisation", {"aws:PrincipalOrgID", "aws:ResourceOrgID"}),
    ],
)
def test_should_end_every_endpoint_at_own_principals_and_resources(
    stack: str, expected: set[str], templates: dict[str, Template]
) -> None:
    endpoints = resources(templates[stack], "AWS::EC2::VPCEndpoint")
    assert len(endpoints) > 10
    for name, endpoint in endpoints.items():
        first, *more = endpoint["Properties"]["PolicyDocument"]["Statement"]
        assert set(first["Condition"]["StringEquals"]) == expected, name
        s3 = "VpcS3" in name
        assert bool(more) == s3, name
        for statement in more:
            actions = statement["Action"]
            assert set([actions] if isinstance(actions, str) else actions) <= {
                "s3:GetObject",
                "s3:GetBucketLocation",
                "s3:ListBucket",
            }
            assert "*" not in json.dumps(statement["Resource"]).replace('/*"', "")


def test_should_make_a_security_group_alone_in_a_vpc_that_is_there(templates: dict[str, Template]) -> None:
    template = templates["Existing"]
    kinds = {r["Type"] for r in template["Resources"].values()}
    assert kinds == {
        "AWS::KMS::Key",
        "AWS::EC2::SecurityGroup",
        "AWS::EC2::SecurityGroupEgress",
        "AWS::EC2::SecurityGroupIngress",
    }
    group = only(template, "AWS::EC2::SecurityGroup")
    assert group["VpcId"] == EXISTING.vpc_id
    assert [rule["CidrIp"] for rule in group["SecurityGroupEgress"]] == [EXISTING.cidr]
    targets = [r["Properties"] for r in resources(template, "AWS::EC2::SecurityGroupEgress").values()]
    assert [t["DestinationPrefixListId"] for t in targets if "DestinationPrefixListId" in t] == [
        "pl-01234567"
    ]


def test_should_refuse_a_perimeter_for_endpoints_of_others() -> None:
    with pytest.raises(ValueError, match="perimeter must be None with existing"):
        _network(cdk.Stack(cdk.App(), "S"), existing=EXISTING, perimeter=Perimeter())
