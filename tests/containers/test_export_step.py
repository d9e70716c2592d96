"""The Export step: matrices for programs that know no contract, and their models as model folders."""

from __future__ import annotations

import io
import json
import pathlib
import tarfile
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest
import xgboost as xgb
from container_support import features_of, make_contract, make_records
from ml_contract.compiled import CompiledContract
from ml_contract.features.fit import Fitted, fit
from ml_processing.matrix import write_matrices
from ml_runtime.archive import unpack
from ml_runtime.job import BadInputError
from ml_runtime.model import Model
from ml_trainer.proof import ExportError
from ml_training.adopt import adopt

BUILT_IN = {
    "training:\n": 'training:\n  algorithm: built_in\n  built_in: {name: xgboost, version: "3.2-0"}\n'
}
OBJECTIVES = {"binary": "binary:logistic", "multiclass": "multi:softprob", "regression": "reg:squarederror"}


@dataclass
class Job:
    """The folder of an Export job, and what it was made from."""

    base: pathlib.Path
    contract: CompiledContract
    fitted: Fitted
    rows: pl.DataFrame

    @property
    def given(self) -> pathlib.Path:
        return self.base / "processing" / "input"

    def matrix(self, name: str) -> np.ndarray:
        """A matrix as SageMaker's XGBoost reads it: pandas of Arrow, the label first."""
        [path] = (self.base / "prepared" / f"matrix_{name}").glob("*.parquet")
        frame: np.ndarray = pl.read_parquet(path).to_numpy()
        return frame

    def pack(self, **files: bytes) -> None:
        target = self.given / "model" / "model.tar.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(target, "w:gz") as tar:
            for name, data in files.items():
                member = tarfile.TarInfo(name.replace("__", "-").replace("_dot_", "."))
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))

    def result(self) -> pathlib.Path:
        """The exported folder, unpacked."""
        target = self.base / "unpacked"
        target.mkdir(exist_ok=True)
        unpack(self.base / "processing" / "output" / "exported" / "model.tar.gz", target)
        return target


def make_job(folder: pathlib.Path, task: str) -> Job:
    contract = make_contract(folder / "workload", task, **BUILT_IN)
    rows = features_of(make_records(task, 300), contract)
    others = features_of(make_records(task, 120, seed=2), contract)
    fitted = fit(rows, contract)
    base = folder / "ml"
    write_matrices({"train": rows, "validation": others}, fitted, contract, base / "prepared")
    given = base / "processing" / "input"
    for name, file, text in (
        ("contract", "contract.json", contract.to_json()),
        ("transform", "fitted.json", fitted.to_json()),
    ):
        (given / name).mkdir(parents=True)
        (given / name / file).write_text(text)
    (given / "validation").symlink_to(base / "prepared" / "matrix_validation")
    return Job(base, contract, fitted, others)


@pytest.fixture
def job(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    made = make_job(tmp_path, "binary")
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(made.base))
    return made


def boost(job: Job, task: str, **parameters: object) -> xgb.Booster:
    train, validation = (job.matrix(name) for name in ("train", "validation"))
    classes = {"num_class": 3} if task == "multiclass" else {}
    return xgb.train(
        {"objective": OBJECTIVES[task], "eta": 0.9, **classes, **parameters},
        xgb.DMatrix(train[:, 1:], label=train[:, 0]),
        num_boost_round=30,
        evals=[(xgb.DMatrix(validation[:, 1:], label=validation[:, 0]), "validation")],
        early_stopping_rounds=5,
        verbose_eval=False,
    )


@pytest.mark.parametrize("task", list(OBJECTIVES))
def test_should_make_a_model_folder_of_a_booster(
    task: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path, task)
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(job.base))
    booster = boost(job, task)
    job.pack(xgboost__model=bytes(booster.save_raw("ubj")))
    adopt()
    model = Model.load(job.result())
    matrix = job.matrix("validation")[:, 1:]
    best = booster[: booster.best_iteration + 1]
    expected = best.predict(xgb.DMatrix(matrix))
    # Scored as serving does: by the features and the fitted transform.
    assert np.allclose(model.scores(model.fitted.matrix(job.rows)), expected, atol=1e-5)
    metadata = json.loads((job.result() / "metadata.json").read_text())
    assert metadata["algorithm"] == "built_in"
    assert metadata["rounds"] == booster.best_iteration + 1 < booster.num_boosted_rounds()
    assert metadata["onnx"]["largest_difference"] <= 1e-5


def test_should_write_the_label_first_and_leave_missing_values_missing(job: Job) -> None:
    frame = pl.read_parquet(job.base / "prepared" / "matrix_train" / "data.parquet")
    assert frame.columns == ["label", *job.fitted.output_names]
    assert set(frame.dtypes) == {pl.Float32}
    assert set(frame["label"].unique()) == {0, 1}
    assert frame.select(pl.all().is_nan().any()).transpose().to_series().any()


def test_should_write_no_matrix_where_nobody_reads_it(tmp_path: pathlib.Path) -> None:
    contract = make_contract(tmp_path / "workload", "binary")
    rows = features_of(make_records("binary", 60), contract)
    write_matrices({"train": rows, "validation": rows}, fit(rows, contract), contract, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_should_give_the_same_bytes_for_the_same_model(job: Job) -> None:
    job.pack(xgboost__model=bytes(boost(job, "binary").save_raw("ubj")))
    path = job.base / "processing" / "output" / "exported" / "model.tar.gz"
    adopt()
    first = path.read_bytes()
    adopt()
    assert path.read_bytes() == first


def test_should_take_an_onnx_model_of_a_script_and_compare_it_with_its_scores(job: Job) -> None:
    job.pack(xgboost__model=bytes(boost(job, "binary").save_raw("ubj")))
    adopt()
    exported = (job.result() / "model.onnx").read_bytes()
    scores = Model.load(job.result()).scores(job.matrix("validation")[:, 1:].astype(np.float32))
    buffer = io.BytesIO()
    np.save(buffer, scores)
    told = json.dumps({"epochs": 3}).encode()
    files = {"model_dot_onnx": exported, "metadata_dot_json": told}
    job.pack(**files, **{"validation__scores_dot_npy": buffer.getvalue()})
    adopt()
    metadata = json.loads((job.result() / "metadata.json").read_text())
    assert metadata["epochs"] == 3
    assert metadata["onnx"]["rows"] == len(scores)
    buffer = io.BytesIO()
    np.save(buffer, 1 - scores)
    job.pack(**files, **{"validation__scores_dot_npy": buffer.getvalue()})
    with pytest.raises(ExportError, match="differs from the trained model"):
        adopt()


def test_should_refuse_scores_that_would_need_pickle(job: Job) -> None:
    job.pack(xgboost__model=bytes(boost(job, "binary").save_raw("ubj")))
    adopt()
    exported = (job.result() / "model.onnx").read_bytes()
    buffer = io.BytesIO()
    np.save(buffer, np.array([object()]), allow_pickle=True)
    job.pack(model_dot_onnx=exported, validation__scores_dot_npy=buffer.getvalue())
    with pytest.raises(BadInputError, match=r"validation-scores\.npy is no array of numbers"):
        adopt()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, r"must hold model\.onnx or one of xgboost-model, model\.ubj, model\.json, got \[\]"),
        ({"xgboost__model": b"\x80\x04pickled"}, "xgboost-model is no model that XGBoost"),
        ({"weights_dot_bin": b"x"}, r"got \['weights\.bin'\]"),
    ],
)
def test_should_refuse_what_is_no_model(job: Job, files: dict[str, bytes], said: str) -> None:
    job.pack(**files)
    with pytest.raises(BadInputError, match=said):
        adopt()


def test_should_refuse_a_model_of_another_task_or_of_other_features(job: Job) -> None:
    job.pack(xgboost__model=bytes(boost(job, "binary", objective="reg:squarederror").save_raw("ubj")))
    with pytest.raises(
        BadInputError, match=r"trained for 'reg:squarederror'; a binary label needs binary:logistic"
    ):
        adopt()
    train = job.matrix("train")
    narrow = xgb.train({"objective": "binary:logistic"}, xgb.DMatrix(train[:, 1:3], label=train[:, 0]), 2)
    job.pack(xgboost__model=bytes(narrow.save_raw("ubj")))
    with pytest.raises(BadInputError, match="takes 2 columns, the fitted transform makes"):
        adopt()
