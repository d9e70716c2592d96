"""API parameters inside documents of templates against the models of the APIs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from verify.assembly import Resource, walk
from verify.code.deployed import documents
from verify.code.variables import reads, request_properties
from verify.context import Context
from verify.finding import Check, Finding
from verify.models import UNKNOWN, Reading, operation_named, problems, service_model

_ID = "parameters"
#: What Step Functions and Scheduler call a service, where boto3 has another name for it.
#: Source: Step Functions, "Using AWS SDK service integrations"; EventBridge Scheduler, "Universal targets".
SERVICE_NAMES: Mapping[str, str] = {
    "sfn": "stepfunctions",
    "states": "stepfunctions",
    "eventbridge": "events",
    "sagemakerruntime": "sagemaker-runtime",
    "sagemakerfeaturestoreruntime": "sagemaker-featurestore-runtime",
    "emrserverless": "emr-serverless",
    "cloudwatchlogs": "logs",
    "dynamodbstreams": "dynamodbstreams",
    "costexplorer": "ce",
    "redshiftdata": "redshift-data",
    "servicediscovery": "servicediscovery",
    "elasticmapreduce": "emr",
    "elasticinference": "elastic-inference",
}
#: Optimised integrations whose parameters are the API's, some with a member that is their own.
#: Source: Step Functions, "Integrating optimized services".
_OWN_MEMBERS: Mapping[str, frozenset[str]] = {
    "lambda:invoke": frozenset({"Payload"}),
    "sqs:sendMessage": frozenset({"MessageBody"}),
    "sns:publish": frozenset({"Message"}),
    "states:startExecution": frozenset({"Input"}),
}
#: Steps of a SageMaker pipeline and the call that each makes. Source: SageMaker, "Pipelines steps".
STEPS: Mapping[str, str] = {
    "Processing": "CreateProcessingJob",
    "Training": "CreateTrainingJob",
    "Transform": "CreateTransformJob",
    "Tuning": "CreateHyperParameterTuningJob",
    "Model": "CreateModel",
    "RegisterModel": "CreateModelPackage",
    "AutoML": "CreateAutoMLJobV2",
}
#: Steps that call no API with their arguments as they are.
_OTHER_STEPS = frozenset(
    {"Condition", "Fail", "Lambda", "Callback", "EMR", "QualityCheck", "ClarifyCheck", "NotebookJob"}
)
#: What a pipeline names itself.
_NAMED_BY_PIPELINE = frozenset(
    {
        "ProcessingJobName",
        "TrainingJobName",
        "TransformJobName",
        "HyperParameterTuningJobName",
        "ModelName",
        "AutoMLJobName",
    }
)
#: What every request of a custom resource carries beside its own.
_OF_EVERY_REQUEST = frozenset({"ServiceToken", "ServiceTimeout"})
#: Source: SageMaker, "Pipeline definition JSON schema".
_PIPELINE_FUNCTIONS = ("Get", "Std:Join", "Std:JsonGet")
_ARN = r"arn:(?:aws[a-z-]*|\$\{AWS::Partition\})"
_SDK = re.compile(_ARN + r":(?:states|scheduler):::aws-sdk:([A-Za-z0-9]+):([A-Za-z0-9]+)(?:\.[A-Za-z]+)?")
_OPTIMISED = re.compile(_ARN + r":states:::([a-z0-9-]+):([A-Za-z0-9]+)(?:\.[A-Za-z]+)?(?::[0-9])?")


@dataclass(frozen=True, kw_only=True)
class _Call:
    """One call of an API that a document describes."""

    resource: Resource
    path: str
    service: str
    operation: str
    parameters: Any
    style: str


def run(context: Context) -> Iterator[Finding]:
    """Hold every call that a document describes against its model."""
    for resource in context.assembly.resources(*_TYPES):
        yield from _TYPES[resource.type](context, resource)
    for resource in context.assembly.resources():
        if resource.type in ("Custom::AWS", "AWS::CloudFormation::CustomResource"):
            yield from _sdk_resource(context, resource)
        elif "ServiceToken" in resource.properties:
            yield from _own_resource(context, resource)


def calls(context: Context) -> Iterator[tuple[Resource, str, str]]:
    """Resource, service and operation of every call that a state machine or a schedule makes itself."""
    for resource in context.assembly.resources("AWS::StepFunctions::StateMachine"):
        for _path, state in _states(context, resource):
            named = _called(str(state.get("Resource", "")))
            if named is not None:
                yield resource, named[0], named[1]
    for resource in context.assembly.resources("AWS::Scheduler::Schedule"):
        named = _called(context.assembly.text(resource.stack, resource.properties["Target"]["Arn"]))
        if named is not None:
            yield resource, named[0], named[1]


def _judge(call: _Call) -> Iterator[Finding]:
    place = f"{call.resource.place}: {call.path}"
    model = service_model(call.service)
    name = operation_named(call.service, call.operation)
    if model is None or name is None:
        yield Finding(
            check=_ID,
            place=place,
            value=f"{call.service} has no operation {call.operation}",
            allowed="an operation of botocore's model of the service",
            fix="write the service and the operation as the SDK names them",
        )
        return
    shape = model.operation_model(name).input_shape
    for problem in problems(shape, call.parameters, _READINGS[call.style]):
        yield Finding(
            check=_ID,
            place=f"{place}/{problem.path}",
            value=f"{name}: {problem.value}",
            allowed=problem.allowed,
            fix=f"write it as {model.service_name}'s {name} takes it",
        )


def _template_value(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"(\$\{[^}]*\})+", value):
        return UNKNOWN
    return value


def _machine_value(value: Any) -> Any:
    """JSONata and marks are known to a run only; a ``.$`` key was taken off before."""
    if isinstance(value, str) and (value.startswith("{%") or re.fullmatch(r"(\$\{[^}]*\})+", value)):
        return UNKNOWN
    return value


def _pipeline_value(value: Any) -> Any:
    """``{"Get": ...}`` and its like are worked out when the pipeline runs."""
    if isinstance(value, Mapping) and len(value) == 1 and next(iter(value)) in _PIPELINE_FUNCTIONS:
        return UNKNOWN
    return _template_value(value)


_READINGS: Mapping[str, Reading] = {
    "pipeline": Reading(known=_pipeline_value, given=_NAMED_BY_PIPELINE),
    "machine": Reading(known=_machine_value, any_case=True),
    "schedule": Reading(known=_template_value, any_case=True),
}


# -- where calls are described --------------------------------------------------------------------------


def _pipeline(context: Context, resource: Resource) -> Iterator[Finding]:
    for path, document in documents(context.assembly, resource):
        if not isinstance(document, Mapping) or "Steps" not in document:
            continue
        for inner, step in walk(document):
            if not isinstance(step, Mapping) or not {"Name", "Type"} <= step.keys():
                continue
            if "Arguments" not in step and step["Type"] not in _OTHER_STEPS:
                continue
            where = f"{path}/{inner}/Arguments"
            if step["Type"] in STEPS:
                call = _Call(
                    resource=resource,
                    path=where,
                    service="sagemaker",
                    operation=STEPS[step["Type"]],
                    parameters=step["Arguments"],
                    style="pipeline",
                )
                yield from _judge(call)
            elif step["Type"] not in _OTHER_STEPS and "Arguments" in step:
                yield Finding(
                    check=_ID,
                    place=f"{resource.place}: {path}/{inner}/Type",
                    value=f"{step['Type']} is no step of a pipeline",
                    allowed=", ".join(sorted({*STEPS, *_OTHER_STEPS})),
                    fix="use a step that SageMaker has",
                )


def _states(context: Context, resource: Resource) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every task of a state machine, with its path."""
    for path, document in documents(context.assembly, resource):
        # Its definition is a text, or a structure of the template.
        body = document if path else document.get("Definition", {})
        for inner, value in walk(body):
            if isinstance(value, Mapping) and value.get("Type") == "Task":
                yield "/".join(filter(None, (path or "Definition", inner))), value


def _machine(context: Context, resource: Resource) -> Iterator[Finding]:
    for path, state in _states(context, resource):
        named = _called(str(state.get("Resource", "")))
        if named is None:
            continue
        service, operation, optimised = named
        key = "Parameters" if "Parameters" in state else "Arguments"
        parameters = state.get(key) or {}
        if optimised and isinstance(parameters, Mapping):
            loose = _OWN_MEMBERS.get(f"{service}:{operation}", frozenset())
            parameters = {f"{name}.$" if name in loose else name: part for name, part in parameters.items()}
            parameters = _with_details(parameters)
        yield from _judge(
            _Call(
                resource=resource,
                path=f"{path}/{key}",
                service=service,
                operation=operation,
                parameters=parameters,
                style="machine",
            )
        )


def _with_details(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Step Functions makes a text of an event's detail, which is a structure in the machine."""
    return {
        name: [
            {("Detail.$" if inner == "Detail" else inner): value for inner, value in entry.items()}
            if isinstance(entry, Mapping)
            else entry
            for entry in part
        ]
        if name == "Entries" and isinstance(part, list)
        else part
        for name, part in parameters.items()
    }


def _called(arn: str) -> tuple[str, str, bool] | None:
    """Service, operation, and whether the integration is an optimised one; None for what is no API call."""
    match = _SDK.fullmatch(arn)
    if match is not None:
        return SERVICE_NAMES.get(match[1].lower(), match[1].lower()), match[2], False
    match = _OPTIMISED.fullmatch(arn)
    if match is not None:
        return SERVICE_NAMES.get(match[1], match[1]), match[2], True
    return None


def _schedule(context: Context, resource: Resource) -> Iterator[Finding]:
    target = resource.properties["Target"]
    named = _called(context.assembly.text(resource.stack, target["Arn"]))
    if named is None:
        return
    text = context.assembly.text(resource.stack, target.get("Input", "{}"))
    try:
        parameters = json.loads(text)
    except ValueError as error:
        yield Finding(
            check=_ID,
            place=f"{resource.place}: Target/Input",
            value=f"no JSON: {error}",
            allowed="the parameters of the call as JSON",
            fix="write the input with json.dumps",
        )
        return
    yield from _judge(
        _Call(
            resource=resource,
            path="Target/Input",
            service=named[0],
            operation=named[1],
            parameters=parameters,
            style="schedule",
        )
    )


def _sdk_resource(context: Context, resource: Resource) -> Iterator[Finding]:
    """The CDK's AwsCustomResource: calls as JSON texts."""
    for moment in ("Create", "Update", "Delete"):
        text = resource.properties.get(moment)
        if text is None:
            continue
        try:
            call = json.loads(context.assembly.text(resource.stack, text))
        except ValueError:
            continue
        service = str(call["service"]).removeprefix("@aws-sdk/client-").lower()
        yield from _judge(
            _Call(
                resource=resource,
                path=f"{moment}/parameters",
                service=SERVICE_NAMES.get(service, service),
                operation=str(call["action"]).removesuffix("Command"),
                parameters=call.get("parameters", {}),
                style="schedule",
            )
        )


def _own_resource(context: Context, resource: Resource) -> Iterator[Finding]:
    """A custom resource of a function of ours: what it is given against what the function reads."""
    function = context.assembly.target(resource.stack, resource.properties["ServiceToken"])
    program = next((item.program for item in context.deployed if item.resource is function), None)
    if function is None or program is None:
        return
    read = reads(program, request_properties)
    given = resource.properties.keys() - _OF_EVERY_REQUEST
    for name in sorted(given - read.names) if not read.unclear else ():
        yield Finding(
            check=_ID,
            place=f"{resource.place}: {name}",
            value=f"{name} is given and {function.id} never reads it",
            allowed=", ".join(sorted(read.names)),
            fix="take it out of the template, or read it",
        )
    for name in sorted(read.subscripts - given - _OF_EVERY_REQUEST):
        yield Finding(
            check=_ID,
            place=resource.place,
            value=f"{name} is not given and {function.id} reads it",
            allowed=", ".join(sorted(read.names)),
            fix="give it in the template",
        )


_TYPES = {
    "AWS::SageMaker::Pipeline": _pipeline,
    "AWS::StepFunctions::StateMachine": _machine,
    "AWS::Scheduler::Schedule": _schedule,
}

CHECK = Check(
    id=_ID,
    title="API parameters inside documents against the APIs' models",
    proves="every call that a pipeline definition, a state machine, a schedule or a custom resource "
    "describes names an operation that exists, with parameters, types, enums, bounds and patterns it takes",
    source="botocore's service models; Step Functions and EventBridge Scheduler on how they name them",
    run=run,
)
