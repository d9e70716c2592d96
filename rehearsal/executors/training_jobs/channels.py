"""What a training job reads: channels of S3, copied before it starts, or of a file system linked to S3."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rehearsal.executors import transfer

if TYPE_CHECKING:
    from rehearsal.services.engine import Service

__all__ = ["bring", "described"]


def bring(
    service: Service, channel: dict[str, Any], default_mode: str, bases: list[Path], *, role: str
) -> None:
    """Bring a channel's files to every host. FastFile too: a program reads the same files, here before it
    asks for them.

    :raises TransferError: the rehearsal cannot, or the role may not
    """
    name = channel["ChannelName"]
    mode = channel.get("InputMode", default_mode)
    if mode == "Pipe":
        raise transfer.TransferError(
            f"the channel {name} asks for Pipe mode; the rehearsal has File and FastFile"
        )
    if channel.get("CompressionType", "None") != "None":
        raise transfer.TransferError(
            f"the channel {name} is compressed; the rehearsal reads uncompressed channels"
        )
    uri, sharded = _source(service, channel)
    targets = [base / "input" / "data" / name for base in bases]
    # Read once, as one host would; the others' copies are the same bytes.
    transfer.download(service.runtime, uri, targets[0], role=role, region=service.region)
    for target in targets[1:]:
        shutil.copytree(targets[0], target)
    if sharded:
        for number, path in enumerate(sorted(p for p in targets[0].rglob("*") if p.is_file())):
            for host, target in enumerate(targets):
                if number % len(targets) != host:
                    (target / path.relative_to(targets[0])).unlink()


def _source(service: Service, channel: dict[str, Any]) -> tuple[str, bool]:
    """The S3 URI that a channel's files come from, and whether each host gets a part of them."""
    name, source = channel["ChannelName"], channel.get("DataSource", {})
    s3 = source.get("S3DataSource")
    if s3 is not None and s3["S3DataType"] == "S3Prefix":
        return s3["S3Uri"], s3.get("S3DataDistributionType") == "ShardedByS3Key"
    if "FileSystemDataSource" in source:
        return _linked(service, name, source["FileSystemDataSource"]), False
    raise transfer.TransferError(f"the channel {name} is no S3Prefix; the rehearsal reads only these")


def _linked(service: Service, channel: str, source: dict[str, Any]) -> str:
    """The S3 URI behind a folder of FSx for Lustre: nothing is mounted, the link is followed instead.

    :raises TransferError: no data repository association leads there
    """
    fsx = service.runtime.service("fsx", service.region)
    # The first part of DirectoryPath is the file system's mount name (FileSystemDataSource, API reference).
    _, _, path = source["DirectoryPath"].strip("/").partition("/")
    with fsx.lock:
        links = [dict(record.data) for record in fsx.records.get("DataRepositoryAssociation", {}).values()]
    for link in links:
        below = link.get("FileSystemPath", "/").strip("/")
        inside = path == below or path.startswith(f"{below}/") or not below
        if link.get("FileSystemId") == source["FileSystemId"] and inside:
            rest = path.removeprefix(below).strip("/")
            service.runtime.ledger.recorded(
                "training-channel", channel, "no file system is mounted; its link to S3 was followed"
            )
            return f"{link['DataRepositoryPath'].rstrip('/')}/{rest}"
    raise transfer.TransferError(
        f"the channel {channel}: no data repository association of {source['FileSystemId']} leads to"
        f" {source['DirectoryPath']}; the rehearsal mounts nothing"
    )


def described(channels: list[dict[str, Any]], default_mode: str) -> dict[str, Any]:
    """``inputdataconfig.json``: the channels as a container is told of them."""
    return {
        channel["ChannelName"]: {
            "ContentType": channel.get("ContentType"),
            "TrainingInputMode": channel.get("InputMode", default_mode),
            "S3DistributionType": channel.get("DataSource", {})
            .get("S3DataSource", {})
            .get("S3DataDistributionType", "FullyReplicated"),
            "RecordWrapperType": channel.get("RecordWrapperType", "None"),
        }
        for channel in channels
    }
