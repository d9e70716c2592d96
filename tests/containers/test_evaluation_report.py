"""One evaluation as the pipeline runs it: its files, their schemas, the champion, the page."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import jsonschema
import polars as pl
import pytest
from container_support import (
    TASKS,
    evaluation_inputs,
    features_of,
    make_contract,
    make_records,
    prepare_inputs,
    run_image,
    training_inputs,
    write_features,
)
from ml_contract.compiled import CompiledContract

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "containers/processing/ml_processing/judging/report/evaluation.schema.json"
BLOCK = """
evaluation:
  resamples: 200
  subgroups: [driver, weather]
  bias:
    facets: {{passengers: {{above: 2}}, depot: {{disadvantaged: [south]}}}}
    group: weather
    {favourable}
  explain: {{shap_rows: 40, partial_dependence: 2}}
  champion: {{margin: -1000, forgetting: 1000}}
{costs}monitoring:"""
FAVOURABLE = {"binary": "", "multiclass": "favourable: [early]", "regression": "favourable_above: 20"}
COSTS = "  costs: {false_positive: 1, false_negative: 4}\n"
#: A field that is judged by and never learned from.
DEPOT = (
    "    driver: {type: string}\n    depot: {type: string, allowed: [north, south], sensitive: protected}\n"
)


class Judged:
    """A model judged beside itself."""

    def __init__(self, folder: pathlib.Path, task: str) -> None:
        costs = COSTS if task == "binary" else ""
        self.contract: CompiledContract = make_contract(
            folder,
            task,
            **{
                "    driver: {type: string}\n": DEPOT,
                "\nmonitoring:": BLOCK.format(favourable=FAVOURABLE[task], costs=costs),
            },
        )
        records = [
            record | {"depot": "south" if number % 3 else "north"}
            for number, record in enumerate(make_records(task, 400))
        ]
        prepare, train, self.evaluate = (folder / name for name in ("prepare", "train", "evaluate"))
        features = features_of(records, self.contract)
        write_features(features, self.contract, prepare_inputs(prepare, self.contract))
        _run("processing", prepare, "prepare")
        self.prepared = prepare / "processing/output"
        training_inputs(train, self.prepared, self.contract)
        _run("training", train, "train")
        self.model = train / "model"
        evaluation_inputs(self.evaluate, self.model, self.prepared, self.contract)
        inputs = self.evaluate / "processing/input"
        shutil.copytree(self.prepared / "validation", inputs / "validation")
        shutil.copytree(inputs / "model", inputs / "champion")
        shutil.copytree(self.prepared / "test", inputs / "champion_test")
        _run("processing", self.evaluate, "evaluate")
        self.output = self.evaluate / "processing/output/evaluation"
        self.report = self.read("evaluation.json")

    def read(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.output / name).read_text())
        return found


def _run(image: str, base: pathlib.Path, command: str) -> None:
    done = run_image(image, base, command)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Judged]:
    known: dict[str, Judged] = {}

    def get(task: str) -> Judged:
        if task not in known:
            known[task] = Judged(tmp_path_factory.mktemp(task), task)
        return known[task]

    return get


@pytest.mark.parametrize("task", TASKS)
def test_should_write_what_its_schema_says(judged: Callable[[str], Judged], task: str) -> None:
    one = judged(task)
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(one.report)
    assert sorted(path.name for path in one.output.iterdir()) == [
        "bias.json",
        "evaluation.html",
        "evaluation.json",
        "explainability.json",
        "model_card.json",
        "model_quality_constraints.json",
        "model_quality_statistics.json",
        "register.json",
    ]
    found = one.read("model_quality_statistics.json")
    [metrics] = [value for key, value in found.items() if key.endswith("_metrics")]
    wanted = one.contract.acceptance["metric"]
    held = one.report["metrics"][wanted]
    assert metrics[wanted] == {name: held[name] for name in ("value", "standard_deviation")}
    [kept] = [v for k, v in one.read("model_quality_constraints.json").items() if k.endswith("_constraints")]
    worse = "GreaterThanThreshold" if wanted == "rmse" else "LessThanThreshold"
    allowed = held["value"] * (1.1 if wanted == "rmse" else 0.9)
    assert kept == {wanted: {"threshold": pytest.approx(allowed), "comparison_operator": worse}}
    assert one.report["acceptance"]["verdict"] == "accepted"


def test_should_judge_by_a_field_that_it_never_learned_from(judged: Callable[[str], Judged]) -> None:
    one = judged("binary")
    columns = {
        name: pl.read_parquet(one.prepared / name / "data.parquet").columns
        for name in ("train", "validation", "test")
    }
    assert {name for name, found in columns.items() if "depot" in found} == {"test"}
    assert "depot" not in json.loads((one.model / "metadata.json").read_text())["columns"]
    facet = one.report["bias"]["facets"]["depot"]
    assert facet["group"] == "south"
    assert facet["disadvantaged_rows"] > 0
    assert facet["before_training"]["CI"] == pytest.approx(-1 / 3, abs=0.15)


def test_should_hand_the_registration_its_card_and_threshold(judged: Callable[[str], Judged]) -> None:
    binary, regression = judged("binary"), judged("regression")
    handed = binary.read("register.json")
    assert json.loads(handed["model_card"]) == binary.read("model_card.json")
    assert float(handed["decision_threshold"]) == binary.report["costs"]["threshold"]
    assert regression.read("register.json")["decision_threshold"] == "none"
    costs = binary.report["costs"]
    # The workload's own threshold is one of those that it could have chosen.
    assert costs["validation_cost_per_row"] <= min(cost for _, cost in costs["curve"]) + 1e-9


@pytest.mark.parametrize("task", TASKS)
def test_should_write_a_card_of_sagemakers_schema(judged: Callable[[str], Judged], task: str) -> None:
    shapes = pytest.importorskip("sagemaker.core.shapes.model_card_shapes")
    card = judged(task).read("model_card.json")
    read = shapes.ModelCardContent.model_validate(card)
    # Whatever the schema does not know is lost on the way.
    assert json.loads(read.model_dump_json(exclude_unset=True)) == card


def test_should_find_a_model_as_good_as_itself(judged: Callable[[str], Judged]) -> None:
    found = judged("regression").report["champion"]
    for rows in (found["held_out"], found["old_data"]):
        assert (rows["compared"], rows["unseen_only"], rows["better_by"]) == (True, True, 0)


def test_should_leave_out_rows_that_the_approved_model_learned_from(
    judged: Callable[[str], Judged], tmp_path: pathlib.Path
) -> None:
    one = judged("regression")
    base = tmp_path / "again"
    shutil.copytree(one.evaluate / "processing/input", base / "processing/input")
    test = pl.read_parquet(one.prepared / "test/data.parquet")
    from ml_processing.judging.rows import TRAINED_ON, keys_of

    keys_of(test.head(20), one.contract).to_frame().write_parquet(
        base / "processing/input/champion_test" / TRAINED_ON
    )
    _run("processing", base, "evaluate")
    found = json.loads((base / "processing/output/evaluation/evaluation.json").read_text())["champion"]
    assert found["held_out"]["rows"] == test.height - 20
    assert found["held_out"]["unseen_only"] is True


def test_should_judge_alone_when_nothing_was_approved(
    judged: Callable[[str], Judged], tmp_path: pathlib.Path
) -> None:
    one = judged("regression")
    base = tmp_path / "first"
    inputs = base / "processing/input"
    shutil.copytree(one.evaluate / "processing/input", inputs)
    for name in ("champion", "champion_test"):
        shutil.rmtree(inputs / name)
        # The pipeline's default: the contract stands where a model would.
        shutil.copytree(inputs / "contract", inputs / name)
    _run("processing", base, "evaluate")
    found = json.loads((base / "processing/output/evaluation/evaluation.json").read_text())
    assert found["champion"] is None
    assert found["acceptance"]["verdict"] == "accepted"


class _Page(HTMLParser):
    """Elements of a page, and what it would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.figures = 0
        self.fetched: list[str] = []
        self.scripts = 0
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.figures += tag == "svg"
        self.scripts += tag == "script"
        self.fetched += [
            value for name in ("src", "href") if (value := values.get(name)) and not value.startswith("#")
        ]
        if values.get("id"):
            self.ids.append(str(values["id"]))


@pytest.mark.parametrize("task", TASKS)
def test_should_make_a_page_that_needs_nothing_else(judged: Callable[[str], Judged], task: str) -> None:
    text = (judged(task).output / "evaluation.html").read_text()
    page = _Page()
    page.feed(text)
    assert (page.fetched, page.scripts) == ([], 0)
    assert re.findall(r"url\((?!#)[^)]*\)|@import|https?://", text) == []
    assert len(page.ids) == len(set(page.ids))
    # ROC, precision, calibration, confusion, costs; subgroups, importance and two curves are everybody's.
    assert page.figures == {"binary": 9, "multiclass": 5, "regression": 4}[task]
    assert "prefers-color-scheme:dark" in text
