"""AWS DMS and AWS DataSync: what moves data is kept as it was asked for; nothing is moved."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from rehearsal.services.engine import ApiError, instead

if TYPE_CHECKING:
    from rehearsal.services.engine import Call, Service

__all__: list[str] = []

_NOTHING_MOVES = "no database and no file server is there to read from"
#: DataSync: operation that makes it -> its kind in the ARN, and the member that answers with the ARN.
_DATASYNC = {
    "CreateLocationNfs": ("location/loc", "LocationArn"),
    "CreateLocationSmb": ("location/loc", "LocationArn"),
    "CreateLocationObjectStorage": ("location/loc", "LocationArn"),
    "CreateLocationS3": ("location/loc", "LocationArn"),
    "CreateTask": ("task/task", "TaskArn"),
}
#: DMS: operation that makes it -> its name in the ARN, and the structure that wraps the answer.
_DMS = {
    "CreateEndpoint": ("endpoint", "Endpoint"),
    "CreateReplicationSubnetGroup": ("subgrp", "ReplicationSubnetGroup"),
    "CreateReplicationConfig": ("replication-config", "ReplicationConfig"),
}


def _kept(service: Service, noun: str, arn: str, call: Call) -> None:
    record = service.put(noun, arn, {k: v for k, v in call.params.items() if k != "Tags"})
    record.arn = arn
    service.runtime.ledger.recorded(service.name, arn, _NOTHING_MOVES)


def _make_datasync(service: Service, call: Call) -> dict[str, Any]:
    kind, member = _DATASYNC[call.operation]
    if call.operation == "CreateTask":
        for end in ("SourceLocationArn", "DestinationLocationArn"):
            if service.peek("Location", call.params[end]) is None:
                raise ApiError("InvalidRequestException", f"{end}: there is no {call.params[end]}")
    arn = f"arn:aws:datasync:{service.region}:{service.account}:{kind}-{uuid.uuid4().hex[:17]}"
    _kept(service, "Task" if kind.startswith("task") else "Location", arn, call)
    return {member: arn}


def _make_dms(service: Service, call: Call) -> dict[str, Any]:
    kind, noun = _DMS[call.operation]
    identifier = str(call.params[f"{noun}Identifier"])
    if kind == "subgrp":
        arn = f"arn:aws:dms:{service.region}:{service.account}:{kind}:{identifier}"
        _kept(service, noun, identifier, call)
        return {noun: {f"{noun}Identifier": identifier}}
    if kind == "replication-config":
        for end in ("SourceEndpointArn", "TargetEndpointArn"):
            if service.peek("Endpoint", call.params[end]) is None:
                raise ApiError("ResourceNotFoundFault", f"{end}: there is no {call.params[end]}")
    arn = f"arn:aws:dms:{service.region}:{service.account}:{kind}:{uuid.uuid4().hex[:26].upper()}"
    _kept(service, noun, arn, call)
    return {noun: {f"{noun}Identifier": identifier, f"{noun}Arn": arn}}


def _forget(noun: str, member: str) -> Any:
    def forget(service: Service, call: Call) -> dict[str, Any]:
        if service.peek(noun, call.params[member]) is None:
            code = "ResourceNotFoundFault" if service.name == "dms" else "InvalidRequestException"
            raise ApiError(code, f"{noun} {call.params[member]} is NotFound")
        service.remove(noun, call.params[member])
        return {}

    return forget


for _operation in _DATASYNC:
    instead("datasync", _operation)(_make_datasync)
for _operation in _DMS:
    instead("dms", _operation)(_make_dms)
instead("datasync", "DeleteLocation")(_forget("Location", "LocationArn"))
instead("datasync", "DeleteTask")(_forget("Task", "TaskArn"))
instead("dms", "DeleteEndpoint")(_forget("Endpoint", "EndpointArn"))
instead("dms", "DeleteReplicationSubnetGroup")(
    _forget("ReplicationSubnetGroup", "ReplicationSubnetGroupIdentifier")
)
instead("dms", "DeleteReplicationConfig")(_forget("ReplicationConfig", "ReplicationConfigArn"))
