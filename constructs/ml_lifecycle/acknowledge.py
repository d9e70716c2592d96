"""Acknowledging a security finding: for one construct, with the fact that compensates."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import aws_cdk as cdk

from constructs import IConstruct

_PACK = "AwsSolutions"
#: The packs of standards, whose rules go by the same names: NIST 800-53 (revision 5), HIPAA, PCI DSS 3.2.1.
COMPLIANCE = ("HIPAA.Security", "NIST.800.53.R5", "PCI.DSS.321")
#: One per construct, not one per acknowledgement: each costs a call of the jsii kernel.
_validations: WeakKeyDictionary[IConstruct, cdk.Validations] = WeakKeyDictionary()


def acknowledge(construct: IConstruct, rule: str, reason: str, *, packs: Sequence[str] = (_PACK,)) -> None:
    """Acknowledge ``rule`` (``"S1"``) of each of the ``packs`` for ``construct`` and what stands below it.

    The pack's prefix is always written: without it the acknowledgement is dropped with no record.
    ``reason`` must say what compensates, in a sentence.
    """
    acknowledge_all(construct, [rule], reason, packs=packs)


def acknowledge_all(
    construct: IConstruct, rules: Sequence[str], reason: str, *, packs: Sequence[str] = (_PACK,)
) -> None:
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
        *(cdk.Acknowledgment(id=f"{pack}::{pack}-{rule}", reason=reason) for pack in packs for rule in rules)
    )
