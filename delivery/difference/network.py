"""What is reached that was not: rules, routes, public addresses, doors that a block had kept shut."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from delivery.difference.values import at, flat, same

__all__ = ["opened"]

Properties = Mapping[str, Any]

#: Types that are a way in or out by being there.
_WAYS = {
    "AWS::EC2::InternetGateway": "a way to and from the internet",
    "AWS::EC2::EgressOnlyInternetGateway": "a way to the internet",
    "AWS::EC2::NatGateway": "a way to the internet for private subnets",
    "AWS::EC2::VPCPeeringConnection": "another VPC is reached, and reaches this one",
    "AWS::EC2::TransitGatewayAttachment": "a transit gateway is reached, and reaches this one",
    "AWS::EC2::VPNConnection": "another network is reached, and reaches this one",
    "AWS::Lambda::Url": "a function gets an address on the internet",
    "AWS::ApiGateway::RestApi": "an API gets an address",
    "AWS::ApiGatewayV2::Api": "an API gets an address on the internet",
}
_BLOCKS = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")


def _true(value: Any) -> bool:
    return str(value).lower() == "true"


#: Type -> path -> (whether a value is open, the words).
_OPEN: Mapping[str, Mapping[tuple[str, ...], tuple[Callable[[Any], bool], str]]] = {
    "AWS::EC2::Subnet": {("MapPublicIpOnLaunch",): (_true, "instances in it get public addresses")},
    "AWS::RDS::DBInstance": {("PubliclyAccessible",): (_true, "it gets a public address")},
    "AWS::Redshift::Cluster": {("PubliclyAccessible",): (_true, "it gets a public address")},
    "AWS::RedshiftServerless::Workgroup": {("PubliclyAccessible",): (_true, "it gets a public address")},
    "AWS::DMS::ReplicationInstance": {("PubliclyAccessible",): (_true, "it gets a public address")},
    "AWS::ElasticLoadBalancingV2::LoadBalancer": {
        ("Scheme",): (lambda value: value == "internet-facing", "it faces the internet")
    },
    "AWS::Lambda::Url": {("AuthType",): (lambda value: value == "NONE", "anybody may call it")},
    "AWS::SageMaker::NotebookInstance": {
        ("DirectInternetAccess",): (lambda value: value == "Enabled", "it reaches the internet")
    },
    "AWS::SageMaker::Domain": {
        ("AppNetworkAccessType",): (lambda value: value == "PublicInternetOnly", "it reaches the internet")
    },
    "AWS::ECS::Service": {
        ("NetworkConfiguration", "AwsvpcConfiguration", "AssignPublicIp"): (
            lambda value: value == "ENABLED",
            "its tasks get public addresses",
        )
    },
}
#: Type -> what isolates it: isolation that was there and is not any more.
_CLOSED: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "AWS::SageMaker::Model": (("EnableNetworkIsolation",), ("VpcConfig",)),
    "AWS::SageMaker::DataQualityJobDefinition": (("NetworkConfig",),),
    "AWS::Lambda::Function": (("VpcConfig",),),
    "AWS::S3::Bucket": tuple(("PublicAccessBlockConfiguration", part) for part in _BLOCKS),
    "AWS::S3::AccessPoint": tuple(("PublicAccessBlockConfiguration", part) for part in _BLOCKS),
}
_NOTHING: Properties = {}


def opened(
    before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, str]]:
    """Each opening with the logical id of what opens."""
    had = set(_rules(before))
    for logical_id, rule in _rules(after):
        # A rule may move between a group and a resource of its own.
        if rule not in {old for _, old in had}:
            yield logical_id, rule
    for logical_id, resource in after.items():
        kind, properties = resource["Type"], resource.get("Properties", _NOTHING)
        old = before.get(logical_id)
        known = old is not None and old["Type"] == kind
        old_properties: Properties = (
            old.get("Properties", _NOTHING) if known and old is not None else _NOTHING
        )
        if kind in _WAYS and not known:
            yield logical_id, _WAYS[kind]
        for path, (is_open, words) in _OPEN.get(kind, {}).items():
            now, was = at(properties, path), at(old_properties, path)
            if any(map(is_open, now)) and not any(map(is_open, was)):
                yield logical_id, f"{'.'.join(path)} is {flat(now[0])}: {words}"
        if known:
            for path in _CLOSED.get(kind, ()):
                now, was = at(properties, path), at(old_properties, path)
                if _shut(was) and not _shut(now):
                    yield (
                        logical_id,
                        f"{'.'.join(path)} was {flat(was[0])} and is {flat(now[0]) if now else 'gone'}",
                    )
        if kind == "AWS::EC2::Route":
            way = {key: properties[key] for key in properties if key.endswith(("GatewayId", "ConnectionId"))}
            if way and not same(properties, old_properties):
                where = flat(
                    properties.get("DestinationCidrBlock", properties.get("DestinationIpv6CidrBlock", "?"))
                )
                yield (
                    logical_id,
                    f"a route to {where} by {', '.join(f'{k} {flat(v)}' for k, v in way.items())}",
                )


def _shut(values: list[Any]) -> bool:
    return bool(values) and str(values[0]).lower() != "false"


def _rules(resources: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """What security groups let in and out, each as words: who, which group, which ports."""
    for logical_id, resource in resources.items():
        kind, properties = resource["Type"], resource.get("Properties", _NOTHING)
        if kind == "AWS::EC2::SecurityGroup":
            for way in ("Ingress", "Egress"):
                for rule in properties.get(f"SecurityGroup{way}", []):
                    if isinstance(rule, Mapping):
                        yield logical_id, _rule(way, logical_id, rule)
        elif kind in ("AWS::EC2::SecurityGroupIngress", "AWS::EC2::SecurityGroupEgress"):
            group = flat(properties.get("GroupId", "")).strip("${}").partition(".")[0]
            yield logical_id, _rule(kind.removeprefix("AWS::EC2::SecurityGroup"), group, properties)


def _rule(way: str, group: str, rule: Properties) -> str:
    peers = (
        "CidrIp",
        "CidrIpv6",
        "SourceSecurityGroupId",
        "DestinationSecurityGroupId",
        "SourcePrefixListId",
    )
    peer = next((flat(rule[key]) for key in (*peers, "DestinationPrefixListId") if key in rule), "?")
    protocol, low, high = flat(rule.get("IpProtocol", "-1")), rule.get("FromPort"), rule.get("ToPort")
    ports = (
        "every port"
        if low is None or protocol == "-1"
        else f"{protocol} {low}" + (f"-{high}" if high != low else "")
    )
    whole = " (the whole internet)" if peer in ("0.0.0.0/0", "::/0") else ""
    return f"{group} {'lets in' if way == 'Ingress' else 'reaches'} {peer}{whole} at {ports}"
