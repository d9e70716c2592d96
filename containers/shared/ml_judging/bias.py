"""Bias in data and models, by the definitions of SageMaker Clarify.

Formulas and names are those of the Amazon SageMaker Developer Guide, "Pre-training Bias Metrics" and
"Post-training Data and Model Bias Metrics". Facet *d* is the group that may be at a disadvantage, *a*
everyone else. ``y`` is the observed label, ``y'`` the predicted one, 1 the favourable outcome. ``n_a``,
``n_d`` count rows, an upper index the outcome, a prime predicted outcomes. 0 is fair for every metric but DI,
where 1 is. A metric whose divisor is 0 has no value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
from ml_contract.compiled import CompiledContract

__all__ = [
    "DESCRIPTIONS",
    "OF_ANSWERS",
    "OF_LABELS",
    "WITHOUT_LABELS",
    "Facet",
    "Outcomes",
    "after",
    "before",
    "comparable",
    "facets_of",
    "favourable",
    "of_rows",
    "strata",
    "unfairness",
    "value_of",
]

Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[Any]

#: Neighbours that a flip test compares a row with, as many as Clarify takes.
NEIGHBOURS: Final = 5
#: Names as Clarify's reports have them.
DESCRIPTIONS: Final[dict[str, str]] = {
    "CI": "Class Imbalance (CI)",
    "DPL": "Difference in Positive Proportions in Labels (DPL)",
    "KL": "Kullback-Liebler Divergence (KL)",
    "JS": "Jensen-Shannon Divergence (JS)",
    "LP": "L-p Norm (LP)",
    "TVD": "Total Variation Distance (TVD)",
    "KS": "Kolmogorov-Smirnov Distance (KS)",
    "CDDL": "Conditional Demographic Disparity in Labels (CDDL)",
    "DPPL": "Difference in Positive Proportions in Predicted Labels (DPPL)",
    "DI": "Disparate Impact (DI)",
    "DCAcc": "Difference in Conditional Acceptance (DCAcc)",
    "DCR": "Difference in Conditional Rejection (DCR)",
    "SD": "Specificity Difference (SD)",
    "RD": "Recall Difference (RD)",
    "DAR": "Difference in Acceptance Rates (DAR)",
    "DRR": "Difference in Rejection Rates (DRR)",
    "AD": "Accuracy Difference (AD)",
    "CDDPL": "Conditional Demographic Disparity in Predicted Labels (CDDPL)",
    "TE": "Treatment Equality (TE)",
    "FT": "Flip Test (FT)",
    "GE": "Generalized Entropy (GE)",
}


class NoValueError(ValueError):
    """A metric that these rows do not define: something to divide by is 0."""


def _ratio(part: float, whole: float) -> float:
    if whole == 0:
        raise NoValueError
    return float(part) / float(whole)


@dataclass(frozen=True)
class Outcomes:
    """Rows of known facet: who is in ``d``, and what was observed and predicted of them.

    Args:
        disadvantaged: whether the row is of facet *d*.
        observed: whether the label is favourable.
        predicted: whether the prediction is; None before training.
        labels: the labels themselves, for the distances between distributions.
        groups: the stratum of each row, for the conditional metrics.
        matrix: numbers that a flip test finds neighbours by.
    """

    disadvantaged: Mask
    observed: Mask
    predicted: Mask | None = None
    labels: Values | None = None
    groups: Values | None = None
    matrix: npt.NDArray[np.float64] | None = field(default=None, repr=False)

    @cached_property
    def d(self) -> Mask:
        """Rows of the facet."""
        return self.disadvantaged

    @cached_property
    def a(self) -> Mask:
        """All other rows."""
        return ~self.disadvantaged

    @property
    def y(self) -> Mask:
        """Observed outcomes."""
        return self.observed

    @property
    def p(self) -> Mask:
        """Predicted outcomes."""
        if self.predicted is None:
            raise NoValueError
        return self.predicted

    def distributions(self) -> tuple[Values, Values]:
        """``P_a`` and ``P_d``: the share of every label value within each facet."""
        labels = self.observed if self.labels is None else self.labels
        values = np.unique(labels)
        return tuple(  # type: ignore[return-value]
            np.array([_ratio((labels[rows] == value).sum(), rows.sum()) for value in values])
            for rows in (self.a, self.d)
        )


# --- before training -------------------------------------------------------------------------------------


def ci(o: Outcomes) -> float:
    """``CI = (n_a - n_d) / (n_a + n_d)``."""
    return _ratio(int(o.a.sum()) - int(o.d.sum()), len(o.d))


def dpl(o: Outcomes) -> float:
    """``DPL = q_a - q_d`` with ``q = n^(1) / n``."""
    return _ratio((o.a & o.y).sum(), o.a.sum()) - _ratio((o.d & o.y).sum(), o.d.sum())


def kl(o: Outcomes) -> float:
    """``KL(P_a || P_d) = sum_y P_a(y) log(P_a(y) / P_d(y))``, natural logarithm."""
    return _divergence(*o.distributions())


def _divergence(first: Values, second: Values) -> float:
    there = first > 0
    if (second[there] == 0).any():
        raise NoValueError
    return float((first[there] * np.log(first[there] / second[there])).sum())


def js(o: Outcomes) -> float:
    """``JS = (KL(P_a || P) + KL(P_d || P)) / 2`` with ``P = (P_a + P_d) / 2``."""
    first, second = o.distributions()
    middle = (first + second) / 2
    return (_divergence(first, middle) + _divergence(second, middle)) / 2


def lp(o: Outcomes) -> float:
    """``L_2 = (sum_y |P_a(y) - P_d(y)|^2)^(1/2)``."""
    first, second = o.distributions()
    return float(np.sqrt(((first - second) ** 2).sum()))


def tvd(o: Outcomes) -> float:
    """``TVD = sum_y |P_a(y) - P_d(y)| / 2``."""
    first, second = o.distributions()
    return float(np.abs(first - second).sum() / 2)


def ks(o: Outcomes) -> float:
    """``KS = max_y |P_a(y) - P_d(y)|``."""
    first, second = o.distributions()
    return float(np.abs(first - second).max())


def cddl(o: Outcomes) -> float:
    """``CDD = sum_i n_i DD_i / n`` over the strata, with ``DD = n_d^(0) / n^(0) - n_d^(1) / n^(1)``."""
    return _conditional(o, o.y)


def _conditional(o: Outcomes, outcome: Mask) -> float:
    if o.groups is None:
        raise NoValueError
    total = 0.0
    for group in np.unique(o.groups):
        rows = o.groups == group
        refused, accepted = rows & ~outcome, rows & outcome
        # A stratum in which everybody fares alike shows no disparity.
        if refused.any() and accepted.any():
            disparity = (o.d & refused).sum() / refused.sum() - (o.d & accepted).sum() / accepted.sum()
            total += rows.sum() * disparity
    return _ratio(total, len(outcome))


# --- after training --------------------------------------------------------------------------------------


def dppl(o: Outcomes) -> float:
    """``DPPL = q'_a - q'_d`` with ``q' = n'^(1) / n``."""
    return _ratio((o.a & o.p).sum(), o.a.sum()) - _ratio((o.d & o.p).sum(), o.d.sum())


def di(o: Outcomes) -> float:
    """``DI = q'_d / q'_a``."""
    return _ratio(_ratio((o.d & o.p).sum(), o.d.sum()), _ratio((o.a & o.p).sum(), o.a.sum()))


def dcacc(o: Outcomes) -> float:
    """``DCAcc = c_a - c_d`` with ``c = n^(1) / n'^(1)``."""
    return _ratio((o.a & o.y).sum(), (o.a & o.p).sum()) - _ratio((o.d & o.y).sum(), (o.d & o.p).sum())


def dcr(o: Outcomes) -> float:
    """``DCR = r_d - r_a`` with ``r = n^(0) / n'^(0)``."""
    return _ratio((o.d & ~o.y).sum(), (o.d & ~o.p).sum()) - _ratio((o.a & ~o.y).sum(), (o.a & ~o.p).sum())


def sd(o: Outcomes) -> float:
    """``SD = TN_d / (TN_d + FP_d) - TN_a / (TN_a + FP_a)``."""
    return _rate(o.d & ~o.y, ~o.p) - _rate(o.a & ~o.y, ~o.p)


def rd(o: Outcomes) -> float:
    """``RD = TP_a / (TP_a + FN_a) - TP_d / (TP_d + FN_d)``."""
    return _rate(o.a & o.y, o.p) - _rate(o.d & o.y, o.p)


def dar(o: Outcomes) -> float:
    """``DAR = TP_a / n'_a^(1) - TP_d / n'_d^(1)``."""
    return _rate(o.a & o.p, o.y) - _rate(o.d & o.p, o.y)


def drr(o: Outcomes) -> float:
    """``DRR = TN_d / n'_d^(0) - TN_a / n'_a^(0)``."""
    return _rate(o.d & ~o.p, ~o.y) - _rate(o.a & ~o.p, ~o.y)


def ad(o: Outcomes) -> float:
    """``AD = ACC_a - ACC_d`` with ``ACC = (TP + TN) / n``."""
    return _rate(o.a, o.p == o.y) - _rate(o.d, o.p == o.y)


def _rate(among: Mask, which: Mask) -> float:
    return _ratio((among & which).sum(), among.sum())


def cddpl(o: Outcomes) -> float:
    """As CDDL, of the predicted outcomes."""
    return _conditional(o, o.p)


def te(o: Outcomes) -> float:
    """``TE = FN_d / FP_d - FN_a / FP_a``."""
    return _ratio((o.d & o.y & ~o.p).sum(), (o.d & ~o.y & o.p).sum()) - _ratio(
        (o.a & o.y & ~o.p).sum(), (o.a & ~o.y & o.p).sum()
    )


def ft(o: Outcomes) -> float:
    """``FT = (F+ - F-) / n_d``, each row of *d* beside its nearest rows of *a*.

    ``F+`` counts the rows refused whose neighbours are mostly accepted, ``F-`` those accepted whose
    neighbours are mostly refused.
    """
    from sklearn.neighbors import NearestNeighbors

    if o.matrix is None or not o.d.any() or not o.a.any():
        raise NoValueError
    near = NearestNeighbors(n_neighbors=min(NEIGHBOURS, int(o.a.sum()))).fit(o.matrix[o.a])
    around = near.kneighbors(o.matrix[o.d], return_distance=False)
    accepted = o.p[o.a][around].mean(axis=1) > 0.5
    own = o.p[o.d]
    return _ratio(int((~own & accepted).sum()) - int((own & ~accepted).sum()), len(own))


def ge(o: Outcomes) -> float:
    """``GE = sum_i ((b_i / b)^2 - 1) / (2 n)`` with ``b_i = y'_i - y_i + 1`` and ``b`` their mean."""
    benefit = o.p.astype(np.float64) - o.y + 1
    return float(((benefit / _one_at_least(benefit.mean())) ** 2 - 1).mean() / 2)


def _one_at_least(mean: float) -> float:
    if mean == 0:
        raise NoValueError
    return float(mean)


_BEFORE: Final[dict[str, Callable[[Outcomes], float]]] = {
    "CI": ci, "DPL": dpl, "KL": kl, "JS": js, "LP": lp, "TVD": tvd, "KS": ks, "CDDL": cddl,
}  # fmt: skip
_AFTER: Final[dict[str, Callable[[Outcomes], float]]] = {
    "DPPL": dppl, "DI": di, "DCAcc": dcacc, "DCR": dcr, "SD": sd, "RD": rd, "DAR": dar, "DRR": drr,
    "AD": ad, "CDDPL": cddpl, "TE": te, "FT": ft, "GE": ge,
}  # fmt: skip

#: Metrics of the rows and of their labels, and metrics of what was answered.
OF_LABELS: Final = tuple(name for name in _BEFORE if name != "CI")
OF_ANSWERS: Final = tuple(_AFTER)
#: Metrics of predictions that need no label; CI counts rows, FT looks at neighbours.
WITHOUT_LABELS: Final = ("CI", "DPPL", "DI", "CDDPL", "FT")


def before(outcomes: Outcomes) -> dict[str, float | None]:
    """Every metric of the data; None where these rows do not define it."""
    return {name: _value(metric, outcomes) for name, metric in _BEFORE.items()}


def after(outcomes: Outcomes) -> dict[str, float | None]:
    """Every metric of the model; None where these rows do not define it."""
    return {name: _value(metric, outcomes) for name, metric in _AFTER.items()}


def value_of(name: str, outcomes: Outcomes) -> float | None:
    """One metric by its name; None where these rows do not define it."""
    return _value((_BEFORE | _AFTER)[name], outcomes)


def _value(metric: Callable[[Outcomes], float], outcomes: Outcomes) -> float | None:
    try:
        return metric(outcomes)
    except NoValueError:
        return None


def unfairness(name: str, value: float) -> float:
    """Distance from the fair value."""
    return abs(value - 1) if name == "DI" else abs(value)


# --- from a workload's block -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Facet:
    """One facet of some rows."""

    name: str
    #: The group that may be at a disadvantage, as Clarify's reports name it.
    group: str
    disadvantaged: Mask
    #: Rows whose facet is known; the others are left out.
    known: Mask


def facets_of(frame: pl.DataFrame, contract: CompiledContract) -> list[Facet]:
    """Who is who among the rows, for every facet of the ``evaluation`` block."""
    found = []
    for name, facet in (contract.evaluation.get("bias") or {}).get("facets", {}).items():
        column = frame[name]
        if facet["above"] is not None:
            which, group = column > facet["above"], f"({facet['above']:g}, +inf)"
        else:
            values = [_stored(value) for value in facet["disadvantaged"]]
            which = column.cast(pl.Float64 if isinstance(values[0], float) else pl.String).is_in(values)
            group = ", ".join(_text(value) for value in facet["disadvantaged"])
        known = column.is_not_null().to_numpy()
        found.append(Facet(name, group, which.fill_null(False).to_numpy(), known))
    return found


def favourable(contract: CompiledContract, labels: Values) -> Mask:
    """Whether each label, a class's position or a number, is good for whom it is about."""
    bias = contract.evaluation["bias"]
    values = contract.label.values
    if values is None:
        result: Mask = np.asarray(labels) > bias["favourable_above"]
        return result
    wanted = [values[-1]] if bias["favourable"] is None else [_text(value) for value in bias["favourable"]]
    return np.isin(labels, [values.index(value) for value in wanted])


def strata(frame: pl.DataFrame, contract: CompiledContract) -> Values | None:
    """The stratum of each row, for CDDL and CDDPL."""
    group = (contract.evaluation.get("bias") or {}).get("group")
    if group is None:
        return None
    texts: Values = frame[group].cast(pl.String).fill_null("").to_numpy()
    return texts


def _stored(value: str | bool | float) -> str | float:
    """A value as the features table has it: a boolean field is 0 or 1 there."""
    return float(value) if isinstance(value, bool) else str(value)


def _text(value: str | bool | float) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def of_rows(outcomes: Outcomes, rows: Values) -> Outcomes:
    """The same of some rows, by a mask or by their places."""

    def cut(values: Any) -> Any:
        return None if values is None else values[rows]

    return Outcomes(
        outcomes.disadvantaged[rows],
        outcomes.observed[rows],
        cut(outcomes.predicted),
        cut(outcomes.labels),
        cut(outcomes.groups),
        cut(outcomes.matrix),
    )


def before_training(
    frame: pl.DataFrame, labels: Values, contract: CompiledContract
) -> dict[str, dict[str, Any]]:
    """Metrics of the data by facet: ``{"group", "rows", "disadvantaged_rows", "metrics"}``."""
    return _by_facet(frame, labels, contract, before)


def after_training(
    frame: pl.DataFrame, labels: Values, decided: Values, matrix: npt.NDArray[Any], contract: CompiledContract
) -> dict[str, dict[str, Any]]:
    """Metrics of the model by facet; ``decided`` are positions of classes or numbers, as ``labels`` are."""
    return _by_facet(frame, labels, contract, after, decided=decided, matrix=comparable(matrix))


def _by_facet(
    frame: pl.DataFrame,
    labels: Values,
    contract: CompiledContract,
    metrics: Callable[[Outcomes], Mapping[str, float | None]],
    *,
    decided: Values | None = None,
    matrix: npt.NDArray[np.float64] | None = None,
) -> dict[str, dict[str, Any]]:
    report: dict[str, dict[str, Any]] = {}
    for facet in facets_of(frame, contract):
        everyone = Outcomes(
            facet.disadvantaged,
            favourable(contract, labels),
            None if decided is None else favourable(contract, decided),
            None if contract.label.values is None else np.asarray(labels),
            strata(frame, contract),
            matrix,
        )
        known = of_rows(everyone, facet.known)
        report[facet.name] = {
            "group": facet.group,
            "rows": int(facet.known.sum()),
            "disadvantaged_rows": int(known.disadvantaged.sum()),
            "metrics": dict(metrics(known)),
        }
    return report


def comparable(matrix: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Columns of one scale and without gaps, so that distances mean something."""
    numbers = np.where(np.isfinite(matrix), matrix, np.nan).astype(np.float64)
    known = np.isfinite(numbers)
    count = np.maximum(known.sum(axis=0), 1)
    middle = np.where(known, numbers, 0).sum(axis=0) / count
    spread = np.sqrt(np.where(known, (numbers - middle) ** 2, 0).sum(axis=0) / count)
    scaled = (numbers - middle) / np.where(spread > 0, spread, 1)
    return np.where(known, scaled, 0.0)


def clarify_report(
    label: str, earlier: Mapping[str, Mapping[str, Any]], later: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Both as Clarify's ``analysis.json`` has them, which Model Monitor takes as a bias baseline."""

    def part(report: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        return {
            "label": label,
            "facets": {
                name: [{"value_or_threshold": one["group"], "metrics": _named(one["metrics"])}]
                for name, one in report.items()
            },
        }

    return {
        "version": "1.0",
        "pre_training_bias_metrics": part(earlier),
        "post_training_bias_metrics": part(later),
    }


def _named(metrics: Mapping[str, float | None]) -> Sequence[dict[str, Any]]:
    return [
        {"name": name, "description": DESCRIPTIONS[name], "value": value} for name, value in metrics.items()
    ]
