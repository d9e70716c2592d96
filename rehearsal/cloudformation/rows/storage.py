"""Rows of file systems: FSx for Lustre and its links to S3."""

# ruff: noqa: ARG005 - the functions of a row share one signature
from __future__ import annotations

from collections.abc import Callable

from rehearsal.cloudformation.rows.base import Properties, Row

__all__ = ["TABLE"]


def _system(p: Properties, output: Properties, found: Properties) -> Properties:
    del p, found
    system = output["FileSystem"]
    values = {
        "Id": system["FileSystemId"],
        "ResourceARN": system["ResourceARN"],
        "DNSName": system["DNSName"],
    }
    mount_name = system.get("LustreConfiguration", {}).get("MountName")
    return values if mount_name is None else {**values, "LustreMountName": mount_name}


def _within(noun: str, member: str) -> Callable[[Properties, Properties], Properties]:
    """Identify by a member of the structure that the answer wraps."""
    return lambda p, output: {member: output[noun][member]}


TABLE = {
    "AWS::FSx::FileSystem": Row(
        service="fsx",
        create="CreateFileSystem",
        delete="DeleteFileSystem",
        identify=_within("FileSystem", "FileSystemId"),
        ref=lambda p, output, found: str(output["FileSystem"]["FileSystemId"]),
        attributes=_system,
    ),
    "AWS::FSx::DataRepositoryAssociation": Row(
        service="fsx",
        create="CreateDataRepositoryAssociation",
        delete="DeleteDataRepositoryAssociation",
        identify=_within("Association", "AssociationId"),
        ref=lambda p, output, found: str(output["Association"]["AssociationId"]),
        attributes=lambda p, output, found: {
            "AssociationId": str(output["Association"]["AssociationId"]),
            "ResourceARN": str(output["Association"]["ResourceARN"]),
        },
    ),
}
