"""How the app is delivered: where its code comes from, where the pipeline lives, what goes together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ml_lifecycle.delivery.sources import CodeCommitSource, ConnectionSource, S3Source, Source

from environments.refusal import refuse

__all__ = ["DELIVERY", "CodeCommitSource", "ConnectionSource", "Delivery", "S3Source"]


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """The delivery pipeline. ``account`` and ``region`` left out means: where the CDK CLI's credentials
    point.

    ``rehearsal_records`` is how many records the rehearsal sends before anything is deployed; its time grows
    with them. Environments that are ``production`` wait for a manual approval.

    ``waves`` names what is deployed side by side, in the order of promotion:
    ``{"dev": ["dev"], "first": ["prodeu"], "rest": ["produs", "prodap"]}``. Every environment stands in one.
    Without any, each environment is a wave of its own.

    ``name`` begins the names of the two roles by which the pipeline compares and asks an environment
    (``ml-lifecycle-checks``, ``ml-lifecycle-dev-checks``); two pipelines in one account need two names.

    ``checks`` is what a commit must pass before it is synthesised. ``rollback``: a wave that fails goes back
    to the last execution that succeeded in it. ``deploys_by``: ``actions`` are two for each stack, ``build``
    is one for each environment; a pipeline holds 500, so that some fifteen workloads in three environments
    need ``build``. ``email`` hears of approvals that wait and of failures; ``None``: nobody is told.
    """

    source: Source
    account: str | None = None
    region: str | None = None
    name: str = "ml-lifecycle"
    rehearsal_records: int = 1_000
    waves: Mapping[str, Sequence[str]] = field(default_factory=dict)
    checks: Sequence[str] = ("make setup", "make lint", "make test", "make audit")
    rollback: bool = True
    deploys_by: Literal["actions", "build"] = "actions"
    email: str | None = None

    def __post_init__(self) -> None:
        problems = []
        if (self.account is None) != (self.region is None):
            problems.append(f"account and region go together, got {self.account!r} and {self.region!r}")
        if self.account is not None and not re.fullmatch(r"[0-9]{12}", self.account):
            problems.append(f"account must be 12 digits or None, got {self.account!r}")
        if self.region is not None and not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-[0-9]", self.region):
            problems.append(f"region must look like eu-central-1 or be None, got {self.region!r}")
        # A role's name has 64 characters (IAM, "Quotas"); an environment's has 10, the rest is ours.
        if not re.fullmatch(r"[a-z][a-z0-9-]{1,39}", self.name):
            problems.append(f"name must be 2 to 40 lower-case letters, digits and dashes, got {self.name!r}")
        if self.rehearsal_records < 1:
            problems.append(f"rehearsal_records must be at least 1, got {self.rehearsal_records}")
        if isinstance(self.checks, str) or not self.checks:
            problems.append(f"checks must be a list of at least one command, got {self.checks!r}")
        if self.deploys_by not in ("actions", "build"):
            problems.append(f"deploys_by must be actions or build, got {self.deploys_by!r}")
        if self.email is not None and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", self.email):
            problems.append(f"email must be an address or None, got {self.email!r}")
        problems += self._twice()
        refuse("delivery", problems)

    def _twice(self) -> list[str]:
        named = [name for wave in self.waves.values() for name in wave]
        return [
            f"waves must name an environment once, got {name!r} {named.count(name)} times"
            for name in dict.fromkeys(named)
            if named.count(name) > 1
        ]

    def order(self, environments: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """The waves by name, for the environments that there are.

        Raises:
            ValueError: ``waves`` leaves one out, or names one that is not there.
        """
        if not self.waves:
            return {name[:1].upper() + name[1:]: (name,) for name in environments}
        named = [name for wave in self.waves.values() for name in wave]
        refuse(
            "delivery",
            [
                f"waves must name every environment; {name!r} is in none"
                for name in environments
                if name not in named
            ]
            + [
                f"waves name {name!r}; the environments are {', '.join(environments)}"
                for name in named
                if name not in environments
            ],
        )
        return self.waves


DELIVERY = Delivery(source=CodeCommitSource(repository_name="ml-lifecycle"))
