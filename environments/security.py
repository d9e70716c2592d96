"""What an organisation demands of an environment, and what it brings along: VPC, keys, boundary, names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Literal

from environments.refusal import refuse

_ARN = r"arn:aws[a-z-]*"
_KEY = re.compile(
    _ARN + r":kms:[a-z0-9-]+:[0-9]{12}:key/(mrk-[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})"
)
_POLICY = re.compile(_ARN + r":iam::([0-9]{12}|aws):policy/\S+")
_PRINCIPAL = re.compile(_ARN + r":iam::[0-9]{12}:(role|user)/\S+")
_TYPE = re.compile(r"\*|(AWS|Custom)::[\w:]+")


@dataclass(frozen=True, kw_only=True)
class Organisation:
    """Rules of an organisation that one Aspect applies to every resource; see `OrganisationRules`.

    ``boundary_arn`` becomes the permissions boundary of every role. ``names`` maps a CloudFormation type, or
    ``*`` for all others, to the pattern that the whole name must fit, where a template gives one;
    ``AWS::CloudFormation::Stack`` is for the names of stacks, which names made by CloudFormation begin with.
    ``tags`` are put onto everything that takes tags, ``required_tags`` must stand there.
    """

    boundary_arn: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    required_tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problems = []
        if self.boundary_arn is not None and not _POLICY.fullmatch(self.boundary_arn):
            problems.append(f"boundary_arn must be the ARN of a managed policy, got {self.boundary_arn!r}")
        for kind, pattern in self.names.items():
            if not _TYPE.fullmatch(kind):
                problems.append(f"names must map CloudFormation types or '*' to patterns, got {kind!r}")
            try:
                re.compile(pattern)
            except re.error as error:
                problems.append(f"names[{kind!r}] must be a regular expression, got {pattern!r}: {error}")
        # AWS Tagging: 128 and 256 characters; "aws:" is AWS's own.
        problems += [
            f"tags must have keys of 1 to 128 characters, not aws:, and values to 256, got {key!r}: {value!r}"
            for key, value in self.tags.items()
            if not 1 <= len(key) <= 128 or key.startswith("aws:") or len(value) > 256
        ]
        refuse("organisation", problems)


@dataclass(frozen=True, kw_only=True)
class OwnVpc:
    """A VPC that is there: nothing in it is made but the security group of the jobs.

    Its owner answers for endpoints and flow logs; ``network.interface_endpoints`` says whether the endpoints
    that jobs need are there. Jobs may call out on 443 to ``cidr`` and to S3's prefix list, nowhere else.
    ``availability_zones`` are those of ``subnet_ids``, one each, in the same order.
    """

    vpc_id: str
    cidr: str
    subnet_ids: tuple[str, ...]
    availability_zones: tuple[str, ...]
    s3_prefix_list_id: str

    def __post_init__(self) -> None:
        problems = []
        if not re.fullmatch(r"vpc-[0-9a-f]{8,17}", self.vpc_id):
            problems.append(f"vpc_id must look like vpc-0123456789abcdef0, got {self.vpc_id!r}")
        try:
            IPv4Network(self.cidr)
        except ValueError:
            problems.append(f"cidr must be an IPv4 network such as 10.0.0.0/16, got {self.cidr!r}")
        problems += [
            f"subnet_ids must look like subnet-0123456789abcdef0, got {subnet!r}"
            for subnet in self.subnet_ids
            if not re.fullmatch(r"subnet-[0-9a-f]{8,17}", subnet)
        ]
        if not self.subnet_ids or len(self.availability_zones) != len(self.subnet_ids):
            problems.append(
                "subnet_ids and availability_zones must name at least one subnet and the zone of each, "
                f"got {len(self.subnet_ids)} and {len(self.availability_zones)}"
            )
        if not re.fullmatch(r"pl-[0-9a-f]{8,17}", self.s3_prefix_list_id):
            problems.append(f"s3_prefix_list_id must look like pl-01234567, got {self.s3_prefix_list_id!r}")
        refuse("vpc", problems)


@dataclass(frozen=True, kw_only=True)
class OwnKeys:
    """Keys that are there, by ARN; one left out is made. Their policies are their owner's.

    ``logs`` must let CloudWatch Logs of the Region use it, ``messages`` EventBridge, CloudWatch and Budgets
    (docs/security.md has the statements).
    """

    data: str | None = None
    logs: str | None = None
    messages: str | None = None

    def __post_init__(self) -> None:
        refuse(
            "keys",
            [
                f"{name} must be the ARN of a KMS key, got {getattr(self, name)!r}"
                for name in ("data", "logs", "messages")
                if getattr(self, name) is not None and not _KEY.fullmatch(getattr(self, name))
            ],
        )

    @property
    def given(self) -> dict[Literal["data", "logs", "messages"], str]:
        """The keys that are named, by purpose."""
        found: dict[Literal["data", "logs", "messages"], str] = {}
        if self.data is not None:
            found["data"] = self.data
        if self.logs is not None:
            found["logs"] = self.logs
        if self.messages is not None:
            found["messages"] = self.messages
        return found


@dataclass(frozen=True, kw_only=True)
class Perimeter:
    """What the VPC's endpoints let through: calls of the account's own roles on the account's own resources.

    With ``organization_id`` those of the whole organisation. ``more_buckets`` are names of foreign buckets
    that jobs may read.
    """

    organization_id: str | None = None
    more_buckets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problems = []
        if self.organization_id is not None and not re.fullmatch(r"o-[a-z0-9]{10,32}", self.organization_id):
            problems.append(f"organization_id must look like o-0123456789, got {self.organization_id!r}")
        problems += [
            f"more_buckets must hold names of buckets, got {name!r}"
            for name in self.more_buckets
            if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", name)
        ]
        refuse("perimeter", problems)


@dataclass(frozen=True, kw_only=True)
class Security:
    """What is stricter than the app's own defaults, or the organisation's. Nothing, unless it is named.

    ``keys_by_classification`` makes a key per classification of the workloads for streams and job volumes;
    only roles of those workloads can use it. ``key_administrators`` (roles or users, the deploying role is
    added by itself) administer these keys in place of whom IAM lets.
    """

    organisation: Organisation | None = None
    vpc: OwnVpc | None = None
    keys: OwnKeys = field(default_factory=OwnKeys)
    keys_by_classification: bool = False
    key_administrators: tuple[str, ...] = ()
    perimeter: Perimeter | None = None

    def __post_init__(self) -> None:
        problems = [
            f"key_administrators must hold ARNs of IAM roles or users, got {arn!r}"
            for arn in self.key_administrators
            if not _PRINCIPAL.fullmatch(arn)
        ]
        if self.key_administrators and not self.keys_by_classification:
            problems.append("key_administrators need keys_by_classification=True, got False")
        if self.vpc is not None and self.perimeter is not None:
            problems.append("perimeter must be None with a vpc of your own: its endpoints are its owner's")
        refuse("security", problems)
