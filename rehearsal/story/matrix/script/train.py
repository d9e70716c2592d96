"""A training script as a data team writes one: SageMaker's XGBoost image runs it.

The channels hold the fitted features as numbers, the label first; the model is left as a booster.
"""

import argparse
import os
import pathlib

import pyarrow.parquet as pq
import xgboost as xgb


def matrix(channel: str) -> xgb.DMatrix:
    """Return a channel's rows."""
    data = pq.read_table(os.environ[f"SM_CHANNEL_{channel}"]).to_pandas().to_numpy()
    return xgb.DMatrix(data[:, 1:], label=data[:, 0])


parser = argparse.ArgumentParser()
parser.add_argument("--rounds", type=int)
parser.add_argument("--early_stopping_rounds", type=int)
parser.add_argument("--eta", type=float, default=0.1)
parser.add_argument("--max_depth", type=int, default=4)
given = parser.parse_args()

booster = xgb.train(
    {
        "objective": "binary:logistic",
        "eta": given.eta,
        "max_depth": given.max_depth,
        "eval_metric": "logloss",
    },
    matrix("TRAIN"),
    num_boost_round=given.rounds,
    evals=[(matrix("VALIDATION"), "validation")],
    early_stopping_rounds=given.early_stopping_rounds,
)
target = pathlib.Path(os.environ["SM_MODEL_DIR"])
target.mkdir(parents=True, exist_ok=True)
booster.save_model(target / "model.ubj")
