"""The claims of docs/capabilities.yaml: known rows, switches that exist, steps that show them."""

from __future__ import annotations

import dataclasses
import importlib
import json
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydantic
import pytest
from ml_contract.load import discover_workloads, load_workload
from ml_contract.spec.workload import Workload
from ruamel.yaml import YAML

from environments.model import Environment
from rehearsal.preflight import app_folder
from rehearsal.story import STORY
from rehearsal.story.breadth import BREADTH
from rehearsal.story.matrix import CELLS as MATRIX
from rehearsal.story.operations import CELLS as OPERATIONS

CELLS = (*MATRIX, *OPERATIONS)

ROOT = app_folder(None)
ROWS: list[dict[str, Any]] = YAML(typ="safe").load((ROOT / "docs" / "capabilities.yaml").read_text())
CLAIMS = load_workload(ROOT / "workloads" / "claims_fraud").workload
#: Every worked example: a row is shown by whichever switches it on.
EXAMPLES = [loaded.workload for loaded in discover_workloads(ROOT / "workloads")]

#: The example that switches everything on, which has a story of its own.
EVERYTHING = load_workload(ROOT / "examples" / "everything" / "workloads" / "everything").workload

#: The rows that the sources of this project name; a claim must be one of them.
KNOWN = frozenset((Path(__file__).parent / "capability_ids.txt").read_text().split())


def exercised(*, examples: Sequence[Workload] = EXAMPLES, recorded: bool = True) -> dict[str, str]:
    """Row -> a step of the story, or a cell of the matrix, that exercises it for one of the examples.

    ``recorded`` takes what is recorded too, that of the example with everything switched on included.
    """
    broad = {c: step.id for step in BREADTH if step.recorded for c in step.capabilities(EVERYTHING)}
    return (
        (broad if recorded else {})
        | played(recorded=recorded)
        | {
            c: step.id
            for step in STORY
            for workload in examples
            if step.applies(workload) and (recorded or not step.recorded)
            for c in step.capabilities(workload)
        }
    )


def played(*, recorded: bool = True) -> dict[str, str]:
    """Row -> a cell of a play that exercises it; what a cell claims stands with the cell itself."""
    return {c: cell.id for cell in CELLS if recorded or cell.why_recorded is None for c in cell.capabilities}


def classes(annotation: Any) -> list[type]:
    """The classes in an annotation: ``A | B``, ``dict[str, A]``, ``Annotated[A, ...]``."""
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return [annotation]
    return [c for part in typing.get_args(annotation) for c in classes(part)]


def has_path(owner: type, path: list[str]) -> bool:
    """Whether a model or dataclass has a field at a dotted path."""
    name, *rest = path
    if issubclass(owner, pydantic.BaseModel):
        if name not in owner.model_fields:
            return False
        annotation: Any = owner.model_fields[name].annotation
    elif dataclasses.is_dataclass(owner):
        hints = typing.get_type_hints(owner)
        if name not in {f.name for f in dataclasses.fields(owner)}:
            return False
        annotation = hints[name]
    else:
        return False
    return not rest or any(has_path(c, rest) for c in classes(annotation))


def row_id(row: dict[str, Any]) -> str:
    return str(row["id"])


def test_should_have_each_row_once_and_in_a_known_form() -> None:
    ids = [row["id"] for row in ROWS]

    assert len(ids) == len(set(ids))
    for row in ROWS:
        assert set(row) == {"id", "where", "switch", "rehearsal", "note"}, row["id"]
        assert row["rehearsal"] in ("ran", "recorded"), row["id"]
        assert len(row["note"]) > 10, row["id"]


def test_should_claim_only_known_rows() -> None:
    assert {row["id"] for row in ROWS} <= KNOWN


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_should_name_a_switch_that_exists(row: dict[str, Any]) -> None:
    switch = row["switch"]
    if switch is None:
        return
    kind, _, path = switch.partition(": ")
    owner = {"workload": Workload, "environment": Environment}[kind]

    assert has_path(owner, path.split(".")), switch


def test_should_find_a_switch_that_does_not_exist() -> None:
    assert has_path(Workload, ["serving", "rollout", "strategy"])
    assert not has_path(Workload, ["serving", "rollout", "speed"])
    assert not has_path(Workload, ["serving", "instance_type", "size"])
    assert has_path(Environment, ["network", "interface_endpoints"])
    assert not has_path(Environment, ["network", "nat"])


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_should_name_a_place_that_exists(row: dict[str, Any]) -> None:
    for where in row["where"].split(", "):
        if "/" in where:
            assert (ROOT / where).exists(), where
            continue
        module, _, name = where.rpartition(".")
        if not name[:1].isupper():
            importlib.import_module(where)
            continue
        assert hasattr(importlib.import_module(module), name), where


@pytest.mark.parametrize("row", [r for r in ROWS if r["rehearsal"] == "ran"], ids=row_id)
def test_should_show_in_a_step_what_it_claims_to_have_run(row: dict[str, Any]) -> None:
    assert row["id"] in exercised()


def test_should_list_every_row_that_a_step_exercises() -> None:
    assert set(exercised()) <= {row["id"] for row in ROWS}


def test_should_not_claim_to_run_what_only_recorded_steps_show() -> None:
    ran = exercised(recorded=False)

    assert {row["id"] for row in ROWS if row["rehearsal"] == "ran"} <= ran.keys()


def test_should_hold_in_the_latest_report() -> None:
    path = ROOT / "out" / "report.json"
    if not path.exists():
        pytest.skip("no rehearsal has been run here")
    report = json.loads(path.read_text())
    if report["outcome"] != "passed" or report["workload"] != CLAIMS.name:
        pytest.skip("the latest rehearsal is not a passed one of the worked example")
    shown = {c for step in report["steps"] if step["status"] == "passed" for c in step["capabilities"]}

    alone = played().keys() - {c for step in STORY for c in step.capabilities(CLAIMS)}
    if report.get("matrix"):
        pytest.skip("the latest rehearsal is the matrix")
    claimed = exercised(examples=[CLAIMS], recorded=False).keys() - alone
    assert {row["id"] for row in ROWS if row["rehearsal"] == "ran"} & claimed <= shown


def test_should_choose_the_rollout_s_row_by_the_workload() -> None:
    step = next(s for s in STORY if s.id == "rollout")

    def rows(strategy: str) -> list[str]:
        changed = types.SimpleNamespace(
            serving=types.SimpleNamespace(rollout=types.SimpleNamespace(strategy=strategy))
        )
        return list(step.capabilities(typing.cast(Workload, changed)))

    assert rows("linear") == ["roll.linear"]
    assert rows("all_at_once") == ["roll.allatonce"]


def test_should_hold_in_the_latest_matrix() -> None:
    path = ROOT / "out" / "report.json"
    if not path.exists() or not json.loads(path.read_text()).get("matrix"):
        pytest.skip("no matrix has been played here")
    report = json.loads(path.read_text())
    cells = {cell.id: cell for cell in CELLS}
    bad = {row["cell"] for row in report["matrix"] if row["outcome"] == "failed"}
    good = {
        c for row in report["matrix"] if row["outcome"] == "passed" for c in cells[row["cell"]].capabilities
    }
    claimed = {row["id"] for row in ROWS if row["rehearsal"] == "ran"}

    lost = {c for cell in bad for c in cells[cell].capabilities if c in claimed} - good
    assert not lost, f"no cell of the latest matrix that passed shows {sorted(lost)}"
