"""Rows of analysis: Redshift Serverless, Quick Sight, OpenSearch Serverless."""

# ruff: noqa: ARG005 - the functions of a row share one signature
from __future__ import annotations

import time
from collections.abc import Callable

from rehearsal.cloudformation.rows.base import Context, Properties, Row, by, only

__all__ = ["TABLE"]

#: A collection that is not there after this is taken to hang.
_COLLECTION_SECONDS = 60


def _redshift(noun: str, *, updated: tuple[str, ...], shown: tuple[str, ...]) -> Row:
    """The API wraps its answers in ``namespace`` and ``workgroup``."""
    member, name = noun.lower(), f"{noun.lower()}Name"

    def attributes(p: Properties, output: Properties, found: Properties) -> Properties:
        del p, output
        kept = found.get(member, {})
        values = {part: kept.get(part[:1].lower() + part[1:]) for part in shown}
        return {f"{noun}.{part}": value for part, value in values.items() if value is not None}

    return Row(
        service="redshift-serverless",
        create=f"Create{noun}",
        read=f"Get{noun}",
        update=f"Update{noun}",
        delete=f"Delete{noun}",
        identify=lambda p, output: {name: p[name]},
        convert_update=lambda p, c: only(p, (f"{noun}Name", *updated)),
        attributes=attributes,
        # What happens when it is deleted.
        beside=frozenset({"FinalSnapshotName", "FinalSnapshotRetentionPeriod"})
        if noun == "Namespace"
        else frozenset(),
    )


def _sight(noun: str, *, beside: frozenset[str] = frozenset(), fixed: tuple[str, ...] = ()) -> Row:
    """Who may see a resource has calls of its own once it is there."""

    def changed(p: Properties, context: Context) -> Properties:
        del context
        return {k: v for k, v in p.items() if k not in ("Permissions", "Tags", "FolderArns", *fixed)}

    return Row(
        service="quicksight",
        create=f"Create{noun}",
        update=f"Update{noun}",
        delete=f"Delete{noun}",
        name=f"{noun}Id",
        identify=by("AwsAccountId", f"{noun}Id"),
        convert=lambda p, c: {"AwsAccountId": c.runtime.account, **p},
        convert_update=lambda p, c: {"AwsAccountId": c.runtime.account, **changed(p, c)},
        ref=lambda p, output, found: f"{p['AwsAccountId']}|{p[f'{noun}Id']}",
        beside=beside,
    )


def _policy(noun: str) -> Row:
    member = f"{noun[0].lower()}{noun[1:]}Detail"

    def update(p: Properties, context: Context) -> Properties:
        client = context.client("opensearchserverless")
        get: Callable[..., Properties] = getattr(client, f"get_{noun.removesuffix('Policy').lower()}_policy")
        version = get(type=p["Type"], name=p["Name"])[member]["policyVersion"]
        return {**p, "PolicyVersion": version}

    return Row(
        service="opensearchserverless",
        create=f"Create{noun}",
        update=f"Update{noun}",
        delete=f"Delete{noun}",
        identify=lambda p, output: {"type": p["type"], "name": p["name"]},
        convert_update=update,
        ref=lambda p, output, found: str(p["name"]),
    )


def _collection(p: Properties, output: Properties) -> Properties:
    del p
    one = output["createCollectionDetail"]["id"]
    return {"id": one, "ids": [one]}


def _await_collection(p: Properties, identity: Properties, context: Context) -> None:
    del p
    client, status = context.client("opensearchserverless"), ""
    deadline = time.monotonic() + _COLLECTION_SECONDS
    while time.monotonic() < deadline:
        (detail,) = client.batch_get_collection(ids=identity["ids"])["collectionDetails"]
        status = str(detail["status"])
        if status == "ACTIVE":
            return
        if status == "FAILED":
            raise RuntimeError(detail.get("failureMessage", status))
        time.sleep(0.1)
    raise RuntimeError(f"Exceeded attempts to wait for the collection {identity['id']}: {status}")


def _collection_attributes(p: Properties, output: Properties, found: Properties) -> Properties:
    del p, output
    (detail,) = found["collectionDetails"]
    members = ("Id", "Arn", "CollectionEndpoint", "DashboardEndpoint", "KmsKeyArn")
    values = {part: detail.get(part[:1].lower() + part[1:]) for part in members}
    return {part: str(value) for part, value in values.items() if value is not None}


TABLE = {
    "AWS::RedshiftServerless::Namespace": _redshift(
        "Namespace",
        updated=(
            "AdminPasswordSecretKmsKeyId",
            "AdminUserPassword",
            "AdminUsername",
            "DefaultIamRoleArn",
            "IamRoles",
            "KmsKeyId",
            "LogExports",
            "ManageAdminPassword",
        ),
        shown=("NamespaceArn", "NamespaceId", "NamespaceName", "DbName", "KmsKeyId", "DefaultIamRoleArn"),
    ),
    "AWS::RedshiftServerless::Workgroup": _redshift(
        "Workgroup",
        updated=(
            "BaseCapacity",
            "ConfigParameters",
            "EnhancedVpcRouting",
            "MaxCapacity",
            "Port",
            "PricePerformanceTarget",
            "PubliclyAccessible",
            "SecurityGroupIds",
            "SubnetIds",
            "TrackName",
        ),
        shown=("WorkgroupArn", "WorkgroupId", "WorkgroupName", "NamespaceName"),
    ),
    "AWS::QuickSight::DataSource": _sight("DataSource", fixed=("Type",)),
    "AWS::QuickSight::DataSet": _sight(
        # How a refresh goes has a call of its own, and waiting for an ingestion is CloudFormation's.
        "DataSet",
        beside=frozenset({"IngestionWaitPolicy"}),
        fixed=("UseAs",),
    ),
    "AWS::QuickSight::Dashboard": _sight("Dashboard", fixed=("LinkSharingConfiguration", "LinkEntities")),
    "AWS::OpenSearchServerless::SecurityPolicy": _policy("SecurityPolicy"),
    "AWS::OpenSearchServerless::AccessPolicy": _policy("AccessPolicy"),
    "AWS::OpenSearchServerless::VpcEndpoint": Row(
        service="opensearchserverless",
        create="CreateVpcEndpoint",
        delete="DeleteVpcEndpoint",
        identify=lambda p, output: {"id": output["createVpcEndpointDetail"]["id"]},
        ref=lambda p, output, found: str(output["createVpcEndpointDetail"]["id"]),
        attributes=lambda p, output, found: {"Id": str(output["createVpcEndpointDetail"]["id"])},
    ),
    "AWS::OpenSearchServerless::Collection": Row(
        service="opensearchserverless",
        create="CreateCollection",
        read="BatchGetCollection",
        update="UpdateCollection",
        delete="DeleteCollection",
        identify=_collection,
        convert_update=lambda p, c: only(p, ("Description", "DeletionProtection", "VectorOptions")),
        finish=_await_collection,
        ref=lambda p, output, found: str(output["createCollectionDetail"]["id"]),
        attributes=_collection_attributes,
    ),
}
