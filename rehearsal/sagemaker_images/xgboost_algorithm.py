"""What SageMaker's XGBoost does with Parquet: label first, hyperparameters as texts, ``xgboost-model``.

Source: SageMaker developer guide, "XGBoost algorithm": input/output interface, hyperparameters.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
from typing import Any

import pyarrow.parquet as pq
import xgboost as xgb

#: Hyperparameters that are no parameters of the booster.
_OWN = ("num_round", "early_stopping_rounds")


def _matrix(folder: pathlib.Path) -> xgb.DMatrix:
    data = pq.read_table(folder).to_pandas().to_numpy()
    return xgb.DMatrix(data[:, 1:], label=data[:, 0])


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def main() -> None:
    """Train on the channels ``train`` and ``validation``."""
    base = pathlib.Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
    config = base / "input" / "config"
    channels = json.loads((config / "inputdataconfig.json").read_text())
    for name, told in channels.items():
        kind = told.get("ContentType")
        if kind != "application/x-parquet":
            sys.exit(f"channel {name}: only application/x-parquet is stood in for, got {kind}")
    given = {
        name: _value(text) for name, text in json.loads((config / "hyperparameters.json").read_text()).items()
    }
    evals = [(_matrix(base / "input" / "data" / name), name) for name in ("train", "validation")]
    booster = xgb.train(
        {name: value for name, value in given.items() if name not in _OWN},
        evals[0][0],
        num_boost_round=given["num_round"],
        evals=evals,
        early_stopping_rounds=given.get("early_stopping_rounds"),
    )
    target = base / "model"
    target.mkdir(parents=True, exist_ok=True)
    (target / "xgboost-model").write_bytes(booster.save_raw("ubj"))


if __name__ == "__main__":
    main()
