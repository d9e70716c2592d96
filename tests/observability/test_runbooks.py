"""The pages behind the alarms: each there, each whole, each command one that the AWS CLI knows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import botocore.session
import pytest
from botocore import xform_name
from ml_lifecycle.alarms import RUNBOOK_FOLDER, described

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(p for p in (ROOT / RUNBOOK_FOLDER).glob("*.md") if p.stem != "README")
PARTS = ("Symptom", "Impact", "Look", "Mend", "Over")
#: Commands of the CLI that are no operations of a service.
HIGH_LEVEL = {("s3", "ls"), ("s3", "cp"), ("logs", "tail")}


def named_in_code() -> set[str]:
    """Names of pages that constructs and stacks write down."""
    text = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("constructs/ml_lifecycle", "stacks")
        for path in (ROOT / folder).rglob("*.py")
    )
    return set(re.findall(r'runbook="([a-z0-9-]+)"', text))


def test_should_end_a_description_with_the_path_of_its_page() -> None:
    assert described("It broke.", runbook="drift") == "It broke. Runbook: docs/runbooks/drift.md"


def test_should_refuse_a_page_without_a_proper_name_and_more_text_than_cloudwatch_keeps() -> None:
    with pytest.raises(ValueError, match=r"name of a page such as dead-letters, got 'Drift\.md'; .* 1024"):
        described("x" * 1_024, runbook="Drift.md")


def test_should_have_a_page_for_every_name_in_code_and_no_other() -> None:
    # Budgets tell the topic by themselves; their text cannot name a page.
    assert {p.stem for p in PAGES} == named_in_code() | {"budget"}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_should_say_what_who_where_how_and_when_it_is_over(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert tuple(re.findall(r"^## (.+)$", text, re.MULTILINE)) == PARTS
    for part in re.split(r"^## .+$", text, flags=re.MULTILINE)[1:]:
        assert part.strip()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_should_name_commands_and_options_that_exist(page: Path) -> None:
    session = botocore.session.get_session()
    text = page.read_text(encoding="utf-8")
    blocks = [
        line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()
    ]
    commands = [shlex.split(line.replace("$(", "(")) for line in blocks if line.startswith("aws ")]
    assert commands, page
    for command in commands:
        service, operation = command[1:3]
        if (service, operation) in HIGH_LEVEL:
            continue
        model = session.get_service_model({"stepfunctions": "stepfunctions"}.get(service, service))
        names = {xform_name(name, "-"): name for name in model.operation_names}
        assert operation in names, command
        shape = model.operation_model(names[operation]).input_shape
        members = {xform_name(m, "-") for m in shape.members} if shape is not None else set()
        cli = {"query", "cli-binary-format", "payload"}
        for option in (word[2:] for word in command if word.startswith("--")):
            # The CLI's own paging options are the API's under other names.
            assert option in members | cli | {"max-items"}, (command, option)


def test_should_list_every_page_in_the_index() -> None:
    index = (ROOT / RUNBOOK_FOLDER / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\(([a-z-]+)\.md\)", index)) == {p.stem for p in PAGES}
