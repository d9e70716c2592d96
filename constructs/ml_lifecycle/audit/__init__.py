"""What looks at an account by itself: AWS Config, Security Hub, Inspector, GuardDuty, and who hears of it."""

from ml_lifecycle.audit.config import RULES, ConfigRecorder, ConfigRules, ManagedRule
from ml_lifecycle.audit.findings import FindingNotices
from ml_lifecycle.audit.services import (
    STANDARDS,
    ImageScanning,
    SecurityStandards,
    StandardName,
    ThreatDetection,
)

__all__ = [
    "RULES",
    "STANDARDS",
    "ConfigRecorder",
    "ConfigRules",
    "FindingNotices",
    "ImageScanning",
    "ManagedRule",
    "SecurityStandards",
    "StandardName",
    "ThreatDetection",
]
