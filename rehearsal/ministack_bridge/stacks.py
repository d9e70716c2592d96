"""CloudFormation's stacks: what is judged before it is made, their events, roles and conditions."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rehearsal.ministack_bridge._inside import CFN, current_region, substitute


@dataclass(frozen=True, kw_only=True)
class StackEvent:
    """A change of status of a stack (``resource`` is None) or of one of its resources."""

    stack_id: str
    stack_name: str
    resource: str | None
    resource_type: str
    status: str
    reason: str
    token: str
    region: str


#: The deployment role of each stack, by region and name: ministack forgets it.
_STACK_ROLES: dict[tuple[str, str], str] = {}


def judge_resources(
    judge: Callable[[str, Mapping[str, Any]], list[str]],
    judge_resolved: Callable[[str, Mapping[str, Any]], list[str]],
) -> None:
    """Fail a stack operation before anything is made when ``judge(type, properties)`` finds fault.

    Both functions see each resource again with every value resolved, right before it is made or changed.
    """
    stacks = importlib.import_module(f"{CFN}.stacks")
    validate, fail = stacks._validation_errors, stacks._fail_property_validation

    def errors_of(
        resources: Mapping[str, Any], ordered: Sequence[str], conditions: Mapping[str, bool]
    ) -> list[Any]:
        found = []
        for logical_id in ordered:
            definition = resources[logical_id]
            condition = definition.get("Condition")
            if condition and not conditions.get(condition, True):
                continue
            resource_type = definition.get("Type", "")
            for reason in judge(resource_type, definition.get("Properties") or {}):
                place = f"/Resources/{logical_id}/Properties"
                found.append((logical_id, resource_type, "PROPERTY_VALIDATION", place, reason))
        return found

    def validation_errors(
        resources: Any, ordered: Any, params: Any, conditions: Any, *rest: Any, **named: Any
    ) -> Any:
        return [
            *validate(resources, ordered, params, conditions, *rest, **named),
            *errors_of(resources, ordered, conditions),
        ]

    def fail_property_validation(  # noqa: PLR0917 - ministack's own signature
        stack: Any,
        stack_id: Any,
        name: Any,
        resources: Any,
        ordered: Any,
        params: Any,
        conditions: Any,
        *rest: Any,
        **named: Any,
    ) -> Any:
        # The stack's own event only counts the errors; who deploys reads the events of the resources.
        verb = "UPDATE" if named.get("previous_stack") is not None else "CREATE"
        for logical_id, resource_type, _, _, reason in errors_of(resources, ordered, conditions):
            stacks._add_event(stack_id, name, logical_id, resource_type, f"{verb}_FAILED", reason)
        return fail(stack, stack_id, name, resources, ordered, params, conditions, *rest, **named)

    def judged(resource_type: str, props: Mapping[str, Any]) -> None:
        faults = [*judge(resource_type, props), *judge_resolved(resource_type, props)]
        if faults:
            raise ValueError("; ".join(faults))

    provision, change = stacks._provision_resource, stacks._update_resource

    def provision_resource(resource_type: str, logical_id: str, props: Any, *rest: Any) -> Any:
        judged(resource_type, props)
        return provision(resource_type, logical_id, props, *rest)

    def update_resource(resource_type: str, physical_id: str, old: Any, new: Any, *rest: Any) -> Any:
        if old != new:
            judged(resource_type, new)
        return change(resource_type, physical_id, old, new, *rest)

    substitute(stacks, "_validation_errors", validation_errors)
    substitute(stacks, "_fail_property_validation", fail_property_validation)
    substitute(stacks, "_provision_resource", provision_resource)
    substitute(stacks, "_update_resource", update_resource)


def before_resource_change(hook: Callable[[str, str], None]) -> None:
    """Call ``hook(stack name, logical id)`` before a resource is changed; what it raises fails the change."""
    stacks = importlib.import_module(f"{CFN}.stacks")
    original = stacks._update_resource

    def update_resource(  # noqa: PLR0917 - ministack's own signature
        resource_type: str,
        physical_id: str,
        old: Any,
        new: Any,
        stack_name: str,
        logical_id: str | None = None,
        *rest: Any,
    ) -> Any:
        if old != new and logical_id is not None:
            hook(stack_name, logical_id)
        return original(resource_type, physical_id, old, new, stack_name, logical_id, *rest)

    substitute(stacks, "_update_resource", update_resource)


def refuse_changes_of_busy_stacks() -> None:
    """Refuse a change set for a stack that is being changed, and its execution, as CloudFormation does.

    ministack refuses UpdateStack then, but runs a change set beside the update that is under way.
    """
    package = importlib.import_module(CFN)
    helpers = importlib.import_module(f"{CFN}.helpers")
    handlers = importlib.import_module(f"{CFN}.handlers")

    def guarded(action: Callable[[Mapping[str, Any]], Any]) -> Callable[[Mapping[str, Any]], Any]:
        def call(params: Mapping[str, Any]) -> Any:
            name = params.get("StackName", [""])[0]
            stack = handlers._resolve_stack(name) if name else None
            status = str((stack or {}).get("StackStatus", ""))
            if stack is None or not status.endswith("_IN_PROGRESS") or status == "REVIEW_IN_PROGRESS":
                return action(params)
            text = f"Stack:{stack['StackId']} is in {status} state and can not be updated."
            return helpers._error("ValidationError", text)

        return call

    for name in ("CreateChangeSet", "ExecuteChangeSet"):
        package._ACTION_HANDLERS[name] = guarded(package._ACTION_HANDLERS[name])


def watch_stacks(watcher: Callable[[StackEvent], None]) -> None:
    """Call ``watcher`` for every event of every stack, and remember the role that each is deployed with."""
    stacks = importlib.import_module(f"{CFN}.stacks")
    handlers = importlib.import_module(f"{CFN}.handlers")
    package = importlib.import_module(CFN)
    original = stacks._add_event

    def add_event(  # noqa: PLR0917 - ministack's own signature
        stack_id: str,
        stack: str,
        logical_id: str,
        resource_type: str,
        status: str,
        reason: str = "",
        *rest: Any,
        **named: Any,
    ) -> None:
        original(stack_id, stack, logical_id, resource_type, status, reason, *rest, **named)
        own = resource_type == "AWS::CloudFormation::Stack" and logical_id == stack
        watcher(
            StackEvent(
                stack_id=stack_id,
                stack_name=stack,
                resource=None if own else logical_id,
                resource_type=resource_type,
                status=status,
                reason=reason,
                token=str(stacks.CLIENT_REQUEST_TOKEN.get()),
                region=stack_id.split(":")[3],
            )
        )

    for module in (stacks, handlers, importlib.import_module(f"{CFN}.changesets")):
        if hasattr(module, "_add_event"):
            substitute(module, "_add_event", add_event)

    def remembering(action: Callable[[Mapping[str, Any]], Any]) -> Callable[[Mapping[str, Any]], Any]:
        def call(params: Mapping[str, Any]) -> Any:
            role, stack = params.get("RoleARN", [""])[0], params.get("StackName", [""])[0]
            if role and stack:
                name = stack.split("/")[1] if stack.startswith("arn:") else stack
                _STACK_ROLES[current_region(), name] = role
            return action(params)

        return call

    for name in ("CreateStack", "UpdateStack", "CreateChangeSet"):
        package._ACTION_HANDLERS[name] = remembering(package._ACTION_HANDLERS[name])


def stack_role(stack: str) -> str | None:
    """Return the role that a stack is deployed with, None when it was given none."""
    return _STACK_ROLES.get((current_region(), stack))


def deployers_of(resource_type: str, name: str) -> set[str]:
    """Return the deployment roles of the stacks that made a resource of that type and name."""
    stacks = importlib.import_module(CFN)._stacks
    found = set()
    for stack in stacks.values():
        made = [
            resource
            for resource in stack.get("_resources", {}).values()
            if resource.get("ResourceType") == resource_type
            and name in str(resource.get("PhysicalResourceId", "")).split("|")
        ]
        role = stack_role(str(stack.get("StackName", "")))
        if made and role is not None:
            found.add(role)
    return found


def answer_resolved_parameters() -> None:
    """Let DescribeStacks tell the name and the value of a parameter that is read from Parameter Store.

    ministack answers the value alone, so that nobody could tell what a stack runs from what it is told to
    read.
    """
    package = importlib.import_module(CFN)
    tree = importlib.import_module("xml.etree.ElementTree")
    original = package._ACTION_HANDLERS["DescribeStacks"]

    def describe(params: Mapping[str, Any]) -> Any:
        status, headers, body = original(params)
        records = {
            stack.get("StackId"): stack.get("_resolved_params") or {} for stack in package._stacks.values()
        }
        if not any("SsmName" in value for record in records.values() for value in record.values()):
            return status, headers, body
        root = tree.fromstring(body)
        namespace = root.tag.partition("}")[0].lstrip("{")
        tree.register_namespace("", namespace)
        prefix = f"{{{namespace}}}"
        for stack in root.iter(f"{prefix}member"):
            record = records.get(stack.findtext(f"{prefix}StackId"), {})
            for parameter in stack.findall(f"{prefix}Parameters/{prefix}member"):
                known = record.get(parameter.findtext(f"{prefix}ParameterKey"), {})
                value = parameter.find(f"{prefix}ParameterValue")
                if "SsmName" in known and value is not None:
                    value.text = str(known["SsmName"])
                    tree.SubElement(parameter, f"{prefix}ResolvedValue").text = str(known["Value"])
        return status, headers, tree.tostring(root)

    package._ACTION_HANDLERS["DescribeStacks"] = describe


def correct_conditions() -> None:
    """Let conditions use every function that they may.

    ministack's take ``Fn::Join`` and others for a text, so the bootstrap template's deployment role gets no
    policy.
    """
    engine = importlib.import_module(f"{CFN}.engine")

    def evaluate(template: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, bool]:
        definitions = template.get("Conditions", {})
        mappings = template.get("Mappings", {})
        known: dict[str, bool] = {}

        def truth(expression: Any) -> bool:
            if isinstance(expression, str):
                return named(expression)
            (function, argument), *_ = expression.items()
            if function == "Fn::Equals":
                left, right = (value(part) for part in argument)
                return str(left) == str(right)
            if function in ("Fn::And", "Fn::Or"):
                parts = [truth(part) for part in argument]
                return all(parts) if function == "Fn::And" else any(parts)
            if function == "Fn::Not":
                return not truth(argument[0])
            if function == "Condition":
                return named(argument)
            raise ValueError(f"Template validation error: {function} is no condition function")

        def named(name: str) -> bool:
            if name not in known:
                if name not in definitions:
                    raise ValueError(f"Template validation error: Unresolved condition dependency {name}")
                known[name] = truth(definitions[name])
            return known[name]

        def value(part: Any) -> Any:
            return engine._resolve_refs(part, {}, params, known, mappings, "", "")

        for name in definitions:
            named(name)
        return known

    for module in ("engine", "stacks", "changesets", "handlers", "drift", "provisioners"):
        found = importlib.import_module(f"{CFN}.{module}")
        if hasattr(found, "_evaluate_conditions"):
            substitute(found, "_evaluate_conditions", evaluate)
