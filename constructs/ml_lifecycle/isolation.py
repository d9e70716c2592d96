"""Why a job is not cut off from the network, or does not encrypt between its containers: told in templates.

Every kind of job of this library has network isolation and encrypts the traffic between its containers. One
that cannot says why; a test goes through all templates and finds those that say nothing.
"""

from __future__ import annotations

from typing import Final

import aws_cdk as cdk

__all__ = ["METADATA", "open_job"]

#: Key of the resource's Metadata: the reason by the kind of job (``ProcessingJob``).
METADATA: Final = "MLLifecycle::OpenJobs"


def open_job(resource: cdk.CfnResource, kind: str, reason: str) -> None:
    """Tell why jobs of ``kind`` that ``resource`` describes lack network isolation or encryption.

    Args:
        kind: as SageMaker's operation names it, without ``Create``: ``ProcessingJob``, ``TrainingJob``.
        reason: a sentence.
    """
    if len(reason.split()) < 4:
        raise ValueError(f"reason must say in a sentence why a {kind} is open, got {reason!r}")
    known = resource.get_metadata(METADATA)
    resource.add_metadata(METADATA, {**(known if isinstance(known, dict) else {}), kind: reason})
