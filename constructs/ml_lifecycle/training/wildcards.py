"""Acknowledging wildcards that AWS offers nothing narrower for, one finding at a time.

cdk-nag names a finding after the resource it saw, e.g.
``AwsSolutions-IAM5[Resource::<Lake9F8B.Arn>/claims/*]``, and an acknowledgement must repeat it.
``acknowledge_wildcards`` makes that text from the ARN that the grant was given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from constructs import IConstruct
from ml_lifecycle.acknowledge import acknowledge_all
from ml_lifecycle.pseudo import stack_of

__all__ = ["acknowledge_wildcards"]


def acknowledge_wildcards(
    construct: IConstruct, reason: str, *, resources: Iterable[str] = (), actions: Iterable[str] = ()
) -> None:
    """Acknowledge AwsSolutions-IAM5 for ``construct``, for exactly these resources and actions.

    Args:
        construct: the role, or what holds its policy.
        reason: what compensates for the wildcard.
        resources: ARNs as they were granted; those without a wildcard are left out. CDK tokens are
        understood.
        actions: actions as they were granted, e.g. ``kms:GenerateDataKey*``.
    """
    wild = [resource for resource in resources if "*" in resource]
    # One call of the kernel for all of them.
    findings = [f"Resource::{_flat(node)}" for node in stack_of(construct).resolve(wild)] if wild else []
    findings += [f"Action::{action}" for action in actions if "*" in action]
    acknowledge_all(construct, [f"IAM5[{finding}]" for finding in findings], reason)


def _flat(node: Any) -> str:
    """Write a resolved value the way cdk-nag does: a reference in angle brackets."""
    if isinstance(node, str):
        return node
    if isinstance(node, list):
        return "".join(_flat(item) for item in node)
    [(name, value)] = node.items()
    if name == "Ref":
        return f"<{value}>"
    if name == "Fn::GetAtt":
        return f"<{'.'.join(value)}>"
    if name == "Fn::Join":
        separator, parts = value
        return str(separator).join(_flat(part) for part in parts)
    if name in ("Fn::ImportValue", "Fn::Sub"):
        return re.sub(r"\$\{([^!}]+)\}", r"<\1>", _flat(value))
    raise ValueError(f"cannot write {name} as cdk-nag does; acknowledge the finding by its own text")
