"""What a release says of everything that holds data: the digest that the next release is held against."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from verify.assembly import Assembly, Resource
from verify.schemas import schema_of

__all__ = ["STATEFUL", "create_only", "digest", "holds_data"]

#: Types that hold what nobody can make again: data, keys to it, users, what was registered.
STATEFUL = frozenset(
    {
        "AWS::ApiGatewayV2::DomainName",
        "AWS::Backup::BackupVault",
        "AWS::Cassandra::Table",
        "AWS::CloudTrail::EventDataStore",
        "AWS::CodeCommit::Repository",
        "AWS::Cognito::UserPool",
        "AWS::DynamoDB::GlobalTable",
        "AWS::DynamoDB::Table",
        "AWS::ECR::Repository",
        "AWS::EFS::FileSystem",
        "AWS::ElastiCache::ReplicationGroup",
        "AWS::FSx::FileSystem",
        "AWS::Glue::Database",
        "AWS::Glue::Table",
        "AWS::KMS::Key",
        "AWS::Kinesis::Stream",
        "AWS::KinesisVideo::Stream",
        "AWS::Logs::LogGroup",
        "AWS::MSK::Cluster",
        "AWS::MSK::ServerlessCluster",
        "AWS::OpenSearchServerless::Collection",
        "AWS::RDS::DBCluster",
        "AWS::RDS::DBInstance",
        "AWS::RedshiftServerless::Namespace",
        "AWS::S3::Bucket",
        "AWS::S3Tables::TableBucket",
        "AWS::SageMaker::Domain",
        "AWS::SageMaker::FeatureGroup",
        "AWS::SageMaker::MlflowTrackingServer",
        "AWS::SageMaker::ModelPackageGroup",
        "AWS::SageMaker::UserProfile",
        "AWS::SecretsManager::Secret",
        "AWS::SQS::Queue",
        "AWS::SSM::Parameter",
        "AWS::Timestream::Table",
        "Custom::IcebergTable",
        "Custom::ApprovalParameter",
        "Custom::MaskKey",
    }
)
#: Custom resources: properties whose change makes another thing of them.
CUSTOM_CREATE_ONLY: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "Custom::IcebergTable": (("Database",), ("Name",), ("Location",)),
    "Custom::ApprovalParameter": (("Name",),),
    "Custom::MaskKey": (("Bucket",), ("Object",)),
}
#: Properties whose change the registry calls a replacement "in some cases": these are always one. (Features
#: that are added to a feature group are not, and are left out.)
#: Source: CloudFormation's reference of each type, "Update requires".
CONDITIONAL: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "AWS::DynamoDB::Table": (("KeySchema",),),
    "AWS::DynamoDB::GlobalTable": (("KeySchema",), ("LocalSecondaryIndexes",)),
    "AWS::RDS::DBCluster": (("Engine",), ("MasterUsername",)),
    "AWS::RDS::DBInstance": (("Engine",),),
    "AWS::SageMaker::Domain": (("VpcId",),),
}
#: How strongly a template holds on to a resource.
KEPT = ("Delete", "RetainExceptOnCreate", "Snapshot", "Retain")


def holds_data(resource: Resource) -> bool:
    """Whether losing a resource loses something."""
    return resource.type in STATEFUL


def create_only(assembly: Assembly, resource: Resource) -> dict[str, Any]:
    """What a template says of a resource that only a replacement changes, by its path."""
    schema = schema_of(resource.type)
    paths = CUSTOM_CREATE_ONLY.get(resource.type, ())
    if schema is not None:
        paths = (*schema.create_only, *CONDITIONAL.get(resource.type, ()))
    found = {}
    for path in paths:
        for name, value in _reached(resource.properties, path):
            found[name] = _ordered(assembly.plain(resource.stack, value))
    return found


def digest(assembly: Assembly) -> dict[str, Any]:
    """Everything that holds data, by stack and logical id."""
    found: dict[str, dict[str, Any]] = {}
    for resource in assembly.resources():
        if holds_data(resource):
            found.setdefault(resource.stack.id, {})[resource.id] = {
                "type": resource.type,
                "kept": resource.raw.get("DeletionPolicy", "Delete"),
                "create_only": create_only(assembly, resource),
            }
    return {"stacks": found}


def _reached(value: Any, path: Sequence[str], done: str = "") -> Iterator[tuple[str, Any]]:
    """Values at a schema's path; ``*`` goes over the elements of a list."""
    if not path:
        yield done, value
        return
    step, *rest = path
    if step == "*" and isinstance(value, list):
        for number, part in enumerate(value):
            yield from _reached(part, rest, f"{done}/{number}")
    elif isinstance(value, Mapping) and step in value:
        yield from _reached(value[step], rest, f"{done}/{step}" if done else step)


def _ordered(value: Any) -> Any:
    """Tags in the order of their keys: their order means nothing."""
    if isinstance(value, list) and all(isinstance(item, Mapping) and "Key" in item for item in value):
        return sorted(value, key=lambda item: json.dumps(item, sort_keys=True))
    return value
