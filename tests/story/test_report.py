"""The report: its shape, its files, its page."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from rehearsal.report import ReportError, read, render, write
from rehearsal.report.architecture import picture
from rehearsal.report.document import SCHEMA_PATH, Report
from rehearsal.report.render import _short

from .example import report as example

SCHEMA = json.loads(SCHEMA_PATH.read_text())


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return example().to_json()


@pytest.fixture(scope="module")
def page(document: dict[str, Any]) -> str:
    return render(document)


def test_should_match_its_schema(document: dict[str, Any]) -> None:
    jsonschema.validate(document, SCHEMA)


def test_should_match_its_schema_before_the_first_step() -> None:
    empty = Report(workload="w", title="W", stage="Dev", started="2026-11-21T10:00:00+00:00", seed=1)

    jsonschema.validate(empty.to_json(), SCHEMA)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("steps", 0, "status"), "skipped"),
        (("steps", 0, "capabilities"), ["not a capability"]),
        (("records", "lost"), -1),
        (("outcome",), "fine"),
        (("unknown",), 1),
    ],
)
def test_should_find_a_report_that_does_not_match(
    document: dict[str, Any], path: tuple[str | int, ...], value: object
) -> None:
    broken = json.loads(json.dumps(document))
    target = broken
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, SCHEMA)


def test_should_have_the_keys_that_others_rely_on(document: dict[str, Any]) -> None:
    assert document["schema"] == 1
    assert {"sent", "delivered", "quarantined", "duplicates_dropped", "lost"} <= set(document["records"])
    assert {"metrics", "version", "approved"} <= set(document["model"])
    assert {"violations", "before", "after"} <= set(document["drift"])
    assert {"id", "title", "status", "seconds", "evidence"} <= set(document["steps"][0])


def test_should_write_only_what_json_knows(tmp_path: Path) -> None:
    report = example()
    report.model["metrics"] = {"auc": math.nan}
    report.steps[0].evidence = {"set": {"b", "a"}, "path": tmp_path, 1: (1, 2)}

    write(report.to_json(), tmp_path / "sub" / "report.json")

    found = read(tmp_path / "sub" / "report.json")
    assert found["model"]["metrics"] == {"auc": None}
    assert found["steps"][0]["evidence"] == {"set": ["a", "b"], "path": str(tmp_path), "1": [1, 2]}
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["report.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no"),
        ("{", "cannot be read as a report"),
        ("[]", "must be a report of schema 1, got None"),
        ('{"schema": 2}', "must be a report of schema 1, got 2"),
        ('{"schema": 1, "workload": "w"}', "seconds, records, model, drift, steps is missing"),
    ],
)
def test_should_say_what_is_wrong_with_a_file_that_is_no_report(
    tmp_path: Path, content: str | None, message: str
) -> None:
    path = tmp_path / "report.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(ReportError, match=message):
        read(path)


# --- the page ---


class Page(HTMLParser):
    """Collects ids, references and text, and checks that elements are closed in order."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr", "path", "rect", "circle", "use"})

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.scripts += tag == "script"
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            if name in ("href", "src", "xlink:href", "action") and value:
                self.references.append(value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def parsed(page: str) -> Page:
    parser = Page()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def test_should_fetch_nothing(page: str, parsed: Page) -> None:
    assert [r for r in parsed.references if not r.startswith("#")] == []
    assert parsed.scripts == 0
    assert re.search(r"@import|url\((?!#)", page) is None


def test_should_link_only_to_what_is_on_the_page(parsed: Page) -> None:
    assert {r[1:] for r in parsed.references} <= set(parsed.ids)
    assert len(parsed.ids) == len(set(parsed.ids))


def test_should_show_every_step_with_its_seconds(page: str, parsed: Page, document: dict[str, Any]) -> None:
    text = " ".join(" ".join(parsed.text).split())
    for step in document["steps"]:
        assert step["title"] in text
    assert "1 min 01 s" in text
    assert page.count('<details class="step ') == len(document["steps"])
    assert page.count('<details class="step recorded"') == 1


def test_should_escape_what_comes_from_records(page: str) -> None:
    assert "<b>{not json</b>" not in page
    assert "&lt;b&gt;{not json&lt;/b&gt;" in page


def test_should_draw_every_plot_in_the_page_s_own_colours(page: str) -> None:
    for name in (
        "ROC curves",
        "confusion matrix",
        "drift per feature",
        "seconds per step",
        "deployed stacks",
    ):
        assert f'aria-label="{name}"' in page
    assert page.count('aria-label="answers by model during the rollout"') == 2
    assert "var(--first)" in page
    assert re.search(r"#0[0-9a-f]0[0-9a-f]0[0-9a-f]", page) is None


def test_should_render_the_same_page_twice(page: str, document: dict[str, Any]) -> None:
    assert render(document) == page


def test_should_render_a_report_that_failed_at_once() -> None:
    empty = Report(
        workload="w",
        title="W",
        stage="Dev",
        started="2026-11-21T10:00:00+00:00",
        seed=1,
        outcome="failed",
        reason="synth: cdk synth failed: <oops>",
    )

    page = render(empty.to_json())

    assert "cdk synth failed: &lt;oops&gt;" in page
    assert "No model was trained." in page
    assert "Nothing was deployed." in page


# --- the picture ---


def stack(stack_id: str, *depends_on: str) -> dict[str, Any]:
    return {"id": stack_id, "resources": [{"type": "AWS::S3::Bucket"}], "depends_on": list(depends_on)}


def test_should_draw_an_arrow_for_each_direct_dependency_only() -> None:
    svg = picture([stack("A"), stack("B", "A"), stack("C", "A", "B")])

    assert svg.count('class="edge"') == 2
    assert svg.count('class="box"') == 3


def test_should_refuse_stacks_that_depend_on_each_other() -> None:
    with pytest.raises(ValueError, match="in a circle: A -> B -> A"):
        picture([stack("A", "B"), stack("B", "A")])


def test_should_draw_nothing_without_stacks() -> None:
    assert picture([]) == ""


def test_should_sum_up_the_services_that_do_not_fit() -> None:
    resources = [{"type": f"AWS::Service{i:02d}::Thing"} for i in range(20)]
    svg = picture([{"id": "Dev/Big", "resources": resources, "depends_on": []}])

    assert "8 more services" in svg
    assert "20 resources" in svg


@pytest.mark.parametrize(
    ("name", "short"),
    [
        (
            "Dev-ClaimsFraudData-IngestionReadLateD59F83F6-578070C4E379A",
            "Dev-ClaimsFraudData-IngestionReadLate",
        ),
        ("drift: alarm Dev-X-MonitorDrift4E9CCB12-34A059F5D6304", "drift: alarm Dev-X-MonitorDrift"),
        ("1.dkr.ecr.us-east-1.amazonaws.com/cdk-assets:2db81211944a7dc2a21660", "image 2db8121194"),
        ("dev-claims-fraud", "dev-claims-fraud"),
    ],
)
def test_should_show_a_generated_name_without_its_random_end(name: str, short: str) -> None:
    assert _short(name) == short
