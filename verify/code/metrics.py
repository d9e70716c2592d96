"""Metrics that our own programs publish: by ``put_metric_data``, and by log lines in the embedded format."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from verify.code.deployed import Deployed
from verify.code.literals import ANY, dictionary, texts
from verify.code.program import Program, Scope

__all__ = ["Published", "published"]


@dataclass(frozen=True, kw_only=True)
class Published:
    """A metric that a program can publish; ``*`` in a text is what the code does not tell."""

    namespace: str
    name: str
    dimensions: frozenset[str]
    place: str


def published(deployed: tuple[Deployed, ...]) -> tuple[Published, ...]:
    """Everything that the deployed programs publish."""
    found: dict[Published, None] = {}
    spaces: dict[int, tuple[Program, frozenset[str]]] = {}
    for item in deployed:
        if item.program is not None:
            # A namespace may be told by a variable of the template.
            _program, told = spaces.get(id(item.program), (item.program, frozenset()))
            spaces[id(item.program)] = (item.program, told | frozenset(item.variables.values()))
    for program, told in spaces.values():
        for metric in _of(program, told):
            found[metric] = None
    return tuple(found)


def _of(program: Program, told: frozenset[str]) -> Iterator[Published]:
    namespaces: set[str] = set()
    for scope, call in program.calls_of("put_metric_data"):
        for part in call.keywords:
            if part.arg == "Namespace":
                known = texts(program, scope, part.value)
                namespaces |= (known - {ANY}) | (told if ANY in known else frozenset())
    embedded = any(
        isinstance(node, ast.Constant) and node.value == "CloudWatchMetrics"
        for scope in program.live
        for node in scope.nodes()
    )
    if not namespaces and not embedded:
        return
    for scope in program.live:
        for node in scope.nodes():
            if isinstance(node, ast.Dict):
                entries = dictionary(node)
                if "MetricName" in entries:
                    dimensions = _dimensions(program, scope, entries.get("Dimensions"))
                    for name in texts(program, scope, entries["MetricName"]):
                        for namespace in namespaces:
                            yield Published(
                                namespace=namespace,
                                name=name,
                                dimensions=dimensions,
                                place=f"{scope.module.name}:{node.lineno}",
                            )
                if {"Namespace", "Metrics"} <= entries.keys():
                    yield from _embedded(program, scope, entries)


def _dimensions(program: Program, scope: Scope, node: ast.AST | None) -> frozenset[str]:
    """Names of dimensions in a list of ``{"Name": ..., "Value": ...}``, names of lists followed."""
    if node is None:
        return frozenset()
    found: set[str] = set()
    seen: set[str] = set()
    todo: list[ast.AST] = [node]
    while todo:
        for inner in ast.walk(todo.pop()):
            if isinstance(inner, ast.Dict):
                entries = dictionary(inner)
                if "Name" in entries:
                    found |= texts(program, scope, entries["Name"])
            elif isinstance(inner, ast.DictComp | ast.ListComp):
                continue
            elif isinstance(inner, ast.Name) and inner.id not in seen:
                seen.add(inner.id)
                todo += [
                    value.value
                    for value in ast.walk(scope.node)
                    if isinstance(value, ast.Assign)
                    and any(
                        isinstance(target, ast.Name) and target.id == inner.id for target in value.targets
                    )
                ]
    return frozenset(found) - {ANY}


def _embedded(program: Program, scope: Scope, entries: Mapping[str, ast.expr]) -> Iterator[Published]:
    """The directive of the embedded metric format (CloudWatch, "Embedded metric format specification")."""
    names = [
        name
        for node in ast.walk(entries["Metrics"])
        if isinstance(node, ast.Dict) and "Name" in (inner := dictionary(node))
        for name in texts(program, scope, inner["Name"])
    ]
    sets = [
        frozenset(part.value for part in inner.elts if isinstance(part, ast.Constant))
        for node in ast.walk(entries.get("Dimensions", ast.List(elts=[], ctx=ast.Load())))
        if isinstance(node, ast.List)
        for inner in node.elts
        if isinstance(inner, ast.List)
    ] or [frozenset()]
    for namespace in texts(program, scope, entries["Namespace"]):
        for name in names:
            for dimensions in sets:
                yield Published(
                    namespace=namespace,
                    name=name,
                    dimensions=frozenset(map(str, dimensions)),
                    place=f"{scope.module.name}:{getattr(entries['Metrics'], 'lineno', 0)}",
                )
