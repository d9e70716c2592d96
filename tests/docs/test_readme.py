"""The README says what holds: its table is generated, its commands and links exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tools.capabilities import with_table

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])


def test_should_show_the_capabilities_as_they_are() -> None:
    rows = YAML(typ="safe").load((ROOT / "docs" / "capabilities.yaml").read_text())
    assert with_table(README, rows) == README, "run: .venv/bin/python tools/capabilities.py"


def test_should_refuse_a_readme_without_marks() -> None:
    with pytest.raises(ValueError, match="capabilities:start"):
        with_table("no marks", [])


def test_should_name_only_targets_that_the_makefile_has() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    command = re.compile(r"(?:^|`)make ([a-z-]+)", flags=re.MULTILINE)
    named = {target for page in PAGES for target in command.findall(page.read_text())}
    assert named
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_should_link_only_to_what_exists(page: Path) -> None:
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text())]
    local = [link for link in links if link and not link.startswith(("http:", "https:", "mailto:"))]
    assert [link for link in local if not (page.parent / link).exists()] == []
