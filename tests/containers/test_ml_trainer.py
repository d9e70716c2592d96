"""What training images share: checkpoints under attack, rules, folds, tracking, hosts."""

from __future__ import annotations

import itertools
import json
import math
import pathlib
import shutil
import signal
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import numpy as np
import polars as pl
import pytest
from container_support import Trained, make_contract
from hypothesis import given
from hypothesis import strategies as st
from ml_contract.compiled import CompiledContract
from ml_runtime.job import BadInputError
from ml_trainer.checkpoints import MANIFEST, Checkpoints
from ml_trainer.data import Split
from ml_trainer.entry import run
from ml_trainer.folds import cross_validate, fold_positions
from ml_trainer.hosts import Hosts
from ml_trainer.hyperparameters import read_all
from ml_trainer.interruption import InterruptedTrainingError, Interruption
from ml_trainer.progress import best_round, should_stop
from ml_trainer.rules import Rules, RuleStopError
from ml_trainer.tracking import Tracking

# --- checkpoints ----------------------------------------------------------------------------------


def save(checkpoints: Checkpoints, step: int, content: bytes = b"weights") -> None:
    """Save a step whose file says which one it is."""

    def write(folder: pathlib.Path) -> None:
        (folder / "model").write_bytes(content + str(step).encode())

    checkpoints.save(step, write, {"step": step})


@given(
    steps=st.lists(st.integers(1, 50), min_size=1, max_size=5, unique=True),
    harm=st.sampled_from(["cut", "flip", "remove", "manifest cut", "manifest removed", "state changed"]),
    place=st.integers(0, 400),
)
def test_should_resume_only_from_a_checkpoint_that_is_whole(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], harm: str, place: int
) -> None:
    """Whatever the copy to S3 and back, or a kill, does to the newest one."""
    folder = tmp_path_factory.mktemp("checkpoints")
    checkpoints = Checkpoints(folder, training="a", keep=3)
    for step in sorted(steps):
        save(checkpoints, step)
    newest = max(folder.glob("step-*"))
    target = newest / (MANIFEST if harm.startswith(("manifest", "state")) else "model")
    content = bytearray(target.read_bytes())
    if harm.endswith("cut"):
        target.write_bytes(content[: place % len(content)])
    elif harm == "flip":
        content[place % len(content)] ^= 1
        target.write_bytes(content)
    elif harm == "state changed":
        target.write_bytes(content.replace(b'"state": {"step": ', b'"state": {"step": 9'))
    else:
        target.unlink()
    found = Checkpoints(folder, training="a").newest()
    expected = sorted(steps)[:-1]
    assert (None if found is None else found.step) == (expected[-1] if expected else None)
    if found is not None:
        assert found.read("model") == f"weights{found.step}".encode()
        assert found.state == {"step": found.step}


@given(files=st.sets(st.sampled_from(["model", MANIFEST, ".step-00000009/model"])), killed=st.booleans())
def test_should_survive_a_copy_of_any_part_of_its_files(
    tmp_path_factory: pytest.TempPathFactory, files: set[str], killed: bool
) -> None:
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    save(Checkpoints(source, training="a"), 4)
    (source / ".step-00000009").mkdir()
    (source / ".step-00000009/model").write_bytes(b"half")
    for name in files:
        path = pathlib.Path(name) if name.startswith(".") else pathlib.Path("step-00000004") / name
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        content = (source / path).read_bytes()
        (target / path).write_bytes(content[:-1] if killed else content)
    checkpoints = Checkpoints(target, training="a")
    whole = {"model", MANIFEST} <= files and not killed
    found = checkpoints.newest()
    assert (found is not None) == whole
    save(checkpoints, 6)
    again = Checkpoints(target, training="a").newest()
    assert again is not None
    assert again.step == 6
    assert list(target.glob(".step-*")) == []


def test_should_pass_over_checkpoints_of_another_training(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(Checkpoints(tmp_path, training="other settings"), 8)
    mine = Checkpoints(tmp_path, training="mine")
    assert mine.newest() is None
    assert "step-00000008 is not used: it is of a training on other data" in capsys.readouterr().out
    save(mine, 2)
    # Later rounds of another training must not push out what is of use.
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


def test_should_save_when_rounds_or_minutes_have_passed(tmp_path: pathlib.Path) -> None:
    now = [0.0]
    by_rounds = Checkpoints(tmp_path, training="a", every_rounds=3, clock=lambda: now[0])
    assert [by_rounds.due(step) for step in (1, 2, 3)] == [False, False, True]
    now[0] = 1e6
    assert not by_rounds.due(2)
    by_time = Checkpoints(tmp_path, training="a", every_minutes=2, clock=lambda: now[0])
    now[0] += 119
    assert not by_time.due(1)
    now[0] += 1
    assert by_time.due(1)
    save(by_time, 1)
    assert not by_time.due(2)
    default = Checkpoints(tmp_path, training="a", clock=lambda: now[0])
    now[0] += 299
    assert not default.due(1)
    now[0] += 1
    assert default.due(1)


def test_should_keep_nothing_where_the_job_has_no_checkpoints(tmp_path: pathlib.Path) -> None:
    checkpoints = Checkpoints(tmp_path / "absent", training="a", every_rounds=1)
    save(checkpoints, 1)
    assert (checkpoints.enabled, checkpoints.due(5), checkpoints.newest()) == (False, False, None)
    assert not (tmp_path / "absent").exists()


# --- the end that is asked for --------------------------------------------------------------------


def test_should_end_with_143_and_no_reason_when_it_was_asked_to(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    before = signal.getsignal(signal.SIGTERM)

    def train(interruption: Interruption) -> None:
        interruption.check("too early")
        signal.raise_signal(signal.SIGTERM)
        interruption.check("after 3 rounds")

    assert run(["train"], train) == 143
    assert not (tmp_path / "output/failure").exists()
    assert signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(InterruptedTrainingError, match="interrupted after 3 rounds"), Interruption() as asked:
        train(asked)


def test_should_leave_the_reason_of_a_failure(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))

    def train(_: Interruption) -> None:
        raise RuleStopError("rule overfit after round 3: too far")

    assert run([], train) == 1
    assert (tmp_path / "output/failure").read_text() == "rule overfit after round 3: too far"
    assert run(["evaluate"], train) == 2


# --- early stopping -------------------------------------------------------------------------------


@given(
    series=st.lists(st.sampled_from([0.1, 0.2, 0.3, math.nan]), min_size=1, max_size=12),
    patience=st.integers(1, 4),
)
def test_should_stop_where_a_running_count_would(series: list[float], patience: int) -> None:
    best, waited, expected = math.inf, 0, len(series)
    for number, value in enumerate(series):
        if value < best:
            best, waited = value, 0
        else:
            waited += 1
        # Before anything is known, nothing can have been better.
        if waited >= patience and number >= patience:
            expected = number + 1
            break
    stopped = next((n for n in range(1, len(series) + 1) if should_stop(series[:n], patience)), len(series))
    if not math.isnan(series[0]):
        assert stopped == expected
    if best < math.inf:
        assert series[best_round(series)] == min(value for value in series if not math.isnan(value))


# --- rules ----------------------------------------------------------------------------------------


def watched(rules: Rules, train: list[float], validation: list[float] | None = None) -> int | None:
    """Return the round after which a rule stops it."""
    other = train if validation is None else validation
    for number in range(1, len(train) + 1):
        try:
            rules.after({"train-loss": train[:number], "validation-loss": other[:number]})
        except RuleStopError:
            return number - 1
    return None


@given(
    losses=st.lists(st.floats(0.01, 10), min_size=1, max_size=30),
    rounds=st.integers(1, 6),
    percent=st.sampled_from([0.0, 0.1, 5.0]),
)
def test_should_stop_when_the_loss_stands_still_and_not_before(
    losses: list[float], rounds: int, percent: float
) -> None:
    rules = Rules({"loss_not_decreasing": {"rounds": rounds, "least_percent": percent}}, loss="loss")
    expected = None
    for number in range(rounds, len(losses)):
        before, since = losses[: number - rounds + 1], losses[number - rounds + 1 : number + 1]
        if min(since) > min(before) * (1 - percent / 100):
            expected = number
            break
    assert watched(rules, losses) == expected


def test_should_stop_when_the_validation_loss_stays_too_far_above() -> None:
    rules = Rules({"overfit": {"ratio": 0.5, "rounds": 3}}, loss="loss")
    train = [1.0] * 8
    assert watched(rules, train, [1.6, 1.6, 1.4, 1.6, 1.6, 1.6, 1.0, 1.0]) == 5
    assert watched(Rules({"overfit": {}}, loss="loss"), train, [1.09] * 8) is None
    with pytest.raises(
        RuleStopError, match=r"1\.2 is 20% above the training loss 1, more than 10% for 5 rounds"
    ):
        Rules({"overfit": {}}, loss="loss").after({"train-loss": train, "validation-loss": [1.2] * 8})


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_should_stop_when_a_loss_or_a_gradient_explodes(value: float) -> None:
    rules = Rules({"exploding": {"largest_gradient": 10.0}}, loss="loss")
    history = {"train-loss": [1.0], "validation-loss": [1.0]}
    rules.after(history, gradient_norm=9.9)
    with pytest.raises(RuleStopError, match="the gradient norm 11 is above 10"):
        rules.after(history, gradient_norm=11)
    with pytest.raises(RuleStopError, match="the validation loss is"):
        Rules({"exploding": {}}, loss="loss").after({"train-loss": [1.0], "validation-loss": [value]})


def test_should_judge_classes_before_it_starts(capsys: pytest.CaptureFixture[str]) -> None:
    rules = Rules({"class_imbalance": {"ratio": 4}}, loss="loss")
    rules.before([400, 100])
    with pytest.raises(
        RuleStopError, match=r"401 training rows, the smallest 100: 4\.0 times as many, allowed"
    ):
        rules.before([401, 100])
    with pytest.raises(RuleStopError, match="infinitely many"):
        rules.before([5, 0])
    noting = Rules({"class_imbalance": {"ratio": 4, "action": "note"}}, loss="loss")
    noting.before([900, 100])
    assert "rule class_imbalance notes: the largest class has 900" in capsys.readouterr().out
    again = Rules({"class_imbalance": {}}, loss="loss")
    again.restore(json.loads(json.dumps(noting.state)))
    assert again.noted == noting.noted


def test_should_note_once_what_does_not_stop(capsys: pytest.CaptureFixture[str]) -> None:
    rules = Rules({"overfit": {"ratio": 0.1, "rounds": 1, "action": "note"}}, loss="loss")
    assert watched(rules, [1.0] * 4, [2.0] * 4) is None
    assert capsys.readouterr().out.count("notes:") == 1
    assert [one.round for one in rules.noted] == [0]


def test_should_refuse_a_rule_that_it_does_not_know() -> None:
    with pytest.raises(BadInputError, match="vanishing is no rule; known are class_imbalance, exploding"):
        Rules({"vanishing": {}}, loss="loss")


# --- folds ----------------------------------------------------------------------------------------


def table(contract: CompiledContract, rows: int = 60) -> Split:
    """Return a split of some rows, two thirds of them of the first class, six of each driver."""
    values = contract.label.values or ()
    labels = np.array([number % 3 == 0 for number in range(rows)], dtype=np.float32)
    frame = pl.DataFrame(
        {
            contract.event_time: [f"2026-01-{1 + (7 * n) % 28:02d}T00:00:00Z" for n in range(rows)],
            "driver": [f"d{n // 6}" for n in range(rows)],
            contract.label.field: [values[int(label)] for label in labels],
        }
    )
    return Split(np.zeros((rows, 2), dtype=np.float32), labels, None, frame)


def with_split(tmp_path: pathlib.Path, words: str) -> CompiledContract:
    """Return the binary contract with another split."""
    return make_contract(tmp_path, "binary", **{"strategy: stratified, seed: 3": f"{words}, seed: 3"})


@pytest.mark.parametrize(
    "words",
    [
        "strategy: stratified",
        "strategy: shuffled",
        "strategy: grouped, group: driver",
        "strategy: stratified_grouped, group: driver",
    ],
)
def test_should_hold_each_row_out_once(tmp_path: pathlib.Path, words: str) -> None:
    contract = with_split(tmp_path, words)
    split = table(contract)
    strategy, parts = fold_positions(split, contract, 5)
    assert strategy == words.split(",", maxsplit=1)[0].partition(": ")[2]
    assert sorted(itertools.chain.from_iterable(held.tolist() for _, held in parts)) == list(range(60))
    for train, held in parts:
        assert not set(train) & set(held)
        if "grouped" in words:
            assert not set(split.frame["driver"][train]) & set(split.frame["driver"][held])
        if words == "strategy: stratified":
            assert split.labels[held].sum() == 4


def test_should_judge_by_time_on_what_came_after(tmp_path: pathlib.Path) -> None:
    contract = with_split(tmp_path, "strategy: time")
    split = table(contract)
    _, parts = fold_positions(split, contract, 4)
    for train, held in parts:
        assert split.frame[contract.event_time][train].max() <= split.frame[contract.event_time][held].min()


def test_should_refuse_more_folds_than_rows_of_a_class(tmp_path: pathlib.Path) -> None:
    contract = with_split(tmp_path, "strategy: stratified")
    with pytest.raises(BadInputError, match="the smallest class has 4 training rows, fewer than the 5 folds"):
        fold_positions(table(contract, 12), contract, 5)
    grouped = with_split(tmp_path / "g", "strategy: grouped, group: driver")
    with pytest.raises(BadInputError, match="2 groups are fewer than the 3 folds"):
        fold_positions(table(grouped, 12), grouped, 3)


def test_should_tell_mean_and_deviation_of_the_folds(tmp_path: pathlib.Path) -> None:
    contract = with_split(tmp_path, "strategy: shuffled")
    said = iter([0.1, 0.2, 0.6])
    found = cross_validate(table(contract), contract, 3, lambda train, held: {"loss": next(said)}).as_json()
    assert found["mean"]["loss"] == pytest.approx(0.3)
    # numpy, ddof 1
    assert found["standard_deviation"]["loss"] == pytest.approx(np.std([0.1, 0.2, 0.6], ddof=1))
    assert [fold["loss"] for fold in found["each"]] == [0.1, 0.2, 0.6]


# --- hosts and hyperparameters --------------------------------------------------------------------


def test_should_put_hosts_in_order_of_their_numbers(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    alone = Hosts.read()
    assert (alone.count, alone.rank, alone.first) == (1, 0, True)
    path = tmp_path / "input/config/resourceconfig.json"
    path.parent.mkdir(parents=True)
    names = [f"algo-{number}" for number in (10, 2, 1)]
    path.write_text(json.dumps({"hosts": names, "current_host": "algo-10", "network_interface_name": "eth0"}))
    found = Hosts.read()
    assert (found.names, found.rank, found.first) == (("algo-1", "algo-2", "algo-10"), 2, False)
    assert (found.address, found.port) == ("algo-1", 23_456)
    path.write_text(json.dumps({"hosts": names, "current_host": "algo-4"}))
    with pytest.raises(BadInputError, match="current_host algo-4 is none of"):
        Hosts.read()


def test_should_leave_the_jobs_own_hyperparameters_out_and_check_them() -> None:
    given_ = {"k_folds": "5", "checkpoint_every_rounds": "3", "_tuning_objective_metric": "loss"}
    assert read_all(given_, {}, {}) == {}
    with pytest.raises(BadInputError, match="k_folds must be an integer from 2 up to 20, got '1'"):
        read_all({"k_folds": "1"}, {}, {})
    with pytest.raises(BadInputError, match="distribution is no hyperparameter"):
        read_all({"distribution": "data_parallel"}, {}, {}, refused=("distribution",))


# --- tracking -------------------------------------------------------------------------------------


class Server(BaseHTTPRequestHandler):
    """As much of an MLflow tracking server as a run needs."""

    calls: list[tuple[str, dict[str, Any]]] = []  # noqa: RUF012 - of the class: a handler lives for one request
    broken = False

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, body: dict[str, Any]) -> None:
        name = self.path.partition("/mlflow/")[2].partition("?")[0]
        self.calls.append((name, body))
        info = {
            "run_id": "r1",
            "run_uuid": "r1",
            "experiment_id": "7",
            "status": "RUNNING",
            "artifact_uri": "s3://x",
        }
        answers: dict[str, tuple[int, dict[str, Any]]] = {
            "experiments/get-by-name": (404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none"}),
            "experiments/create": (200, {"experiment_id": "7"}),
            "runs/create": (200, {"run": {"info": info, "data": {}}}),
            "runs/get": (200, {"run": {"info": info, "data": {}}}),
            "runs/update": (200, {"run_info": info}),
        }
        status, answer = answers.get(name, (200, {}))
        if self.broken and name == "runs/log-batch":
            status, answer = 403, {"error_code": "PERMISSION_DENIED", "message": "not yours"}
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self) -> None:
        """Answer."""
        self._answer({})

    def do_POST(self) -> None:
        """Answer."""
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))


@pytest.fixture
def mlflow_server(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server, its calls, and the variable that names it."""
    Server.calls, Server.broken = [], False
    server = HTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("TRAINING_JOB_NAME", "job-1")
    yield Server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.slow
def test_should_record_a_training_with_its_parameters_and_rounds(mlflow_server: type[Server]) -> None:
    tracking = Tracking("claims", {"eta": 0.1})
    for number in range(3):
        tracking.log(number, {"train-logloss": 1 - number / 10})
    tracking.end("FINISHED", {"metrics": {"train-logloss": 0.8}})
    calls = mlflow_server.calls
    created = next(body for name, body in calls if name == "runs/create")
    assert (created["experiment_id"], created["run_name"]) == ("7", "job-1")
    logged = [body for name, body in calls if name == "runs/log-batch"]
    assert logged[0]["params"] == [{"key": "eta", "value": "0.1"}]
    metrics = [(metric["key"], metric["step"], metric["value"]) for metric in logged[1]["metrics"]]
    assert metrics == [("train-logloss", 0, 1.0), ("train-logloss", 1, 0.9), ("train-logloss", 2, 0.8)]
    assert next(body for name, body in calls if name == "runs/update")["status"] == "FINISHED"


@pytest.mark.slow
def test_should_train_on_when_the_server_refuses(
    mlflow_server: type[Server], capsys: pytest.CaptureFixture[str]
) -> None:
    mlflow_server.broken = True
    tracking = Tracking("claims", {"eta": 0.1})
    tracking.log(0, {"train-logloss": 1})
    tracking.end("FINISHED", {})
    assert not tracking.active
    assert "training goes on untracked" in capsys.readouterr().out


def test_should_not_track_unless_a_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracking = Tracking("claims", {})
    tracking.log(0, {"train-logloss": 1})
    tracking.end("FINISHED")
    assert not tracking.active


# --- a parent -------------------------------------------------------------------------------------


def test_should_train_from_scratch_when_the_channel_brings_no_model(
    trained: Callable[[str], Trained], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from container_support import training_inputs
    from ml_trainer.data import Inputs
    from ml_trainer.parent import read_parent

    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    workload = trained("binary")
    training_inputs(tmp_path, workload.prepared, workload.contract)
    inputs = Inputs.read()
    assert read_parent(inputs) is None
    # What stands in for a parent on a first run: any file that is no model.
    (tmp_path / "input/data/parent").mkdir()
    (tmp_path / "input/data/parent/contract.json").write_text(workload.contract.to_json())
    assert read_parent(inputs) is None
    shutil.copytree(workload.model, tmp_path / "input/data/parent", dirs_exist_ok=True)
    parent = read_parent(inputs)
    assert parent is not None
    with pytest.raises(BadInputError, match=r"the parent model has no model\.safetensors: another algorithm"):
        parent.read("model.safetensors")
