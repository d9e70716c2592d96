"""How the app is delivered: where its code comes from, and where the pipeline lives."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ml_lifecycle.delivery.sources import CodeCommitSource, Source


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """The delivery pipeline. ``account`` and ``region`` left out means: where the CDK CLI's credentials
    point.

    ``rehearsal_records`` is how many records the rehearsal sends before anything is deployed; its time grows
    with them. Environments that are ``production`` wait for a manual approval.
    """

    source: Source
    account: str | None = None
    region: str | None = None
    rehearsal_records: int = 1_000

    def __post_init__(self) -> None:
        problems = []
        if (self.account is None) != (self.region is None):
            problems.append(f"account and region go together, got {self.account!r} and {self.region!r}")
        if self.account is not None and not re.fullmatch(r"[0-9]{12}", self.account):
            problems.append(f"account must be 12 digits or None, got {self.account!r}")
        if self.rehearsal_records < 1:
            problems.append(f"rehearsal_records must be at least 1, got {self.rehearsal_records}")
        if problems:
            raise ValueError("delivery: " + "; ".join(problems))


DELIVERY = Delivery(source=CodeCommitSource(repository_name="ml-lifecycle"))
