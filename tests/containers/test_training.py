"""The training program: its hyperparameters, its proof, and what it says when it fails."""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import xgboost as xgb
from container_support import Trained, make_contract, run_image, training_inputs
from ml_contract.compiled import CompiledContract
from ml_runtime.job import BadInputError
from ml_trainer.data import labels_of
from ml_training.export import ExportError, prove_equal, to_onnx
from ml_training.hyperparameters import read_hyperparameters

# --- hyperparameters ------------------------------------------------------------------------------


def test_should_read_strings_as_sagemaker_sends_them() -> None:
    wanted = read_hyperparameters(
        {
            "max_depth": "4",
            "learning_rate": "0.08",
            "subsample": '"0.8"',
            "reg_lambda": "2",
            "rounds": "300",
            "early_stopping_rounds": "30",
        },
        "binary",
        2,
    )
    assert wanted.rounds == 300
    assert wanted.early_stopping_rounds == 30
    assert wanted.booster == {
        "tree_method": "hist",
        "seed": 0,
        "seed_per_iteration": True,
        "max_depth": 4,
        "eta": 0.08,
        "subsample": 0.8,
        "lambda": 2.0,
        "objective": "binary:logistic",
        "eval_metric": ["auc", "logloss"],
    }


def test_should_stop_early_only_when_asked_and_know_the_classes() -> None:
    wanted = read_hyperparameters({}, "multiclass", 4)
    assert (wanted.rounds, wanted.early_stopping_rounds) == (100, None)
    assert wanted.booster["num_class"] == 4
    assert wanted.booster["objective"] == "multi:softprob"


def test_should_name_every_wrong_hyperparameter_at_once() -> None:
    given = {
        "max_dept": "4",
        "eta": "0",
        "subsample": "1.5",
        "max_bin": "2.5",
        "objective": "reg:squarederror",
        "learning_rate": "0.1",
        "min_child_weight": "heavy",
        "rounds": "nan",
        "booster": "dart",
        "tree_method": "exact",
    }
    with pytest.raises(BadInputError) as caught:
        read_hyperparameters(given, "binary", 2)
    text = str(caught.value)
    for expected in (
        "max_dept is no hyperparameter; did you mean max_depth?",
        "eta must be a number above 0 up to 1, got '0'",
        "subsample must be a number above 0 up to 1, got '1.5'",
        "max_bin must be an integer from 2 up to 65536, got '2.5'",
        "objective must be one of binary:logistic, got 'reg:squarederror'",
        "learning_rate and eta are the same parameter; give one",
        "min_child_weight must be a number from 0, got 'heavy'",
        "rounds must be an integer from 1 up to 100000, got 'nan'",
        "booster is no hyperparameter",
        "tree_method must be one of hist, got 'exact'",
    ):
        assert expected in text


def test_should_refuse_a_weight_of_the_positive_class_where_there_is_none() -> None:
    with pytest.raises(BadInputError, match="goes with a binary label, not with regression"):
        read_hyperparameters({"scale_pos_weight": "3"}, "regression", 0)


# --- labels ---------------------------------------------------------------------------------------


def test_should_turn_a_class_into_its_position(contract: CompiledContract) -> None:
    frame = pl.DataFrame({"outcome": ["late", "on time", "late"]})
    assert labels_of(frame, contract, "train").tolist() == [1, 0, 1]


def test_should_refuse_labels_that_the_contract_does_not_know(contract: CompiledContract) -> None:
    with pytest.raises(BadInputError, match=r"the train split has labels \['soon'\]"):
        labels_of(pl.DataFrame({"outcome": ["late", "soon"]}), contract, "train")
    with pytest.raises(BadInputError, match="1 rows of the validation split have no label"):
        labels_of(pl.DataFrame({"outcome": ["late", None]}), contract, "validation")


# --- the proof ------------------------------------------------------------------------------------


def boosted(objective: str, seed: int = 1, **extra: object) -> tuple[xgb.Booster, np.ndarray]:
    """Train on noise with gaps; return the booster and its matrix."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(300, 6)).astype(np.float32)
    matrix[rng.random(matrix.shape) < 0.2] = np.nan
    labels = rng.integers(0, 3 if objective == "multi:softprob" else 2, 300)
    if objective.startswith("reg:"):
        labels = np.nan_to_num(matrix[:, 0]) * 1000 + 5000
    parameters = {"objective": objective, "tree_method": "hist", "max_depth": 6, **extra}
    return xgb.train(parameters, xgb.DMatrix(matrix, labels), 60), matrix


@pytest.mark.parametrize(
    ("objective", "extra"),
    [
        ("binary:logistic", {}),
        ("binary:logistic", {"scale_pos_weight": 9, "max_delta_step": 1}),
        ("multi:softprob", {"num_class": 3}),
        ("reg:squarederror", {}),
        ("reg:absoluteerror", {}),
        ("reg:pseudohubererror", {}),
        ("binary:logistic", {"grow_policy": "lossguide", "max_leaves": 9}),
    ],
)
def test_should_prove_that_the_export_scores_like_the_booster(
    objective: str, extra: dict[str, object]
) -> None:
    booster, matrix = boosted(objective, **extra)
    proof = prove_equal(booster, to_onnx(booster, 6), matrix)
    # The rows given, and four that no data set need hold.
    assert proof.rows == 304
    assert proof.largest_difference <= proof.tolerance


def test_should_not_accept_the_export_of_another_booster() -> None:
    booster, matrix = boosted("binary:logistic")
    other, _ = boosted("binary:logistic", seed=2)
    with pytest.raises(ExportError, match="differs from the trained model by"):
        prove_equal(booster, to_onnx(other, 6), matrix)


def test_should_see_a_difference_in_missing_values_alone() -> None:
    """A booster and an export that disagree only where values are missing: rows without gaps cannot tell."""
    booster, matrix = boosted("binary:logistic")
    filled = np.nan_to_num(matrix)
    rng = np.random.default_rng(1)
    other = xgb.train(
        {"objective": "binary:logistic", "tree_method": "hist"},
        xgb.DMatrix(filled, rng.integers(0, 2, 300)),
        60,
    )
    with pytest.raises(ExportError):
        prove_equal(booster, to_onnx(other, 6), filled)


# --- the job --------------------------------------------------------------------------------------


def inputs(trained: Callable[[str], Trained], base: pathlib.Path) -> Trained:
    workload = trained("binary")
    training_inputs(base, workload.prepared, workload.contract)
    return workload


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("hyperparameter", "max_depth must be an integer from 0 up to 64, got 'deep'"),
        ("no transform", "fitted.json is missing"),
        ("damaged split", "the validation channel cannot be read: data.parquet"),
        ("empty split", "the validation channel holds no rows"),
        ("other contract", "the train channel cannot be read"),
    ],
)
def test_should_leave_its_reason_where_sagemaker_looks(
    trained: Callable[[str], Trained], tmp_path: pathlib.Path, case: str, reason: str
) -> None:
    base = tmp_path / "job"
    workload = inputs(trained, base)
    data = base / "input/data"
    if case == "hyperparameter":
        (base / "input/config/hyperparameters.json").write_text(json.dumps({"max_depth": "deep"}))
    if case == "no transform":
        (data / "transform/fitted.json").unlink()
    if case == "damaged split":
        (data / "validation/data.parquet").write_bytes(b"x")
    if case == "empty split":
        (data / "validation/data.parquet").unlink()
    if case == "other contract":
        other = make_contract(
            tmp_path / "other", "binary", **{"driver: {type: string}": "pilot: {type: string}"}
        )
        (data / "contract/contract.json").write_text(other.to_json())
    done = run_image("training", base, "train")
    assert done.returncode == 1
    assert reason in (base / "output/failure").read_text()
    assert "Traceback" not in done.stderr
    assert not (base / "model").exists()
    assert workload.model.exists()


@pytest.mark.slow
def test_should_refuse_an_accelerator_that_it_was_not_built_for(
    trained: Callable[[str], Trained], tmp_path: pathlib.Path
) -> None:
    if xgb.build_info().get("USE_CUDA"):
        pytest.skip("this XGBoost is built for CUDA")
    inputs(trained, tmp_path)
    shutil.rmtree(tmp_path / "model", ignore_errors=True)
    (tmp_path / "input/config/hyperparameters.json").write_text(json.dumps({"device": "cuda"}))
    done = run_image("training", tmp_path, "train")
    assert done.returncode == 1
    assert "device cuda" in (tmp_path / "output/failure").read_text()
