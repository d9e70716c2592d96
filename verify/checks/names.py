"""Fixed names on resources that cannot be updated: the next change of their content fails."""

from __future__ import annotations

from collections.abc import Iterator

from verify.assembly import Resource, hashed
from verify.context import Context
from verify.finding import Check, Finding
from verify.release import holds_data
from verify.schemas import schema_of

_ID = "names"
#: Types whose every change makes a new one, whatever their schema says of updates: SageMaker takes no other
#: content for them. Source: SageMaker API, the types that have a Create and no Update call.
_IMMUTABLE = frozenset(
    {
        "AWS::SageMaker::DataQualityJobDefinition",
        "AWS::SageMaker::ModelBiasJobDefinition",
        "AWS::SageMaker::ModelExplainabilityJobDefinition",
        "AWS::SageMaker::ModelQualityJobDefinition",
        "AWS::SageMaker::EndpointConfig",
        "AWS::SageMaker::Model",
    }
)
#: Types that are known by an id of AWS's own, and of which two may have one name.
#: Source: Athena, CreateNamedQuery: the name need not be unique.
_NOT_UNIQUE = frozenset({"AWS::Athena::NamedQuery"})


def run(context: Context) -> Iterator[Finding]:
    """Look at every resource that a template names itself and whose content only a replacement changes."""
    for resource in context.assembly.resources():
        schema = schema_of(resource.type)
        if (
            schema is None
            or schema.name_property is None
            or holds_data(resource)
            or resource.type in _NOT_UNIQUE
        ):
            continue
        name = resource.properties.get(schema.name_property)
        if name is None:
            continue
        fixed = _fixed(resource, schema.name_property)
        if not fixed or hashed(context.assembly.text(resource.stack, name)):
            continue
        immutable = resource.type in _IMMUTABLE or schema.immutable
        yield Finding(
            check=_ID,
            place=f"{resource.place}: {schema.name_property}",
            value=f"{resource.type} is called {context.assembly.text(resource.stack, name)!r}, and a change "
            f"of {', '.join(fixed)} makes a second one of that name",
            allowed="no name, or one with a hash of the content",
            fix="leave the name to CloudFormation, or end it in a hash of the content",
            # Where other properties can be updated the collision comes with a rarer change.
            severity="error" if immutable else "warning",
        )


def _fixed(resource: Resource, name: str) -> list[str]:
    """Properties that are set and that only a replacement changes, beside the name itself."""
    schema = schema_of(resource.type)
    if schema is None:
        return []
    tags = schema.tag_property
    paths = {path[0] for path in schema.create_only} - {name, tags}
    if resource.type in _IMMUTABLE:
        paths = set(resource.properties) - {name, tags}
    return sorted(paths & resource.properties.keys())


CHECK = Check(
    id=_ID,
    title="Fixed names on immutable resources",
    proves="whatever can only be replaced has a name that changes with its content, or none: a replacement "
    "is made before the old one goes, and two of one name cannot be",
    source="CloudFormation's registry: primaryIdentifier, createOnlyProperties; its update behaviours",
    run=run,
)
