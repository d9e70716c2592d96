"""The PyTorch image: its network, its batches, its rounds, its export."""

from __future__ import annotations

import json
import pathlib
import shutil
import sys
import types
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed; 'make setup' says why")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from ml_runtime.job import BadInputError  # noqa: E402
from ml_runtime.model import Model  # noqa: E402
from ml_trainer.data import Inputs  # noqa: E402
from ml_trainer.interruption import InterruptedTrainingError, Interruption  # noqa: E402
from ml_trainer.proof import ExportError, Proof  # noqa: E402
from ml_trainer.rules import RuleStopError  # noqa: E402
from ml_training_torch import train as program  # noqa: E402
from ml_training_torch.batches import Batches, Share  # noqa: E402
from ml_training_torch.export import prove_equal, to_neuron, to_onnx  # noqa: E402
from ml_training_torch.fitting import Label  # noqa: E402
from ml_training_torch.hyperparameters import read_hyperparameters  # noqa: E402
from ml_training_torch.job import Job  # noqa: E402
from ml_training_torch.network import LIMIT, Scorer, TabularNet, scales_of  # noqa: E402
from ml_training_torch.tables import Table  # noqa: E402
from ml_training_torch.together import Tensors, Together, device_of  # noqa: E402
from ml_training_torch.worker import fit  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from torch_support import SMALL, ask, lay_out  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture
def base(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Where a job's folders are."""
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path / "ml"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "ml"


# --- hyperparameters ------------------------------------------------------------------------------


def test_should_fill_in_what_is_not_given_and_read_second_names() -> None:
    wanted = read_hyperparameters({"eta": '"0.01"', "rounds": "7", "_tuning_objective_metric": "x"})
    assert (wanted["learning_rate"], wanted["width"], wanted["batch_size"]) == (0.01, 128, 256)
    assert (wanted.rounds, wanted.early_stopping_rounds, wanted.distribution) == (7, None, "none")
    assert wanted.processes_per_instance is None


def test_should_name_every_wrong_hyperparameter() -> None:
    with pytest.raises(BadInputError) as caught:
        read_hyperparameters({"widht": "8", "dropout": "1", "device": "tpu", "distribution": "some"})
    text = str(caught.value)
    assert "widht is no hyperparameter; did you mean width?" in text
    assert "dropout must be a number from 0 up to 0.95, got '1'" in text
    assert "device must be one of auto, cpu, cuda, got 'tpu'" in text
    assert "distribution must be one of data_parallel, fully_sharded" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_should_say_when_there_is_no_gpu_to_train_on() -> None:
    assert device_of("auto") == CPU
    with pytest.raises(BadInputError, match="device cuda needs a GPU"):
        device_of("cuda")
    with pytest.raises(BadInputError, match="table_in_memory device needs a GPU, and device is cpu"):
        read_hyperparameters({"device": "cpu", "table_in_memory": "device"})


# --- batches --------------------------------------------------------------------------------------


def table(rows: int, columns: int = 3) -> Table:
    numbers = np.arange(rows, dtype=np.float32)
    return Table(np.repeat(numbers[:, None], columns, axis=1), numbers, np.ones(rows, dtype=np.float32))


@given(
    rows=st.integers(1, 200), step=st.integers(1, 64), processes=st.integers(1, 5), epoch=st.integers(0, 3)
)
@settings(deadline=None, max_examples=60)
def test_should_share_the_batches_that_one_process_would_have(
    rows: int, step: int, processes: int, epoch: int
) -> None:
    step = max(step, processes)
    alone = [b.labels.tolist() for b in Batches(table(rows), rows=step, device=CPU, seed=5).epoch(epoch)]
    assert sorted(row for step_rows in alone for row in step_rows) == list(range(rows))
    shares = [
        list(Batches(table(rows), rows=step, device=CPU, share=Share(rank, processes), seed=5).epoch(epoch))
        for rank in range(processes)
    ]
    assert len({len(one) for one in shares}) == 1
    together = [[row for b in parts for row in b.labels.tolist()] for parts in zip(*shares, strict=True)]
    # All but a last step with fewer rows than there are processes.
    short = len(alone) > 1 and len(alone[-1]) < processes
    assert together == (alone[:-1] if short else alone)
    for parts in zip(*shares, strict=True):
        assert {b.rows_of_all for b in parts} == {sum(len(b.labels) for b in parts)}


def test_should_bring_features_labels_and_weights_of_the_same_rows() -> None:
    rows = table(50)
    for batch in Batches(rows, rows=16, device=CPU, seed=1).epoch(0):
        assert torch.equal(batch.features[:, 0], batch.labels)
        assert batch.features.shape == (len(batch.labels), 3)
    device = Batches(rows, rows=16, device=CPU, keep="device", seed=1)
    host = Batches(rows, rows=16, device=CPU, seed=1)
    for one, other in zip(device.epoch(2), host.epoch(2), strict=True):
        assert torch.equal(one.features, other.features)
        assert torch.equal(one.labels, other.labels)
        assert one.rows_of_all == other.rows_of_all


def test_should_tell_the_loop_what_went_wrong_while_gathering() -> None:
    broken = Table(
        np.zeros((10, 2), dtype=np.float32), np.zeros(4, dtype=np.float32), np.ones(10, dtype=np.float32)
    )
    batches = Batches(broken, rows=4, device=CPU, seed=1)
    batches.table = Table(broken.matrix, np.zeros(10, dtype=np.float32), np.ones(2, dtype=np.float32))
    with pytest.raises(IndexError):
        list(batches.epoch(0))


def test_should_stop_gathering_when_the_loop_does() -> None:
    import threading

    before = threading.active_count()
    passing = Batches(table(5_000), rows=4, device=CPU, seed=1).epoch(0)
    next(passing)
    passing.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


# --- the network ----------------------------------------------------------------------------------


def test_should_score_rows_that_no_data_set_holds() -> None:
    net = TabularNet(columns=4, outputs=3, width=8, blocks=2, dropout=0.5).eval()
    matrix = np.random.default_rng(0).normal(5, 3, (200, 4)).astype(np.float32)
    net.set_scales(scales_of(matrix))
    hard = torch.tensor(
        [[np.nan] * 4, [np.inf] * 4, [-np.inf] * 4, [3e38, -3e38, 0, 1], [1e-40, 5, 5, 5]],
        dtype=torch.float32,
    )
    with torch.no_grad():
        scores = Scorer(net, task="multiclass")(hard)
    assert torch.isfinite(scores).all()
    assert torch.allclose(scores.sum(dim=1), torch.ones(5))


def test_should_not_let_one_huge_value_hide_all_others() -> None:
    matrix = np.random.default_rng(0).normal(5, 3, (1000, 1)).astype(np.float32)
    matrix[:3] = 3e38
    matrix[3:100] = np.nan
    scales = scales_of(matrix)
    assert abs(float(scales.center) - 5) < 0.5
    assert 2 < float(scales.width) < 3.5


def test_should_keep_what_a_rare_column_tells_and_survive_an_empty_one() -> None:
    matrix = np.zeros((1000, 3), dtype=np.float32)
    matrix[:3, 0] = 1
    matrix[:, 1] = 7
    matrix[:, 2] = np.nan
    scales = scales_of(matrix)
    assert 0 < float(scales.width[0]) < 0.1
    assert scales.width[1:].tolist() == [1, 1]
    net = TabularNet(columns=3, outputs=1, width=4, blocks=0, dropout=0)
    net.set_scales(scales)
    assert abs((1 - float(scales.center[0])) / float(scales.width[0])) > LIMIT


# --- the export -----------------------------------------------------------------------------------


def test_should_not_accept_the_export_of_another_network() -> None:
    matrix = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    torch.manual_seed(0)
    one, other = (
        Scorer(TabularNet(columns=3, outputs=1, width=4, blocks=1, dropout=0.1), task="binary") for _ in "12"
    )
    exported = to_onnx(one, 3)
    proof = prove_equal(one, exported, matrix)
    assert proof.rows == 64
    assert proof.largest_difference <= proof.tolerance
    with pytest.raises(ExportError, match="differs from the trained model by"):
        prove_equal(other, exported, matrix)


# --- whole trainings ------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_should_write_the_model_folder_that_serving_reads(base: pathlib.Path, task: str) -> None:
    lay_out(base, task, given={"rounds": 25, "early_stopping_rounds": 8})
    program.train(Interruption())
    folder = base / "model"
    assert {path.name for path in folder.iterdir()} == {
        "model.onnx",
        "model.safetensors",
        "contract.json",
        "fitted.json",
        "metadata.json",
    }
    told = json.loads((folder / "metadata.json").read_text())
    model = Model.load(folder)
    split = Inputs.read().split("validation")
    scores = model.scores(split.matrix)
    if task == "regression":
        # In the label's own unit, and far better than its mean.
        error = np.sqrt(np.mean((scores - split.labels) ** 2))
        assert error == pytest.approx(told["metrics"]["validation-rmse"], rel=1e-4)
        assert error < 0.75 * split.labels.std()
    else:
        assert scores.shape == (split.rows, 3)
        wrong = float((scores.argmax(axis=1) != split.labels).mean())
        assert wrong == pytest.approx(told["metrics"]["validation-merror"])
        assert wrong < 0.5
    assert told["rounds"] <= told["rounds_run"] <= 25
    assert told["algorithm"] == "pytorch"
    assert told["onnx"]["largest_difference"] <= told["onnx"]["tolerance"]


def start(base: pathlib.Path, folder: pathlib.Path) -> tuple[Job, Inputs]:
    """Lay a job's folder out as the program does."""
    inputs = Inputs.read()
    train, validation = inputs.split("train"), inputs.split("validation")
    folder.mkdir()
    job = Job(folder, inputs.fingerprint(), Label("multiclass", 3), train.matrix.shape[1])
    Table.of(train).save(folder, "train")
    Table.of(validation).save(folder, "validation")
    job.save(None)
    return job, inputs


def run(base: pathlib.Path, folder: pathlib.Path, asked: Any = None) -> tuple[Tensors, dict[str, Any]]:
    """Train in this process; return the best network and how it came about."""
    job, inputs = start(base, folder)
    wanted = read_hyperparameters(inputs.hyperparameters)
    fit(job, inputs, wanted, Together(CPU), Interruption() if asked is None else asked)
    return job.outcome()


class After(Interruption):
    """Asks for the end after some rounds."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self._rounds = rounds

    @property
    def asked(self) -> bool:
        self._rounds -= 1
        return self._rounds < 0

    @asked.setter
    def asked(self, value: bool) -> None:
        del value


@pytest.mark.parametrize("rounds", [1, 4])
def test_should_end_with_the_same_network_when_it_was_interrupted(
    base: pathlib.Path, tmp_path: pathlib.Path, rounds: int
) -> None:
    lay_out(base, "multiclass", given={"dropout": 0.3, "rounds": 7})
    whole, told = run(base, tmp_path / "whole")
    (base / "checkpoints").mkdir()
    with pytest.raises(InterruptedTrainingError, match=r"its checkpoint is saved"):
        run(base, tmp_path / "begun", After(rounds - 1))
    resumed, told_again = run(base, tmp_path / "resumed")
    assert told_again == told
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(one, resumed[name]) for name, one in whole.items())


def test_should_say_that_an_interrupted_training_without_checkpoints_is_lost(
    base: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    lay_out(base, "multiclass")
    with pytest.raises(InterruptedTrainingError, match="this job keeps no checkpoints"):
        run(base, tmp_path / "job", After(1))


def test_should_pass_over_a_torn_checkpoint(
    base: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lay_out(base, "multiclass", given={"checkpoint_every_rounds": 1, "rounds": 5})
    (base / "checkpoints").mkdir()
    whole, _ = run(base, tmp_path / "whole")
    newest = max((base / "checkpoints").iterdir())
    (newest / "state.safetensors").write_bytes((newest / "state.safetensors").read_bytes()[:-9])
    resumed, _ = run(base, tmp_path / "resumed")
    said = capsys.readouterr().out
    assert f"checkpoint {newest.name} is not used: state.safetensors is missing or damaged" in said
    assert "resumed after 4 rounds" in said
    assert all(torch.equal(one, resumed[name]) for name, one in whole.items())


def test_should_stop_early_and_keep_the_best_round(base: pathlib.Path, tmp_path: pathlib.Path) -> None:
    lay_out(base, "multiclass", given={"rounds": 200, "early_stopping_rounds": 4, "learning_rate": 0.05})
    _, told = run(base, tmp_path / "job")
    assert told["rounds_run"] < 200
    assert told["rounds_run"] - told["rounds"] == 4


def test_should_stop_by_a_rule_with_its_reason(base: pathlib.Path, tmp_path: pathlib.Path) -> None:
    contract = lay_out(base, "multiclass", given={"rounds": 60, "learning_rate": 1e-9})
    document = json.loads(contract.to_json())
    document["training"]["rules"] = {"loss_not_decreasing": {"rounds": 3, "action": "stop"}}
    (base / "input/data/contract/contract.json").write_text(json.dumps(document))
    with pytest.raises(RuleStopError, match="rule loss_not_decreasing after round"):
        run(base, tmp_path / "job")


def test_should_refuse_rows_that_cannot_be_shared(base: pathlib.Path) -> None:
    lay_out(base, "multiclass", given={"processes_per_instance": 2})
    with pytest.raises(BadInputError, match="1 instances of 2 processes need distribution"):
        program.train(Interruption())
    ask(base, {**SMALL, "distribution": "data_parallel", "processes_per_instance": 2, "k_folds": 3})
    with pytest.raises(BadInputError, match="k_folds is for small tables"):
        program.train(Interruption())


def test_should_go_on_from_a_parent_and_keep_it_when_nothing_is_better(
    base: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What an export takes is time, and nothing here depends on it.
    monkeypatch.setattr(program, "to_onnx", lambda scorer, columns: b"")
    monkeypatch.setattr(program, "prove_equal", lambda scorer, model, matrix: Proof(0, 0, 0))
    lay_out(base, "multiclass", given={"rounds": 20})
    program.train(Interruption())
    first = json.loads((base / "model/metadata.json").read_text())
    shutil.copytree(base / "model", base / "input/data/parent")
    # A rate that only makes it worse: what is kept is the parent, tensor by tensor.
    ask(base, {**SMALL, "rounds": 2, "learning_rate": 1.0, "gradient_clip": 1e9, "k_folds": 2})
    program.train(Interruption())
    told = json.loads((base / "model/metadata.json").read_text())
    assert told["parent"]["kept"] is True
    assert told["rounds"] == 0
    name = "validation-mlogloss"
    assert told["metrics"][name] == pytest.approx(first["metrics"][name], rel=1e-6)
    had, has = (load_file(f / "model.safetensors") for f in (base / "input/data/parent", base / "model"))
    assert all(torch.equal(one, has[key]) for key, one in had.items())
    assert told["k_folds"]["folds"] == 2
    assert told["k_folds"]["standard_deviation"]["mlogloss"] >= 0
    ask(base, {**SMALL, "width": 16})
    with pytest.raises(BadInputError, match="the parent model has width 8, asked for is 16"):
        program.train(Interruption())


# --- Neuron ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_should_compile_for_neuron_only_where_it_can(
    base: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(base, "multiclass", given={"compile_for": "neuron", "rounds": 1})
    with pytest.raises(BadInputError, match="compile_for neuron needs torch_neuronx"):
        program.train(Interruption())
    shapes = []

    def trace(module: Any, example: Any) -> Any:
        shapes.append(tuple(example.shape))
        return torch.jit.trace(module, example)

    fake = types.ModuleType("torch_neuronx")
    fake.trace, fake.__version__ = trace, "2.9.0"  # type: ignore[attr-defined]
    fake.__spec__ = types.SimpleNamespace(name="torch_neuronx")  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "torch_neuronx", fake)
    scorer = Scorer(TabularNet(columns=3, outputs=2, width=4, blocks=1, dropout=0.1), task="multiclass")
    told = to_neuron(scorer, 3, tmp_path / "neuron")
    assert told == {"torch_neuronx": "2.9.0", "files": {"1": "rows-1.pt", "64": "rows-64.pt"}}
    assert shapes == [(1, 3), (64, 3)]
    assert all((tmp_path / "neuron" / name).is_file() for name in told["files"].values())
