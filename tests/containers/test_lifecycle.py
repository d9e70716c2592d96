"""Prepare, train and evaluate, each as the program that SageMaker would start, for every task."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import xgboost as xgb
from container_support import Trained, run_image, training_inputs
from ml_contract.features.fit import Fitted
from ml_contract.spec.judging import METRICS
from ml_runtime.model import Model
from ml_runtime.tables import read_table

pytestmark = pytest.mark.slow


def test_should_split_every_row_once(workload: Trained) -> None:
    columns = workload.contract.feature_columns()
    parts = {
        name: read_table(workload.prepared / name, columns)[0] for name in ("train", "validation", "test")
    }
    identifiers = pl.concat([part["trip_id"] for part in parts.values()])
    assert sorted(identifiers) == sorted(record["trip_id"] for record in workload.records)
    assert {name: part.height for name, part in parts.items()} == {
        "train": 300,
        "validation": 100,
        "test": 100,
    }


def test_should_fit_the_transform_on_the_training_part_only(workload: Trained) -> None:
    train, _ = read_table(workload.prepared / "train", workload.contract.feature_columns())
    fitted = Fitted.from_json((workload.prepared / "transform/fitted.json").read_text())
    assert set(fitted.categories["driver"]) == set(train["driver"].drop_nulls())
    assert fitted.matrix(train).shape == (300, len(fitted.output_names))


def test_should_learn_more_than_chance(workload: Trained) -> None:
    metrics = {name: metric["value"] for name, metric in workload.evaluation["metrics"].items()}
    assert set(metrics) == set(METRICS[workload.task])
    better = {
        "binary": lambda: metrics["auc"] > 0.8,
        "multiclass": lambda: metrics["macro_f1"] > 0.55,
        "regression": lambda: metrics["r2"] > 0.5,
    }
    assert better[workload.task](), metrics


def test_should_give_every_metric_a_standard_deviation(workload: Trained) -> None:
    for name, metric in workload.evaluation["metrics"].items():
        assert 0 < metric["standard_deviation"] < max(1, abs(metric["value"])), name


def test_should_evaluate_the_shape_that_the_pipeline_reads(workload: Trained) -> None:
    evaluation = workload.evaluation
    assert evaluation["task"] == workload.task
    assert evaluation["rows"] == 100
    classes = len(workload.contract.label.values or ())
    assert [len(row) for row in evaluation["confusion"]] == [classes] * classes
    assert sum(map(sum, evaluation["confusion"])) == (100 if classes else 0)
    if workload.task == "binary":
        assert evaluation["roc"][0] == [0, 0]
        assert evaluation["roc"][-1] == [1, 1]
        assert evaluation["decision_threshold"] == 0.45
    else:
        assert evaluation["roc"] == []


def test_should_write_the_model_folder_and_no_pickle(workload: Trained) -> None:
    names = {path.name for path in workload.model.iterdir()}
    assert names == {"model.onnx", "model.ubj", "contract.json", "fitted.json", "metadata.json"}
    metadata = json.loads((workload.model / "metadata.json").read_text())
    assert metadata["onnx"]["largest_difference"] <= metadata["onnx"]["tolerance"] == 1e-5
    assert metadata["rows"] == {"train": 300, "validation": 100}
    assert metadata["rounds"] <= metadata["rounds_run"] <= 40


def test_should_print_metrics_that_a_regular_expression_finds(workload: Trained) -> None:
    metric = {"binary": "auc", "multiclass": "mlogloss", "regression": "rmse"}[workload.task]
    values = re.findall(rf"validation-{metric}:([-+0-9.eE]+)", workload.training_log)
    metadata = json.loads((workload.model / "metadata.json").read_text())
    # One a round, and a last one of the model that is kept: a search judges a training by it.
    assert len(values) == metadata["rounds_run"] + 1
    kept = pytest.approx(metadata["metrics"][f"validation-{metric}"], abs=1e-6)
    assert float(values[metadata["rounds"] - 1]) == kept
    assert float(values[-1]) == kept
    assert f"best_iteration:{metadata['rounds'] - 1}\n" in workload.training_log


def test_should_export_a_model_that_scores_like_the_booster(workload: Trained) -> None:
    test, _ = read_table(workload.prepared / "test", workload.contract.feature_columns())
    model = Model.load(workload.model)
    matrix = model.fitted.matrix(test)
    booster = xgb.Booster(model_file=workload.model / "model.ubj")
    np.testing.assert_allclose(
        model.scores(matrix), booster.predict(xgb.DMatrix(matrix)), rtol=1e-5, atol=1e-5
    )


def test_should_train_the_same_model_from_the_same_data(
    trained: Callable[[str], Trained], tmp_path: pathlib.Path
) -> None:
    workload = trained("binary")
    training_inputs(tmp_path, workload.prepared, workload.contract)
    done = run_image("training", tmp_path, "train")
    assert done.returncode == 0, done.stderr
    for name in ("model.onnx", "model.ubj", "metadata.json"):
        assert (tmp_path / "model" / name).read_bytes() == (workload.model / name).read_bytes()


def test_should_refuse_to_judge_a_model_of_another_contract(
    trained: Callable[[str], Trained], tmp_path: pathlib.Path
) -> None:
    binary, regression = trained("binary"), trained("regression")
    shutil.copytree(binary.folder / "evaluate/processing/input", tmp_path / "processing/input")
    (tmp_path / "processing/input/contract/contract.json").write_text(regression.contract.to_json())
    shutil.rmtree(tmp_path / "processing/input/test")
    shutil.copytree(regression.prepared / "test", tmp_path / "processing/input/test")
    done = run_image("processing", tmp_path, "evaluate")
    assert done.returncode == 1
    assert "another contract" in (tmp_path / "output/message").read_text()
    assert "Traceback" not in done.stderr
