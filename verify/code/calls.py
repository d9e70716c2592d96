"""Calls of AWS that a program makes."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import botocore.loaders

from verify.code.literals import ANY, texts
from verify.code.program import Program, Scope
from verify.models import operation_named, service_model, services
from verify.tables.actions import ACTIONS, PREFIXES, TRANSFERS

__all__ = ["Call", "actions_of_call", "calls_of", "passes_role"]

#: Methods of libraries that are called as operations are. Source: pyiceberg, "Python API".
_METHODS: Mapping[str, frozenset[str]] = {"pyiceberg": frozenset({"scan", "update_schema", "delete"})}
_LOADER = botocore.loaders.Loader()


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call as the code writes it.

    Args:
        services: services that it can be; more than one where several have the operation.
        operation: the operation's name.
        place: module and line.
        keywords: parameters that stand at the call.
    """

    services: tuple[str, ...]
    operation: str
    place: str
    keywords: frozenset[str] = frozenset()


@functools.cache
def calls_of(program: Program) -> tuple[Call, ...]:
    """Every call of the services whose clients the program makes, paginators and waiters included."""
    made = _made(program)
    if not made:
        return ()
    found: dict[tuple[str, str], Call] = {}
    for scope in program.live:
        called = {node.func: node for node in scope.nodes() if isinstance(node, ast.Call)}
        for node in scope.nodes():
            if isinstance(node, ast.Attribute):
                for call in _call(program, scope, node, called.get(node), made):
                    found.setdefault((call.operation, call.place), call)
    return tuple(found.values())


def _made(program: Program) -> frozenset[str]:
    """Services whose clients or resources the program makes."""
    made: set[str] = set()
    for scope in program.live:
        # ``make = boto3.client`` is another name of it.
        aliases = {
            target.id
            for node in scope.nodes()
            if isinstance(node, ast.Assign | ast.AnnAssign) and _is_factory(node.value)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        for node in scope.nodes():
            if isinstance(node, ast.Call) and node.args:
                name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                if name in aliases or "client" in name.lower() or name == "resource":
                    made |= texts(program, scope, node.args[0]) & services()
    return frozenset(made)


def _is_factory(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Attribute) and node.attr in ("client", "resource")


def _call(
    program: Program, scope: Scope, node: ast.Attribute, call: ast.Call | None, made: frozenset[str]
) -> Iterator[Call]:
    place = f"{scope.module.name}:{node.lineno}"
    if node.attr in ("get_paginator", "get_waiter") and call is not None and call.args:
        for name in texts(program, scope, call.args[0]) - {ANY}:
            for service in sorted(made):
                operation = (
                    _waited(service, name) if node.attr == "get_waiter" else operation_named(service, name)
                )
                if operation is not None:
                    yield Call(services=(service,), operation=operation, place=place)
        return
    if node.attr in TRANSFERS and "s3" in made:
        for operation in TRANSFERS[node.attr]:
            yield Call(services=("s3",), operation=operation, place=place)
        return
    candidates = {
        service: operation
        for service in sorted(made)
        if node.attr.islower() and (operation := operation_named(service, node.attr)) is not None
    }
    named = _spoken(node.value)
    hinted = [service for service in candidates if any(part in named for part in _aliases(service))]
    # An operation of one word, or one that a library has too, is one only where a client is named.
    vague = "_" not in node.attr or _of_library(program, node.attr)
    if not candidates or (vague and not hinted and "client" not in named):
        return
    picked = tuple(hinted or candidates)
    keywords = frozenset(part.arg for part in call.keywords if part.arg) if call is not None else frozenset()
    yield Call(services=picked, operation=candidates[picked[0]], place=place, keywords=keywords)


def _of_library(program: Program, method: str) -> bool:
    """Whether a method is one of a library that the program uses."""
    origins = {name[0] for module in program.modules.values() for name in module.imported.values()}
    return any(
        method in methods and any(origin.startswith(library) for origin in origins)
        for library, methods in _METHODS.items()
    )


def _spoken(node: ast.AST) -> str:
    return ast.unparse(node).lower()


@functools.cache
def _aliases(service: str) -> tuple[str, ...]:
    short = {"dynamodb": "_table", "stepfunctions": "machine", "sagemaker-featurestore-runtime": "store"}
    return (service.replace("-", "_"), service.replace("-", ""), *filter(None, [short.get(service)]))


@functools.cache
def _waiters(service: str) -> Mapping[str, str]:
    try:
        model = _LOADER.load_service_model(service, "waiters-2")
    except botocore.loaders.UnknownServiceError:
        return {}
    from botocore import xform_name

    return {xform_name(name): waiter["operation"] for name, waiter in model["waiters"].items()}


def _waited(service: str, name: str) -> str | None:
    return _waiters(service).get(name)


# -- what it takes ---------------------------------------------------------------------------------------


@functools.cache
def actions_of_call(service: str, operation: str) -> tuple[str, ...]:
    """IAM actions that a call needs: all of them; ``a|b`` is one of several."""
    if (service, operation) in ACTIONS:
        return ACTIONS[service, operation]
    model = service_model(service)
    prefix = PREFIXES.get(service)
    if prefix is None:
        prefix = service if model is None else (model.signing_name or model.endpoint_prefix)
    return (f"{prefix}:{operation}",)


@functools.cache
def passes_role(service: str, operation: str) -> frozenset[str]:
    """Parameters of a call that hand a role to the service (which takes ``iam:PassRole``)."""
    model = service_model(service)
    name = operation_named(service, operation)
    if model is None or name is None or service in ("iam", "sts", "lakeformation"):
        return frozenset()
    shape = model.operation_model(name).input_shape
    members = frozenset() if shape is None else frozenset(shape.members)
    return members & {"RoleArn", "ExecutionRoleArn", "roleArn", "executionRoleArn", "Role", "TaskRoleArn"}
