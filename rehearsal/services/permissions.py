"""Which IAM permissions a call of one of our own services needs.

The action is the operation; the resources are those that the service authorization reference lists for it,
found by the parameters that name them. A role that is handed to a service needs ``iam:PassRole`` on it as
well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rehearsal.ministack_bridge import Check

if TYPE_CHECKING:
    from rehearsal.services.engine import Call, Service

__all__ = ["checks_of_call"]

#: Prefix of the actions where it is not the service's name.
_NAMESPACES = {
    "sagemaker-runtime": "sagemaker",
    "sagemaker-featurestore-runtime": "sagemaker",
    "sagemaker-metrics": "sagemaker",
    "events": "events",
    "kinesisanalyticsv2": "kinesisanalytics",
    "mwaa": "airflow",
    "kinesis-video-archived-media": "kinesisvideo",
}
#: The service that assumes a role handed to an operation of ours.
_PASSED_TO = {
    "sagemaker": "sagemaker.amazonaws.com",
    "codepipeline": "codepipeline.amazonaws.com",
    "lakeformation": "lakeformation.amazonaws.com",
    "application-autoscaling": "application-autoscaling.amazonaws.com",
    "glue": "glue.amazonaws.com",
    "firehose": "firehose.amazonaws.com",
    "emr-serverless": "emr-serverless.amazonaws.com",
    "mwaa": "airflow.amazonaws.com",
}
_VERB = re.compile(
    r"(?:Batch)?(?:Create|Register|Put|Describe|Get|Update|Delete|Deregister|Start|Stop|Invoke)(.*)"
)
#: Operations whose noun is not the resource that the policy names: noun and the parameters that name it.
_RESOURCES: Mapping[tuple[str, str], tuple[str, str]] = {
    ("sagemaker", "StartPipelineExecution"): ("Pipeline", "PipelineName"),
    ("sagemaker", "ListPipelineExecutions"): ("Pipeline", "PipelineName"),
    ("codepipeline", "StartPipelineExecution"): ("Pipeline", "name"),
    **{
        ("codepipeline", operation): ("Pipeline", "pipelineName")
        for operation in ("StopPipelineExecution", "RollbackStage", "PutApprovalResult")
    },
    ("codebuild", "StartBuild"): ("Project", "projectName"),
    ("sagemaker", "ListTrainingJobsForHyperParameterTuningJob"): (
        "HyperParameterTuningJob",
        "HyperParameterTuningJobName",
    ),
    ("sagemaker", "CreateModelPackage"): ("ModelPackageGroup", "ModelPackageGroupName"),
    ("sagemaker", "UpdateEndpointWeightsAndCapacities"): ("Endpoint", "EndpointName"),
    ("sagemaker-runtime", "InvokeEndpoint"): ("Endpoint", "EndpointName"),
    ("sagemaker-runtime", "InvokeEndpointAsync"): ("Endpoint", "EndpointName"),
    ("sagemaker-featurestore-runtime", "PutRecord"): ("FeatureGroup", "FeatureGroupName"),
    ("sagemaker-featurestore-runtime", "GetRecord"): ("FeatureGroup", "FeatureGroupName"),
    ("sagemaker-featurestore-runtime", "DeleteRecord"): ("FeatureGroup", "FeatureGroupName"),
    **{
        ("emr-serverless", operation): ("Application", "applicationId")
        for operation in ("StartJobRun", "ListJobRuns")
    },
    # A run has no ARN of its own: permissions name its workflow or job ("Actions, resources, and condition
    # keys for AWS Glue").
    **{("glue", f"{verb}WorkflowRun"): ("Workflow", "Name") for verb in ("Start", "Get", "Stop", "Resume")},
    ("glue", "NotifyEvent"): ("Workflow", "Name"),
    **{
        ("glue", operation): ("Job", "JobName")
        for operation in ("StartJobRun", "GetJobRun", "BatchStopJobRun")
    },
}

#: Operations on records of several feature groups, and the member that lists what is asked of each.
_BATCHES = {"BatchGetRecord": "Identifiers", "BatchWriteRecord": "Entries"}
#: Operations of Glue on entries of the Data Catalog.
_CATALOG = frozenset(
    f"{verb}{noun}"
    for verb in ("Get", "Create", "Update", "Delete", "BatchGet", "BatchCreate", "BatchUpdate", "BatchDelete")
    for noun in ("Database", "Table", "Tables", "TableVersion", "TableVersions", "Partition", "Partitions")
)


def checks_of_call(service: Service, call: Call) -> list[Check]:
    """Return the permissions that a call needs, the call's own first."""
    namespace = _NAMESPACES.get(service.name, service.name)
    action = f"{namespace}:{call.operation}"
    tags = {f"aws:RequestTag/{key}": value for key, value in service.traits.tags_in(call.params).items()}
    context = {**tags, **_conditions(call)}
    checks = [
        Check(action=action, resource=resource, context=context) for resource in _resources(service, call)
    ]
    if tags and namespace == "sagemaker" and call.operation.startswith("Create"):
        checks += [Check(action="sagemaker:AddTags", resource=check.resource) for check in checks]
    principal = _PASSED_TO.get(service.name)
    if principal is not None:
        checks += [
            Check(action="iam:PassRole", resource=arn, context={"iam:PassedToService": principal})
            for arn in sorted(set(_roles(call.params)))
        ]
    return checks


def _conditions(call: Call) -> dict[str, Any]:
    """Return the condition keys that a service makes of its parameters."""
    status = call.params.get("ModelApprovalStatus")
    if call.operation in ("CreateModelPackage", "UpdateModelPackage") and status is not None:
        return {"sagemaker:ModelApprovalStatus": status}
    return {}


def _resources(service: Service, call: Call) -> list[str]:  # noqa: PLR0911 - one per way to name them
    if service.name == "sagemaker-featurestore-runtime" and call.operation in _BATCHES:
        items = call.params.get(_BATCHES[call.operation], ())
        names = dict.fromkeys(str(item["FeatureGroupName"]) for item in items)
        return [_arn(service, "FeatureGroup", name) for name in names]
    if _NAMESPACES.get(service.name, service.name) == "kinesisvideo":
        return _video_streams(service, call)
    if service.name == "athena":
        return _workgroups(service, call)
    if service.name == "glue" and call.operation in _CATALOG:
        return _catalog(service, call)
    noun, parameter = _RESOURCES.get((service.name, call.operation), ("", ""))
    if noun and isinstance(call.params.get(parameter), str):
        return [_arn(service, noun, call.params[parameter])]
    arn = next(
        (
            value
            for key, value in call.params.items()
            if key.lower() in ("resourcearn", "pipelineexecutionarn") and isinstance(value, str)
        ),
        None,
    )
    if arn is not None:
        return [arn]
    match = _VERB.fullmatch(call.operation)
    name = None if match is None else service.traits.name_in(match.group(1), call.params)
    if match is None or name is None:
        return ["*"]
    return [_arn(service, match.group(1), name)]


def _video_streams(service: Service, call: Call) -> list[str]:
    """Return the stream that a call is about; only the service knows how its ARN ends."""
    name = call.params.get("StreamARN", call.params.get("StreamName"))
    if name is None:
        return ["*"]
    streams = service.runtime.service("kinesisvideo", service.region)
    record = streams.peek("Stream", name)
    return [streams.arn("Stream", name) if record is None else record.arn]


def _workgroups(service: Service, call: Call) -> list[str]:
    """Return the workgroups that a call is about: queries and saved queries belong to theirs."""
    p = call.params
    names = [p["WorkGroup"]] if "WorkGroup" in p else []
    for query_id in (p.get("QueryExecutionId"), *p.get("QueryExecutionIds", ())):
        record = None if query_id is None else service.peek("QueryExecution", query_id)
        names += [] if record is None else [record.data["WorkGroup"]]
    saved = [one for one in (p.get("NamedQueryId"), *p.get("NamedQueryIds", ())) if one is not None]
    if saved:
        client = service.runtime.forwarding_client("athena", region=service.region)
        found = client.batch_get_named_query(NamedQueryIds=saved)["NamedQueries"]
        names += [query["WorkGroup"] for query in found]
    return [
        f"arn:aws:athena:{service.region}:{service.account}:workgroup/{name}"
        for name in dict.fromkeys(names or ["primary"])
    ]


def _catalog(service: Service, call: Call) -> list[str]:
    """Return the catalog, the database and the table: Glue asks for each of them.

    AWS Glue Developer Guide, "Specifying AWS Glue resource ARNs".
    """
    p, base = call.params, f"arn:aws:glue:{service.region}:{service.account}"
    database = p.get("DatabaseName", p.get("DatabaseInput", {}).get("Name", p.get("Name")))
    table = p.get("TableName", p.get("TableInput", {}).get("Name", p.get("Name")))
    found = [f"{base}:catalog", f"{base}:database/{database}"]
    if "Database" in call.operation:
        return found
    return [*found, f"{base}:table/{database}/{'*' if call.operation == 'GetTables' else table}"]


def _arn(service: Service, noun: str, name: str) -> str:
    if name.startswith("arn:"):
        return name
    arn = service.arn(noun, name)
    namespace = _NAMESPACES.get(service.name, service.name)
    return arn.replace(f":{service.name}:", f":{namespace}:", 1)


def _roles(value: Any) -> Iterator[str]:
    """Yield the role ARNs that parameters hand to the service, wherever they stand."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            if isinstance(part, str):
                if key.lower().endswith(("rolearn", "role")) and ":role/" in part:
                    yield part
            else:
                yield from _roles(part)
    elif isinstance(value, list):
        for part in value:
            yield from _roles(part)
