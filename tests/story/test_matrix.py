"""The matrix: its cells, the app with another block, who answered, and a failure that stays alone."""

from __future__ import annotations

import contextlib
import io
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ml_contract.load import load_workload
from ruamel.yaml import YAML

from rehearsal.preflight import app_folder
from rehearsal.report import render
from rehearsal.story import StoryError
from rehearsal.story.matrix import CELLS, matrix, packages
from rehearsal.story.matrix.cells import Cell, Row, chosen, step_of
from rehearsal.story.matrix.load import Load, read_prediction, within
from rehearsal.story.matrix.rollouts import planned_shares, rollout_block
from rehearsal.story.matrix.variants import linked_app, with_block

from .example import report as example

ROOT = app_folder(None)
CLAIMS = ROOT / "workloads" / "claims_fraud"
BLOCKS = {str(cell.block): cell for cell in CELLS}


def cell(cell_id: str, play: Any = lambda tale, row: None, **more: Any) -> Cell:
    return Cell(id=cell_id, title=cell_id, block={}, play=play, **more)


# --- which cells ---


def test_should_name_each_cell_once_and_each_step_once() -> None:
    ids = [each.id for each in CELLS]
    steps = [step.id for step in matrix()]

    assert len(set(ids)) == len(ids)
    assert len(set(steps)) == len(steps)


@pytest.mark.parametrize(
    "style",
    [
        "real_time",
        "serverless",
        "asynchronous",
        "batch_transform",
        "multi_model",
        "inference_components",
        "lambda",
        "ecs",
    ],
)
def test_should_have_a_cell_for_every_style(style: str) -> None:
    (found,) = (each for each in CELLS if each.id == f"style.{style}")

    assert found.block.get("style", "real_time") == style


@pytest.mark.parametrize("strategy", ["all_at_once", "canary", "linear", "rolling", "ab", "shadow"])
def test_should_play_every_rollout_with_a_good_and_with_a_bad_model(strategy: str) -> None:
    found = {each.id: each for each in CELLS if each.id.startswith(f"rollout.{strategy}.")}

    assert {f"rollout.{strategy}.good", f"rollout.{strategy}.bad"} <= found.keys()
    assert {each.block["rollout"]["strategy"] for each in found.values()} == {strategy}


def test_should_choose_cells_by_their_ids_and_by_what_these_begin_with() -> None:
    cells = [cell("a.b.good"), cell("a.b.bad"), cell("a.bc.good")]

    assert [each.id for each in chosen(cells, " a.b , a.bc.good")] == ["a.b.good", "a.b.bad", "a.bc.good"]
    assert chosen(cells, None) == tuple(cells)


@pytest.mark.parametrize("only", ["a.x", "a.b.goo", ",", ""])
def test_should_refuse_a_name_that_fits_no_cell(only: str) -> None:
    with pytest.raises(ValueError, match=r"there are: a\.b\.good"):
        chosen([cell("a.b.good")], only)


# --- the app with another block ---


@pytest.mark.parametrize("each", BLOCKS.values(), ids=lambda each: each.id)
def test_should_make_an_app_whose_workload_is_right(each: Cell, tmp_path: Path) -> None:
    app = linked_app(ROOT, tmp_path / "app", CLAIMS, each.block)

    loaded = load_workload(app / "workloads" / "claims_fraud").workload
    assert loaded.serving.style == each.block.get("style", "real_time")
    assert loaded.serving.decision_threshold == load_workload(CLAIMS).workload.serving.decision_threshold
    assert (app / "app.py").is_symlink()
    assert [path.name for path in (app / "workloads").iterdir()] == ["claims_fraud"]


def test_should_replace_the_block_and_nothing_else() -> None:
    before = YAML(typ="safe").load(CLAIMS / "workload.yaml")

    after = YAML(typ="safe").load(with_block(CLAIMS / "workload.yaml", {"instance_type": "ml.m5.large"}))

    assert after.pop("serving") == {"instance_type": "ml.m5.large", "decision_threshold": 0.4}
    assert after == {key: value for key, value in before.items() if key != "serving"}


def test_should_switch_drift_off_where_nobody_captures_requests() -> None:
    after = YAML(typ="safe").load(with_block(CLAIMS / "workload.yaml", {"style": "serverless"}))

    assert after["retraining"]["on_drift"] is False


# --- who answered ---


@pytest.mark.parametrize(
    ("body", "model"),
    [
        (b'{"predictions":[{"score":0.5}],"model":"group/3"}', "group/3"),
        (b'{"predictions":[{"score":0.5}],"model":"arn:aws:sagemaker:r:1:model-package/group/3"}', "group/3"),
    ],
)
def test_should_read_who_gave_an_answer(body: bytes, model: str) -> None:
    assert read_prediction(body) == model


@pytest.mark.parametrize(
    "body", [b'{"predictions":[{"score":NaN}],"model":"g/1"}', b'{"predictions":[{"score":0.5}]}', b"{"]
)
def test_should_count_an_answer_without_a_score_or_a_name_as_failed(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - a JSON error is one too
        read_prediction(body)


def test_should_count_answers_by_second_and_failures_apart() -> None:
    asked: list[bytes] = []

    def send(body: bytes) -> str:
        asked.append(body)
        if len(asked) % 3 == 0:
            raise OSError("refused")
        return "g/1" if len(asked) % 2 else "g/2"

    with Load(send, [b"a", b"b"], rate=80, probe=lambda: 0.5) as load:
        time.sleep(0.5)

    counts = [
        sum(cast(float, point[key]) for point in load.series("g/1")) for key in ("old", "new", "failed")
    ]
    assert sum(counts) == len(asked) == len(load.replies)
    assert counts[2] == len(load.failed) == len(asked) // 3
    assert counts[0] > 0
    assert counts[1] > 0
    assert load.series("g/1")[0]["plan"] == 0.5
    assert load.summary()["first_error"] == "OSError: refused"


@pytest.mark.parametrize(("found", "fits"), [(25, True), (36, True), (60, False), (0, False)])
def test_should_tell_chance_from_another_share(found: int, fits: bool) -> None:
    assert within(found, 100, 0.25) is fits


def test_should_hold_all_or_nothing_to_the_letter() -> None:
    assert within(100, 100, 1.0)
    assert not within(98, 100, 1.0)


@pytest.mark.parametrize(
    ("strategy", "step", "shares"),
    [
        ("all_at_once", 10, (1.0,)),
        ("canary", 25, (0.25, 1.0)),
        ("linear", 34, (0.34, 0.68, 1.0)),
        ("rolling", 50, (0.5, 1.0)),
    ],
)
def test_should_read_the_planned_shares_from_the_block(
    strategy: str, step: int, shares: tuple[float, ...]
) -> None:
    assert planned_shares(rollout_block(strategy, step_percent=step)) == shares


# --- a version that is slow ---


def test_should_answer_as_before_only_later(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    monkeypatch.setattr(packages, "_ORDER", 8)
    floats = TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["features"], ["score"], keepdims=0)],
        "sum",
        [helper.make_tensor_value_info("features", floats, ["n", 3])],
        [helper.make_tensor_value_info("score", floats, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        entry = tarfile.TarInfo("model.onnx")
        body = model.SerializeToString()
        entry.size = len(body)
        tar.addfile(entry, io.BytesIO(body))

    with tarfile.open(fileobj=io.BytesIO(packages.slowed(archive.getvalue()))) as tar:
        content = tar.extractfile("model.onnx")
        assert content is not None
        slow = content.read()

    features = np.array([[1.0, 2.0, 4.0]], dtype=np.float32)
    (score,) = onnxruntime.InferenceSession(slow).run(None, {"features": features})
    assert float(score) == 7.0
    kinds = [node.op_type for node in onnx.load_from_string(slow).graph.node]
    assert kinds.count("MatMul") == packages._PRODUCTS


def test_should_say_so_when_there_is_no_model_to_slow_down() -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz"):
        pass

    with pytest.raises(StoryError, match=r"holds no model\.onnx"):
        packages.slowed(archive.getvalue())


# --- the row that a cell leaves ---


def played(each: Cell) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    tale = cast(Any, SimpleNamespace(report=SimpleNamespace(matrix=[]), server=None))
    evidence: dict[str, Any] = {}
    step = step_of(each, lambda tale, cell: None)
    assert step.alone
    with contextlib.suppress(StoryError, OSError):
        step.run(tale, evidence)
    return tale.report.matrix, evidence


def test_should_leave_what_was_seen_even_of_a_cell_that_failed() -> None:
    def play(tale: Any, row: Row) -> None:
        row.requests, row.failed, row.facts["stack"] = 7, 2, "UPDATE_COMPLETE"
        raise StoryError("2 requests failed")

    (row,), evidence = played(cell("a.b", play))

    assert (row["outcome"], row["why"], row["requests"], row["failed"]) == (
        "failed",
        "2 requests failed",
        7,
        2,
    )
    assert evidence["stack"] == "UPDATE_COMPLETE"


def test_should_name_another_error_of_a_cell_by_its_kind() -> None:
    def play(tale: Any, row: Row) -> None:
        raise OSError("no\nroute")

    (row,), _ = played(cell("a.b", play))

    assert row["why"] == "OSError: no route"


def test_should_mark_a_cell_that_only_an_account_runs() -> None:
    (row,), _ = played(cell("a.b", why_recorded="needs a GPU"))

    assert (row["outcome"], row["why"]) == ("recorded", "needs a GPU")


def test_should_not_count_a_cell_that_somebody_interrupted_as_passed() -> None:
    def play(tale: Any, row: Row) -> None:
        raise KeyboardInterrupt

    tale = cast(Any, SimpleNamespace(report=SimpleNamespace(matrix=[]), server=None))
    with pytest.raises(KeyboardInterrupt):
        step_of(cell("a.b", play), lambda tale, cell: None).run(tale, {})

    assert tale.report.matrix[0]["outcome"] == "failed"


def test_should_show_the_matrix_first_with_a_plot_per_rollout() -> None:
    report = example()
    report.matrix = [
        vars(
            Row(
                cell="rollout.canary.good",
                title="a good version takes over",
                requests=60,
                seconds=14.0,
                series=[
                    {"at": 0.0, "old": 30.0, "new": 0.0, "failed": 0.0, "plan": None},
                    {"at": 1.0, "old": 22.0, "new": 8.0, "failed": 0.0, "plan": 0.25},
                ],
            )
        ),
        vars(Row(cell="style.ecs", title="as a service", outcome="failed", why="no answer")),
    ]

    page = render(report.to_json())

    assert page.index('id="matrix"') < page.index('id="steps"')
    assert 'id="matrix-rollout-canary-good"' in page
    assert "planned share" in page
    assert "matrix-style-ecs" not in page
    assert "no answer" in page
