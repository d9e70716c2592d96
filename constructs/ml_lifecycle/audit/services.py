"""Security Hub, Inspector and GuardDuty: each there once in a Region of an account."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, get_args

from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_guardduty as guardduty
from aws_cdk import aws_securityhub as securityhub

from constructs import Construct
from ml_lifecycle.pseudo import PARTITION, REGION

__all__ = ["STANDARDS", "ImageScanning", "SecurityStandards", "StandardName", "ThreatDetection"]

StandardName = Literal["fsbp", "nist-800-53", "pci-dss"]
#: Security Hub User Guide, "Security standards reference": the ARNs of the standards.
STANDARDS: Final[Mapping[StandardName, str]] = {
    "fsbp": "aws-foundational-security-best-practices/v/1.0.0",
    "nist-800-53": "nist-800-53/v/5.0.0",
    "pci-dss": "pci-dss/v/4.0.1",
}


class SecurityStandards(Construct):
    """Define Security Hub and the ``standards`` that it holds the account against.

    Findings of GuardDuty, Inspector and AWS Config reach it by themselves. Most controls are answered by AWS
    Config, which must record. One finding per control, however many standards ask for it. Each check is
    billed.

    Default: AWS's Foundational Security Best Practices.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, standards: Sequence[StandardName] = ("fsbp",)
    ) -> None:
        super().__init__(scope, construct_id)
        known = get_args(StandardName)
        wrong = [name for name in standards if name not in known]
        if wrong or not standards:
            raise ValueError(
                f"security standards: standards must hold some of {', '.join(known)}, "
                f"got {', '.join(wrong) or 'none'}"
            )
        self.hub = securityhub.CfnHub(
            self,
            "Hub",
            # The standards are named here, all of them.
            enable_default_standards=False,
            auto_enable_controls=True,
            control_finding_generator="SECURITY_CONTROL",
        )
        for name in dict.fromkeys(standards):
            standard = securityhub.CfnStandard(
                self,
                "".join(part.title() for part in name.split("-")),
                standards_arn=f"arn:{PARTITION}:securityhub:{REGION}::standards/{STANDARDS[name]}",
            )
            standard.add_resource_dependency(self.hub)


class ImageScanning(Construct):
    """Define enhanced scanning of the registry: Inspector looks at each image when it comes and ever after.

    ``repositories`` are patterns of names. The registry has one setting: this replaces what is there.
    CloudFormation switches Inspector on for images with it (``inspector2:Enable``); it stays on when this is
    deleted.

    Default: the repositories of the CDK's bootstrap, where the images of jobs and endpoints are.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        repositories: Sequence[str] = ("cdk-*-container-assets-*",),
    ) -> None:
        super().__init__(scope, construct_id)
        # Amazon ECR API Reference, RegistryScanningRule: 0 to 100 filters.
        if not 1 <= len(repositories) <= 100:
            raise ValueError(
                f"image scanning: repositories must be 1 to 100 patterns, got {len(repositories)}"
            )
        props = ecr.CfnRegistryScanningConfiguration
        self.configuration = props(
            self,
            "Configuration",
            scan_type="ENHANCED",
            rules=[
                props.ScanningRuleProperty(
                    scan_frequency="CONTINUOUS_SCAN",
                    repository_filters=[
                        props.RepositoryFilterProperty(filter=pattern, filter_type="WILDCARD")
                        for pattern in repositories
                    ],
                )
            ],
        )


class ThreatDetection(Construct):
    """Define GuardDuty's detector, with S3 protection: who reads or removes objects as nobody did before.

    It reads CloudTrail's events, flow logs and DNS queries by itself; no trail is needed. A Region of an
    account has one detector. Billed by the events that it looks at.

    Default: findings that go on are told again every fifteen minutes; of functions' network traffic nothing.
    """

    def __init__(self, scope: Construct, construct_id: str, *, functions: bool = False) -> None:
        super().__init__(scope, construct_id)
        props = guardduty.CfnDetector
        on = {"S3_DATA_EVENTS": True, "LAMBDA_NETWORK_LOGS": functions}
        self.detector = props(
            self,
            "Detector",
            enable=True,
            finding_publishing_frequency="FIFTEEN_MINUTES",
            features=[
                props.CFNFeatureConfigurationProperty(name=name, status="ENABLED" if enabled else "DISABLED")
                for name, enabled in on.items()
            ],
        )
