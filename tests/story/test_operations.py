"""The operations play: its cells, the app with blocks switched on, the steps it stands on, its table."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ml_contract.load import load_workload
from ruamel.yaml import YAML

from rehearsal.preflight import app_folder
from rehearsal.report import render
from rehearsal.story import StoryError
from rehearsal.story.operations import CELLS, operations
from rehearsal.story.operations.cells import Cell, step_of
from rehearsal.story.operations.ground import operations_app, steps_to

from .example import report as example

ROOT = app_folder(None)
CLAIMS = ROOT / "workloads" / "claims_fraud"


def test_should_name_each_cell_once_and_each_step_once() -> None:
    ids = [each.id for each in CELLS]
    steps = [step.id for step in operations()]

    assert len(set(ids)) == len(ids)
    assert len(set(steps)) == len(steps)


def test_should_deploy_no_more_than_the_chosen_cells_stand_on() -> None:
    assert [step.id for step in steps_to("synthesised", [])] == ["synth"]
    assert [step.id for step in steps_to("deployed", [])] == ["synth", "bootstrap", "deploy"]
    assert [step.id for step in steps_to("serving", [])][-1] == "traffic"


def test_should_refuse_a_name_that_fits_no_cell() -> None:
    with pytest.raises(ValueError, match="there is no cell 'nothing'"):
        operations("nothing")


def test_should_change_the_blocks_and_nothing_else(tmp_path: Path) -> None:
    before = YAML(typ="safe").load(CLAIMS / "workload.yaml")

    app = operations_app(
        ROOT,
        tmp_path / "app",
        CLAIMS,
        [{"retraining": {"every_days": 3}}, {"retraining": {"on_drift": False}}],
    )

    after = YAML(typ="safe").load(app / "workloads" / "claims_fraud" / "workload.yaml")
    assert after.pop("retraining") == {
        **before.pop("retraining"),
        "every_days": 3,
        "on_drift": False,
    }
    assert after == before
    assert load_workload(app / "workloads" / "claims_fraud").workload.retraining.every_days == 3
    assert (app / "app.py").resolve() == ROOT / "examples" / "operations" / "app.py"


def played(run: Any) -> list[dict[str, Any]]:
    tale = cast(Any, SimpleNamespace(report=SimpleNamespace(cells=[]), server=None))
    cell = Cell(id="a.b", title="it happens", run=run, chapter="Area", capabilities=("retrain.guard",))
    step = step_of(cell)
    assert step.alone
    with contextlib.suppress(StoryError):
        step.run(tale, {})
    rows: list[dict[str, Any]] = tale.report.cells
    return rows


def test_should_leave_a_row_of_a_cell_that_failed_too() -> None:
    def fails(tale: Any, evidence: Any) -> None:
        raise StoryError("nobody was told")

    (row,) = played(fails)

    assert (row["cell"], row["chapter"], row["outcome"], row["why"]) == (
        "a.b",
        "Area",
        "failed",
        "nobody was told",
    )


def test_should_show_the_cells_by_chapter() -> None:
    report = example()
    report.cells = played(lambda tale, evidence: None)

    page = render(report.to_json())

    assert page.index('id="cells"') < page.index('id="steps"')
    assert "0 of 1 failed" in page


def test_should_show_of_a_fault_how_often_it_hit_and_when_it_was_healed() -> None:
    def faulty(tale: Any, evidence: Any) -> None:
        evidence |= {
            "injected": {"sqs:SendMessage: kill-after": 3},
            "healed_seconds": 4.5,
            "records_after_it": {"sent": 20, "lost": 0},
        }

    report = example()
    report.cells = [*played(faulty), *played(lambda tale, evidence: None)]

    page = render(report.to_json())

    assert "sqs:SendMessage: kill-after</span>" in page
    assert "Healed after, s" in page
