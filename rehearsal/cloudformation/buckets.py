"""Properties of ``AWS::S3::Bucket`` that ministack's own type leaves out, set through S3's public API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["apply_bucket_properties"]


def _flag(value: Any) -> bool:
    return str(value).lower() == "true"


def apply_bucket_properties(client: Any, bucket: str, props: Mapping[str, Any]) -> None:
    """Bring a bucket's configuration in line with its properties."""
    setters: dict[str, Callable[[Any, str, Any], None]] = {
        "BucketEncryption": _encryption,
        "LifecycleConfiguration": _lifecycle,
        "LoggingConfiguration": _logging,
        "OwnershipControls": _ownership,
        "NotificationConfiguration": _notifications,
        "IntelligentTieringConfigurations": _tiering,
    }
    for name, setter in setters.items():
        if name in props:
            setter(client, bucket, props[name])


def _encryption(client: Any, bucket: str, value: Mapping[str, Any]) -> None:
    rules = []
    for rule in value["ServerSideEncryptionConfiguration"]:
        default = rule["ServerSideEncryptionByDefault"]
        rules.append(
            {
                "ApplyServerSideEncryptionByDefault": {
                    "SSEAlgorithm": default["SSEAlgorithm"],
                    **({"KMSMasterKeyID": default["KMSMasterKeyID"]} if "KMSMasterKeyID" in default else {}),
                },
                "BucketKeyEnabled": _flag(rule.get("BucketKeyEnabled", False)),
            }
        )
    client.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": rules})


def _lifecycle(client: Any, bucket: str, value: Mapping[str, Any]) -> None:
    rules = [_lifecycle_rule(rule) for rule in value["Rules"]]
    client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})


def _lifecycle_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    tags = [{"Key": tag["Key"], "Value": tag["Value"]} for tag in rule.get("TagFilters", ())]
    prefix = rule.get("Prefix", "")
    sizes = {key: int(rule[key]) for key in ("ObjectSizeGreaterThan", "ObjectSizeLessThan") if key in rule}
    several = len(tags) + bool(prefix) + len(sizes) > 1
    if several:
        together = {**({"Prefix": prefix} if prefix else {}), **sizes, **({"Tags": tags} if tags else {})}
        chosen: dict[str, Any] = {"And": together}
    else:
        chosen = {"Tag": tags[0]} if tags else sizes or {"Prefix": prefix}
    out: dict[str, Any] = {"Status": rule["Status"], "Filter": chosen}
    if "Id" in rule:
        out["ID"] = rule["Id"]
    single = rule.get("Transition")
    transitions = [*rule.get("Transitions", ()), *([single] if single else [])]
    if transitions:
        out["Transitions"] = [_transition(transition) for transition in transitions]
    expiration = {
        **({"Days": int(rule["ExpirationInDays"])} if "ExpirationInDays" in rule else {}),
        **({"Date": rule["ExpirationDate"]} if "ExpirationDate" in rule else {}),
        **(
            {"ExpiredObjectDeleteMarker": True} if _flag(rule.get("ExpiredObjectDeleteMarker", False)) else {}
        ),
    }
    if expiration:
        out["Expiration"] = expiration
    noncurrent = dict(rule.get("NoncurrentVersionExpiration", {}))
    if "NoncurrentVersionExpirationInDays" in rule:
        noncurrent["NoncurrentDays"] = rule["NoncurrentVersionExpirationInDays"]
    if noncurrent:
        out["NoncurrentVersionExpiration"] = {key: int(days) for key, days in noncurrent.items()}
    moved = [
        *rule.get("NoncurrentVersionTransitions", ()),
        *([rule["NoncurrentVersionTransition"]] if "NoncurrentVersionTransition" in rule else []),
    ]
    if moved:
        out["NoncurrentVersionTransitions"] = [
            {"NoncurrentDays": int(part["TransitionInDays"]), "StorageClass": part["StorageClass"]}
            for part in moved
        ]
    abort = rule.get("AbortIncompleteMultipartUpload")
    if abort is not None:
        out["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": int(abort["DaysAfterInitiation"])}
    return out


def _transition(transition: Mapping[str, Any]) -> dict[str, Any]:
    when = (
        {"Days": int(transition["TransitionInDays"])}
        if "TransitionInDays" in transition
        else {"Date": transition["TransitionDate"]}
    )
    return {**when, "StorageClass": transition["StorageClass"]}


def _logging(client: Any, bucket: str, value: Mapping[str, Any]) -> None:
    enabled = {
        "TargetBucket": value.get("DestinationBucketName", bucket),
        "TargetPrefix": value.get("LogFilePrefix", ""),
    }
    client.put_bucket_logging(Bucket=bucket, BucketLoggingStatus={"LoggingEnabled": enabled})


def _ownership(client: Any, bucket: str, value: Mapping[str, Any]) -> None:
    rules = [{"ObjectOwnership": rule["ObjectOwnership"]} for rule in value["Rules"]]
    client.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls={"Rules": rules})


def _notifications(client: Any, bucket: str, value: Mapping[str, Any]) -> None:
    out: dict[str, Any] = {}
    bridge_to_events = value.get("EventBridgeConfiguration")
    if bridge_to_events is not None and _flag(bridge_to_events.get("EventBridgeEnabled", True)):
        out["EventBridgeConfiguration"] = {}
    kinds = (
        ("LambdaConfigurations", "LambdaFunctionConfigurations", "Function", "LambdaFunctionArn"),
        ("QueueConfigurations", "QueueConfigurations", "Queue", "QueueArn"),
        ("TopicConfigurations", "TopicConfigurations", "Topic", "TopicArn"),
    )
    for given, wanted, target, arn in kinds:
        for entry in value.get(given, ()):
            one: dict[str, Any] = {arn: entry[target], "Events": [entry["Event"]]}
            if "Filter" in entry:
                rules = [{"Name": r["Name"], "Value": r["Value"]} for r in entry["Filter"]["S3Key"]["Rules"]]
                one["Filter"] = {"Key": {"FilterRules": rules}}
            out.setdefault(wanted, []).append(one)
    client.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=out)


def _tiering(client: Any, bucket: str, value: list[Mapping[str, Any]]) -> None:
    for entry in value:
        configuration: dict[str, Any] = {
            "Id": entry["Id"],
            "Status": entry["Status"],
            "Tierings": [
                {"AccessTier": tier["AccessTier"], "Days": int(tier["Days"])} for tier in entry["Tierings"]
            ],
        }
        if "Prefix" in entry:
            configuration["Filter"] = {"Prefix": entry["Prefix"]}
        client.put_bucket_intelligent_tiering_configuration(
            Bucket=bucket, Id=entry["Id"], IntelligentTieringConfiguration=configuration
        )
