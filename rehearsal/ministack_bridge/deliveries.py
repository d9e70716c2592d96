"""What AWS's services may do: deliveries to functions, queues, topics and buckets."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace

from rehearsal.ministack_bridge._inside import account_scope
from rehearsal.ministack_bridge.keys import kms_checks
from rehearsal.ministack_bridge.permissions import Check

#: The permission by which a service delivers to a resource, from the resource's own policy.
_DELIVERIES = {"lambda": "lambda:InvokeFunction", "sqs": "sqs:SendMessage", "sns": "sns:Publish"}


def _service_is_let(principal: str, check: Check, *, source_arn: str, account: str, region: str) -> bool:
    """Say whether the own policy of a check's resource lets a service act on it."""
    evaluator = importlib.import_module("ministack.core.iam_evaluator")
    own = evaluator._resource_policy(check.action.partition(":")[0], check.resource)
    if own is None:
        return False
    request = evaluator.EvalContext(
        principal_arn=principal,
        principal_type="Service",
        principal_account=account,
        action=check.action,
        resource_arn=check.resource,
        region=region,
        secure_transport=True,
        service_context={
            "aws:sourcearn": source_arn,
            "aws:sourceaccount": account,
            "aws:principalisawsservice": "true",
            **{key.lower(): value for key, value in check.context.items()},
        },
    )
    return bool(evaluator.evaluate_resource_policy(own[0], request, service=principal).decision == "Allow")


def delivery_refusal(
    principal: str, target: str, *, source_arn: str, account: str, region: str
) -> str | None:
    """Return why a service cannot deliver to a function, queue or topic; None when it can.

    The target's own policy must let the service, and so must that of a key that encrypts the target.
    """
    service = target.split(":")[2]
    action = _DELIVERIES.get(service)
    if action is None:
        return None
    with account_scope(account, region):
        needed = Check(action=action, resource=target)
        checks = [needed, *kms_checks(service, [needed], {}, account=account, region=region)]
        for check in checks:
            if not _service_is_let(principal, check, source_arn=source_arn, account=account, region=region):
                return (
                    f"the policy of {check.resource} does not let {principal} {check.action} for {source_arn}"
                )
    return None


def object_refusal(
    principal: str,
    bucket: str,
    key: str,
    *,
    source_arn: str,
    account: str,
    region: str,
    context: Mapping[str, str],
) -> str | None:
    """Return why a service cannot write an object; None when the bucket's policy, and its key's, let it."""
    with account_scope(account, region):
        needed = Check(action="s3:PutObject", resource=f"arn:aws:s3:::{bucket}/{key}", context=dict(context))
        checks = [needed, *kms_checks("s3", [needed], {}, account=account, region=region)]
        for check in checks:
            asked = replace(check, context={**check.context, **context})
            if not _service_is_let(principal, asked, source_arn=source_arn, account=account, region=region):
                what = f"{check.action} for {source_arn}"
                return f"the policy of {check.resource} does not let {principal} {what}"
    return None


def has_trails() -> bool:
    """Say whether somebody has made a trail."""
    return bool(importlib.import_module("ministack.services.cloudtrail")._trails._data)
