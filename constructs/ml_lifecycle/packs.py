"""Rule packs of cdk-nag, and the answers that this library as a whole gives to some of their rules.

A finding about one construct is mended or acknowledged beside that construct (``acknowledge.py``). What
stands here are decisions that hold wherever the library is used; an organisation that decides otherwise
leaves ``explain`` out and mends the findings in its own way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import aws_cdk as cdk

from constructs import IConstruct
from ml_lifecycle.acknowledge import COMPLIANCE, acknowledge_all

__all__ = ["PACKS", "add_packs", "explain", "hold_to_packs", "packs_named"]

#: Every pack by the name that its findings carry, and its class in ``cdk_nag``.
PACKS: Mapping[str, str] = {
    "AwsSolutions": "AwsSolutionsChecks",
    "HIPAA.Security": "HIPAASecurityChecks",
    "NIST.800.53.R5": "NIST80053R5Checks",
    "PCI.DSS.321": "PCIDSS321Checks",
}

#: Decisions that hold everywhere, by rule.
_DECISIONS: Mapping[str, str] = {
    "IAMNoInlinePolicy": (
        "A grant of the CDK is an inline policy of the one role that needs it: it lives and dies with that "
        "role, so no shared policy can be widened for one reader and reach another."
    ),
    "LambdaConcurrency": (
        "Reserved concurrency is taken from every other function of the account; what calls these functions "
        "bounds them: shards, queues, one execution at a time. Throttling is an alarm."
    ),
    "LambdaDLQ": (
        "Functions that are invoked without an answer have a dead-letter queue or a destination for failures "
        "(a test holds every template to it); these are called by somebody who gets the error."
    ),
    "LambdaInsideVPC": (
        "These functions call nothing but AWS APIs, over TLS and with least privilege, and listen to nobody; "
        "jobs and endpoints that hold data run inside the VPC without a way to the internet."
    ),
    "S3BucketReplicationEnabled": (
        "Versions, retention and two consents protect against deletion; a copy in another region is a "
        "decision about where data may lie, which the owner of the data makes for a bucket."
    ),
}


def packs_named(text: str) -> tuple[str, ...]:
    """Read the names of packs from ``text``, separated by commas; ``all`` names every one.

    Raises:
        ValueError: a name is none of ``PACKS``.
    """
    if text.strip() == "all":
        return tuple(PACKS)
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in PACKS]
    if unknown or not names:
        raise ValueError(
            f"context key packs must name some of {', '.join(PACKS)}, or be all; "
            f"got {', '.join(unknown) or repr(text)}"
        )
    return names


def add_packs(app: cdk.App, names: Sequence[str]) -> None:
    """Hold every stack of ``app`` against the packs; one finding that nobody acknowledged ends the synth."""
    import cdk_nag

    plugins: list[Any] = []
    for name in names:
        pack: Callable[[cdk.App], Any] = getattr(cdk_nag, PACKS[name])
        plugins.append(pack(app))
    cdk.Validations.of(app).add_plugins(*plugins)


def hold_to_packs(app: cdk.App) -> None:
    """Explain this library's decisions, and add the packs that the context key ``packs`` names, if any."""
    explain(app)
    asked = app.node.try_get_context("packs")
    if asked is not None:
        add_packs(app, packs_named(str(asked)))


def explain(scope: IConstruct) -> None:
    """Acknowledge this library's decisions for everything below ``scope``, in the packs that ask."""
    for rule, reason in _DECISIONS.items():
        acknowledge_all(scope, [rule], reason, packs=COMPLIANCE)
