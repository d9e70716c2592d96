"""The critical path of a CodePipeline: what follows what, and how long the longest way through it is.

Stages follow each other, within a stage run orders do, and actions of one run order run side by side
(CodePipeline, "Pipeline structure reference", ``runOrder``).
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

__all__ = ["Action", "Leg", "actions_of", "critical_path", "in_sequence", "kind_of", "resolved"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Action:
    """One action, in the order of the definition; ``commands`` are those of a build, where it has its own."""

    stage: str
    name: str
    order: int
    kind: str
    commands: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """``Stage/Action``."""
        return f"{self.stage}/{self.name}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leg:
    """An action of the critical path, its seconds, and how many ran beside it."""

    action: Action
    seconds: float
    beside: int


def kind_of(name: str, category: str, provider: str, mode: str | None) -> str:
    """What an action does, by its type; of builds by their name, which the pipeline gives."""
    if category in ("Source", "Approval"):
        return category.lower()
    if provider == "CloudFormation":
        # CDK Pipelines prepares a change set and executes it.
        return {"CHANGE_SET_REPLACE": "prepare", "CHANGE_SET_EXECUTE": "deploy"}.get(mode or "", "deploy")
    for prefix, kind in (
        ("SelfMutate", "self-mutate"),
        ("Smoke", "smoke"),
        ("WhatChanges", "what-changes"),
        ("Deploy", "deploy-all"),
    ):
        if name.startswith(prefix):
            return kind
    return "assets" if re.search(r"Assets?\d*$", name) else "build"


def actions_of(template: Mapping[str, Any]) -> tuple[Action, ...]:
    """The actions of the one pipeline of a synthesised template."""
    resources = template["Resources"]
    [pipeline] = [r for r in resources.values() if r["Type"] == "AWS::CodePipeline::Pipeline"]
    found = []
    for stage in pipeline["Properties"]["Stages"]:
        for action in stage["Actions"]:
            configuration, type_id = action["Configuration"], action["ActionTypeId"]
            kind = kind_of(
                action["Name"], type_id["Category"], type_id["Provider"], configuration.get("ActionMode")
            )
            found.append(
                Action(
                    stage=stage["Name"],
                    name=action["Name"],
                    order=int(action["RunOrder"]),
                    kind=kind,
                    commands=_commands(resources, configuration.get("ProjectName")),
                )
            )
    return tuple(found)


def _commands(resources: Mapping[str, Any], project: Any) -> tuple[str, ...]:
    if not isinstance(project, Mapping) or project.get("Ref") not in resources:
        return ()
    text = resources[project["Ref"]]["Properties"]["Source"].get("BuildSpec")
    try:
        specification = json.loads(text)
    except (TypeError, ValueError):
        # The name of a file of the assembly, or a text with values that only a deploy knows.
        return ()
    return tuple(specification["phases"]["build"]["commands"])


def _side_by_side(actions: Iterable[Action]) -> list[list[Action]]:
    """The actions that run together, group after group."""
    return [
        list(together)
        for _, stage in groupby(actions, key=lambda action: action.stage)
        for _, together in groupby(sorted(stage, key=lambda a: a.order), key=lambda action: action.order)
    ]


def critical_path(actions: Iterable[Action], seconds: Callable[[Action], float]) -> tuple[Leg, ...]:
    """Of every group that runs side by side the action that takes longest."""
    legs = []
    for together in _side_by_side(actions):
        longest = max(together, key=seconds)
        legs.append(Leg(action=longest, seconds=seconds(longest), beside=len(together) - 1))
    return tuple(legs)


def in_sequence(actions: Sequence[Action], seconds: Callable[[Action], float]) -> float:
    """Seconds if nothing ran side by side."""
    return sum(map(seconds, actions))


def resolved(played: Iterable[Mapping[str, Any]], actions: Sequence[Action]) -> dict[str, list[float]]:
    """Seconds of the actions that were played, by kind.

    Raises:
        ValueError: one was played that the definition has not.
    """
    kinds = {action.place: action.kind for action in actions}
    found: dict[str, list[float]] = {}
    for each in played:
        if each["action"] not in kinds:
            raise ValueError(f"{each['action']} was played and is not in the definition")
        found.setdefault(kinds[each["action"]], []).append(float(each["seconds"]))
    return found
