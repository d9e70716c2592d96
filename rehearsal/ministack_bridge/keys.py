"""KMS behind other services, and the keys of buckets."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from rehearsal.ministack_bridge._inside import account_scope, substitute
from rehearsal.ministack_bridge.permissions import Check


def bucket_kms_key(bucket: str, account: str, region: str) -> str | None:
    """Return the KMS key id or ARN that a bucket encrypts new objects with by default, None without one."""
    s3 = importlib.import_module("ministack.services.s3")
    with account_scope(account, region):
        raw = s3._bucket_encryption.get(bucket)
    if not raw:
        return None
    root = importlib.import_module("xml.etree.ElementTree").fromstring(raw)
    found = {node.tag.rpartition("}")[2]: node.text for node in root.iter()}
    if not str(found.get("SSEAlgorithm", "")).startswith("aws:kms"):
        return None
    return found.get("KMSMasterKeyID")


#: What a service asks of KMS, as the caller, for an action on something that a key encrypts.
_KMS_NEEDS = {
    "s3:PutObject": ("kms:GenerateDataKey",),
    "s3:GetObject": ("kms:Decrypt",),
    "s3:GetObjectVersion": ("kms:Decrypt",),
    "kinesis:PutRecord": ("kms:GenerateDataKey",),
    "kinesis:PutRecords": ("kms:GenerateDataKey",),
    "kinesis:GetRecords": ("kms:Decrypt",),
    "sqs:SendMessage": ("kms:GenerateDataKey", "kms:Decrypt"),
    "sqs:SendMessageBatch": ("kms:GenerateDataKey", "kms:Decrypt"),
    "sqs:ReceiveMessage": ("kms:Decrypt",),
    "sns:Publish": ("kms:GenerateDataKey", "kms:Decrypt"),
}


def kms_key_arn(key: str, *, account: str, region: str) -> str | None:
    """Return the ARN of a key given by id, ARN or alias; None for AWS's own and unknown ones."""
    kms = importlib.import_module("ministack.services.kms")
    with account_scope(account, region):
        record = kms._resolve_key(key)
    return None if record is None else str(record["Arn"])


def _encrypting_key(check: Check, headers: Mapping[str, str], *, account: str, region: str) -> str | None:
    """Return the KMS key that the resource of a check is encrypted with, as its service names it."""
    service, _, resource = check.action.partition(":")[0], "", check.resource
    if service == "s3":
        asked = headers.get("x-amz-server-side-encryption-aws-kms-key-id")
        writes = check.action == "s3:PutObject"
        return asked if writes and asked else bucket_kms_key(_bucket_of(resource), account, region)
    with account_scope(account, region):
        if service == "kinesis":
            kinesis = importlib.import_module("ministack.services.kinesis")
            _, stream = kinesis._resolve_stream({"StreamARN": resource})
            return None if stream is None else stream.get("KeyId")
        if service == "sqs":
            queue = importlib.import_module("ministack.services.sqs")._queue_by_arn(resource)
            return None if queue is None else queue["attributes"].get("KmsMasterKeyId")
        topic = importlib.import_module("ministack.services.sns")._topic_by_arn_any_scope(resource)
        return None if topic is None else topic.get("attributes", {}).get("KmsMasterKeyId")


def _bucket_of(resource: str) -> str:
    return resource.removeprefix("arn:aws:s3:::").partition("/")[0]


def kms_checks(
    service: str, checks: Sequence[Check], headers: Mapping[str, str], *, account: str, region: str
) -> list[Check]:
    """Return the permissions on KMS keys that follow from a call's own, as AWS asks them of the caller."""
    found = []
    for check in checks:
        needs = _KMS_NEEDS.get(check.action)
        if needs is None:
            continue
        key = _encrypting_key(check, headers, account=account, region=region)
        arn = None if not key else kms_key_arn(key, account=account, region=region)
        if arn is None:
            continue
        context: dict[str, Any] = {
            "kms:ViaService": f"{service}.{region}.amazonaws.com",
            "kms:CallerAccount": account,
        }
        if service == "s3":
            # With a bucket key, which the constructs turn on, the context names the bucket.
            context["kms:EncryptionContext:aws:s3:arn"] = f"arn:aws:s3:::{_bucket_of(check.resource)}"
        found += [Check(action=action, resource=arn, context=context) for action in needs]
    return found


def give_s3_its_key() -> None:
    """Let S3 fall back to the account's own ``aws/s3`` key where a write asks for KMS and names no key."""
    s3 = importlib.import_module("ministack.services.s3")
    responses = importlib.import_module("ministack.core.responses")
    original = s3._resolve_sse_write_headers
    key_header = "x-amz-server-side-encryption-aws-kms-key-id"

    def resolve(headers: Mapping[str, str], bucket: str) -> Any:
        if headers.get("x-amz-server-side-encryption") == "aws:kms" and not headers.get(key_header):
            own = f"arn:aws:kms:{responses.get_region()}:{responses.get_account_id()}:alias/aws/s3"
            default = s3._bucket_default_sse_headers(bucket).get(key_header, own)
            return original({**headers, key_header: default}, bucket)
        return original(headers, bucket)

    substitute(s3, "_resolve_sse_write_headers", resolve)
