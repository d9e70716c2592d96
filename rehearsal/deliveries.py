"""What one AWS service may do to another: the policies of targets, the role behind an event source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rehearsal import ministack_bridge as bridge
from rehearsal.iam import AccessDeniedError, Principal
from rehearsal.ministack_bridge import Check

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["install", "unreadable_source"]

#: What Lambda asks of a function's role before it reads a stream through a consumer registered on it.
_FAN_OUT: tuple[str, ...] = ("kinesis:SubscribeToShard", "kinesis:DescribeStreamConsumer")
#: What Lambda asks of a function's role before it polls a source for it.
_POLLING: Mapping[str, tuple[str, ...]] = {
    "sqs": ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"),
    "kinesis": (
        "kinesis:GetRecords",
        "kinesis:GetShardIterator",
        "kinesis:DescribeStream",
        "kinesis:ListShards",
    ),
    # AWS Lambda Developer Guide, "Configuring Amazon MSK event sources", of those on the cluster itself.
    "kafka": ("kafka:DescribeClusterV2", "kafka:GetBootstrapBrokers"),
}


def install(runtime: Runtime) -> None:
    """Hold EventBridge to the policies of its targets."""

    def refused(rule: str, target: str, why: str) -> None:
        runtime.ledger.failed("eventbridge", rule.rsplit("/", 1)[-1], why, target=target)

    bridge.guard_event_targets(refused)


def unreadable_source(runtime: Runtime, properties: Mapping[str, Any]) -> list[str]:
    """Return why Lambda refuses an event source mapping: the function's role may not read the source."""
    source, function = str(properties.get("EventSourceArn", "")), str(properties.get("FunctionName", ""))
    service = source.split(":")[2] if source.startswith("arn:") else ""
    role = bridge.function_role(function)
    if service not in _POLLING or role is None:
        return []
    region = bridge.current_region()
    stream, consumer, _ = source.partition("/consumer/")
    checks = [Check(action=action, resource=stream) for action in _POLLING[service]]
    checks += [Check(action=action, resource=source) for action in _FAN_OUT if consumer]
    checks += bridge.kms_checks(service, checks, {}, account=runtime.account, region=region)
    name = role.rsplit("/", 1)[-1]
    session = f"arn:aws:sts::{runtime.account}:assumed-role/{name}/{function.rsplit(':', 1)[-1]}"
    try:
        runtime.authorizer.require(Principal(role_arn=role, session_arn=session), service, checks, region)
    except AccessDeniedError as denied:
        action = denied.check.action.partition(":")[2]
        return [
            f"The function execution role does not have permissions to call {action} on "
            f"{service.upper() if service == 'sqs' else service.capitalize()} ({denied})"
        ]
    return []
