"""The critical path of a pipeline: what runs after what, and which action of those side by side counts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.critical_path import actions_of, critical_path, in_sequence, resolved


def action(name: str, order: int, category: str = "Build", provider: str = "CodeBuild", **more: str) -> Any:
    return {
        "Name": name,
        "RunOrder": order,
        "ActionTypeId": {"Category": category, "Provider": provider},
        "Configuration": {k: {"Ref": v} if k == "ProjectName" else v for k, v in more.items()},
    }


def stack(name: str, order: int) -> list[Any]:
    return [
        action(f"{name}.{what}", order + number, "Deploy", "CloudFormation", ActionMode=mode)
        for number, (what, mode) in enumerate(
            {"Prepare": "CHANGE_SET_REPLACE", "Deploy": "CHANGE_SET_EXECUTE"}.items()
        )
    ]


STAGES = [
    {"Name": "Source", "Actions": [action("Code", 1, "Source", "CodeCommit")]},
    {"Name": "Build", "Actions": [action("Synth", 1, ProjectName="Project")]},
    # As in a template, not in the order in which they run.
    {"Name": "Dev", "Actions": [action("SmokeDev", 5), *stack("Late", 3), *stack("A", 1), *stack("B", 1)]},
    {"Name": "Approve", "Actions": [action("ApproveProd", 1, "Approval", "Manual")]},
]
TEMPLATE = {
    "Resources": {
        "Pipeline": {"Type": "AWS::CodePipeline::Pipeline", "Properties": {"Stages": STAGES}},
        "Project": {
            "Type": "AWS::CodeBuild::Project",
            "Properties": {
                "Source": {"BuildSpec": json.dumps({"phases": {"build": {"commands": ["make lint"]}}})}
            },
        },
    }
}
SECONDS = {"Code": 1, "Synth": 60, "A.Prepare": 2, "B.Prepare": 3, "A.Deploy": 40, "B.Deploy": 30}


def seconds(one: Any) -> float:
    return SECONDS.get(one.name, 5)


def test_should_read_what_each_action_does_from_its_definition() -> None:
    actions = actions_of(TEMPLATE)
    kinds = {one.name: one.kind for one in actions}
    assert kinds == {
        "Code": "source",
        "Synth": "build",
        "SmokeDev": "smoke",
        "ApproveProd": "approval",
        **{f"{name}.Prepare": "prepare" for name in ("A", "B", "Late")},
        **{f"{name}.Deploy": "deploy" for name in ("A", "B", "Late")},
    }
    assert {one.name: one.commands for one in actions if one.commands} == {"Synth": ("make lint",)}


def test_should_go_from_stage_to_stage_by_the_longest_of_those_side_by_side() -> None:
    actions = actions_of(TEMPLATE)
    path = critical_path(actions, seconds)
    assert [(leg.action.name, leg.beside) for leg in path] == [
        ("Code", 0),
        ("Synth", 0),
        ("B.Prepare", 1),
        ("A.Deploy", 1),
        ("Late.Prepare", 0),
        ("Late.Deploy", 0),
        ("SmokeDev", 0),
        ("ApproveProd", 0),
    ]
    assert sum(leg.seconds for leg in path) == 1 + 60 + 3 + 40 + 4 * 5
    assert in_sequence(actions, seconds) == 1 + 60 + 3 + 40 + 4 * 5 + 2 + 30


def test_should_sort_what_was_played_by_its_kind() -> None:
    actions = actions_of(TEMPLATE)
    played = [{"action": "Dev/A.Deploy", "seconds": 4}, {"action": "Dev/B.Deploy", "seconds": 6}]
    assert resolved(played, actions) == {"deploy": [4, 6]}
    with pytest.raises(ValueError, match="Dev/Nobody was played and is not in the definition"):
        resolved([{"action": "Dev/Nobody", "seconds": 1}], actions)
