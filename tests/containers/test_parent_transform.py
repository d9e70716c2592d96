"""A training that goes on from a model is prepared with that model's transform."""

from __future__ import annotations

import json
import pathlib
import shutil
import tarfile
from collections.abc import Callable

import pytest
from container_support import (
    Trained,
    features_of,
    make_contract,
    make_records,
    prepare_inputs,
    run_image,
    training_inputs,
    write_features,
)
from ml_processing.parent import parents_transform
from ml_runtime.job import BadInputError


def packed(model: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Put a model folder where an input brings it; the folder."""
    folder.mkdir(parents=True)
    with tarfile.open(folder / "model.tar.gz", "w:gz") as tar:
        for path in sorted(model.iterdir()):
            tar.add(path, path.name)
    return folder


@pytest.mark.slow
def test_should_prepare_new_records_as_the_parent_was_and_train_on(
    trained: Callable[[str], Trained], tmp_path: pathlib.Path
) -> None:
    workload = trained("binary")
    base, train = tmp_path / "prepare", tmp_path / "train"
    records = make_records("binary", 300, seed=5, scale=3.0)
    write_features(
        features_of(records, workload.contract), workload.contract, prepare_inputs(base, workload.contract)
    )
    packed(workload.model, base / "processing/input/parent")
    done = run_image("processing", base, "prepare")
    assert done.returncode == 0, done.stderr
    prepared = base / "processing/output"
    assert (prepared / "transform/fitted.json").read_text() == (workload.model / "fitted.json").read_text()
    training_inputs(train, prepared, workload.contract)
    packed(workload.model, train / "input/data/parent")
    done = run_image("training", train, "train", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    parent = json.loads((train / "model/metadata.json").read_text())["parent"]
    assert parent["rounds"] == json.loads((workload.model / "metadata.json").read_text())["rounds"]


def test_should_fit_anew_without_a_parent_and_refuse_one_of_other_features(
    trained: Callable[[str], Trained], tmp_path: pathlib.Path
) -> None:
    workload = trained("binary")
    assert parents_transform(tmp_path / "absent", workload.contract) is None
    # What stands for a model that nobody has approved yet.
    (tmp_path / "none").mkdir()
    (tmp_path / "none/contract.json").write_text("{}")
    assert parents_transform(tmp_path / "none", workload.contract) is None
    folder = packed(workload.model, tmp_path / "model")
    other = make_contract(tmp_path / "other", "binary", **{"driver: {type: string}": "pilot: {type: string}"})
    with pytest.raises(BadInputError, match=r"made of another features.*train once without training\.parent"):
        parents_transform(folder, other)
    shutil.copy(folder / "model.tar.gz", folder / "again.tar.gz")
    with pytest.raises(BadInputError, match="must hold one model, got 2"):
        parents_transform(folder, workload.contract)
