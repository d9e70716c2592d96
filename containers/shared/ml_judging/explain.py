"""What a model goes by: Shapley values of held-out rows, and partial dependence.

Trees are explained exactly (TreeSHAP, XGBoost's own ``pred_contribs``), in the units of the booster's sum of
leaves. Any other model is explained through its ONNX file by permutation sampling (Štrumbelj and Kononenko
2014), in the units of its scores: along random orders of the features and their reverses each feature's share
is what the score changes by when its value takes the place of a background row's. Either way the shares of a
row add up to its score less the expected one, exactly.

A feature's columns (one-hot categories, indicators) are one feature here.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
from ml_runtime.model import BOOSTER_FILE, Matrix, Model

__all__ = ["Shares", "explain", "permutation_shares", "shares_of", "tree_shares"]

SEED: Final = 7
#: Orders of the features, each walked forth and back, that a row is explained by without trees.
ORDERS: Final = 4
#: Rows whose values stand for "not known".
BACKGROUND_ROWS: Final = 20
#: Rows that a partial dependence is averaged over, and points of a number's curve.
DEPENDENCE_ROWS: Final = 200
GRID: Final = 12


@dataclass(frozen=True)
class Shares:
    """Shapley values [rows, features] (for classes [rows, features, classes]) and the expected score."""

    method: str
    units: str
    features: tuple[str, ...]
    values: npt.NDArray[np.float64]
    expected: npt.NDArray[np.float64]

    def importance(self) -> dict[str, float]:
        """Mean absolute share of each feature, largest first; of classes the mean over them."""
        size = np.abs(self.values).mean(axis=0)
        means = size.mean(axis=-1) if size.ndim > 1 else size
        order = np.argsort(-means, kind="stable")
        return {self.features[i]: float(means[i]) for i in order}


def columns_of(model: Model) -> dict[str, list[int]]:
    """Positions in the matrix of each feature's columns."""
    names = {name: position for position, name in enumerate(model.fitted.output_names)}
    found = {fit.name: [names[column] for column in fit.columns] for fit in model.fitted.fits}
    return {name: places for name, places in found.items() if places}


def tree_shares(folder: pathlib.Path, model: Model, matrix: Matrix) -> Shares:
    """Exact Shapley values of a booster, summed over each feature's columns."""
    import xgboost as xgb

    booster = xgb.Booster(model_file=folder / BOOSTER_FILE)
    found = booster.predict(xgb.DMatrix(matrix), pred_contribs=True).astype(np.float64)
    # Classes: [rows, classes, columns + 1]; the last column is the expected sum.
    found = np.moveaxis(found, 1, 2) if found.ndim == 3 else found
    places = columns_of(model)
    values = np.stack([found[:, columns].sum(axis=1) for columns in places.values()], axis=1)
    units = "value" if model.contract.label.task == "regression" else "log-odds"
    return Shares("TreeSHAP", units, tuple(places), values, found[:, -1].mean(axis=0))


def permutation_shares(model: Model, matrix: Matrix, background: Matrix) -> Shares:
    """Shapley values of any model by antithetic permutation sampling."""
    places = columns_of(model)
    rng = np.random.default_rng(SEED)
    names, columns = tuple(places), list(places.values())
    around = background[np.sort(rng.permutation(len(background))[:BACKGROUND_ROWS]),]

    def expected(mixed: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Scores of [rows, background, columns], averaged over the background."""
        rows, others, width = mixed.shape
        scores = model.scores(mixed.reshape(rows * others, width).astype(np.float32))
        means: npt.NDArray[np.float64] = (
            scores.astype(np.float64).reshape(rows, others, *scores.shape[1:]).mean(axis=1)
        )
        return means

    start = np.broadcast_to(around, (len(matrix), *around.shape))
    empty = expected(start)
    values = np.zeros((len(matrix), len(names), *empty.shape[1:]))
    for _ in range(ORDERS):
        order = rng.permutation(len(names))
        for walk in (order, order[::-1]):
            mixed, before = start.copy(), empty
            for feature in walk:
                mixed[:, :, columns[feature]] = matrix[:, None, columns[feature]]
                now = expected(mixed)
                values[:, feature] += now - before
                before = now
    return Shares("permutation", "score", names, values / (2 * ORDERS), empty.mean(axis=0))


def shares_of(folder: pathlib.Path, model: Model, matrix: Matrix, *, background: Matrix) -> Shares:
    """Shapley values in the way that fits the model: its trees where it has some, else by its answers.

    Args:
        folder: the unpacked model.
        model: the same, loaded.
        matrix: rows that are explained.
        background: rows whose values stand for "not known" where there are no trees.
    """
    if (folder / BOOSTER_FILE).is_file():
        return tree_shares(folder, model, matrix)
    return permutation_shares(model, matrix, background)


def partial_dependence(model: Model, frame: pl.DataFrame, features: Sequence[str]) -> list[dict[str, Any]]:
    """The mean score when every row had one value of a feature (Friedman 2001), for some values of it."""
    rows = frame.head(DEPENDENCE_ROWS)
    kinds = {feature.name: feature.type for feature in model.contract.features}
    found = []
    for name in features:
        known = frame[name].drop_nulls()
        numeric = kinds[name] == "number"
        if numeric:
            known = known.filter(known.is_finite())
        if not known.len():
            continue
        grid = _grid(known) if numeric else known.value_counts(sort=True)[name].head(GRID).to_list()
        every = pl.concat([rows.with_columns(pl.lit(value, frame[name].dtype).alias(name)) for value in grid])
        scores = model.scores(model.fitted.matrix(every)).astype(np.float64)
        means = scores.reshape(len(grid), rows.height, *scores.shape[1:]).mean(axis=1)
        found.append({"feature": name, "type": kinds[name], "values": grid, "scores": means.tolist()})
    return found


def _grid(known: pl.Series) -> list[float]:
    """Values between the 5th and the 95th percentile, where there are rows to speak for them."""
    return sorted({float(v) for v in np.quantile(known.to_numpy(), np.linspace(0.05, 0.95, GRID))})


def explain(
    folder: pathlib.Path, model: Model, frame: pl.DataFrame, matrix: Matrix, *, rows: int, curves: int
) -> dict[str, Any]:
    """The ``explain`` section of an evaluation.

    Args:
        folder: the unpacked model.
        model: the same, loaded.
        frame: held-out rows.
        matrix: their feature matrix.
        rows: how many are explained, drawn at random.
        curves: how many of the most important features get a partial dependence.
    """
    rng = np.random.default_rng(SEED)
    chosen = np.sort(rng.permutation(len(matrix))[:rows])
    part = matrix[chosen]
    shares = shares_of(folder, model, part, background=matrix)
    importance = shares.importance()
    return {
        "method": shares.method,
        "units": shares.units,
        "rows": len(part),
        "expected": shares.expected.tolist(),
        "importance": importance,
        "partial_dependence": partial_dependence(model, frame, list(importance)[:curves]),
    }


def clarify_report(explained: dict[str, Any] | None, label: str) -> dict[str, Any]:
    """The same as Clarify's ``analysis.json``, which Model Monitor takes as a baseline."""
    if explained is None:
        return {"version": "1.0", "explanations": {}}
    return {
        "version": "1.0",
        "explanations": {
            "kernel_shap": {
                label: {
                    "global_shap_values": explained["importance"],
                    "expected_value": explained["expected"],
                }
            },
            "pdp": [
                {
                    "data_type": "numerical" if one["type"] == "number" else "categorical",
                    "feature_name": one["feature"],
                    "feature_values": one["values"],
                    "model_predictions": one["scores"],
                }
                for one in explained["partial_dependence"]
            ],
        },
    }
