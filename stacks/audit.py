"""What looks at the account of one environment by itself, and tells what it finds."""

from __future__ import annotations

import aws_cdk as cdk
from ml_lifecycle.audit import (
    ConfigRecorder,
    ConfigRules,
    FindingNotices,
    ImageScanning,
    SecurityStandards,
    ThreatDetection,
)
from ml_lifecycle.data_lake import DataLake

from constructs import Construct
from environments import Environment
from stacks.base import ENVIRONMENT_TAG, LifecycleStack
from stacks.foundation import FoundationStack


class AuditServicesStack(LifecycleStack):
    """Each service that ``environment.audit_services`` names; the others are None."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        foundation: FoundationStack,
        lake: DataLake,
        removal_policy: cdk.RemovalPolicy,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            description=f"What looks at the account of {environment.name}, and tells what it finds",
            termination_protection=environment.production,
        )
        wanted = environment.audit_services
        self.recorder: ConfigRecorder | None = None
        self.rules: ConfigRules | None = None
        if wanted.config is not None:
            if wanted.config.recorder:
                self.recorder = ConfigRecorder(
                    self,
                    "Recorder",
                    access_logs=lake.access_logs,
                    retention_days=wanted.config.retention_days,
                    removal_policy=removal_policy,
                )
            self.rules = ConfigRules(
                self,
                "Rules",
                tag_key=ENVIRONMENT_TAG,
                tag_value=environment.name,
                trail=environment.governance is not None and environment.governance.audit is not None,
                without=wanted.config.without,
                recorder=self.recorder,
            )
        hub, images, threats = wanted.security_hub, wanted.image_scanning, wanted.threat_detection
        self.standards = (
            None if hub is None else SecurityStandards(self, "SecurityHub", standards=hub.standards)
        )
        self.images = (
            None if images is None else ImageScanning(self, "Images", repositories=images.repositories)
        )
        self.threats = (
            None if threats is None else ThreatDetection(self, "Threats", functions=threats.functions)
        )
        FindingNotices(
            self,
            "Findings",
            topic=foundation.notices.topic,
            standards=self.standards,
            threats=self.threats,
            images=self.images,
            rules=self.rules,
        )
