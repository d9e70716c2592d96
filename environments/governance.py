"""Who may see the data of an environment, and how its use is recorded."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ml_contract.spec.blocks import Classification

from environments.refusal import refuse

#: From the least to the most sensitive.
CLASSIFICATIONS: tuple[Classification, ...] = ("public", "internal", "confidential", "restricted")
_PRINCIPAL = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/\S+")


@dataclass(frozen=True, kw_only=True)
class Personas:
    """Who may take on the role of each persona: ARNs of IAM roles or users.

    None named means: whom an IAM policy of the environment's account lets ``sts:AssumeRole`` it.
    """

    data_scientist: tuple[str, ...] = ()
    data_engineer: tuple[str, ...] = ()
    mlops_engineer: tuple[str, ...] = ()
    auditor: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        refuse(
            "personas",
            [
                f"{name} must hold ARNs of IAM roles or users, got {arn!r}"
                for name in ("data_scientist", "data_engineer", "mlops_engineer", "auditor")
                for arn in getattr(self, name)
                if not _PRINCIPAL.fullmatch(arn)
            ],
        )


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The audit trail: management events, and who read or changed what in the zones of the lake.

    CloudTrail keeps the first copy of management events free of charge; data events cost about 0.10 USD per
    100,000 (AWS CloudTrail pricing).
    """

    retention_days: int = 365
    data_events: bool = True

    def __post_init__(self) -> None:
        if self.retention_days < 1:
            refuse("audit", [f"retention_days must be at least 1, got {self.retention_days}"])


@dataclass(frozen=True, kw_only=True)
class Governance:
    """Lake Formation in force: who is not granted a table, a column or a row does not see it.

    ``reads_up_to`` is the highest classification that data scientists and MLOps engineers read; data
    engineers read all. ``scan_limit_gb`` ends a query that reads more (Athena charges by the data scanned);
    ``result_days`` is how long results of queries are kept.
    """

    personas: Personas = field(default_factory=Personas)
    reads_up_to: Classification = "confidential"
    scan_limit_gb: int = 10
    result_days: int = 7
    audit: Audit | None = field(default_factory=Audit)

    def __post_init__(self) -> None:
        problems = []
        if self.reads_up_to not in CLASSIFICATIONS:
            problems.append(
                f"reads_up_to must be one of {', '.join(CLASSIFICATIONS)}, got {self.reads_up_to!r}"
            )
        for name in ("scan_limit_gb", "result_days"):
            if getattr(self, name) < 1:
                problems.append(f"{name} must be at least 1, got {getattr(self, name)}")
        refuse("governance", problems)

    @property
    def readable(self) -> tuple[Classification, ...]:
        """The classifications up to ``reads_up_to``."""
        return CLASSIFICATIONS[: CLASSIFICATIONS.index(self.reads_up_to) + 1]
