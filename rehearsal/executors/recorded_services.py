"""Services that only an account runs: what is made is kept as it was asked for, checked, and does nothing.

The engine serves the rest of them from botocore's models; here is what it cannot know: ids that a service
draws, resources that must be there before, members that an answer adds.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from rehearsal import ministack_bridge as bridge
from rehearsal.services.engine import ApiError, after, instead

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime
    from rehearsal.services.engine import Call, Record, Service

__all__ = ["install"]

#: What an account alone does with each resource.
_NOT_RUN: Mapping[tuple[str, str], str] = {
    ("kafka", "ClusterV2"): "no broker runs",
    ("kinesisvideo", "Stream"): "no camera sends",
    ("redshift-serverless", "Namespace"): "no database is behind it",
    ("redshift-serverless", "Workgroup"): "no warehouse answers",
    ("quicksight", "DataSource"): "nobody connects to it",
    ("quicksight", "DataSet"): "nobody queries it",
    ("quicksight", "Dashboard"): "nobody looks at it",
    ("databrew", "ProfileJob"): "nobody profiles the table",
    ("fsx", "FileSystem"): "nothing can be mounted",
    ("fsx", "DataRepositoryAssociation"): "no file is imported",
    ("opensearchserverless", "VpcEndpoint"): "no packet passes it",
    ("mwaa", "Environment"): "no Airflow runs",
}


def _id(prefix: str) -> str:
    return f"{prefix}-0{uuid.uuid4().hex[:16]}"


def _recorded(service: Service, noun: str, name: str) -> None:
    service.runtime.ledger.recorded(service.name, name, _NOT_RUN[service.name, noun])


def _kept(service: Service, noun: str, name: str, call: Call, *, arn: str | None = None) -> Record:
    """Keep a resource under the name or id that the service gives it."""
    data = {k: v for k, v in call.params.items() if k not in service.traits.tag_members}
    record = service.put(noun, name, data)
    record.arn = record.arn if arn is None else arn
    service.tags[record.arn] = service.traits.tags_in(call.params)
    _recorded(service, noun, name)
    return record


def _note(noun: str, member: str) -> Callable[[Service, Call, dict[str, Any]], None]:
    def note(service: Service, call: Call, output: dict[str, Any]) -> None:
        del output
        _recorded(service, noun, str(call.params[member]))

    return note


# -- MSK ----------------------------------------------------------------------------------------------------


def _clusters(service: Service) -> Mapping[str, Record]:
    return service.records.get("ClusterV2", {})


@instead("kafka", "CreateClusterV2")
def _create_cluster(service: Service, call: Call) -> dict[str, Any]:
    name = str(call.params["ClusterName"])
    if "Serverless" not in call.params:
        raise ApiError("BadRequestException", "the rehearsal keeps serverless clusters only")
    if name in _clusters(service):
        raise ApiError("ConflictException", f"A cluster named {name} already exists.", 409)
    # The last part is a UUID and a number that MSK draws.
    arn = service.arn("Cluster", f"{name}/{uuid.uuid4()}-s1")
    record = _kept(service, "ClusterV2", name, call, arn=arn)
    return {"ClusterArn": record.arn, "ClusterName": name, "ClusterType": "SERVERLESS", "State": "ACTIVE"}


@instead("kafka", "DescribeClusterV2")
def _describe_cluster(service: Service, call: Call) -> dict[str, Any]:
    record = _cluster(service, call)
    return {
        "ClusterInfo": {
            **record.data,
            "ClusterArn": record.arn,
            "ClusterType": "SERVERLESS",
            "CreationTime": record.created,
            "State": "ACTIVE",
            "Tags": service.tags.get(record.arn, {}),
        }
    }


@instead("kafka", "DeleteCluster")
def _delete_cluster(service: Service, call: Call) -> dict[str, Any]:
    record = service.remove("ClusterV2", _cluster(service, call).name)
    return {"ClusterArn": record.arn, "State": "DELETING"}


def _cluster(service: Service, call: Call) -> Record:
    arn = call.params["ClusterArn"]
    found = next((r for r in _clusters(service).values() if r.arn == arn), None)
    if found is None:
        raise ApiError("NotFoundException", f"The requested resource {arn} doesn't exist.", 404)
    return found


# -- Kinesis Video Streams ----------------------------------------------------------------------------------


@instead("kinesisvideo", "CreateStream")
def _create_stream(service: Service, call: Call) -> dict[str, Any]:
    name = str(call.params["StreamName"])
    record = _kept(service, "Stream", name, call)
    # The ARN ends in the time of its making, in milliseconds.
    made = int(record.created.timestamp() * 1000)
    record.arn = f"{record.arn}/{made}"
    return {"StreamARN": record.arn}


@instead("kinesisvideo", "DescribeStream")
def _describe_stream(service: Service, call: Call) -> dict[str, Any]:
    record = _stream(service, call)
    kept = {k: v for k, v in record.data.items() if k != "StreamStorageConfiguration"}
    times = {"CreationTime": record.created, "Status": "ACTIVE"}
    return {"StreamInfo": {**kept, "StreamARN": record.arn, **times}}


@instead("kinesisvideo", "GetDataEndpoint")
def _data_endpoint(service: Service, call: Call) -> dict[str, Any]:
    _stream(service, call)
    return {"DataEndpoint": service.runtime.endpoint}


@instead("kinesis-video-archived-media", "GetImages")
def _images(service: Service, call: Call) -> dict[str, Any]:
    """Answer each sample as of a stream that no camera writes to: there are no media."""
    p = call.params
    _stream(service.runtime.service("kinesisvideo", service.region), call)
    span = (p["EndTimestamp"] - p["StartTimestamp"]).total_seconds() * 1000
    if span <= 0:
        raise ApiError("InvalidArgumentException", "EndTimestamp must be after StartTimestamp")
    interval = int(p.get("SamplingInterval", 3000))
    first = int(p.get("NextToken", 0))
    last = min(math.ceil(span / interval), first + int(p.get("MaxResults", 25)))
    images = [
        {"TimeStamp": p["StartTimestamp"] + timedelta(milliseconds=i * interval), "Error": "NO_MEDIA"}
        for i in range(first, last)
    ]
    return {"Images": images, "NextToken": str(last) if last * interval < span else None}


def _stream(service: Service, call: Call) -> Record:
    name = str(call.params.get("StreamName", call.params.get("StreamARN")))
    found = service.peek("Stream", name)
    if found is None:
        raise ApiError("ResourceNotFoundException", f"The requested stream {name} is not found.", 404)
    return found


# -- FSx ----------------------------------------------------------------------------------------------------


@instead("fsx", "CreateFileSystem")
def _create_file_system(service: Service, call: Call) -> dict[str, Any]:
    name = _id("fs")
    record = _kept(service, "FileSystem", name, call)
    answer = {k: v for k, v in record.data.items() if k not in ("SecurityGroupIds", "ClientRequestToken")}
    if call.params["FileSystemType"] == "LUSTRE":
        lustre = {k: v for k, v in answer.get("LustreConfiguration", {}).items() if k in _LUSTRE_ANSWERED}
        answer["LustreConfiguration"] = {**lustre, "MountName": uuid.uuid4().hex[:8]}
    answer |= {
        "FileSystemId": name,
        "ResourceARN": record.arn,
        "Lifecycle": "AVAILABLE",
        "DNSName": f"{name}.fsx.{service.region}.amazonaws.com",
        "OwnerId": service.account,
        "CreationTime": record.created,
    }
    record.data = answer
    return {"FileSystem": answer}


#: Members that both the request and the answer have.
_LUSTRE_ANSWERED = frozenset(
    {
        "AutomaticBackupRetentionDays",
        "CopyTagsToBackups",
        "DailyAutomaticBackupStartTime",
        "DataCompressionType",
        "DeploymentType",
        "DriveCacheType",
        "EfaEnabled",
        "PerUnitStorageThroughput",
        "WeeklyMaintenanceStartTime",
    }
)


@instead("fsx", "DescribeFileSystems")
def _describe_file_systems(service: Service, call: Call) -> dict[str, Any]:
    names = call.params.get("FileSystemIds") or list(service.records.get("FileSystem", {}))
    return {"FileSystems": [_file_system(service, name).data for name in names]}


@instead("fsx", "DeleteFileSystem")
def _delete_file_system(service: Service, call: Call) -> dict[str, Any]:
    name = _file_system(service, call.params["FileSystemId"]).name
    links = service.records.get("DataRepositoryAssociation", {})
    for link in [k for k, r in links.items() if r.data["FileSystemId"] == name]:
        service.remove("DataRepositoryAssociation", link)
    service.remove("FileSystem", name)
    return {"FileSystemId": name, "Lifecycle": "DELETING"}


def _file_system(service: Service, name: str) -> Record:
    found = service.peek("FileSystem", name)
    if found is None:
        raise ApiError("FileSystemNotFound", f"File system '{name}' does not exist.")
    return found


@instead("fsx", "CreateDataRepositoryAssociation")
def _create_link(service: Service, call: Call) -> dict[str, Any]:
    system = _file_system(service, call.params["FileSystemId"])
    if system.data.get("LustreConfiguration", {}).get("DeploymentType") == "SCRATCH_1":
        raise ApiError("BadRequest", "SCRATCH_1 file systems take no data repository association")
    name = _id("dra")
    arn = f"{service.arn('Association', system.name)}/{name}"
    record = _kept(service, "DataRepositoryAssociation", name, call, arn=arn)
    record.data.pop("ClientRequestToken", None)
    answer = {
        **record.data,
        "AssociationId": name,
        "ResourceARN": arn,
        "Lifecycle": "AVAILABLE",
        "CreationTime": record.created,
    }
    return {"Association": answer}


@instead("fsx", "DeleteDataRepositoryAssociation")
def _delete_link(service: Service, call: Call) -> dict[str, Any]:
    name = call.params["AssociationId"]
    if service.peek("DataRepositoryAssociation", name) is None:
        raise ApiError("DataRepositoryAssociationNotFound", f"Association '{name}' does not exist.")
    service.remove("DataRepositoryAssociation", name)
    return {"AssociationId": name, "Lifecycle": "DELETING"}


# -- OpenSearch Serverless: ministack has policies and collections, no endpoints ----------------------------


@instead("opensearchserverless", "CreateVpcEndpoint")
def _create_endpoint(service: Service, call: Call) -> dict[str, Any]:
    p = call.params
    if any(r.data["name"] == p["name"] for r in service.records.get("VpcEndpoint", {}).values()):
        raise ApiError("ConflictException", f"A VPC endpoint named {p['name']} already exists")
    record = _kept(service, "VpcEndpoint", _id("vpce"), call)
    return {"createVpcEndpointDetail": {"id": record.name, "name": p["name"], "status": "ACTIVE"}}


@instead("opensearchserverless", "BatchGetVpcEndpoint")
def _get_endpoints(service: Service, call: Call) -> dict[str, Any]:
    found = [(one, service.peek("VpcEndpoint", one)) for one in call.params["ids"]]
    missing = {"errorCode": "NOT_FOUND", "errorMessage": "The specified VPC endpoint is not found."}
    shown = ("name", "vpcId", "subnetIds", "securityGroupIds")
    return {
        "vpcEndpointDetails": [
            {"id": one, "status": "ACTIVE", **{k: r.data[k] for k in shown if k in r.data}}
            for one, r in found
            if r is not None
        ],
        "vpcEndpointErrorDetails": [{"id": one, **missing} for one, r in found if r is None],
    }


@instead("opensearchserverless", "DeleteVpcEndpoint")
def _delete_endpoint(service: Service, call: Call) -> dict[str, Any]:
    name = call.params["id"]
    if service.peek("VpcEndpoint", name) is None:
        raise ApiError("ResourceNotFoundException", f"VPC endpoint {name} is not found")
    record = service.remove("VpcEndpoint", name)
    answer = {"id": name, "name": record.data["name"], "status": "DELETING"}
    return {"deleteVpcEndpointDetail": answer}


# -- references that must hold ------------------------------------------------------------------------------


@instead("redshift-serverless", "CreateWorkgroup")
def _create_workgroup(service: Service, call: Call) -> dict[str, Any]:
    name = call.params["namespaceName"]
    if service.peek("Namespace", name) is None:
        raise ApiError("ResourceNotFoundException", f"Namespace {name} does not exist.")
    return service.generic(call)


@instead("quicksight", "CreateDataSet")
def _create_data_set(service: Service, call: Call) -> dict[str, Any]:
    for table in call.params["PhysicalTableMap"].values():
        for kind in table.values():
            source = kind["DataSourceArn"]
            if service.peek("DataSource", source) is None:
                raise ApiError("InvalidParameterValueException", f"Data source {source} does not exist")
    return service.generic(call)


@instead("quicksight", "CreateDashboard")
def _create_dashboard(service: Service, call: Call) -> dict[str, Any]:
    """Refuse a dashboard that asks a data set or a column that is not there."""
    definition = call.params.get("Definition", {})
    columns: dict[str, set[str]] = {}
    for declared in definition.get("DataSetIdentifierDeclarations", ()):
        record = service.peek("DataSet", declared["DataSetArn"])
        if record is None:
            raise ApiError(
                "InvalidParameterValueException", f"Data set {declared['DataSetArn']} does not exist"
            )
        columns[declared["Identifier"]] = {
            column["Name"]
            for table in record.data["PhysicalTableMap"].values()
            for kind in table.values()
            for column in kind.get("InputColumns", kind.get("Columns", ()))
        }
    unknown = sorted(
        {
            f"{data_set}.{column}"
            for data_set, column in _columns(definition)
            if column not in columns.get(data_set, ())
        }
    )
    if unknown:
        raise ApiError("InvalidParameterValueException", f"The definition has no {', '.join(unknown)}")
    return service.generic(call)


def _columns(value: Any) -> set[tuple[str, str]]:
    """Return the columns that a definition names, wherever they stand."""
    if isinstance(value, Mapping):
        if {"DataSetIdentifier", "ColumnName"} <= value.keys():
            return {(value["DataSetIdentifier"], value["ColumnName"])}
        return {found for part in value.values() for found in _columns(part)}
    if isinstance(value, list):
        return {found for part in value for found in _columns(part)}
    return set()


for _service, _noun, _member in (
    ("redshift-serverless", "Namespace", "namespaceName"),
    ("redshift-serverless", "Workgroup", "workgroupName"),
    ("databrew", "ProfileJob", "Name"),
    ("quicksight", "DataSource", "DataSourceId"),
    ("quicksight", "DataSet", "DataSetId"),
    ("quicksight", "Dashboard", "DashboardId"),
    ("mwaa", "Environment", "Name"),
):
    after(_service, f"Create{_noun}")(_note(_noun, _member))


# -- Kafka as a source of events ----------------------------------------------------------------------------


def _mapped(runtime: Runtime, identifier: str, properties: Mapping[str, Any]) -> None:
    if ":kafka:" in str(properties.get("EventSourceArn", "")):
        runtime.ledger.recorded("event-source-mapping", identifier, "no broker runs that could be polled")


def install(runtime: Runtime) -> None:
    """Correct what ministack does otherwise; say of a mapping on a Kafka topic that nobody polls."""
    bridge.let_dashboards_be_of_collections()
    bridge.extend_type("AWS::Lambda::EventSourceMapping", after=partial(_mapped, runtime))
