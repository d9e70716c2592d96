"""Roles that are used before their policies are attached."""

from __future__ import annotations

from collections.abc import Iterator

from verify.assembly import Resource
from verify.context import Context
from verify.finding import Check, Finding
from verify.graph import waits_for
from verify.roles import actions_of, policies_of

_ID = "attached"
#: Types whose creation already acts as the role, and the properties that name it, as paths. Making one before
#: the role's policy is attached fails now and then, or makes a thing that does not work.
#: Sources: the create call of each service, which states what it checks or does as the role; public issues.
ACTS: dict[str, tuple[str, ...]] = {
    # Lambda checks that the role may make network interfaces and read the file system (CreateFunction).
    "AWS::Lambda::Function": ("Role",),
    # CreateDeliveryStream assumes the role and looks at stream, key and table.
    "AWS::KinesisFirehose::DeliveryStream": (
        "ExtendedS3DestinationConfiguration/RoleARN",
        "KinesisStreamSourceConfiguration/RoleARN",
        "IcebergDestinationConfiguration/RoleARN",
    ),
    # CreateStateMachine: the role must be allowed to deliver logs and traces.
    "AWS::StepFunctions::StateMachine": ("RoleArn",),
    # CreateModel looks for the artifacts and the image as the role.
    "AWS::SageMaker::Model": ("ExecutionRoleArn",),
    # CreateFeatureGroup makes the offline store's table and first objects as the role.
    "AWS::SageMaker::FeatureGroup": ("RoleArn",),
    "AWS::SageMaker::Cluster": ("InstanceGroups/*/ExecutionRole",),
    "AWS::SageMaker::MlflowTrackingServer": ("RoleArn",),
    "AWS::SageMaker::DataQualityJobDefinition": ("RoleArn",),
    "AWS::SageMaker::ModelQualityJobDefinition": ("RoleArn",),
    "AWS::SageMaker::ModelBiasJobDefinition": ("RoleArn",),
    "AWS::SageMaker::ModelExplainabilityJobDefinition": ("RoleArn",),
    "AWS::SageMaker::MonitoringSchedule": ("MonitoringScheduleConfig/MonitoringJobDefinition/RoleArn",),
    "AWS::KinesisAnalyticsV2::Application": ("ServiceExecutionRole",),
    "AWS::CodePipeline::Pipeline": ("RoleArn",),
    "AWS::MWAA::Environment": ("ExecutionRoleArn",),
    "AWS::EC2::FlowLog": ("DeliverLogsPermissionArn",),
    "AWS::LakeFormation::Resource": ("RoleArn",),
    "AWS::DMS::Endpoint": ("S3Settings/ServiceAccessRoleArn",),
    "AWS::DataSync::LocationS3": ("S3Config/BucketAccessRoleArn",),
    "AWS::Glue::TableOptimizer": ("TableOptimizerConfiguration/RoleArn",),
    "AWS::RedshiftServerless::Namespace": ("DefaultIamRoleArn",),
    "AWS::CloudTrail::Trail": ("CloudWatchLogsRoleArn",),
    "AWS::Config::ConfigurationRecorder": ("RoleARN",),
    "AWS::S3::Bucket": ("ReplicationConfiguration/Role",),
    "AWS::Batch::ComputeEnvironment": ("ServiceRole",),
    "AWS::ECS::Service": ("Role",),
}


#: Actions that matter at creation, by prefix, where not every policy of the role does: a function's own calls
#: come later than its creation.
_AT_ONCE: dict[str, tuple[str, ...]] = {
    "AWS::Lambda::Function": ("ec2:", "elasticfilesystem:"),
    "AWS::Lambda::EventSourceMapping": (
        "sqs:",
        "kinesis:",
        "kafka",
        "dynamodb:",
        "ec2:",
        "secretsmanager:",
        "kms:",
    ),
}


def run(context: Context) -> Iterator[Finding]:
    """Look at every resource whose creation acts as a role, and at every custom resource."""
    for resource in context.assembly.resources(*ACTS):
        for path in ACTS[resource.type]:
            for value in _reached(resource.properties, path.split("/")):
                role = context.assembly.target(resource.stack, value)
                if role is not None and role.type == "AWS::IAM::Role":
                    yield from _unattached(context, resource, role, path)
    for mapping in context.assembly.resources("AWS::Lambda::EventSourceMapping"):
        # CreateEventSourceMapping checks that the function's role may read the source.
        yield from _by_function(context, mapping, mapping.properties.get("FunctionName"), "FunctionName")
    for resource in context.assembly.resources():
        if "ServiceToken" in resource.properties:
            # CloudFormation calls the function at once.
            yield from _by_function(context, resource, resource.properties["ServiceToken"], "ServiceToken")


def _by_function(context: Context, resource: Resource, value: object, path: str) -> Iterator[Finding]:
    function = context.assembly.target(resource.stack, value)
    if function is None or function.type != "AWS::Lambda::Function":
        return
    role = context.assembly.target(function.stack, function.properties.get("Role"))
    if role is not None:
        yield from _unattached(context, resource, role, path)


def _unattached(context: Context, resource: Resource, role: Resource, path: str) -> Iterator[Finding]:
    for policy in policies_of(context.assembly, role):
        # Another stack is deployed as a whole before this one; a policy that needs the resource comes later.
        if policy.stack is not resource.stack or resource.id in waits_for(policy):
            continue
        at_once = _AT_ONCE.get(resource.type)
        if at_once is not None and not any(action.startswith(at_once) for action in actions_of(policy)):
            continue
        if policy.id not in waits_for(resource):
            yield Finding(
                check=_ID,
                place=f"{resource.place}: {path}",
                value=f"{role.id} is used while its policy {policy.id} may not be attached yet",
                allowed=f"DependsOn {policy.id}",
                fix="add a dependency on the role's grants (node.add_dependency)",
            )


def _reached(value: object, path: list[str]) -> Iterator[object]:
    if not path:
        yield value
    elif path[0] == "*" and isinstance(value, list):
        for part in value:
            yield from _reached(part, path[1:])
    elif isinstance(value, dict) and path[0] in value:
        yield from _reached(value[path[0]], path[1:])


CHECK = Check(
    id=_ID,
    title="Roles used before their policies are attached",
    proves="whatever acts as a role while it is made waits for every policy of that role in its stack",
    source="the create calls of the services; CloudFormation makes at once what nothing puts in order",
    run=run,
)
