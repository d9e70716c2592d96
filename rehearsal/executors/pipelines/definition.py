"""A SageMaker pipeline's definition: read, and checked as CreatePipeline checks it.

Pure: no AWS, no threads. A definition is the JSON document that the SageMaker SDK renders: parameters, steps,
and in the arguments of steps references to what is known only when the pipeline runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import botocore.session
from botocore.model import ListShape, MapShape, Shape, StructureShape

from rehearsal.executors.pipelines.retries import RetryPolicy, read_policies
from rehearsal.executors.pipelines.values import COMPARISONS

__all__ = [
    "EXECUTION_VARIABLES",
    "STEP_OPERATIONS",
    "Definition",
    "DefinitionError",
    "Step",
    "parse_definition",
]

# What a step calls, and the name that the service itself gives to what is created.
STEP_OPERATIONS: Mapping[str, tuple[str, frozenset[str]]] = {
    "Processing": ("CreateProcessingJob", frozenset({"ProcessingJobName"})),
    "Training": ("CreateTrainingJob", frozenset({"TrainingJobName"})),
    "Transform": ("CreateTransformJob", frozenset({"TransformJobName"})),
    "Tuning": ("CreateHyperParameterTuningJob", frozenset({"HyperParameterTuningJobName"})),
    "AutoML": ("CreateAutoMLJob", frozenset({"AutoMLJobName"})),
    "Model": ("CreateModel", frozenset({"ModelName"})),
    "RegisterModel": ("CreateModelPackage", frozenset()),
    "QualityCheck": ("CreateProcessingJob", frozenset({"ProcessingJobName"})),
    "ClarifyCheck": ("CreateProcessingJob", frozenset({"ProcessingJobName"})),
}
#: Steps that call no operation of SageMaker's, and the members that they need beside their arguments.
_OTHER_STEPS: Mapping[str, tuple[str, ...]] = {
    "Condition": (),
    "Fail": (),
    "Lambda": ("FunctionArn",),
    "Callback": ("SqsQueueUrl",),
    "EMR": (),
    "EMRServerless": (),
}
#: Members that every step has, whatever its type.
_COMMON_MEMBERS = frozenset(
    {
        "Name",
        "Type",
        "Arguments",
        "DependsOn",
        "DisplayName",
        "Description",
        "PropertyFiles",
        "CacheConfig",
        "RetryPolicies",
    }
)
EXECUTION_VARIABLES = frozenset(
    {
        "StartDateTime",
        "CurrentDateTime",
        "PipelineName",
        "PipelineArn",
        "PipelineExecutionId",
        "PipelineExecutionArn",
    }
)
_STEP_NAME = re.compile(r"[A-Za-z0-9\-_]{1,64}")
_PYTHON_TYPES: Mapping[str, tuple[type, ...]] = {
    "String": (str,),
    "Integer": (int,),
    "Float": (int, float),
    "Boolean": (bool,),
}
_REFERENCES = ("Get", "Std:Join", "Std:JsonGet")


class DefinitionError(Exception):
    """A definition that CreatePipeline refuses; `problems` holds every reason."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step. `branch` holds the condition step and the outcome under which it runs; None: always."""

    name: str
    type: str
    arguments: Mapping[str, Any]
    after: frozenset[str]
    branch: tuple[str, bool] | None
    property_files: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    cache_seconds: float | None = None
    display_name: str | None = None
    description: str | None = None
    #: Members that only this type of step has, e.g. ``FunctionArn``.
    members: Mapping[str, Any] = field(default_factory=dict)
    retries: tuple[RetryPolicy, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter of the pipeline."""

    name: str
    type: str
    default: Any
    required: bool
    allowed: tuple[Any, ...] | None


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A checked definition: its steps, those inside branches too, in declared order."""

    parameters: Mapping[str, Parameter]
    steps: Mapping[str, Step]

    def bind(self, given: Mapping[str, str]) -> dict[str, Any]:
        """The parameter values of one execution, typed; StartPipelineExecution passes every value as text.

        :raises DefinitionError: a parameter that is unknown, missing, of the wrong type or not allowed
        """
        problems = [
            f"Parameter [{name}] is not defined in the pipeline"
            for name in given
            if name not in self.parameters
        ]
        values: dict[str, Any] = {}
        for parameter in self.parameters.values():
            if parameter.name not in given:
                if parameter.required:
                    problems.append(f"Parameter [{parameter.name}] has no default value and none was given")
                values[parameter.name] = parameter.default
                continue
            try:
                values[parameter.name] = _typed(given[parameter.name], parameter.type)
            except ValueError:
                problems.append(
                    f"Parameter [{parameter.name}] must be of type {parameter.type}, "
                    f"got {given[parameter.name]!r}"
                )
                continue
            if parameter.allowed is not None and values[parameter.name] not in parameter.allowed:
                problems.append(
                    f"Parameter [{parameter.name}] must be one of {list(parameter.allowed)}, "
                    f"got {given[parameter.name]!r}"
                )
        if problems:
            raise DefinitionError(problems)
        return values


def _typed(text: str, type_name: str) -> Any:
    if type_name == "Integer":
        return int(text)
    if type_name == "Float":
        return float(text)
    if type_name == "Boolean":
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    return text


# ---------------------------------------------------------------------- parsing


def parse_definition(text: str) -> Definition:
    """Read and check a definition.

    :raises DefinitionError: with every problem found
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise DefinitionError([f"The pipeline definition is not JSON: {error}"]) from None
    if not isinstance(document, dict):
        raise DefinitionError(["The pipeline definition must be a JSON object"])
    problems: list[str] = []
    if document.get("Version") != "2020-12-01":
        problems.append(f"Version must be 2020-12-01, got {document.get('Version')!r}")
    unknown = set(document) - {
        "Version",
        "Metadata",
        "Parameters",
        "PipelineExperimentConfig",
        "Steps",
        "MlflowConfig",
    }
    problems += [f"Unknown key {key} in the pipeline definition" for key in sorted(unknown)]
    parameters = _parameters(document.get("Parameters") or [], problems)
    steps: dict[str, Step] = {}
    _steps(document.get("Steps") or [], None, steps, problems)
    if not steps:
        problems.append("A pipeline needs at least one step")
    definition = Definition(parameters=parameters, steps=steps)
    _check_references(definition, problems)
    _check_arguments(definition, problems)
    if problems:
        raise DefinitionError(problems)
    return definition


def _parameters(items: Sequence[Any], problems: list[str]) -> dict[str, Parameter]:
    found: dict[str, Parameter] = {}
    for item in items:
        name, type_name = item.get("Name"), item.get("Type")
        if not isinstance(name, str) or type_name not in _PYTHON_TYPES:
            problems.append(
                f"A parameter needs a Name and a Type of {', '.join(_PYTHON_TYPES)}, got {item!r}"
            )
            continue
        if name in found:
            problems.append(f"Parameter [{name}] is defined twice")
        default = item.get("DefaultValue")
        boolean = isinstance(default, bool) and type_name != "Boolean"
        if default is not None and (boolean or not isinstance(default, _PYTHON_TYPES[type_name])):
            problems.append(f"Parameter [{name}] is of type {type_name}, but its default is {default!r}")
        allowed = item.get("EnumValues")
        if allowed is not None and default is not None and default not in allowed:
            problems.append(f"Parameter [{name}] must default to one of {allowed}, got {default!r}")
        found[name] = Parameter(
            name=name,
            type=type_name,
            default=default,
            required="DefaultValue" not in item,
            allowed=None if allowed is None else tuple(allowed),
        )
    return found


def _steps(
    items: Sequence[Any],
    branch: tuple[str, bool] | None,
    found: dict[str, Step],
    problems: list[str],
) -> None:
    for item in items:
        name, type_name = item.get("Name"), item.get("Type")
        if not isinstance(name, str) or not _STEP_NAME.fullmatch(name):
            problems.append(f"A step's Name must match {_STEP_NAME.pattern}, got {name!r}")
            continue
        if name in found:
            problems.append(f"Step names must be unique, got {name} twice")
            continue
        if type_name not in STEP_OPERATIONS and type_name not in _OTHER_STEPS:
            problems.append(f"Step {name} has the unknown Type {type_name!r}")
            continue
        arguments = item.get("Arguments")
        if not isinstance(arguments, dict):
            problems.append(f"Step {name} has no Arguments")
            continue
        files = {
            entry["PropertyFileName"]: (entry["OutputName"], entry["FilePath"])
            for entry in item.get("PropertyFiles") or ()
        }
        own = {key: value for key, value in arguments.items() if key not in ("IfSteps", "ElseSteps")}
        members = {key: value for key, value in item.items() if key not in _COMMON_MEMBERS}
        problems += [
            f"Step {name}: a {type_name} step needs {key}"
            for key in _OTHER_STEPS.get(type_name, ())
            if key not in members
        ]
        after = {dependency.split(".")[-1] for dependency in item.get("DependsOn") or ()}
        after |= {path.split(".")[1] for path in _gets([own, members]) if path.startswith("Steps.")}
        if branch is not None:
            after.add(branch[0])
        found[name] = Step(
            name=name,
            type=type_name,
            arguments=own,
            after=frozenset(after),
            branch=branch,
            property_files=files,
            cache_seconds=_cache_seconds(name, item.get("CacheConfig"), problems),
            display_name=item.get("DisplayName"),
            description=item.get("Description"),
            members=members,
            retries=read_policies(name, type_name, item.get("RetryPolicies"), problems),
        )
        if type_name == "Condition":
            _steps(arguments.get("IfSteps") or [], (name, True), found, problems)
            _steps(arguments.get("ElseSteps") or [], (name, False), found, problems)


_DURATION = re.compile(
    r"P(?:(?P<years>\d+)Y)?(?:(?P<months>\d+)M)?(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)S)?)?"
)
_UNIT_SECONDS = {
    "years": 365 * 86400,
    "months": 30 * 86400,
    "weeks": 7 * 86400,
    "days": 86400,
    "hours": 3600,
    "minutes": 60,
    "seconds": 1,
}


def _cache_seconds(step: str, config: Mapping[str, Any] | None, problems: list[str]) -> float | None:
    if config is None or not config.get("Enabled"):
        return None
    text = config.get("ExpireAfter")
    if text is None:
        return float("inf")
    match = _DURATION.fullmatch(str(text).upper())
    if match is None or not any(match.groupdict().values()):
        problems.append(
            f"Step {step}: CacheConfig.ExpireAfter must be an ISO 8601 duration such as P30D, got {text!r}"
        )
        return None
    return float(sum(_UNIT_SECONDS[unit] * int(count) for unit, count in match.groupdict().items() if count))


def _gets(value: Any) -> Iterator[str]:
    """Every path of a `Get` inside `value`."""
    if isinstance(value, dict):
        if set(value) == {"Get"} and isinstance(value["Get"], str):
            yield value["Get"]
            return
        for item in value.values():
            yield from _gets(item)
    elif isinstance(value, list):
        for item in value:
            yield from _gets(item)


def _check_references(definition: Definition, problems: list[str]) -> None:
    steps = definition.steps
    for step in steps.values():
        for name in sorted(step.after - steps.keys()):
            problems.append(f"Step {step.name} depends on step {name}, which does not exist")
        for path in _gets([dict(step.arguments), dict(step.members)]):
            head, _, rest = path.partition(".")
            if head == "Parameters" and rest not in definition.parameters:
                problems.append(f"Step {step.name} refers to the parameter {rest}, which is not defined")
            elif head == "Execution" and rest not in EXECUTION_VARIABLES:
                problems.append(f"Step {step.name} refers to the unknown execution variable {rest}")
            elif head not in ("Parameters", "Execution", "Steps"):
                problems.append(f"Step {step.name} holds the unknown reference {path}")
            elif head == "Steps":
                owner, _, tail = rest.partition(".")
                file = tail.removeprefix("PropertyFiles.")
                if (
                    owner in steps
                    and tail.startswith("PropertyFiles.")
                    and file not in steps[owner].property_files
                ):
                    problems.append(
                        f"Step {step.name} refers to the property file {file}, which {owner} does not have"
                    )
    resolved: set[str] = set()
    while ready := {
        n for n, s in steps.items() if n not in resolved and (s.after & steps.keys()) <= resolved
    }:
        resolved |= ready
    if resolved != steps.keys():
        problems.append(
            f"The steps {', '.join(sorted(steps.keys() - resolved))} depend on each other in a circle"
        )


# ---------------------------------------------------------------------- arguments against the service model


@lru_cache(maxsize=1)
def _service_model() -> Any:
    return botocore.session.get_session().get_service_model("sagemaker")


def _check_arguments(definition: Definition, problems: list[str]) -> None:
    for step in definition.steps.values():
        if step.type in STEP_OPERATIONS:
            operation, named = STEP_OPERATIONS[step.type]
            shape = _service_model().operation_model(operation).input_shape
            _check_value(step.arguments, shape, f"Step {step.name}: Arguments", problems, optional=named)
        elif step.type == "Fail" and "ErrorMessage" not in step.arguments:
            problems.append(f"Step {step.name}: a Fail step needs the argument ErrorMessage")
        elif step.type == "Condition":
            conditions = step.arguments.get("Conditions")
            if not isinstance(conditions, list) or not conditions:
                problems.append(f"Step {step.name}: a Condition step needs at least one of Conditions")
                continue
            for condition in conditions:
                _check_condition(condition, step.name, problems)


def _check_condition(condition: Any, step: str, problems: list[str]) -> None:
    type_name = condition.get("Type") if isinstance(condition, dict) else None
    keys = {
        **dict.fromkeys(COMPARISONS, ("LeftValue", "RightValue")),
        "In": ("QueryValue", "Values"),
        "Not": ("Expression",),
        "Or": ("Conditions",),
    }.get(str(type_name))
    if keys is None or any(key not in condition for key in keys):
        problems.append(f"Step {step}: the condition {condition!r} is not one that SageMaker knows")
    elif type_name == "Not":
        _check_condition(condition["Expression"], step, problems)
    elif type_name == "Or":
        for inner in condition["Conditions"]:
            _check_condition(inner, step, problems)


def _check_value(
    value: Any, shape: Shape, path: str, problems: list[str], *, optional: frozenset[str] = frozenset()
) -> None:
    if isinstance(value, dict) and len(value) == 1 and next(iter(value)) in _REFERENCES:
        return
    if isinstance(shape, StructureShape):
        if not isinstance(value, Mapping):
            problems.append(f"{path} must be an object, got {value!r}")
            return
        problems += [
            f"{path}.{key} is not a parameter that SageMaker knows"
            for key in value
            if key not in shape.members
        ]
        problems += [
            f"{path}.{key} is required"
            for key in shape.required_members
            if key not in value and key not in optional
        ]
        for key, item in value.items():
            if key in shape.members:
                _check_value(item, shape.members[key], f"{path}.{key}", problems)
    elif isinstance(shape, ListShape):
        if not isinstance(value, list):
            problems.append(f"{path} must be a list, got {value!r}")
            return
        for number, item in enumerate(value):
            _check_value(item, shape.member, f"{path}[{number}]", problems)
    elif isinstance(shape, MapShape):
        if not isinstance(value, dict):
            problems.append(f"{path} must be a map, got {value!r}")
            return
        for key, item in value.items():
            _check_value(item, shape.value, f"{path}.{key}", problems)
    else:
        _check_scalar(value, shape, path, problems)


def _check_scalar(value: Any, shape: Shape, path: str, problems: list[str]) -> None:
    expected: Mapping[str, tuple[type, ...]] = {
        "string": (str,),
        "integer": (int,),
        "long": (int,),
        "float": (int, float),
        "double": (int, float),
        "boolean": (bool,),
        "timestamp": (str, int, float),
    }
    types = expected.get(shape.type_name)
    if types is None:
        problems.append(f"{path} is of the type {shape.type_name}, which a pipeline cannot pass")
        return
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        problems.append(f"{path} must be of type {shape.type_name}, got {value!r}")
        return
    allowed = getattr(shape, "enum", None)
    if allowed and value not in allowed:
        problems.append(f"{path} must be one of {', '.join(allowed)}, got {value!r}")
    metadata = shape.metadata
    size = len(value) if isinstance(value, str) else value
    if isinstance(size, bool):
        return
    what = "length" if isinstance(value, str) else "value"
    if "min" in metadata and size < metadata["min"]:
        problems.append(f"{path} must have a {what} of at least {metadata['min']}, got {value!r}")
    if "max" in metadata and size > metadata["max"]:
        problems.append(f"{path} must have a {what} of at most {metadata['max']}, got {value!r}")
