"""Acknowledging a security finding: for one construct, with the fact that compensates."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import aws_cdk as cdk

from constructs import IConstruct

_PACK = "AwsSolutions"
#: One per construct, not one per acknowledgement: each costs a call of the jsii kernel.
_validations: WeakKeyDictionary[IConstruct, cdk.Validations] = WeakKeyDictionary()


def acknowledge(construct: IConstruct, rule: str, reason: str) -> None:
    """Acknowledge ``rule`` (``"S1"``) of the AwsSolutions pack for ``construct`` and what stands below it.

    The pack's prefix is always written: without it the acknowledgement is dropped with no record.
    ``reason`` must say what compensates, in a sentence.
    """
    acknowledge_all(construct, [rule], reason)


def acknowledge_all(construct: IConstruct, rules: Sequence[str], reason: str) -> None:
    """Acknowledge several ``rules`` for one ``reason``, in one call of the jsii kernel."""
    if not rules:
        return
    if len(reason.split()) < 4:
        raise ValueError(
            f"reason must say in a sentence what compensates for {', '.join(rules)}, got {reason!r}"
        )
    validations = _validations.get(construct)
    if validations is None:
        validations = _validations[construct] = cdk.Validations.of(construct)
    validations.acknowledge(
        *(cdk.Acknowledgment(id=f"{_PACK}::{_PACK}-{rule}", reason=reason) for rule in rules)
    )
