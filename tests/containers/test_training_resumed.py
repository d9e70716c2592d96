"""XGBoost's training as it runs in an account: killed, resumed, gone on from a parent, on several hosts."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xgboost as xgb
from container_support import Trained, image_environment, make_contract, run_image, training_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_runtime.job import BadInputError
from ml_runtime.model import Model
from ml_trainer.progress import History
from ml_training.boost import BOOSTER, Start, boost, rounds_of
from ml_training.hyperparameters import Hyperparameters, read_hyperparameters

FAST = {"rounds": "40", "subsample": "0.7", "colsample_bytree": "0.6", "early_stopping_rounds": "30"}
#: Several trainings share this machine; XGBoost's threads would wait for each other by spinning.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


# --- the boosting alone ---------------------------------------------------------------------------


def rows(objective: str, seed: int = 1, count: int = 240) -> tuple[xgb.DMatrix, xgb.DMatrix]:
    """Return a training and a validation matrix with gaps and noise."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(count, 6)).astype(np.float32)
    matrix[rng.random(matrix.shape) < 0.1] = np.nan
    signal_ = np.nan_to_num(matrix[:, 0] - matrix[:, 1]) + rng.normal(size=count) * 0.4
    labels = {"binary:logistic": signal_ > 0, "multi:softprob": np.digitize(signal_, [-0.5, 0.5])}
    wanted = np.asarray(labels.get(objective, signal_ * 100), dtype=np.float32)
    half = count * 2 // 3
    return xgb.DMatrix(matrix[:half], wanted[:half]), xgb.DMatrix(matrix[half:], wanted[half:])


class Killed(Exception):  # noqa: N818 - it is no error
    """The machine is gone."""


class Killer:
    """Keeps what a checkpoint would hold after each round, and ends the training after one of them."""

    def __init__(self, after: int, folder: pathlib.Path) -> None:
        self.rest = after
        self.folder = folder
        self.kept: tuple[bytes, History] | None = None

    def after(self, number: int, values: dict[str, float], history: History) -> None:
        """See nothing."""

    def pause(self, done: int, save: Callable[[pathlib.Path], None], history: History) -> None:
        """Save, and be killed when it is time."""
        save(self.folder)
        # As JSON, which a checkpoint goes through.
        self.kept = (self.folder / BOOSTER).read_bytes(), json.loads(json.dumps(history))
        self.rest -= 1
        if not self.rest:
            raise Killed


@given(
    kills=st.lists(st.integers(1, 12), max_size=3),
    objective=st.sampled_from(["binary:logistic", "multi:softprob", "reg:squarederror", "reg:absoluteerror"]),
    drawn=st.fixed_dictionaries(
        {},
        optional={
            "subsample": st.sampled_from(["0.5", "0.8"]),
            "colsample_bytree": st.just("0.6"),
            "colsample_bynode": st.just("0.5"),
            "grow_policy": st.just("lossguide"),
        },
    ),
    patience=st.sampled_from([None, "3"]),
    parent=st.booleans(),
)
@settings(max_examples=12, deadline=None)
def test_should_give_the_same_bytes_however_often_it_is_killed(
    tmp_path_factory: pytest.TempPathFactory,
    kills: list[int],
    objective: str,
    drawn: dict[str, str],
    patience: str | None,
    parent: bool,
) -> None:
    task = {"binary:logistic": "binary", "multi:softprob": "multiclass"}.get(objective, "regression")
    asked = {"rounds": "14", "max_depth": "4", "eta": "0.4", "objective": objective, **drawn}
    if patience is not None:
        asked["early_stopping_rounds"] = patience
    wanted = read_hyperparameters(asked, task, 3)  # type: ignore[arg-type]
    wanted.booster["nthread"] = 1
    fresh = Start()
    if parent:
        older = boost(wanted, *rows(objective, seed=2))
        fresh = Start(bytes(older.booster.save_raw("ubj")), older.rounds)
    whole = boost(wanted, *rows(objective), start=fresh)
    folder = tmp_path_factory.mktemp("killed")
    start, left = fresh, list(kills)
    while True:
        killer = Killer(left.pop(0) if left else 0, folder)
        try:
            resumed = boost(wanted, *rows(objective), start=start, watch=killer)
            break
        except Killed:
            assert killer.kept is not None
            start = Start(killer.kept[0], fresh.parent_rounds, killer.kept[1])
    assert resumed.booster.save_raw("ubj") == whole.booster.save_raw("ubj")
    assert (resumed.metrics, resumed.rounds, resumed.rounds_run) == (
        whole.metrics,
        whole.rounds,
        whole.rounds_run,
    )


def wanted_for(**given_: str) -> Hyperparameters:
    """Return a binary training's hyperparameters."""
    return read_hyperparameters(given_, "binary", 2)


def test_should_keep_the_parent_when_no_new_round_is_better() -> None:
    wanted = wanted_for(rounds="30", early_stopping_rounds="30", eta="0.3")
    parent = boost(wanted, *rows("binary:logistic"))
    raw = bytes(parent.booster.save_raw("ubj"))
    # Rows whose labels are noise: nothing there makes the parent better on the old validation rows.
    noise, _ = rows("binary:logistic", seed=9)
    noise.set_label(np.random.default_rng(3).integers(0, 2, noise.num_row()))
    _, validation = rows("binary:logistic")
    again = boost(wanted, noise, validation, start=Start(raw, parent.rounds))
    assert (again.best, again.rounds) == (-1, parent.rounds)
    assert again.booster.num_boosted_rounds() == parent.rounds
    assert again.metrics["validation-logloss"] == pytest.approx(parent.metrics["validation-logloss"])


def test_should_refuse_a_parent_of_another_objective() -> None:
    parent = boost(wanted_for(rounds="2"), *rows("binary:logistic"))
    numbers = read_hyperparameters({}, "regression", 0)
    with pytest.raises(BadInputError, match="was trained for binary:logistic, this training is for reg:"):
        rounds_of(bytes(parent.booster.save_raw("ubj")), numbers)


# --- the image ------------------------------------------------------------------------------------


def prepared(
    trained: Callable[[str], Trained], base: pathlib.Path, extra: dict[str, str], **replaced: str
) -> pathlib.Path:
    """Lay out a training of the binary trips in ``base``."""
    workload = trained("binary")
    contract = make_contract(base / "workload", "binary", **replaced) if replaced else workload.contract
    training_inputs(base, workload.prepared, contract)
    config = base / "input/config/hyperparameters.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | extra))
    return base


def start_image(base: pathlib.Path, **extra: str) -> subprocess.Popen[str]:
    """Start the training image."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "ml_training", "train"],
        env=image_environment("training", base, **ONE_THREAD, **extra),
        cwd=base,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end_after(process: subprocess.Popen[str], number: int, sign: signal.Signals) -> str:
    """Send a signal when a round has been printed; what was printed."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith(f"[{number}] "):
            process.send_signal(sign)
            break
    rest, _ = process.communicate(timeout=60)
    return "".join(seen) + rest


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_should_resume_what_was_interrupted_and_give_the_same_model(
    trained: Callable[[str], Trained], tmp_path: pathlib.Path, sign: signal.Signals
) -> None:
    asked = {**FAST, "checkpoint_every_rounds": "4"}
    whole, base = (prepared(trained, tmp_path / name, asked) for name in ("whole", "killed"))
    assert run_image("training", whole, "train", **ONE_THREAD).returncode == 0
    (base / "checkpoints").mkdir()
    process = start_image(base)
    log = end_after(process, 13, sign)
    assert not (base / "model").exists()
    # An end that was asked for is no failure: SageMaker shows no reason.
    assert not (base / "output/failure").exists()
    assert (base / "checkpoints").is_dir()
    if sign is signal.SIGTERM:
        assert process.returncode == 143
        assert re.search(r"interrupted after \d+ rounds; its checkpoint is saved", log)
    # A torn checkpoint, newer than all, is passed over.
    newest = max((base / "checkpoints").glob("step-*"))
    torn = base / "checkpoints/step-00000099"
    shutil.copytree(newest, torn)
    (torn / BOOSTER).write_bytes((torn / BOOSTER).read_bytes()[:-1])
    done = run_image("training", base, "train", **ONE_THREAD)
    assert done.returncode == 0, done.stderr
    assert "checkpoint step-00000099 is not used" in done.stdout
    resumed = re.search(r"resumed after (\d+) rounds", done.stdout)
    assert resumed is not None
    assert int(resumed[1]) >= 12
    assert f"[{int(resumed[1])}] " in done.stdout
    assert "[0] " not in done.stdout
    for name in ("model.ubj", "model.onnx", "fitted.json", "contract.json", "metadata.json"):
        assert (base / "model" / name).read_bytes() == (whole / "model" / name).read_bytes(), name


@pytest.mark.slow
def test_should_not_resume_a_training_with_other_settings(
    trained: Callable[[str], Trained], tmp_path: pathlib.Path
) -> None:
    base = prepared(trained, tmp_path, {**FAST, "checkpoint_every_rounds": "4"})
    (base / "checkpoints").mkdir()
    end_after(start_image(base), 9, signal.SIGTERM)
    config = base / "input/config/hyperparameters.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_depth": "2", "rounds": "5"}))
    done = run_image("training", base, "train", **ONE_THREAD)
    assert "is of a training on other data or with other settings" in done.stdout
    assert "[0] " in done.stdout


@pytest.mark.slow
def test_should_go_on_from_a_parent_and_refuse_one_that_was_fitted_otherwise(
    trained: Callable[[str], Trained], tmp_path: pathlib.Path
) -> None:
    base = prepared(trained, tmp_path / "a", {"rounds": "8", "k_folds": "3"})
    shutil.copytree(trained("binary").model, base / "input/data/parent")
    older = json.loads((base / "input/data/parent/metadata.json").read_text())
    done = run_image("training", base, "train", **ONE_THREAD)
    assert done.returncode == 0, done.stderr
    metadata = json.loads((base / "model/metadata.json").read_text())
    assert metadata["parent"]["rounds"] == older["rounds"]
    assert older["rounds"] <= metadata["rounds"] <= older["rounds"] + 8
    assert len(metadata["k_folds"]["each"]) == 3
    assert metadata["k_folds"]["standard_deviation"]["logloss"] > 0
    means = [fold["logloss"] for fold in metadata["k_folds"]["each"]]
    assert metadata["k_folds"]["mean"]["logloss"] == pytest.approx(np.mean(means))
    Model.load(base / "model")

    other = prepared(trained, tmp_path / "b", {"rounds": "8"})
    shutil.copytree(trained("binary").model, other / "input/data/parent")
    fitted = other / "input/data/parent/fitted.json"
    changed = json.loads(fitted.read_text())
    changed["fold_key"] = "somebody_else"
    fitted.write_text(json.dumps(changed))
    done = run_image("training", other, "train", **ONE_THREAD)
    assert done.returncode == 1
    assert "its columns were fitted otherwise" in (other / "output/failure").read_text()


@pytest.mark.slow
def test_should_fail_with_the_words_of_the_rule_that_stops_it(
    trained: Callable[[str], Trained], tmp_path: pathlib.Path
) -> None:
    rules = "{overfit: {ratio: 0.01, rounds: 3}, class_imbalance: {ratio: 1, action: note}}"
    base = prepared(
        trained,
        tmp_path,
        {"eta": "1", "max_depth": "10"},
        **{"  rounds: 40\n": f"  rounds: 40\n  rules: {rules}\n"},
    )
    done = run_image("training", base, "train", **ONE_THREAD)
    assert done.returncode == 1
    assert "rule class_imbalance notes: the largest class has" in done.stdout
    failure = (base / "output/failure").read_text()
    assert re.fullmatch(
        r"rule overfit after round \d+: the validation loss .* more than 1% for 3 rounds", failure
    )
    assert "Traceback" not in done.stderr


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def host_inputs(base: pathlib.Path, current: str) -> None:
    """Tell a host who trains with it."""
    resources: dict[str, Any] = {
        "hosts": ["algo-1", "algo-2"],
        "current_host": current,
        "network_interface_name": "lo",
    }
    (base / "input/config/resourceconfig.json").write_text(json.dumps(resources))


@pytest.mark.slow
def test_should_train_one_model_on_two_hosts_and_resume_it_together(
    trained: Callable[[str], Trained], tmp_path: pathlib.Path
) -> None:
    def hosts(*names: str) -> list[pathlib.Path]:
        found = []
        for name in names:
            base = prepared(
                trained, tmp_path / name, {"rounds": "12", "checkpoint_every_rounds": "1", "subsample": "0.8"}
            )
            host_inputs(base, "algo-" + name[-1])
            (base / "checkpoints").mkdir()
            found.append(base)
        return found

    def started(bases: list[pathlib.Path]) -> list[subprocess.Popen[str]]:
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        return [start_image(base, **where) for base in bases]

    whole = hosts("whole-1", "whole-2")
    for process in started(whole):
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert not (whole[1] / "model").exists()
    metadata = json.loads((whole[0] / "model/metadata.json").read_text())
    alone = json.loads((trained("binary").model / "metadata.json").read_text())
    assert metadata["hosts"] == 2
    assert metadata["metrics"]["validation-logloss"] == pytest.approx(
        alone["metrics"]["validation-logloss"], rel=0.2
    )

    killed = hosts("killed-1", "killed-2")
    first, second = started(killed)
    end_after(first, 6, signal.SIGTERM)
    second.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (143, 143)
    # As SageMaker brings back checkpoints: every host has what any host saved.
    shutil.rmtree(killed[1] / "checkpoints")
    (killed[1] / "checkpoints").mkdir()
    for process in started(killed):
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert "resumed after" in output
    assert (killed[0] / "model/model.ubj").read_bytes() == (whole[0] / "model/model.ubj").read_bytes()
