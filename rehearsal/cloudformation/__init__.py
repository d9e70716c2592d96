"""CloudFormation as the embedded AWS lacks it: missing types, checked properties, honest failures, its
events.
"""

# ruff: noqa: ARG005 - the functions of a table share one signature
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rehearsal import ministack_bridge as bridge
from rehearsal.cloudformation import faults
from rehearsal.cloudformation.buckets import apply_bucket_properties
from rehearsal.cloudformation.resources import Resources
from rehearsal.cloudformation.rows import ROWS
from rehearsal.cloudformation.schemas import UnknownTypeError, problems, schema_of
from rehearsal.cloudformation.trust import untrusted
from rehearsal.deliveries import unreadable_source

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["install", "judge"]

#: Types that the registry does not describe: they are CloudFormation's own or the app's.
_EVENT_SOURCE = "AWS::Lambda::EventSourceMapping"
_UNDESCRIBED = ("Custom::", "AWS::CloudFormation::", "AWS::CDK::")


def judge(resource_type: str, properties: Mapping[str, Any], supported: frozenset[str]) -> list[str]:
    """Return why a resource cannot be made, in CloudFormation's words; empty when nothing is known against
    it.
    """
    if resource_type.startswith(_UNDESCRIBED):
        return []
    try:
        found = problems(resource_type, properties)
    except UnknownTypeError as error:
        return [str(error)]
    if found:
        listed = ", ".join(found)
        return [f"Properties validation failed for resource with message: [{listed}]"]
    if resource_type not in supported:
        return [
            f"{resource_type} is not emulated by the rehearsal; "
            "add a row to a module of rehearsal/cloudformation/rows/"
        ]
    return []


def install(runtime: Runtime) -> None:
    """Teach ministack's CloudFormation what it lacks."""
    bridge.correct_conditions()
    bridge.answer_resolved_parameters()
    bridge.refuse_changes_of_busy_stacks()
    bridge.refer_to_secrets_by_arn()
    for resource_type, row in ROWS.items():
        bridge.register_type(resource_type, Resources(runtime, resource_type, row).handlers())
    bridge.extend_type("AWS::S3::Bucket", after=lambda name, props: _bucket(runtime, name, props))
    bridge.keep_boundaries()
    for resource_type, attributes in _MISSING_ATTRIBUTES.items():
        bridge.add_attributes(resource_type, attributes)
    supported = bridge.resource_types()
    bridge.judge_resources(
        lambda resource_type, properties: judge(resource_type, properties, supported),
        lambda resource_type, properties: [
            *untrusted(resource_type, properties),
            *(unreadable_source(runtime, properties) if resource_type == _EVENT_SOURCE else ()),
        ],
    )
    bridge.replace_by_schema(_create_only)
    faults.install(runtime)

    def publish(event: bridge.StackEvent) -> None:
        if event.resource is None:
            # A rule may start a function, which must not run on the thread that deploys.
            runtime.background(f"{event.stack_name} {event.status}", _stack_event, runtime, event)

    bridge.watch_stacks(publish)


def _create_only(resource_type: str) -> tuple[str, ...] | None:
    """Return the top-level properties whose change replaces a resource, None for an undescribed type."""
    if resource_type.startswith(_UNDESCRIBED):
        return None
    try:
        schema = schema_of(resource_type)
    except UnknownTypeError:
        return None
    return tuple(path[0] for path in schema.create_only if len(path) == 1)


def _bucket(runtime: Runtime, name: str, props: Mapping[str, Any]) -> None:
    apply_bucket_properties(runtime.client("s3", region=bridge.current_region()), name, props)


def _stack_event(runtime: Runtime, event: bridge.StackEvent) -> None:
    """Publish what CloudFormation publishes for every change of a stack's status."""
    runtime.emit(
        "aws.cloudformation",
        "CloudFormation Stack Status Change",
        {
            "stack-id": event.stack_id,
            "status-details": {"status": event.status, "status-reason": event.reason},
            "client-request-token": event.token,
        },
        [event.stack_id],
        region=event.region,
    )


#: Values of ``Fn::GetAtt`` that ministack's own types do not give: from the physical id and the properties.
_MISSING_ATTRIBUTES: Mapping[str, Mapping[str, Any]] = {
    "AWS::EC2::VPC": {
        "VpcId": lambda physical_id, props: physical_id,
        "CidrBlock": lambda physical_id, props: props.get("CidrBlock"),
    },
    "AWS::EC2::Subnet": {
        "SubnetId": lambda physical_id, props: physical_id,
        "VpcId": lambda physical_id, props: props.get("VpcId"),
        "CidrBlock": lambda physical_id, props: props.get("CidrBlock"),
        "AvailabilityZone": lambda physical_id, props: props.get("AvailabilityZone"),
    },
}
