"""Which resources hold data, and what becomes of it when they go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["fate", "holds_data", "loosened"]

#: Types whose deletion deletes what somebody has put into them, or the key without which it is lost. No API
#: says which types those are; what a template retains counts as well, whatever its type.
TYPES = frozenset(
    {
        "AWS::Backup::BackupVault",
        "AWS::CodeCommit::Repository",
        "AWS::Cognito::UserPool",
        "AWS::DocDB::DBCluster",
        "AWS::DynamoDB::GlobalTable",
        "AWS::DynamoDB::Table",
        "AWS::EC2::Volume",
        "AWS::ECR::Repository",
        "AWS::EFS::FileSystem",
        "AWS::Elasticsearch::Domain",
        "AWS::FSx::FileSystem",
        "AWS::Glue::Database",
        "AWS::Glue::Table",
        "AWS::KMS::Key",
        "AWS::KMS::ReplicaKey",
        "AWS::Kinesis::Stream",
        "AWS::KinesisVideo::Stream",
        "AWS::Logs::LogGroup",
        "AWS::MSK::Cluster",
        "AWS::MSK::ServerlessCluster",
        "AWS::Neptune::DBCluster",
        "AWS::OpenSearchServerless::Collection",
        "AWS::OpenSearchService::Domain",
        "AWS::RDS::DBCluster",
        "AWS::RDS::DBInstance",
        "AWS::Redshift::Cluster",
        "AWS::RedshiftServerless::Namespace",
        "AWS::S3::Bucket",
        "AWS::S3Tables::TableBucket",
        "AWS::SQS::Queue",
        "AWS::SSM::Parameter",
        "AWS::SageMaker::Domain",
        "AWS::SageMaker::FeatureGroup",
        "AWS::SageMaker::MlflowTrackingServer",
        "AWS::SageMaker::ModelPackageGroup",
        "AWS::SecretsManager::Secret",
        "AWS::Timestream::Table",
        "Custom::IcebergTable",
    }
)
#: Types that CloudFormation snapshots or deletes; all others have ``Delete`` as their default.
_SNAPSHOT_BY_DEFAULT = frozenset({"AWS::RDS::DBCluster"})
_KEPT = ("Retain", "RetainExceptOnCreate")


def _policy(resource: Mapping[str, Any], attribute: str) -> str:
    default = "Snapshot" if resource["Type"] in _SNAPSHOT_BY_DEFAULT else "Delete"
    return str(resource.get(attribute, default))


def holds_data(resource: Mapping[str, Any]) -> bool:
    """Whether a resource holds what cannot be made again: by its type, or because its template keeps it."""
    return resource["Type"] in TYPES or _policy(resource, "DeletionPolicy") in (*_KEPT, "Snapshot")


def fate(resource: Mapping[str, Any], *, replaced: bool) -> tuple[str, str]:
    """Kind of finding and words for what becomes of the old resource; by the template that is deployed."""
    attribute = "UpdateReplacePolicy" if replaced else "DeletionPolicy"
    policy = _policy(resource, attribute)
    if policy in _KEPT:
        return "data-left", f"its {attribute} is {policy}: the old one stays in the account, in no stack"
    if policy == "Snapshot":
        return "data-left", f"its {attribute} is Snapshot: a snapshot stays"
    return "data-lost", f"its {attribute} is Delete: what it holds goes with it"


def loosened(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """How a later deletion would take more than it would have taken before."""
    strength = {"Delete": 0, "Snapshot": 1, "RetainExceptOnCreate": 2, "Retain": 2}
    return [
        f"{attribute} goes from {_policy(before, attribute)} to {_policy(after, attribute)}"
        for attribute in ("DeletionPolicy", "UpdateReplacePolicy")
        if strength.get(_policy(after, attribute), 0) < strength.get(_policy(before, attribute), 0)
    ]
