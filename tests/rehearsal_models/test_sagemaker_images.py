"""What stands in for SageMaker's own images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xgboost as xgb

from rehearsal.images import ImageError, Images
from rehearsal.sagemaker_images import stand_in

XGBOOST = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:3.2-0"
PYTORCH = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.10.0-gpu-py313"


def job(base: Path, kind: str = "application/x-parquet", **hyperparameters: str) -> list[str]:
    """A training job's folder, and the command of the image."""
    random = np.random.default_rng(3)
    for name, rows in (("train", 80), ("validation", 40)):
        values = random.normal(size=(rows, 2)).astype(np.float32)
        columns = {"label": (values[:, 0] > 0).astype(np.float32), "a": values[:, 0], "b": values[:, 1]}
        folder = base / "input" / "data" / name
        folder.mkdir(parents=True)
        pl.DataFrame(columns).write_parquet(folder / "data.parquet")
    config = base / "input" / "config"
    config.mkdir(parents=True)
    (config / "hyperparameters.json").write_text(
        json.dumps({"objective": "binary:logistic", **hyperparameters})
    )
    channels = {name: {"ContentType": kind} for name in ("train", "validation")}
    (config / "inputdataconfig.json").write_text(json.dumps(channels))
    found = stand_in(XGBOOST)
    assert found is not None
    return found[1]


def run(command: list[str], base: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, "train"],
        env={"SAGEMAKER_BASE_DIR": str(base), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_should_train_as_sagemakers_xgboost_says_that_it_does(tmp_path: Path) -> None:
    command = job(tmp_path, num_round="20", eta="0.5", early_stopping_rounds="5")
    done = run(command, tmp_path)
    assert done.returncode == 0, done.stderr
    booster = xgb.Booster()
    booster.load_model(bytearray((tmp_path / "model" / "xgboost-model").read_bytes()))
    assert booster.num_features() == 2
    assert "validation-logloss" in done.stdout + done.stderr
    scores = booster.predict(xgb.DMatrix(np.array([[2, 0], [-2, 0]], dtype=np.float32)))
    assert scores[0] > 0.9
    assert scores[1] < 0.1


def test_should_refuse_what_is_not_stood_in_for(tmp_path: Path) -> None:
    done = run(job(tmp_path, "text/csv", num_round="5"), tmp_path)
    assert done.returncode == 1
    assert "channel train: only application/x-parquet is stood in for, got text/csv" in done.stderr


def test_should_let_a_job_say_what_a_framework_image_starts(tmp_path: Path) -> None:
    program = Images(tmp_path).program(PYTORCH)
    assert (program.argv, program.env, program.user) == ([], {}, None)
    assert Images(tmp_path).program(XGBOOST).argv[0] == sys.executable


@pytest.mark.parametrize(
    "uri",
    [
        "123456789012.dkr.ecr.us-east-1.amazonaws.com/cdk-hnb659fds-container-assets:0123",
        "763104351884.dkr.ecr.us-east-1.amazonaws.com/tensorflow-training:2.16",
        "docker.io/library/sagemaker-xgboost:1",
    ],
)
def test_should_know_no_other_image_that_nobody_built(tmp_path: Path, uri: str) -> None:
    with pytest.raises(ImageError, match="was not built in this rehearsal"):
        Images(tmp_path).program(uri)
