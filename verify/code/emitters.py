"""Events that our own code and state machines put on a bus."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from verify.assembly import Assembly, walk
from verify.code.deployed import Deployed, documents
from verify.code.literals import ANY, dictionary, texts
from verify.code.program import Program, Scope

__all__ = ["own_events"]


def own_events(assembly: Assembly, deployed: tuple[Deployed, ...]) -> Iterator[tuple[str, str, Any]]:
    """Source, detail-type and detail of each: by code (``put_events``) and by machines and schedules.

    The detail is plain data; a ``*`` stands for what only a run knows.
    """
    programs = {id(item.program): item.program for item in deployed if item.program is not None}
    for program in programs.values():
        for scope, call in program.calls_of("put_events"):
            for part in call.keywords:
                if part.arg == "Entries":
                    yield from _entries(program, scope, part.value)
    for resource in assembly.resources("AWS::StepFunctions::StateMachine", "AWS::Scheduler::Schedule"):
        for _path, document in documents(assembly, resource):
            for _inner, value in walk(document):
                if isinstance(value, Mapping) and isinstance(value.get("Entries"), list):
                    for entry in value["Entries"]:
                        if isinstance(entry, Mapping) and "DetailType" in entry:
                            yield (
                                str(entry.get("Source")),
                                str(entry["DetailType"]),
                                _machine(entry.get("Detail")),
                            )


def _entries(program: Program, scope: Scope, node: ast.AST) -> Iterator[tuple[str, str, Any]]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Dict):
            entry = dictionary(inner)
            if {"Source", "DetailType"} <= entry.keys():
                for source in texts(program, scope, entry["Source"]):
                    for kind in texts(program, scope, entry["DetailType"]):
                        yield source, kind, ANY
        elif isinstance(inner, ast.Name):
            for value in ast.walk(scope.node):
                if isinstance(value, ast.Assign) and any(
                    isinstance(target, ast.Name) and target.id == inner.id for target in value.targets
                ):
                    yield from _entries(program, scope, value.value)


def _machine(detail: Any) -> Any:
    """A detail of a state machine: a key that ends in ``.$`` has a value that only the run knows."""
    if not isinstance(detail, Mapping):
        return ANY
    return {
        str(key).removesuffix(".$"): ANY if str(key).endswith(".$") else _machine_part(value)
        for key, value in detail.items()
    }


def _machine_part(value: Any) -> Any:
    return _machine(value) if isinstance(value, Mapping) else value
