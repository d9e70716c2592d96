"""Rows of what looks at an account: AWS Config, Security Hub, ECR's scanning, GuardDuty."""

# ruff: noqa: ARG001, ARG005 - the functions of a row share one signature
from __future__ import annotations

from collections.abc import Mapping

from rehearsal.cloudformation.rows.base import Context, Properties, Row, nothing

__all__ = ["TABLE"]


def _small(value: object) -> object:
    """AWS Config's API spells members of its recorder and channel with a small letter."""
    if isinstance(value, Mapping):
        return {f"{key[0].lower()}{key[1:]}": _small(part) for key, part in value.items()}
    return [_small(part) for part in value] if isinstance(value, list) else value


def _recorder(p: Properties, context: Context) -> Properties:
    group = _small(p.get("RecordingGroup", {}))
    return {"ConfigurationRecorder": {"name": p["Name"], "roleARN": p["RoleARN"], "recordingGroup": group}}


def _start(p: Properties, identity: Properties, context: Context) -> None:
    """CloudFormation starts what it made."""
    context.client("config").start_configuration_recorder(ConfigurationRecorderName=p["Name"])


def _channel(p: Properties, context: Context) -> Properties:
    return {"DeliveryChannel": _small(dict(p))}


def _rule(p: Properties, context: Context) -> Properties:
    return {"ConfigRule": dict(p)}


def _subscription(p: Properties, output: Properties, found: Properties) -> str:
    return str(output["StandardsSubscriptions"][0]["StandardsSubscriptionArn"])


def _hub_arn(p: Properties, output: Properties, found: Properties) -> str:
    return str(found["HubArn"])


TABLE: Mapping[str, Row] = {
    "AWS::Config::ConfigurationRecorder": Row(
        service="config",
        create="PutConfigurationRecorder",
        update="PutConfigurationRecorder",
        delete="DeleteConfigurationRecorder",
        name="Name",
        identify=lambda p, out: {"ConfigurationRecorderName": p["ConfigurationRecorder"]["name"]},
        convert=_recorder,
        finish=_start,
        ref=lambda p, out, found: str(p["ConfigurationRecorder"]["name"]),
        beside=frozenset({"RecordingMode", "StartedOnCreate"}),
    ),
    "AWS::Config::DeliveryChannel": Row(
        service="config",
        create="PutDeliveryChannel",
        update="PutDeliveryChannel",
        delete="DeleteDeliveryChannel",
        name="Name",
        identify=lambda p, out: {"DeliveryChannelName": p["DeliveryChannel"]["name"]},
        convert=_channel,
        ref=lambda p, out, found: str(p["DeliveryChannel"]["name"]),
    ),
    "AWS::Config::ConfigRule": Row(
        service="config",
        create="PutConfigRule",
        update="PutConfigRule",
        delete="DeleteConfigRule",
        name="ConfigRuleName",
        identify=lambda p, out: {"ConfigRuleName": p["ConfigRule"]["ConfigRuleName"]},
        convert=_rule,
        ref=lambda p, out, found: str(p["ConfigRule"]["ConfigRuleName"]),
    ),
    "AWS::SecurityHub::Hub": Row(
        service="securityhub",
        create="EnableSecurityHub",
        read="DescribeHub",
        update="UpdateSecurityHubConfiguration",
        delete="DisableSecurityHub",
        identify=nothing,
        # How controls come has a call of its own once the hub is there.
        beside=frozenset({"AutoEnableControls"}),
        convert_update=lambda p, c: {"ControlFindingGenerator": p["ControlFindingGenerator"]},
        finish=lambda p, identity, c: (
            c.client("securityhub").update_security_hub_configuration(
                AutoEnableControls=str(p.get("AutoEnableControls", True)).lower() == "true"
            )
            and None
        ),
        ref=_hub_arn,
        attributes=lambda p, out, found: {"ARN": str(found["HubArn"])},
    ),
    "AWS::SecurityHub::Standard": Row(
        service="securityhub",
        create="BatchEnableStandards",
        delete="BatchDisableStandards",
        identify=lambda p, out: {
            "StandardsSubscriptionArns": [
                s["StandardsSubscriptionArn"] for s in out["StandardsSubscriptions"]
            ]
        },
        convert=lambda p, c: {"StandardsSubscriptionRequests": [{"StandardsArn": p["StandardsArn"]}]},
        ref=_subscription,
    ),
    "AWS::ECR::RegistryScanningConfiguration": Row(
        service="ecr",
        create="PutRegistryScanningConfiguration",
        read="GetRegistryScanningConfiguration",
        update="PutRegistryScanningConfiguration",
        identify=nothing,
        convert=lambda p, c: {"scanType": p["ScanType"], "rules": [_small(rule) for rule in p["Rules"]]},
        ref=lambda p, out, found: str(found["registryId"]),
    ),
    "AWS::GuardDuty::Detector": Row(
        service="guardduty",
        create="CreateDetector",
        read="GetDetector",
        update="UpdateDetector",
        delete="DeleteDetector",
        identify=lambda p, out: {"DetectorId": out["DetectorId"]},
        convert_update=lambda p, c: {key: value for key, value in p.items() if key != "Tags"},
        ref=lambda p, out, found: str(out["DetectorId"]),
        attributes=lambda p, out, found: {"Id": str(out["DetectorId"])},
    ),
}
