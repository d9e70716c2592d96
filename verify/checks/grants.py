"""Role policies against the calls that are made with them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

from verify.assembly import Resource
from verify.checks.parameters import calls as calls_in_documents
from verify.code.calls import actions_of_call, calls_of, passes_role
from verify.code.deployed import Deployed
from verify.context import Context
from verify.finding import Check, Finding
from verify.models import operation_named
from verify.roles import Grants, grants_of

_ID = "grants"
#: What Lambda, or an SDK below the code, does with a function's role: never unused.
#: Sources: Lambda, "Execution role", "Event source mappings", "Dead-letter queues"; S3 on multipart uploads;
#: KMS, "grants and services that use keys"; X-Ray and CloudWatch agents.
_BY_SERVICE = (
    "logs:*",
    "xray:*",
    "kms:*",
    "ec2:*NetworkInterface*",
    "ec2:DescribeSubnets",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeVpcs",
    "ec2:*PrivateIpAddresses",
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",
    "lakeformation:GetDataAccess",
    "iam:PassRole",
    "cloudwatch:PutMetricData",
    "aps:RemoteWrite",
)
#: What a library calls for a program. Source: pyiceberg, "Configuration": its catalog and its files.
_BY_LIBRARY: Mapping[str, tuple[str, ...]] = {
    "pyiceberg": (
        "glue:GetDatabase",
        "glue:GetTable",
        "glue:UpdateTable",
        "s3:GetObject",
        "s3:PutObject",
        "s3:DeleteObject",
        "s3:ListBucket",
    ),
}
#: Sources of events and what their mapping reads with the function's role.
_BY_MAPPING: Mapping[str, tuple[str, ...]] = {
    "sqs": ("sqs:*",),
    "kinesis": ("kinesis:*",),
    "dynamodb": ("dynamodb:*Stream*",),
    "kafka": ("kafka*", "kafka-cluster:*", "secretsmanager:GetSecretValue"),
}
#: Targets of rules and schedules that take a role, by what their ARN or type says, and the action.
#: Sources: EventBridge, "Resource-based policies"; Scheduler, "Templated targets".
_TARGETS: Mapping[str, str] = {
    "AWS::Lambda::Function": "lambda:InvokeFunction",
    "AWS::StepFunctions::StateMachine": "states:StartExecution",
    "AWS::SageMaker::Pipeline": "sagemaker:StartPipelineExecution",
    "AWS::SQS::Queue": "sqs:SendMessage",
    "AWS::SNS::Topic": "sns:Publish",
    "AWS::Kinesis::Stream": "kinesis:PutRecord",
    "AWS::KinesisFirehose::DeliveryStream": "firehose:PutRecord",
    "AWS::CodeBuild::Project": "codebuild:StartBuild",
    "AWS::CodePipeline::Pipeline": "codepipeline:StartPipelineExecution",
    "AWS::Batch::JobQueue": "batch:SubmitJob",
}
_WORKFLOW = re.compile(r":glue:[^:]*:[^:]*:workflow/")


def run(context: Context) -> Iterator[Finding]:
    """Functions, jobs, state machines, schedules and rules against the roles that they act as."""
    for item in context.deployed:
        yield from _program(context, item)
    for resource, service, operation in calls_in_documents(context):
        yield from _document(context, resource, service, operation)
    yield from _targets(context)


def _program(context: Context, item: Deployed) -> Iterator[Finding]:
    if item.role is None or item.program is None:
        return
    grants = grants_of(context.assembly, item.role)
    needed: set[str] = set()
    for call in calls_of(item.program):
        # Where several services have the operation, one of them is meant.
        alternatives = [_needs(service, call.operation, call.keywords) for service in call.services]
        needed |= {action for actions in alternatives for part in actions for action in part.split("|")}
        if grants.unknown or any(_allowed(grants, actions) for actions in alternatives):
            continue
        yield Finding(
            check=_ID,
            place=item.place,
            variables=frozenset(item.variables),
            value=f"{call.place} calls {call.services[0]} {call.operation}, and {item.role.place} may not",
            allowed=" and ".join(a for a in alternatives[0] if not _allowed(grants, (a,))),
            fix="grant it where the function is made, or take the call out",
        )
    if item.kind == "function":
        yield from _unused(context, item, grants, needed)


def _needs(service: str, operation: str, keywords: frozenset[str] = frozenset()) -> tuple[str, ...]:
    actions = actions_of_call(service, operation)
    return (*actions, "iam:PassRole") if passes_role(service, operation) & keywords else actions


def _allowed(grants: Grants, actions: tuple[str, ...]) -> bool:
    return all(any(grants.allow(action) for action in part.split("|")) for part in actions)


def _unused(context: Context, item: Deployed, grants: Grants, needed: set[str]) -> Iterator[Finding]:
    """Grants that no code of the function uses, save what Lambda and the SDK use themselves."""
    shared = sum(other.role is item.role for other in context.deployed)
    if shared > 1:
        return
    modules = () if item.program is None else item.program.modules.values()
    uses = {name[0].partition(".")[0] for module in modules for name in module.imported.values()}
    spared = [action for library, actions in _BY_LIBRARY.items() if library in uses for action in actions]
    spared += [*_BY_SERVICE, *_mapped(context, item.resource)]
    if "DeadLetterConfig" in item.resource.properties or _destination(context, item.resource):
        spared += ["sqs:SendMessage", "sqs:GetQueue*", "sns:Publish"]
    if "s3:GetObject" in needed:
        # Without it S3 says "access denied" of an object that is not there (GetObject, "Permissions").
        spared.append("s3:ListBucket")
    for statement in grants.statements:
        if statement.policy is None or statement.inverted:
            continue
        for action in statement.actions:
            used = any(fnmatchcase(need.lower(), action.lower()) for need in needed)
            if not used and not any(fnmatchcase(action.lower(), one.lower()) for one in spared):
                yield Finding(
                    check=_ID,
                    place=f"{statement.policy.place}: {action}",
                    value=f"no code of {item.resource.id} calls it",
                    allowed="what the code calls, and what Lambda does with the role",
                    fix="take the grant away, or accept it with what uses it",
                    severity="warning",
                )


def _mapped(context: Context, function: Resource) -> Iterator[str]:
    for mapping in context.assembly.resources("AWS::Lambda::EventSourceMapping"):
        if context.assembly.target(mapping.stack, mapping.properties.get("FunctionName")) is function:
            source = context.assembly.text(mapping.stack, mapping.properties.get("EventSourceArn", ""))
            target = context.assembly.target(mapping.stack, mapping.properties.get("EventSourceArn"))
            kind = f"{source} {'' if target is None else target.type}".lower()
            for name, actions in _BY_MAPPING.items():
                if name in kind or (name == "kafka" and "msk" in kind):
                    yield from actions


def _destination(context: Context, function: Resource) -> bool:
    """Whether what fails goes somewhere with the function's role."""
    return any(
        "DestinationConfig" in part.properties
        and context.assembly.target(part.stack, part.properties.get("FunctionName")) is function
        for part in context.assembly.resources(
            "AWS::Lambda::EventSourceMapping", "AWS::Lambda::EventInvokeConfig"
        )
    )


def _document(context: Context, resource: Resource, service: str, operation: str) -> Iterator[Finding]:
    value = (
        resource.properties.get("RoleArn")
        if resource.type == "AWS::StepFunctions::StateMachine"
        else resource.properties["Target"].get("RoleArn")
    )
    role = context.assembly.target(resource.stack, value)
    name = operation_named(service, operation)
    if role is None or name is None:
        return
    grants = grants_of(context.assembly, role)
    for action in actions_of_call(service, name):
        if not grants.unknown and not _allowed(grants, (action,)):
            yield Finding(
                check=_ID,
                place=resource.place,
                value=f"it calls {service} {name}, and {role.place} may not",
                allowed=action,
                fix="grant it to the role",
            )


def _targets(context: Context) -> Iterator[Finding]:
    """Roles with which rules and schedules reach their targets."""
    for resource in context.assembly.resources("AWS::Events::Rule", "AWS::Scheduler::Schedule"):
        targets = resource.properties.get("Targets", [resource.properties.get("Target", {})])
        for number, target in enumerate(targets):
            role = context.assembly.target(resource.stack, target.get("RoleArn"))
            aim = context.assembly.target(resource.stack, target.get("Arn"))
            arn = context.assembly.text(resource.stack, target.get("Arn", ""))
            action = "glue:NotifyEvent" if _WORKFLOW.search(arn) else None
            if aim is not None and action is None:
                action = _TARGETS.get(aim.type)
            if role is None or action is None:
                continue
            grants = grants_of(context.assembly, role)
            if not grants.unknown and not grants.allow(action):
                yield Finding(
                    check=_ID,
                    place=f"{resource.place}: Targets/{number}",
                    value=f"{role.place} may not reach the target",
                    allowed=action,
                    fix="grant it to the role",
                )


CHECK = Check(
    id=_ID,
    title="Role policies against calls",
    proves="every call of AWS that the deployed code, a state machine, a schedule or a rule makes is granted "
    "to the role it is made with; grants of functions that nothing uses are remarks",
    source="the deployed code's boto3 calls; botocore; Service Authorization Reference",
    run=run,
)
