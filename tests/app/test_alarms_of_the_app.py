"""Every alarm in every template says what happened and names a runbook that is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from cdk_support import Assembly, Template, resources

ROOT = Path(__file__).resolve().parents[2]
RUNBOOK = re.compile(r"^\S.{10,}\. Runbook: (docs/runbooks/[a-z0-9-]+\.md)$", re.DOTALL)


def alarms(template: Template) -> dict[str, Template]:
    return resources(template, "AWS::CloudWatch::Alarm") | resources(
        template, "AWS::CloudWatch::CompositeAlarm"
    )


def text_of(alarm: Template) -> str:
    """The description; what only the deployment knows is a star."""
    given = alarm["Properties"].get("AlarmDescription", "")
    if isinstance(given, str):
        return given
    if set(given) == {"Fn::Join"}:
        separator, parts = given["Fn::Join"]
        return str(separator).join(part if isinstance(part, str) else "*" for part in parts)
    return json.dumps(given)


def without_runbook(templates: dict[str, Template]) -> list[str]:
    found = []
    for stack, template in templates.items():
        for name, alarm in alarms(template).items():
            match = RUNBOOK.match(text_of(alarm))
            if match is None or not (ROOT / match[1]).exists():
                found.append(f"{stack}/{name}: {text_of(alarm)!r}")
    return found


def test_should_name_a_runbook_that_is_there_in_every_alarm(assembly: Assembly) -> None:
    templates = assembly.templates()
    assert sum(len(alarms(template)) for template in templates.values()) > 20
    assert without_runbook(templates) == []


@pytest.mark.parametrize("description", [None, "It broke", "It broke. Runbook: docs/runbooks/nobody.md"])
def test_should_find_an_alarm_without_one(description: str | None) -> None:
    alarm = {"Type": "AWS::CloudWatch::Alarm", "Properties": {"AlarmDescription": description or ""}}
    assert without_runbook({"Stack": {"Resources": {"Broken": alarm}}})


def test_should_tell_people_when_an_alarm_begins_and_when_it_is_over(assembly: Assembly) -> None:
    for stack, template in assembly.templates().items():
        for name, alarm in alarms(template).items():
            if text_of(alarm).endswith("scaling.md"):
                continue
            for key in ("AlarmActions", "OKActions"):
                assert alarm["Properties"].get(key), f"{stack}/{name}: {key}"


def test_should_alarm_on_every_queue_of_what_was_given_up(assembly: Assembly) -> None:
    for stack, template in assembly.templates().items():
        if stack.startswith("Delivery"):
            continue
        queues = {
            name
            for name in resources(template, "AWS::SQS::Queue")
            if re.search(r"DeadLetters|GivenUp|Kept|Missed", name)
        }
        watched = json.dumps(
            [a["Properties"] for t in assembly.templates().values() for a in alarms(t).values()]
        )
        assert {q for q in queues if q not in watched} == set(), stack
