"""What templates hold against AWS's quotas."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verify.assembly import Resource, Stack, walk
from verify.context import Context
from verify.finding import Check, Finding
from verify.roles import policies_of
from verify.tables.quotas import CHECKED, QUOTAS

_ID = "quotas"
#: A soft quota is worth a word from here on, before it is reached.
_NEAR = 0.8
#: Lengths of what only a deployment knows. A partition is mostly ``aws``, a region at most as long as
#: ``ap-southeast-2``, an account twelve digits; a name that CloudFormation draws is the stack's, the logical
#: id and thirteen characters, 64 at most where most services end; an ARN has some forty more.
_PSEUDO = {"AWS::Partition": 3, "AWS::Region": 14, "AWS::AccountId": 12, "AWS::URLSuffix": 13}
_DRAWN, _LONGEST_NAME, _ARN = 14, 64, 40
_MARK = re.compile(r"\$\{([^{}]*)\}")
#: Counted over all stacks of a stage: an environment is an account and region.
_COUNTED: Mapping[str, str] = {
    "AWS::IAM::Role": "roles",
    "AWS::CloudWatch::Alarm": "alarms",
    "AWS::Glue::Job": "glue-jobs",
    "AWS::SageMaker::Endpoint": "endpoints-sagemaker",
    "AWS::SageMaker::FeatureGroup": "feature-groups",
    "AWS::S3::Bucket": "buckets",
    "AWS::Logs::ResourcePolicy": "log-policies",
    "AWS::Logs::QueryDefinition": "saved-queries",
}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """How much of a quota something takes."""

    quota: str
    place: str
    value: int

    @property
    def share(self) -> float:
        """Part of the quota, 1 being all of it."""
        return self.value / QUOTAS[self.quota].most


def run(context: Context) -> Iterator[Finding]:
    """Everything that is over a quota, and what comes near one that AWS raises."""
    for measured in measures(context):
        quota = QUOTAS[measured.quota]
        over = measured.value > quota.most
        if over or (quota.soft and measured.share >= _NEAR):
            yield Finding(
                check=_ID,
                place=measured.place,
                value=f"{measured.value} {quota.what}",
                allowed=f"at most {quota.most}{', until raised' if quota.soft else ''} ({quota.source})",
                fix="ask for a higher quota before the deploy"
                if quota.soft
                else "split it, or make it smaller",
                severity="error" if over and not quota.soft else "warning",
            )


def measures(context: Context) -> Iterator[Measured]:
    """Everything that a quota bounds, with its size."""
    stages: dict[str, Counter[str]] = {}
    for stack in context.assembly.stacks.values():
        yield from _of_stack(stack)
        counts = stages.setdefault(stack.stage, Counter())
        counts["stacks"] += 1
        for resource in stack.resources.values():
            if resource.type in _COUNTED:
                counts[_COUNTED[resource.type]] += 1
            yield from _of_resource(context, resource)
        # Rules without a bus are on the default one.
        counts["rules"] += sum(
            rule.type == "AWS::Events::Rule" and "EventBusName" not in rule.properties
            for rule in stack.resources.values()
        )
    for stage, counts in stages.items():
        for quota, value in counts.items():
            yield Measured(quota=quota, place=stage, value=value)


def _of_stack(stack: Stack) -> Iterator[Measured]:
    template = stack.template
    sizes = {
        "resources": len(stack.resources),
        "parameters": len(template.get("Parameters", {})),
        "outputs": len(template.get("Outputs", {})),
        "mappings": len(template.get("Mappings", {})),
        "template": stack.size,
        "description": len(template.get("Description", "").encode()),
        "stack-name": len(stack.name),
    }
    for quota, value in sizes.items():
        yield Measured(quota=quota, place=stack.id, value=value)


def _of_resource(context: Context, resource: Resource) -> Iterator[Measured]:
    for quota, value in _sizes(context, resource):
        yield Measured(quota=quota, place=resource.place, value=value)
    tags = resource.properties.get("Tags")
    if isinstance(tags, Sequence) and not isinstance(tags, str):
        yield Measured(quota="tags", place=f"{resource.place}: Tags", value=len(tags))


def _sizes(context: Context, resource: Resource) -> Iterator[tuple[str, int]]:  # noqa: PLR0912 - one branch a type
    properties, assembly, stack = resource.properties, context.assembly, resource.stack

    def size(value: Any) -> int:
        """Characters once deployed, without the spaces that IAM does not count either."""
        return deployed_length(context, json.dumps(assembly.plain(stack, value), separators=(",", ":")))

    match resource.type:
        case "AWS::IAM::Role":
            inline = sum(size(policy["PolicyDocument"]) for policy in properties.get("Policies", ()))
            inline += sum(
                size(policy.properties["PolicyDocument"])
                for policy in policies_of(assembly, resource)
                if policy.type == "AWS::IAM::Policy"
            )
            yield "inline", inline
            yield "attached", len(properties.get("ManagedPolicyArns", ()))
            yield "trust", size(properties.get("AssumeRolePolicyDocument", {}))
        case "AWS::IAM::ManagedPolicy":
            yield "managed", size(properties["PolicyDocument"])
        case "AWS::Events::Rule":
            yield "targets", len(properties.get("Targets", ()))
            yield "pattern", size(properties.get("EventPattern", {}))
        case "AWS::Lambda::Function":
            yield "variables", size(properties.get("Environment", {}).get("Variables", {}))
            yield "layers", len(properties.get("Layers", ()))
            yield "timeout", int(properties.get("Timeout", 3))
        case "AWS::CloudWatch::Alarm":
            yield "alarm-metrics", len(properties.get("Metrics", ()))
            for kind in ("AlarmActions", "OKActions", "InsufficientDataActions"):
                yield "alarm-actions", len(properties.get(kind, ()))
            yield "alarm-description", len(assembly.text(stack, properties.get("AlarmDescription", "")))
        case "AWS::CloudWatch::Dashboard":
            yield from _dashboard(assembly.text(stack, properties["DashboardBody"]))
        case "AWS::StepFunctions::StateMachine":
            yield "machine", size(properties.get("DefinitionString", properties.get("Definition", "")))
        case "AWS::SageMaker::Pipeline":
            body = properties["PipelineDefinition"].get("PipelineDefinitionBody", "")
            yield "pipeline", size(body)
            yield "pipeline-steps", _steps(assembly.text(stack, body))
        case "AWS::CodePipeline::Pipeline":
            yield from _delivery([len(stage["Actions"]) for stage in properties["Stages"]])
        case "AWS::Scheduler::Schedule":
            yield "schedule-input", size(properties["Target"].get("Input", ""))
        case "AWS::S3::BucketPolicy":
            yield "bucket-policy", size(properties["PolicyDocument"])
        case "AWS::KMS::Key":
            yield "key-policy", size(properties.get("KeyPolicy", {}))
        case "AWS::SQS::QueuePolicy":
            yield "queue-policy", size(properties["PolicyDocument"])
        case "AWS::EC2::SecurityGroup":
            yield "security-rules", len(properties.get("SecurityGroupIngress", ()))
        case "AWS::SSM::Parameter":
            yield "parameter", len(assembly.text(stack, properties.get("Value", "")))
        case "AWS::SageMaker::FeatureGroup":
            yield "features", len(properties.get("FeatureDefinitions", ()))
        case "AWS::EC2::VPC":
            yield (
                "endpoints",
                sum(
                    part.type == "AWS::EC2::VPCEndpoint"
                    and part.properties.get("VpcEndpointType") == "Interface"
                    for part in stack.resources.values()
                ),
            )
        case _:
            return


def deployed_length(context: Context, text: str) -> int:
    """Length of a text once its marks are what a deployment makes of them."""

    def length(mark: str) -> int:
        if mark.startswith("AWS::"):
            return _PSEUDO.get(mark, _DRAWN)
        stack, _, name = mark.partition("|")
        logical_id, _, attribute = name.partition(".")
        known = context.assembly.stacks.get(stack)
        drawn = min(_LONGEST_NAME, len(known.name if known else stack) + len(logical_id) + _DRAWN)
        return drawn + (_ARN if attribute.endswith("Arn") else 0)

    marks = _MARK.findall(text)
    return len(_MARK.sub("", text)) + sum(map(length, marks))


def _delivery(actions: Sequence[int]) -> Iterator[tuple[str, int]]:
    yield "delivery-stages", len(actions)
    yield "delivery-actions", sum(actions)
    yield "delivery-parallel", max(actions)


def _dashboard(body: str) -> Iterator[tuple[str, int]]:
    try:
        widgets = json.loads(body).get("widgets", [])
    except ValueError:
        return
    yield "widgets", len(widgets)
    rows = [len(widget.get("properties", {}).get("metrics", ())) for widget in widgets]
    yield "dashboard-metrics", sum(rows)
    yield "widget-metrics", max(rows, default=0)
    alarms = [len(widget.get("properties", {}).get("alarms", ())) for widget in widgets]
    yield "widget-alarms", max(alarms, default=0)


def _steps(body: str) -> int:
    try:
        document = json.loads(body)
    except ValueError:
        return 0
    return sum(
        isinstance(value, Mapping) and {"Name", "Type", "Arguments"} <= value.keys()
        for _, value in walk(document)
    )


CHECK = Check(
    id=_ID,
    title="Quotas",
    proves="no stack, policy, function, dashboard, alarm, rule, pipeline or state machine is over what AWS "
    "takes, and no environment over what an account has; what comes near a quota that AWS raises is a remark",
    source=f"AWS's quota pages as dated in verify/tables/quotas.py, {CHECKED}",
    run=run,
)
