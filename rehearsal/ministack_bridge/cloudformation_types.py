"""CloudFormation's types: those that are added, and what ministack's own lack."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from rehearsal.ministack_bridge._inside import CFN, substitute

_THREADED_TYPES: set[str] = set()


def resource_types() -> frozenset[str]:
    """Return the CloudFormation types that can be made."""
    return frozenset(importlib.import_module(f"{CFN}.provisioners")._RESOURCE_HANDLERS)


def run_on_a_thread(resource_type: str) -> None:
    """Run a type's handlers on a thread of their own: they call back into this server."""
    stacks = importlib.import_module(f"{CFN}.stacks")
    if not _THREADED_TYPES:
        original = stacks._runs_on_worker_thread
        substitute(stacks, "_runs_on_worker_thread", lambda name: name in _THREADED_TYPES or original(name))
    _THREADED_TYPES.add(resource_type)


def register_type(resource_type: str, handlers: Mapping[str, Any]) -> None:
    """Make a CloudFormation type known: ``create(logical id, properties, stack)``, ``update``, ``delete``."""
    provisioners = importlib.import_module(f"{CFN}.provisioners")
    provisioners._RESOURCE_HANDLERS[resource_type] = dict(handlers)
    # What a change replaces is the handlers' own business.
    provisioners._REPLACING_PROPERTIES.pop(resource_type, None)
    run_on_a_thread(resource_type)


def extend_type(resource_type: str, *, after: Callable[[str, Mapping[str, Any]], None]) -> None:
    """Call ``after(physical id, properties)`` when ministack made or changed a resource of its own type."""
    provisioners = importlib.import_module(f"{CFN}.provisioners")
    handlers = provisioners._RESOURCE_HANDLERS[resource_type]
    create, update, delete = handlers["create"], handlers["update"], handlers["delete"]

    def made(logical_id: str, props: Mapping[str, Any], stack: str) -> Any:
        result = create(logical_id, props, stack)
        try:
            after(result[0], props)
        except Exception:
            delete(result[0], props)
            raise
        return result

    def changed(
        physical_id: str, old: Mapping[str, Any], new: Mapping[str, Any], stack: str, *rest: Any
    ) -> Any:
        result = update(physical_id, old, new, stack, *rest)
        after(result[0], new)
        return result

    provisioners._RESOURCE_HANDLERS[resource_type] = {**handlers, "create": made, "update": changed}
    run_on_a_thread(resource_type)


def let_dashboards_be_of_collections() -> None:
    """Let rules on dashboards name collections, as the service has it; ministack wants ``dashboard/``.

    Source: OpenSearch Serverless Developer Guide, "Network access", "Policy format".
    """
    search = importlib.import_module("ministack.services.opensearchserverless")
    original = search._validate_network_policy

    def kind(rule: Any) -> Any:
        of_dashboard = isinstance(rule, Mapping) and rule.get("ResourceType") == "dashboard"
        return {**rule, "ResourceType": "collection"} if of_dashboard else rule

    def validate(document: Any) -> None:
        statements = document if isinstance(document, list) else []
        for statement in statements:
            rules = statement.get("Rules") if isinstance(statement, Mapping) else None
            if isinstance(rules, list):
                original([{**statement, "Rules": [kind(rule) for rule in rules]}])
            else:
                original([statement])
        if not statements:
            original(document)

    substitute(search, "_validate_network_policy", validate)


def refer_to_secrets_by_arn() -> None:
    """Let ``Ref`` of a secret be its ARN, as CloudFormation has it; ministack gives its name.

    The ARN ends in a hyphen and six characters after the name.
    """
    provisioners = importlib.import_module(f"{CFN}.provisioners")
    handlers = provisioners._RESOURCE_HANDLERS["AWS::SecretsManager::Secret"]

    def name_in(physical_id: str) -> str:
        return physical_id.rsplit(":", 1)[-1][:-7] if physical_id.startswith("arn:") else physical_id

    def create(*args: Any) -> Any:
        _, attributes = handlers["create"](*args)
        return attributes["Arn"], attributes

    def update(physical_id: str, *args: Any) -> Any:
        _, attributes = handlers["update"](name_in(physical_id), *args)
        return attributes["Arn"], attributes

    def delete(physical_id: str, *args: Any) -> Any:
        return handlers["delete"](name_in(physical_id), *args)

    provisioners._RESOURCE_HANDLERS["AWS::SecretsManager::Secret"] = {
        **handlers,
        "create": create,
        "update": update,
        "delete": delete,
    }


def add_attributes(
    resource_type: str, attributes: Mapping[str, Callable[[str, Mapping[str, Any]], Any]]
) -> None:
    """Give ``Fn::GetAtt`` values that ministack's own type lacks, each from physical id and properties."""
    provisioners = importlib.import_module(f"{CFN}.provisioners")
    handlers = provisioners._RESOURCE_HANDLERS[resource_type]

    def completed(handler: Callable[..., Any], at: int) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            physical_id, given = handler(*args)
            known = dict(given or {})
            for name, value in attributes.items():
                found = value(physical_id, args[at])
                if found is not None:
                    known.setdefault(name, found)
            return physical_id, known

        return call

    extended = {**handlers, "create": completed(handlers["create"], 1)}
    if "update" in handlers:
        extended["update"] = completed(handlers["update"], 2)
    provisioners._RESOURCE_HANDLERS[resource_type] = extended


def delete_predecessor(
    delete: Callable[[str, Mapping[str, Any]], None], physical_id: str, props: Mapping[str, Any]
) -> None:
    """Delete a replaced resource when its stack cleans up, unless its UpdateReplacePolicy keeps it.

    The engine deletes a predecessor whose physical id differs by itself; this is for ids that stay.
    """
    provisioners = importlib.import_module(f"{CFN}.provisioners")
    if provisioners._DEFERRED_PREDECESSOR_DELETES.get() is None:
        provisioners._delete_predecessor(delete, physical_id, props)


def replace_by_schema(create_only: Callable[[str], tuple[str, ...] | None]) -> None:
    """Replace resources of ministack's own types by the registry's create-only properties.

    Only types that ministack cannot change in place and has no such list for: it would make them anew under
    the same name.
    """
    provisioners = importlib.import_module(f"{CFN}.provisioners")
    for resource_type, handlers in provisioners._RESOURCE_HANDLERS.items():
        if "update" not in handlers and resource_type not in provisioners._REPLACING_PROPERTIES:
            properties = create_only(resource_type)
            if properties is not None:
                provisioners._REPLACING_PROPERTIES[resource_type] = properties
