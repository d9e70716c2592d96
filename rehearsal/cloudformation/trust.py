"""Roles that a service must be able to assume: refused at deploy, as the services do, not at two in the
morning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rehearsal import ministack_bridge as bridge

__all__ = ["untrusted"]

#: Where a type names its role (a path; ``*`` is each item of a list) and which service assumes it.
_ROLES: Mapping[str, tuple[tuple[tuple[str, ...], str], ...]] = {
    "AWS::Lambda::Function": ((("Role",), "lambda.amazonaws.com"),),
    "AWS::KinesisFirehose::DeliveryStream": (
        (("ExtendedS3DestinationConfiguration", "RoleARN"), "firehose.amazonaws.com"),
        (("KinesisStreamSourceConfiguration", "RoleARN"), "firehose.amazonaws.com"),
    ),
    "AWS::Glue::Job": ((("Role",), "glue.amazonaws.com"),),
    "AWS::Glue::Crawler": ((("Role",), "glue.amazonaws.com"),),
    "AWS::SageMaker::Pipeline": ((("RoleArn",), "sagemaker.amazonaws.com"),),
    "AWS::SageMaker::Model": ((("ExecutionRoleArn",), "sagemaker.amazonaws.com"),),
    "AWS::SageMaker::FeatureGroup": ((("RoleArn",), "sagemaker.amazonaws.com"),),
    "AWS::SageMaker::MonitoringSchedule": (
        (("MonitoringScheduleConfig", "MonitoringJobDefinition", "RoleArn"), "sagemaker.amazonaws.com"),
    ),
    "AWS::SageMaker::DataQualityJobDefinition": ((("RoleArn",), "sagemaker.amazonaws.com"),),
    "AWS::SageMaker::ModelBiasJobDefinition": ((("RoleArn",), "sagemaker.amazonaws.com"),),
    "AWS::SageMaker::ModelExplainabilityJobDefinition": ((("RoleArn",), "sagemaker.amazonaws.com"),),
    "AWS::SageMaker::ModelQualityJobDefinition": ((("RoleArn",), "sagemaker.amazonaws.com"),),
    "AWS::SageMaker::MlflowTrackingServer": ((("RoleArn",), "sagemaker.amazonaws.com"),),
    "AWS::SageMaker::Domain": ((("DefaultUserSettings", "ExecutionRole"), "sagemaker.amazonaws.com"),),
    "AWS::SageMaker::UserProfile": ((("UserSettings", "ExecutionRole"), "sagemaker.amazonaws.com"),),
    "AWS::Scheduler::Schedule": ((("Target", "RoleArn"), "scheduler.amazonaws.com"),),
    "AWS::Events::Rule": ((("Targets", "*", "RoleArn"), "events.amazonaws.com"),),
    "AWS::StepFunctions::StateMachine": ((("RoleArn",), "states.amazonaws.com"),),
    "AWS::CodePipeline::Pipeline": ((("RoleArn",), "codepipeline.amazonaws.com"),),
    "AWS::CodeBuild::Project": ((("ServiceRole",), "codebuild.amazonaws.com"),),
    "AWS::EC2::FlowLog": ((("DeliverLogsPermissionArn",), "vpc-flow-logs.amazonaws.com"),),
    # Lake Formation, "Requirements for roles used to register locations": both.
    "AWS::LakeFormation::Resource": (
        (("RoleArn",), "lakeformation.amazonaws.com"),
        (("RoleArn",), "glue.amazonaws.com"),
    ),
}
#: Where no document says that the service tells for whom it assumes the role, so that a condition on
#: aws:SourceAccount may keep it out. SageMaker lists its features that do ("Cross-service confused deputy
#: prevention"); Feature Store is not among them.
_TELLS_NO_SOURCE = frozenset({"AWS::SageMaker::FeatureGroup", "AWS::LakeFormation::Resource"})


def untrusted(resource_type: str, properties: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each role of a resource that its service cannot assume."""
    found = []
    for path, principal in _ROLES.get(resource_type, ()):
        for role in _values(properties, path):
            arn = role if isinstance(role, str) else ""
            # Glue takes a role's name as well; one of another account cannot be looked up here.
            if not arn.startswith("arn:") or not bridge.role_exists(arn):
                continue
            tells = resource_type not in _TELLS_NO_SOURCE
            if not bridge.trusts(arn, principal, tells_source=tells):
                how = "" if tells else ", without a condition on aws:SourceAccount or aws:SourceArn"
                found.append(
                    f"role {arn} cannot be assumed by {principal}; its trust policy must allow that{how}"
                )
    return found


def _values(value: Any, path: tuple[str, ...]) -> Iterator[Any]:
    if not path:
        yield value
    elif path[0] == "*":
        for part in value if isinstance(value, list) else ():
            yield from _values(part, path[1:])
    elif isinstance(value, Mapping) and path[0] in value:
        yield from _values(value[path[0]], path[1:])
