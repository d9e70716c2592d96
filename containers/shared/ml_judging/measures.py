"""What models are measured by: values by scikit-learn, and the same of many weighted samples at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ml_runtime.job import BadInputError
from sklearn import metrics as sk

__all__ = ["LOSSES", "Measures", "better_by", "measures_of"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Measures where less is better.
LOSSES: Final = frozenset({"log_loss", "brier", "rmse", "mae", "mse"})
#: Probabilities are kept this far from 0 and 1, as scikit-learn's log_loss does.
_EPSILON: Final = np.finfo(np.float64).eps


def better_by(name: str, new: Any, old: Any) -> Any:
    """How much better ``new`` is: above 0 is better, whichever way the measure goes."""
    return old - new if name in LOSSES else new - old


class Measures(ABC):
    """The measures of one model on some rows.

    ``values`` is what it reached; ``of_samples`` the same of resampled rows, each sample given by how often
    every row was drawn into it: that costs one matrix product where a library is asked sample by sample.
    """

    rows: int

    @abstractmethod
    def values(self) -> dict[str, float]:
        """Every measure by its name."""

    @abstractmethod
    def of_samples(self, weights: Floats) -> dict[str, Floats]:
        """The same measures of samples: ``weights`` [samples, rows], the answers [samples]."""

    @abstractmethod
    def take(self, rows: Ints) -> Measures:
        """The measures of some of the rows."""


def measures_of(
    task: str,
    labels: npt.NDArray[Any],
    scores: npt.NDArray[Any],
    *,
    threshold: float,
    columns: int,
    decided: Ints | None = None,
) -> Measures:
    """The measures that go with a task.

    Args:
        task: binary, multiclass or regression.
        labels: positions of classes, or numbers.
        scores: what ``Model.scores`` gives.
        threshold: binary only; positive from this score on.
        columns: of the feature matrix; regression only, for the adjusted R².
        decided: binary only; what was decided of each row, where that is known better than by a threshold.

    Raises BadInputError when a score is no finite number.
    """
    given = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(given).all():
        raise BadInputError(
            f"the model answers {int((~np.isfinite(given)).sum())} test scores that are not finite numbers"
        )
    if task == "binary":
        return Binary(np.asarray(labels, dtype=np.int64), given, threshold, decided)
    if task == "multiclass":
        return Multiclass(np.asarray(labels, dtype=np.int64), given)
    return Regression(np.asarray(labels, dtype=np.float64), given, columns)


def _share(part: Floats, whole: Floats) -> Floats:
    """``part / whole``, 0 where there is nothing to divide by (scikit-learn's zero_division=0)."""
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole > 0)


class Ranking:
    """Areas under ROC and precision-recall curve of weighted rows; sorted once, ties kept together."""

    def __init__(self, positive: npt.NDArray[np.bool_], scores: Floats) -> None:
        self.order = np.argsort(-scores, kind="stable")
        ranked = scores[self.order]
        self.positive = positive[self.order]
        self.starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))

    def areas(self, weights: Floats) -> tuple[Floats, Floats]:
        """ROC AUC and average precision of every sample."""
        ranked = weights[:, self.order]
        positive = np.add.reduceat(ranked * self.positive, self.starts, axis=1)
        negative = np.add.reduceat(ranked * ~self.positive, self.starts, axis=1)
        above, below = positive.cumsum(axis=1), negative.cumsum(axis=1)
        total, others = above[:, -1], below[:, -1]
        pairs = (negative * (above - positive / 2)).sum(axis=1)
        precision = _share(above, above + below)
        return _share(pairs, total * others), _share((positive * precision).sum(axis=1), total)


class Binary(Measures):
    """Two classes; ``scores`` are the positive one's probability."""

    def __init__(self, labels: Ints, scores: Floats, threshold: float, decided: Ints | None = None) -> None:
        self.labels, self.scores, self.threshold = labels, scores, threshold
        self.rows = len(labels)
        self.decided = (scores >= threshold).astype(np.int64) if decided is None else decided
        self._ranking = Ranking(labels == 1, scores)
        sure = np.clip(scores, _EPSILON, 1 - _EPSILON)
        positive, chosen = labels == 1, self.decided == 1
        # One matrix product gives every sample's sums.
        self._sums = np.column_stack(
            [
                positive & chosen,
                ~positive & chosen,
                positive & ~chosen,
                ~positive & ~chosen,
                -np.where(positive, np.log(sure), np.log1p(-sure)),
                (scores - labels) ** 2,
            ]
        ).astype(np.float64)

    def values(self) -> dict[str, float]:
        labels, decided = self.labels, self.decided
        return {
            "auc": float(sk.roc_auc_score(labels, self.scores)),
            "average_precision": float(sk.average_precision_score(labels, self.scores)),
            "accuracy": float(sk.accuracy_score(labels, decided)),
            "balanced_accuracy": float(sk.balanced_accuracy_score(labels, decided)),
            "precision": float(sk.precision_score(labels, decided, zero_division=0.0)),
            "recall": float(sk.recall_score(labels, decided, zero_division=0.0)),
            "specificity": float(sk.recall_score(labels, decided, pos_label=0, zero_division=0.0)),
            "f1": float(sk.f1_score(labels, decided, zero_division=0.0)),
            "mcc": float(sk.matthews_corrcoef(labels, decided)),
            "log_loss": float(sk.log_loss(labels, self.scores, labels=[0, 1])),
            "brier": float(sk.brier_score_loss(labels, np.clip(self.scores, 0, 1))),
        }

    def of_samples(self, weights: Floats) -> dict[str, Floats]:
        total = weights.sum(axis=1)
        tp, fp, fn, tn, loss, square = (weights @ self._sums).T
        recall, specificity = _share(tp, tp + fn), _share(tn, tn + fp)
        area, precision_area = self._ranking.areas(weights)
        return {
            "auc": area,
            "average_precision": precision_area,
            "accuracy": (tp + tn) / total,
            "balanced_accuracy": (recall + specificity) / 2,
            "precision": _share(tp, tp + fp),
            "recall": recall,
            "specificity": specificity,
            "f1": _share(2 * tp, 2 * tp + fp + fn),
            "mcc": _share(tp * tn - fp * fn, np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))),
            "log_loss": loss / total,
            "brier": square / total,
        }

    def take(self, rows: Ints) -> Binary:
        return Binary(self.labels[rows], self.scores[rows], self.threshold, self.decided[rows])


class Multiclass(Measures):
    """Several classes; ``scores`` [rows, classes] are their probabilities, the largest one decides."""

    def __init__(self, labels: Ints, scores: Floats) -> None:
        self.labels, self.scores = labels, scores
        self.rows, self.classes = scores.shape
        self.decided = scores.argmax(axis=1)
        # Softmax in 32 bits adds up to one within 1e-7; log_loss asks for more.
        self.shares = scores / scores.sum(axis=1, keepdims=True)
        cells = np.zeros((self.rows, self.classes**2))
        cells[np.arange(self.rows), labels * self.classes + self.decided] = 1
        own = np.clip(self.shares[np.arange(self.rows), labels], _EPSILON, 1)
        self._sums = np.column_stack([cells, -np.log(own)])
        #: Classes that can be told from the rest here: some rows are of it and some are not.
        self.told = [c for c in range(self.classes) if 0 < (labels == c).sum() < self.rows]
        self._rankings = [Ranking(labels == c, self.shares[:, c]) for c in self.told]

    def values(self) -> dict[str, float]:
        labels, decided, every = self.labels, self.decided, list(range(self.classes))

        def averaged(function: Any) -> float:
            return float(function(labels, decided, labels=every, average="macro", zero_division=0.0))

        areas = [float(sk.roc_auc_score(labels == c, self.shares[:, c])) for c in self.told]
        found = {
            "accuracy": float(sk.accuracy_score(labels, decided)),
            "balanced_accuracy": float(np.mean([np.mean(decided[labels == c] == c) for c in set(labels)])),
            "macro_precision": averaged(sk.precision_score),
            "macro_recall": averaged(sk.recall_score),
            "macro_f1": averaged(sk.f1_score),
            "mcc": float(sk.matthews_corrcoef(labels, decided)),
            "macro_auc": float(np.mean(areas)) if areas else None,
            "log_loss": float(sk.log_loss(labels, self.shares, labels=every)),
        }
        return {name: value for name, value in found.items() if value is not None}

    def of_samples(self, weights: Floats) -> dict[str, Floats]:
        total = weights.sum(axis=1)
        sums = weights @ self._sums
        cells = sums[:, :-1].reshape(-1, self.classes, self.classes)
        hit = np.diagonal(cells, axis1=1, axis2=2)
        there, chosen = cells.sum(axis=2), cells.sum(axis=1)
        recall, correct = _share(hit, there), hit.sum(axis=1)
        spread = (total**2 - (chosen**2).sum(axis=1)) * (total**2 - (there**2).sum(axis=1))
        found = {
            "accuracy": correct / total,
            "balanced_accuracy": recall.sum(axis=1) / np.maximum((there > 0).sum(axis=1), 1),
            "macro_precision": _share(hit, chosen).mean(axis=1),
            "macro_recall": recall.mean(axis=1),
            "macro_f1": _share(2 * hit, there + chosen).mean(axis=1),
            "mcc": _share(correct * total - (chosen * there).sum(axis=1), np.sqrt(np.maximum(spread, 0))),
            "log_loss": sums[:, -1] / total,
        }
        if self._rankings:
            found["macro_auc"] = np.mean([ranking.areas(weights)[0] for ranking in self._rankings], axis=0)
        return found

    def take(self, rows: Ints) -> Multiclass:
        return Multiclass(self.labels[rows], self.scores[rows])


class Regression(Measures):
    """A number."""

    def __init__(self, labels: Floats, scores: Floats, columns: int) -> None:
        self.labels, self.scores, self.columns = labels, scores, columns
        self.rows = len(labels)
        # Around the mean, where the sums of squares lose fewer digits.
        centred, errors = labels - labels.mean(), scores - labels
        self._sums = np.column_stack([errors**2, np.abs(errors), centred, centred**2])

    def values(self) -> dict[str, float]:
        mse = float(sk.mean_squared_error(self.labels, self.scores))
        found = {
            "rmse": float(np.sqrt(mse)),
            "mae": float(sk.mean_absolute_error(self.labels, self.scores)),
            "mse": mse,
            "r2": float(sk.r2_score(self.labels, self.scores)),
        }
        return found | self._adjusted(found["r2"])

    def _adjusted(self, r2: Any) -> dict[str, Any]:
        """R² that pays for every column: ``1 - (1 - R²)(n - 1)/(n - p - 1)``; none without rows to spare."""
        spare = self.rows - self.columns - 1
        return {"adjusted_r2": 1 - (1 - r2) * (self.rows - 1) / spare} if spare > 0 else {}

    def of_samples(self, weights: Floats) -> dict[str, Floats]:
        total = weights.sum(axis=1)
        square, absolute, first, second = (weights @ self._sums).T
        mse = square / total
        r2 = 1 - square / np.maximum(second - first**2 / total, np.finfo(np.float64).tiny)
        return {"rmse": np.sqrt(mse), "mae": absolute / total, "mse": mse, "r2": r2} | self._adjusted(r2)

    def take(self, rows: Ints) -> Regression:
        return Regression(self.labels[rows], self.scores[rows], self.columns)
