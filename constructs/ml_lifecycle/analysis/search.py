"""OpenSearch Serverless for documents: texts that people and models search."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Literal

import aws_cdk as cdk
import jsii
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_opensearchserverless as opensearch

from constructs import Construct

__all__ = ["DocumentSearch"]

#: Amazon OpenSearch Serverless Developer Guide, "Data access control": permissions on indexes.
_READ = ("aoss:DescribeIndex", "aoss:ReadDocument")
_WRITE = (*_READ, "aoss:CreateIndex", "aoss:UpdateIndex", "aoss:WriteDocument")


class DocumentSearch(Construct):
    """Define a collection of OpenSearch Serverless that only the VPC reaches.

    ``kind`` is SEARCH (texts) or VECTORSEARCH (embeddings). Encrypted with ``key``; no public network
    access: an endpoint in ``subnets`` lets ``security_group`` in. Nobody reads or writes before
    ``grant_read`` or ``grant_write`` says so; both give the IAM permission and the entry in the collection's
    own policy. The documents are retained with the collection; its encryption policy cannot go before it and
    is retained too. ``standby`` keeps a second copy in another zone, at twice the price.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        key: kms.IKey,
        vpc: ec2.IVpc,
        subnets: Sequence[ec2.ISubnet],
        security_group: ec2.ISecurityGroup,
        kind: Literal["SEARCH", "VECTORSEARCH"] = "SEARCH",
        standby: bool = True,
        removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.RETAIN,
    ) -> None:
        super().__init__(scope, construct_id)
        problems = []
        # OpenSearch Serverless API Reference, CreateCollection: name, 3 to 32; the policies' names have two
        # characters more.
        if not re.fullmatch(r"[a-z][a-z0-9-]{2,29}", name):
            problems.append(
                "name must be 3 to 30 lower-case letters, digits and hyphens and begin with a letter, "
                f"got {name!r}"
            )
        # CreateVpcEndpoint: subnetIds.
        if not 1 <= len(subnets) <= 6:
            problems.append(f"subnets must be one to six, got {len(subnets)}")
        if kind not in ("SEARCH", "VECTORSEARCH"):
            problems.append(f"kind must be SEARCH or VECTORSEARCH, got {kind!r}")
        if problems:
            raise ValueError("document search: " + "; ".join(problems))
        self.name = name
        collection = f"collection/{name}"
        self.endpoint = opensearch.CfnVpcEndpoint(
            self,
            "Endpoint",
            name=name,
            vpc_id=vpc.vpc_id,
            subnet_ids=[subnet.subnet_id for subnet in subnets],
            security_group_ids=[security_group.security_group_id],
        )
        encryption = opensearch.CfnSecurityPolicy(
            self,
            "Encryption",
            name=f"{name}-e",
            type="encryption",
            policy=cdk.Stack.of(self).to_json_string(
                {
                    "Rules": [{"ResourceType": "collection", "Resource": [collection]}],
                    "AWSOwnedKey": False,
                    "KmsARN": key.key_arn,
                }
            ),
        )
        encryption.apply_removal_policy(removal_policy)
        network = opensearch.CfnSecurityPolicy(
            self,
            "Network",
            name=f"{name}-n",
            type="network",
            policy=cdk.Stack.of(self).to_json_string(
                [
                    {
                        "Rules": [
                            {"ResourceType": "collection", "Resource": [collection]},
                            {"ResourceType": "dashboard", "Resource": [collection]},
                        ],
                        "AllowFromPublic": False,
                        "SourceVPCEs": [self.endpoint.ref],
                    }
                ]
            ),
        )
        self.collection = opensearch.CfnCollection(
            self, "Collection", name=name, type=kind, standby_replicas="ENABLED" if standby else "DISABLED"
        )
        self.collection.apply_removal_policy(removal_policy)
        for policy in (encryption, network):
            self.collection.add_resource_dependency(policy)
        self._readers: list[str] = []
        self._writers: list[str] = []
        self._access: opensearch.CfnAccessPolicy | None = None

    def grant_read(self, role: iam.IRole) -> iam.Grant:
        """Grant searching and reading documents."""
        return self._grant(role, self._readers)

    def grant_write(self, role: iam.IRole) -> iam.Grant:
        """Grant making indexes and writing documents, reading included."""
        return self._grant(role, self._writers)

    def _grant(self, role: iam.IRole, roles: list[str]) -> iam.Grant:
        if role.role_arn not in roles:
            roles.append(role.role_arn)
        if self._access is None:
            # A data policy holds one rule at least: there is none before somebody is granted something.
            self._access = opensearch.CfnAccessPolicy(
                self, "Access", name=f"{self.name}-a", type="data", policy=cdk.Lazy.string(_Access(self))
            )
            self._access.add_resource_dependency(self.collection)
        return iam.Grant.add_to_principal(
            grantee=role, actions=["aoss:APIAccessAll"], resource_arns=[self.collection.attr_arn]
        )

    def policy(self) -> str:
        """Return the data access policy: who may do what, by role."""
        rules = []
        for roles, permissions in ((self._readers, _READ), (self._writers, _WRITE)):
            if roles:
                rules.append(
                    {
                        "Rules": [
                            {
                                "ResourceType": "index",
                                "Resource": [f"index/{self.name}/*"],
                                "Permission": list(permissions),
                            },
                            {
                                "ResourceType": "collection",
                                "Resource": [f"collection/{self.name}"],
                                "Permission": ["aoss:DescribeCollectionItems"],
                            },
                        ],
                        "Principal": roles,
                    }
                )
        return json.dumps(rules)


@jsii.implements(cdk.IStableStringProducer)
class _Access:
    """The policy once everybody who is granted is known."""

    def __init__(self, search: DocumentSearch) -> None:
        self._search = search

    def produce(self) -> str:
        return cdk.Stack.of(self._search).to_json_string(json.loads(self._search.policy()))
