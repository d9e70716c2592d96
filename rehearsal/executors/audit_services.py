"""Config, Security Hub, GuardDuty and ECR's scanning: kept as asked for, one each; nothing is looked at."""

# ruff: noqa: ARG001 - hooks share one signature

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final

from rehearsal.services.engine import ApiError, instead

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime
    from rehearsal.services.engine import Call, Record, Service

__all__ = ["install"]

_HUB: Final = "default"
_SCANNING: Final = "registry"


def _noted(service: Service, name: str, why: str) -> None:
    service.runtime.ledger.recorded(service.name, name, why)


def _only(service: Service, noun: str) -> Record | None:
    return next(iter(service.records.get(noun, {}).values()), None)


# -- AWS Config: ministack cannot take a recorder or a channel away -----------------------------------------


@instead("config", "PutConfigurationRecorder")
def _put_recorder(service: Service, call: Call) -> dict[str, Any]:
    """One recorder that customers manage in a Region of an account."""
    given = call.params["ConfigurationRecorder"]
    there = _only(service, "Recorder")
    if there is None:
        service.put("Recorder", given["name"], {**given, "recording": False})
        _noted(service, given["name"], "no resource's history is written")
    elif there.name == given["name"]:
        service.update(there, **given)
    else:
        raise ApiError(
            "MaxNumberOfConfigurationRecordersExceededException",
            f"Failed to put configuration recorder '{given['name']}' because the maximum number of "
            "configuration recorders: 1 is reached.",
        )
    return {}


def _recorder(service: Service, name: str) -> Record:
    found = service.peek("Recorder", name)
    if found is None:
        raise ApiError(
            "NoSuchConfigurationRecorderException",
            f"Cannot find configuration recorder with the specified name '{name}'.",
        )
    return found


@instead("config", "DescribeConfigurationRecorders")
def _recorders(service: Service, call: Call) -> dict[str, Any]:
    names = call.params.get("ConfigurationRecorderNames") or list(service.records.get("Recorder", {}))
    shown = ("name", "roleARN", "recordingGroup", "recordingMode")
    found = [_recorder(service, name).data for name in names]
    return {"ConfigurationRecorders": [{k: one[k] for k in shown if k in one} for one in found]}


@instead("config", "DescribeConfigurationRecorderStatus")
def _status(service: Service, call: Call) -> dict[str, Any]:
    names = call.params.get("ConfigurationRecorderNames") or list(service.records.get("Recorder", {}))
    found = [_recorder(service, name) for name in names]
    return {
        "ConfigurationRecordersStatus": [{"name": r.name, "recording": r.data["recording"]} for r in found]
    }


@instead("config", "StartConfigurationRecorder")
def _start(service: Service, call: Call) -> dict[str, Any]:
    service.update(_recorder(service, call.params["ConfigurationRecorderName"]), recording=True)
    return {}


@instead("config", "StopConfigurationRecorder")
def _stop(service: Service, call: Call) -> dict[str, Any]:
    service.update(_recorder(service, call.params["ConfigurationRecorderName"]), recording=False)
    return {}


@instead("config", "DeleteConfigurationRecorder")
def _delete_recorder(service: Service, call: Call) -> dict[str, Any]:
    service.remove("Recorder", _recorder(service, call.params["ConfigurationRecorderName"]).name)
    return {}


@instead("config", "PutDeliveryChannel")
def _put_channel(service: Service, call: Call) -> dict[str, Any]:
    given = call.params["DeliveryChannel"]
    # It writes a file to try the bucket out.
    buckets = service.runtime.client("s3", region=service.region).list_buckets()["Buckets"]
    if given["s3BucketName"] not in {bucket["Name"] for bucket in buckets}:
        raise ApiError(
            "NoSuchBucketException", f"Cannot find a S3 bucket with name '{given['s3BucketName']}'."
        )
    there = service.peek("Channel", given["name"])
    if there is None:
        service.put("Channel", given["name"], given)
    else:
        service.update(there, **given)
    return {}


@instead("config", "DescribeDeliveryChannels")
def _channels(service: Service, call: Call) -> dict[str, Any]:
    asked = call.params.get("DeliveryChannelNames")
    found = service.records.get("Channel", {}).values()
    return {"DeliveryChannels": [r.data for r in found if not asked or r.name in asked]}


@instead("config", "DeleteDeliveryChannel")
def _delete_channel(service: Service, call: Call) -> dict[str, Any]:
    name = call.params["DeliveryChannelName"]
    if service.peek("Channel", name) is None:
        raise ApiError(
            "NoSuchDeliveryChannelException", f"Cannot find delivery channel with specified name '{name}'."
        )
    service.remove("Channel", name)
    return {}


@instead("config", "PutConfigRule")
def _put_rule(service: Service, call: Call) -> dict[str, Any]:
    """Rules judge what a recorder writes down."""
    if _only(service, "Recorder") is None:
        raise ApiError(
            "NoAvailableConfigurationRecorderException",
            "Configuration recorder is not available to put config rule.",
        )
    rule = call.params["ConfigRule"]
    _noted(service, rule["ConfigRuleName"], f"{rule['Source']['SourceIdentifier']} judges nothing")
    return service.forward(call)


# -- Security Hub -------------------------------------------------------------------------------------------


@instead("securityhub", "EnableSecurityHub")
def _enable(service: Service, call: Call) -> dict[str, Any]:
    if service.peek("Hub", _HUB) is not None:
        raise ApiError("ResourceConflictException", "Account is already subscribed to Security Hub", 409)
    service.put("Hub", _HUB, {"ControlFindingGenerator": call.params.get("ControlFindingGenerator")})
    _noted(service, _HUB, "nobody looks at the account")
    return {}


def _hub(service: Service) -> Record:
    found = service.peek("Hub", _HUB)
    if found is None:
        raise ApiError(
            "InvalidAccessException", f"Account {service.account} is not subscribed to AWS Security Hub", 401
        )
    return found


@instead("securityhub", "DescribeHub")
def _describe_hub(service: Service, call: Call) -> dict[str, Any]:
    hub = _hub(service)
    return {
        "HubArn": service.arn("Hub", _HUB),
        "SubscribedAt": hub.created.isoformat(),
        "AutoEnableControls": hub.data.get("AutoEnableControls", True),
        "ControlFindingGenerator": hub.data["ControlFindingGenerator"],
    }


@instead("securityhub", "UpdateSecurityHubConfiguration")
def _update_hub(service: Service, call: Call) -> dict[str, Any]:
    service.update(_hub(service), **call.params)
    return {}


@instead("securityhub", "DisableSecurityHub")
def _disable(service: Service, call: Call) -> dict[str, Any]:
    _hub(service)
    service.records.get("Standard", {}).clear()
    service.remove("Hub", _HUB)
    return {}


@instead("securityhub", "BatchEnableStandards")
def _enable_standards(service: Service, call: Call) -> dict[str, Any]:
    _hub(service)
    made = []
    for asked in call.params["StandardsSubscriptionRequests"]:
        standard = str(asked["StandardsArn"])
        # arn:...::standards/nist-800-53/v/5.0.0 -> subscription/nist-800-53/v/5.0.0 of this account
        arn = service.arn("Subscription", standard.partition("standards/")[2])
        data = {
            "StandardsSubscriptionArn": arn,
            "StandardsArn": standard,
            "StandardsInput": {},
            "StandardsStatus": "READY",
        }
        if service.peek("Standard", arn) is None:
            service.put("Standard", arn, data)
            _noted(service, standard, "no control is checked")
        made.append(data)
    return {"StandardsSubscriptions": made}


@instead("securityhub", "GetEnabledStandards")
def _standards(service: Service, call: Call) -> dict[str, Any]:
    return {"StandardsSubscriptions": [r.data for r in service.records.get("Standard", {}).values()]}


@instead("securityhub", "BatchDisableStandards")
def _disable_standards(service: Service, call: Call) -> dict[str, Any]:
    gone = [service.remove("Standard", arn).data for arn in call.params["StandardsSubscriptionArns"]]
    return {"StandardsSubscriptions": [{**data, "StandardsStatus": "DELETING"} for data in gone]}


# -- GuardDuty ----------------------------------------------------------------------------------------------


@instead("guardduty", "CreateDetector")
def _create_detector(service: Service, call: Call) -> dict[str, Any]:
    if _only(service, "Detector") is not None:
        raise ApiError(
            "BadRequestException",
            "The request is rejected because a detector already exists for the current account.",
        )
    name = uuid.uuid4().hex
    service.put("Detector", name, call.params)
    _noted(service, name, "no event is looked at")
    return {"DetectorId": name}


@instead("guardduty", "GetDetector")
def _get_detector(service: Service, call: Call) -> dict[str, Any]:
    data = service.get("Detector", call.params["DetectorId"]).data
    shown = ("FindingPublishingFrequency", "Features", "Tags")
    return {
        **{key: data[key] for key in shown if key in data},
        "ServiceRole": (
            f"arn:aws:iam::{service.account}:role/aws-service-role/guardduty.amazonaws.com/"
            "AWSServiceRoleForAmazonGuardDuty"
        ),
        "Status": "ENABLED" if data["Enable"] else "DISABLED",
    }


# -- ECR: ministack's registry has no scanning of its own ---------------------------------------------------


@instead("ecr", "PutRegistryScanningConfiguration")
def _scan(service: Service, call: Call) -> dict[str, Any]:
    there = service.peek("Scanning", _SCANNING)
    if there is None:
        service.put("Scanning", _SCANNING, call.params)
        _noted(service, _SCANNING, "Inspector looks at no image")
    else:
        service.update(there, **call.params)
    return {"registryScanningConfiguration": dict(call.params)}


@instead("ecr", "GetRegistryScanningConfiguration")
def _scanning(service: Service, call: Call) -> dict[str, Any]:
    there = service.peek("Scanning", _SCANNING)
    basic = {"scanType": "BASIC", "rules": []}
    return {
        "registryId": service.account,
        "scanningConfiguration": basic if there is None else dict(there.data),
    }


def install(runtime: Runtime) -> None:
    """Nothing beyond the operations above."""
    del runtime
