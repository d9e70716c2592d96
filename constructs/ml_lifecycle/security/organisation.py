"""An organisation's own rules for whatever an app deploys: one Aspect puts them on and checks the rest."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import aws_cdk as cdk
import jsii
from aws_cdk import aws_iam as iam

from constructs import Construct, IConstruct, IValidation

__all__ = ["OrganisationRules"]

STACK: Final = "AWS::CloudFormation::Stack"
#: What has a name in its template and none in an account: parts of other resources.
PARTS: Final = frozenset(
    {
        "AWS::ApiGatewayV2::Authorizer",
        "AWS::ApiGatewayV2::Stage",
        "AWS::Athena::NamedQuery",
        "AWS::Cognito::UserPoolResourceServer",
        "AWS::IAM::Policy",
        "AWS::LakeFormation::DataCellsFilter",
        "AWS::Logs::LogStream",
    }
)
#: Types that a new tag replaces (createOnlyProperties of their registry schemas) and that hold data: the
#: rules leave them as they are, or a tag would cost the data.
KEEP_TAGS: Final = frozenset({"AWS::SageMaker::FeatureGroup", "AWS::OpenSearchServerless::Collection"})


@jsii.implements(cdk.IAspect)
class OrganisationRules:
    """Put an organisation's rules on everything below a construct, and refuse what breaks them.

    - ``boundary_arn`` is made the permissions boundary of every role;
    - ``tags`` are put on whatever takes tags, ``required_tags`` must stand on it in the end;
    - ``names`` maps a CloudFormation type to the pattern that the whole name must fit, ``*`` those of all
      other types that are no part of another resource. Names that CloudFormation makes begin with the
      stack's, which is checked as ``AWS::CloudFormation::Stack``. A part of a name that only a deployment
      knows counts as ``0``.

    A feature group is not tagged: its tags are create-only, and a new one would replace it.

    All that breaks a rule is told at once when the app is synthesised, each with its path and what to do.

    Default: nothing is demanded. Example::

        OrganisationRules(
            boundary_arn="arn:aws:iam::111122223333:policy/Everyone",
            names={"*": "acme-.*", "AWS::SSM::Parameter": "/acme/.*"},
            required_tags=["cost-center"],
            tags={"cost-center": "4711"},
        ).apply(stage)

    Raises:
        ValueError: a pattern that is no regular expression, or a rule that demands nothing.
    """

    def __init__(
        self,
        *,
        boundary_arn: str | None = None,
        names: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        required_tags: Sequence[str] = (),
    ) -> None:
        problems = []
        self._names: dict[str, re.Pattern[str]] = {}
        for kind, pattern in ({} if names is None else names).items():
            try:
                self._names[kind] = re.compile(pattern)
            except re.error as error:
                problems.append(f"names[{kind!r}] must be a regular expression, got {pattern!r}: {error}")
        if boundary_arn is None and not names and not tags and not required_tags:
            problems.append("at least one of boundary_arn, names, tags, required_tags must be given")
        if problems:
            raise ValueError("organisation rules: " + "; ".join(problems))
        self._boundary = boundary_arn
        self._tags = {} if tags is None else dict(tags)
        self._required = tuple(required_tags)
        self._seen: list[cdk.CfnResource] = []
        self._stacks: list[cdk.Stack] = []
        self._own_boundaries: list[str] = []

    def apply(self, scope: Construct) -> None:
        """Put the rules on ``scope`` and what stands below it; a stage, a stack or an app."""
        cdk.Aspects.of(scope).add(self, priority=cdk.AspectPriority.MUTATING)
        scope.node.add_validation(_Check(self))

    def visit(self, node: IConstruct) -> None:
        """Apply the rules to one construct, as the CDK asks."""
        if isinstance(node, cdk.Stack):
            self._stacks.append(node)
        if not isinstance(node, cdk.CfnResource):
            return
        self._seen.append(node)
        kind = node.cfn_resource_type
        if self._boundary is not None and kind == "AWS::IAM::Role":
            own = node.permissions_boundary if isinstance(node, iam.CfnRole) else None
            if own is not None and own != self._boundary:
                self._own_boundaries.append(node.node.path)
            else:
                node.add_property_override("PermissionsBoundary", self._boundary)
        if self._tags and kind not in KEEP_TAGS:
            manager = cdk.TagManager.of(node)
            if manager is not None:
                for key, value in self._tags.items():
                    manager.set_tag(key, value)

    def problems(self) -> list[str]:
        """Return what breaks a rule, by path, after everything has been visited."""
        found = [
            f"{path}: the role has a permissions boundary of its own; leave it out, or make it part of "
            f"{self._boundary}"
            for path in self._own_boundaries
        ]
        pattern = self._names.get(STACK)
        if pattern is not None:
            found += [
                f"{stack.node.path}: the stack's name must fit {pattern.pattern}, got {stack.stack_name!r}; "
                "names that CloudFormation makes begin with it: rename the stage or the environment"
                for stack in self._stacks
                if not pattern.fullmatch(stack.stack_name)
            ]
        for resource in self._seen:
            found += self._name_problems(resource)
            found += self._tag_problems(resource)
        return found

    def _name_problems(self, resource: cdk.CfnResource) -> list[str]:
        kind = resource.cfn_resource_type
        pattern = self._names.get(kind, None if kind in PARTS else self._names.get("*"))
        if pattern is None:
            return []
        name = _name_of(resource, kind)
        if name is None or pattern.fullmatch(name):
            return []
        return [
            f"{resource.node.path}: the name of {kind} must fit {pattern.pattern}, got {name!r}; change the "
            f"environment's name, which it is made of, or give names[{kind!r}] a pattern of its own"
        ]

    def _tag_problems(self, resource: cdk.CfnResource) -> list[str]:
        if not self._required or resource.cfn_resource_type in KEEP_TAGS:
            return []
        manager = cdk.TagManager.of(resource)
        if manager is None:
            return []
        missing = [key for key in self._required if key not in manager.tag_values()]
        if not missing:
            return []
        return [
            f"{resource.node.path}: {resource.cfn_resource_type} must have the tags {', '.join(missing)}; "
            "add them to tags of the rules or of its stack"
        ]


@jsii.implements(IValidation)
class _Check:
    """Tells the CDK what breaks the rules, once the Aspects have been everywhere."""

    def __init__(self, rules: OrganisationRules) -> None:
        self._rules = rules

    def validate(self) -> list[str]:
        """Return the problems."""
        return self._rules.problems()


def _name_of(resource: cdk.CfnResource, kind: str) -> str | None:
    """Return the name that a template gives a resource, None when it gives none."""
    if kind.startswith(("Custom::", "AWS::CloudFormation::", "AWS::CDK::")):
        return None
    last = re.sub(r"(?<!^)(?=[A-Z])", "_", kind.rsplit("::", 1)[-1]).lower()
    for attribute in (f"{last}_name", "name"):
        value = getattr(resource, attribute, None)
        if isinstance(value, str):
            return _text(cdk.Stack.of(resource).resolve(value))
    return None


def _text(value: Any) -> str | None:
    """Write a resolved name; what only a deployment knows is ``0``."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) and "Fn::Join" in value:
        separator, parts = value["Fn::Join"]
        return str(separator).join(part if isinstance(part, str) else "0" for part in parts)
    return None
