"""Where people are told what becomes of models: trainings, versions that wait, promotions, drift."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns

from constructs import Construct

__all__ = ["EVERY_WORKLOAD", "Stakeholders", "grant_publish"]

#: In place of a workload's name: of all of them.
EVERY_WORKLOAD = "*"
_MAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_PAGE = re.compile(r"https://\S+")


class Stakeholders(Construct):
    """Define the topic that notices about models of one environment are published to, and who reads it.

    ``subscribers`` maps a workload's name, or ``*`` for all, to addresses: mail (the owner confirms it once)
    or an ``https://`` page of a chat. Each subscription takes the notices of its workload only. Alarms go
    elsewhere (``Notices``): a notice tells that something happened, an alarm that somebody must act.

    Encrypted with ``key``. Functions publish that were granted it (``grant_publish``); nobody else may.

    Raises:
        ValueError: an address that is neither mail nor a page.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        key: kms.IKey,
        subscribers: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        given = {} if subscribers is None else subscribers
        wrong = [
            f"subscribers of {name} must be mail addresses or https:// pages, got {address!r}"
            for name, addresses in given.items()
            for address in addresses
            if not _MAIL.fullmatch(address) and not _PAGE.fullmatch(address)
        ]
        if wrong:
            raise ValueError("; ".join(wrong))
        self.topic = sns.Topic(self, "Topic", master_key=key, enforce_ssl=True)
        for name, addresses in given.items():
            for address in addresses:
                title = "Every" if name == EVERY_WORKLOAD else "".join(p.title() for p in name.split("_"))
                sns.CfnSubscription(
                    self,
                    f"{title}{len(self.node.children)}",
                    topic_arn=self.topic.topic_arn,
                    protocol="https" if _PAGE.fullmatch(address) else "email",
                    endpoint=address,
                    filter_policy=None if name == EVERY_WORKLOAD else {"workload": [name]},
                )


def grant_publish(grantee: iam.IGrantable, topic: sns.ITopic, key: kms.IKey) -> iam.Grant:
    """Grant publishing to a topic that is encrypted with ``key``."""
    iam.Grant.add_to_principal(
        grantee=grantee, actions=["kms:Decrypt", "kms:GenerateDataKey"], resource_arns=[key.key_arn]
    )
    return iam.Grant.add_to_principal(
        grantee=grantee, actions=["sns:Publish"], resource_arns=[topic.topic_arn]
    )
