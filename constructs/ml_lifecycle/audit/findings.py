"""Findings of the security services, told where alarms are told."""

from __future__ import annotations

from typing import Any, Final

from aws_cdk import aws_events as events
from aws_cdk import aws_sns as sns

from constructs import Construct
from ml_lifecycle.audit.config import ConfigRules
from ml_lifecycle.audit.services import ImageScanning, SecurityStandards, ThreatDetection

__all__ = ["FindingNotices"]

_URGENT: Final = ["HIGH", "CRITICAL"]
#: GuardDuty User Guide, "Severity levels": 7.0 and above is high, 9.0 and above critical.
_HIGH: Final = 7


class FindingNotices(Construct):
    """Define who hears of findings: ``topic``, which must let EventBridge publish (as that of ``Notices``).

    Each notice is one line that says which service, how bad, what and where. Told is what is
    high or critical, new and active, and whatever resource stops keeping one of the ``rules``. Security Hub
    collects what GuardDuty and Inspector find; with ``standards`` it is told once, by Security Hub.

    Raises:
        ValueError: there is nothing whose findings could be told.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        topic: sns.ITopic,
        standards: SecurityStandards | None = None,
        threats: ThreatDetection | None = None,
        images: ImageScanning | None = None,
        rules: ConfigRules | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        if standards is None and threats is None and images is None and rules is None:
            raise ValueError(
                "finding notices: at least one of standards, threats, images, rules must be given"
            )
        self._topic = topic
        if standards is not None:
            self._rule(
                "SecurityHub",
                source="aws.securityhub",
                detail_type="Security Hub Findings - Imported",
                detail={
                    "findings": {
                        "Severity": {"Label": _URGENT},
                        "Workflow": {"Status": ["NEW"]},
                        "RecordState": ["ACTIVE"],
                    }
                },
                line=(
                    "Security Hub",
                    "$.detail.findings[0].Severity.Label",
                    "$.detail.findings[0].Title",
                    "$.detail.findings[0].Resources[0].Id",
                ),
            )
        if threats is not None and standards is None:
            self._rule(
                "GuardDuty",
                source="aws.guardduty",
                detail_type="GuardDuty Finding",
                detail={"severity": [{"numeric": [">=", _HIGH]}]},
                line=("GuardDuty", "$.detail.severity", "$.detail.title", "$.detail.resource.resourceType"),
            )
        if images is not None and standards is None:
            self._rule(
                "Inspector",
                source="aws.inspector2",
                detail_type="Inspector2 Finding",
                detail={"severity": _URGENT, "status": ["ACTIVE"]},
                line=("Inspector", "$.detail.severity", "$.detail.title", "$.detail.resources[0].id"),
            )
        if rules is not None:
            self._rule(
                "Config",
                source="aws.config",
                detail_type="Config Rules Compliance Change",
                detail={
                    "messageType": ["ComplianceChangeNotification"],
                    "configRuleName": rules.names,
                    "newEvaluationResult": {"complianceType": ["NON_COMPLIANT"]},
                },
                line=(
                    "AWS Config",
                    "$.detail.newEvaluationResult.complianceType",
                    "$.detail.configRuleName",
                    "$.detail.resourceId",
                ),
            )

    def _rule(
        self,
        rule_id: str,
        *,
        source: str,
        detail_type: str,
        detail: dict[str, Any],
        line: tuple[str, str, str, str],
    ) -> None:
        service, severity, title, resource = line
        events.CfnRule(
            self,
            rule_id,
            description=f"What {service} finds",
            event_pattern={"source": [source], "detail-type": [detail_type], "detail": detail},
            state="ENABLED",
            targets=[
                events.CfnRule.TargetProperty(
                    id="Topic",
                    arn=self._topic.topic_arn,
                    input_transformer=events.CfnRule.InputTransformerProperty(
                        input_paths_map={
                            "severity": severity,
                            "title": title,
                            "resource": resource,
                            "region": "$.region",
                            "account": "$.account",
                        },
                        input_template=(
                            f'"{service}: <severity>: <title>, at <resource> (account <account>, <region>)"'
                        ),
                    ),
                )
            ],
        )
