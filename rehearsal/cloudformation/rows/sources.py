"""Rows of batch sources: AWS DMS and AWS DataSync."""

# ruff: noqa: ARG005 - the functions of a row share one signature
from __future__ import annotations

from collections.abc import Callable, Mapping

from rehearsal.cloudformation.rows.base import Context, Properties, Row, by, text

__all__ = ["TABLE"]

#: The template's names of an endpoint's settings and the API's, where they differ.
_SETTINGS = {
    "PostgreSqlSettings": "PostgreSQLSettings",
    "MySqlSettings": "MySQLSettings",
    "MicrosoftSqlServerSettings": "MicrosoftSQLServerSettings",
}


def _endpoint(p: Properties, context: Context) -> Properties:
    del context
    named = {_SETTINGS.get(key, key): value for key, value in p.items()}
    for store in ("S3Settings", "RedshiftSettings"):
        mode = named.get(store, {}).get("EncryptionMode")
        if mode is not None:
            # CloudFormation and the guide write SSE_KMS, the API's model sse-kms.
            named[store] = {**named[store], "EncryptionMode": mode.lower().replace("_", "-")}
    return named


def _replication(p: Properties, context: Context) -> Properties:
    del context
    documents = ("TableMappings", "ReplicationSettings", "SupplementalSettings")
    return {key: text(value) if key in documents else value for key, value in p.items()}


def _within(noun: str, member: str) -> Callable[[Properties, Properties], Properties]:
    """Identify by a member of the structure that the answer wraps."""
    return lambda params, output: {member: output[noun][member]}


def _location(operation: str) -> Row:
    return Row(
        service="datasync",
        create=operation,
        delete="DeleteLocation",
        identify=by("LocationArn"),
        ref=lambda p, output, found: str(output["LocationArn"]),
    )


TABLE: Mapping[str, Row] = {
    "AWS::DMS::Endpoint": Row(
        service="dms",
        create="CreateEndpoint",
        delete="DeleteEndpoint",
        name="EndpointIdentifier",
        identify=_within("Endpoint", "EndpointArn"),
        convert=_endpoint,
        ref=lambda p, output, found: str(output["Endpoint"]["EndpointArn"]),
    ),
    "AWS::DMS::ReplicationSubnetGroup": Row(
        service="dms",
        create="CreateReplicationSubnetGroup",
        delete="DeleteReplicationSubnetGroup",
        name="ReplicationSubnetGroupIdentifier",
        identify=_within("ReplicationSubnetGroup", "ReplicationSubnetGroupIdentifier"),
        ref=lambda p, output, found: str(
            output["ReplicationSubnetGroup"]["ReplicationSubnetGroupIdentifier"]
        ),
    ),
    "AWS::DMS::ReplicationConfig": Row(
        service="dms",
        create="CreateReplicationConfig",
        delete="DeleteReplicationConfig",
        name="ReplicationConfigIdentifier",
        identify=_within("ReplicationConfig", "ReplicationConfigArn"),
        convert=_replication,
        ref=lambda p, output, found: str(output["ReplicationConfig"]["ReplicationConfigArn"]),
    ),
    "AWS::DataSync::LocationNFS": _location("CreateLocationNfs"),
    "AWS::DataSync::LocationSMB": _location("CreateLocationSmb"),
    "AWS::DataSync::LocationObjectStorage": _location("CreateLocationObjectStorage"),
    "AWS::DataSync::LocationS3": _location("CreateLocationS3"),
    "AWS::DataSync::Task": Row(
        service="datasync",
        create="CreateTask",
        delete="DeleteTask",
        identify=by("TaskArn"),
        ref=lambda p, output, found: str(output["TaskArn"]),
    ),
}
