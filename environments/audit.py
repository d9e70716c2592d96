"""What looks at an account by itself, and tells what it finds: each once in a Region of an account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from ml_lifecycle.audit import RULES, StandardName

from environments.refusal import refuse

__all__ = ["AuditServices", "ConfigRules", "ImageScanning", "SecurityHub", "ThreatDetection"]


@dataclass(frozen=True, kw_only=True)
class ConfigRules:
    """Managed rules of AWS Config; see the construct ConfigRules.

    ``recorder`` brings the recorder and its bucket as well: only where the account has none in this Region.
    ``without`` names rules that are left out. An evaluation costs about 0.001 USD, a recorded change 0.003.
    """

    recorder: bool = False
    retention_days: int = 365
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problems = [
            f"without must hold some of {', '.join(RULES)}, got {name!r}"
            for name in self.without
            if name not in RULES
        ]
        if self.retention_days < 1:
            problems.append(f"retention_days must be at least 1, got {self.retention_days}")
        refuse("config rules", problems)


@dataclass(frozen=True, kw_only=True)
class SecurityHub:
    """Security Hub and the standards that it holds the account against; most of them need AWS Config."""

    standards: tuple[StandardName, ...] = ("fsbp",)

    def __post_init__(self) -> None:
        known = get_args(StandardName)
        problems = [
            f"standards must hold some of {', '.join(known)}, got {name!r}"
            for name in self.standards
            if name not in known
        ]
        if not self.standards:
            problems.append("standards must hold at least one, got none")
        refuse("security hub", problems)


@dataclass(frozen=True, kw_only=True)
class ImageScanning:
    """Inspector on the images of ``repositories`` (patterns); it replaces the registry's one setting."""

    repositories: tuple[str, ...] = ("cdk-*-container-assets-*",)

    def __post_init__(self) -> None:
        count = len(self.repositories)
        refuse(
            "image scanning",
            [] if 1 <= count <= 100 else [f"repositories must be 1 to 100 patterns, got {count}"],
        )


@dataclass(frozen=True, kw_only=True)
class ThreatDetection:
    """GuardDuty with S3 protection; ``functions`` adds what Lambda functions send over the network."""

    functions: bool = False


@dataclass(frozen=True, kw_only=True)
class AuditServices:
    """What looks at the account; nothing, unless it is named. What it finds is told where alarms are.

    Two environments in one Region of an account: only one of them can have Security Hub, image scanning,
    GuardDuty and the recorder.
    """

    config: ConfigRules | None = None
    security_hub: SecurityHub | None = None
    image_scanning: ImageScanning | None = None
    threat_detection: ThreatDetection | None = None

    @property
    def any(self) -> bool:
        """Whether there is one."""
        every = (self.config, self.security_hub, self.image_scanning, self.threat_detection)
        return any(one is not None for one in every)
