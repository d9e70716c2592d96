"""Which hyperparameters the next trial gets: Optuna, asked in the terms of a tuning job's configuration.

Pure: no AWS, no threads. AWS's own search is another implementation of the same strategies: a Gaussian
process where ``Bayesian`` stands for TPE here, and other brackets of Hyperband.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna

__all__ = ["Known", "Search", "Trial", "combinations", "ranges_in"]

#: Trials drawn at random before TPE looks at what is known; Optuna's own ten are more than a rehearsal runs.
_STARTUP = 3
#: Trials that must have ended before the median rule may stop another.
_MEDIAN_AFTER = 2


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One proposal: hyperparameters as texts, as SageMaker hands them over."""

    number: int
    parameters: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Known:
    """A trial of a parent tuning job: what a warm start begins with."""

    parameters: Mapping[str, str]
    value: float


def ranges_in(ranges: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield kind (``Integer``, ``Continuous``, ``Categorical``), name and range of every parameter."""
    for kind in ("Integer", "Continuous", "Categorical"):
        for item in ranges.get(f"{kind}ParameterRanges", ()):
            yield kind, item["Name"], item


def combinations(ranges: Mapping[str, Any]) -> int:
    """Return how many points a grid of these ranges has."""
    return math.prod(len(item["Values"]) for _, _, item in ranges_in(ranges))


class Search:
    """The search of one tuning job.

    Args:
        config: ``HyperParameterTuningJobConfig``, checked.
        ranges: ``ParameterRanges``.
        maximize: whether more of the objective is better.
        hyperband: least and most resource (epochs, rounds); ``None`` without Hyperband.
        known: trials of parents.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        ranges: Mapping[str, Any],
        maximize: bool,
        hyperband: tuple[int, int] | None = None,
        known: Sequence[Known] = (),
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._ranges = {name: (kind, item) for kind, name, item in ranges_in(ranges)}
        self._space = {name: _distribution(kind, item) for name, (kind, item) in self._ranges.items()}
        self._study = optuna.create_study(
            direction="maximize" if maximize else "minimize",
            sampler=_sampler(config["Strategy"], int(config.get("RandomSeed", 0))),
            pruner=_pruner(config, hyperband),
        )
        self._open: dict[int, optuna.Trial] = {}
        #: Trials of parents that lie within the ranges.
        self.known = [one for one in known if self._within(one.parameters)]
        for one in self.known:
            values = {name: self._inward(name, text) for name, text in one.parameters.items()}
            self._study.add_trial(
                optuna.trial.create_trial(params=values, distributions=self._space, value=one.value)
            )
        if config["Strategy"] == "Grid":
            for point in itertools.product(*(item["Values"] for _, item in self._ranges.values())):
                self._study.enqueue_trial(dict(zip(self._ranges, point, strict=True)))

    def ask(self) -> Trial:
        """Propose a trial. A grid has ``combinations`` of them."""
        trial = self._study.ask(self._space)
        self._open[trial.number] = trial
        return Trial(
            number=trial.number,
            parameters={name: self._outward(name, value) for name, value in trial.params.items()},
        )

    def hopeless(self, number: int, values: Sequence[float]) -> bool:
        """Say whether a running trial should be stopped, from its objective after each round so far."""
        trial = self._open[number]
        seen = self._study.get_trials(deepcopy=False)[number].intermediate_values
        for step, value in enumerate(values, start=1):
            if step not in seen:
                trial.report(value, step)
        return bool(values) and bool(trial.should_prune())

    def tell(self, number: int, value: float | None) -> None:
        """Enter a trial's objective; ``None``: it has none."""
        import optuna

        trial = self._open.pop(number)
        if value is None:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(trial, value)

    def _within(self, parameters: Mapping[str, str]) -> bool:
        if parameters.keys() != self._ranges.keys():
            return False
        return all(_holds(*self._ranges[name], text) for name, text in parameters.items())

    def _inward(self, name: str, text: str) -> Any:
        kind, item = self._ranges[name]
        if kind == "Categorical":
            return text
        return int(float(text)) if kind == "Integer" else _mirrored(item, float(text))

    def _outward(self, name: str, value: Any) -> str:
        kind, item = self._ranges[name]
        if kind != "Continuous":
            return str(value)
        # What was mirrored may lie a rounding error outside.
        low, high = float(item["MinValue"]), float(item["MaxValue"])
        return str(min(max(_mirrored(item, value), low), high))


def _holds(kind: str, item: Mapping[str, Any], text: str) -> bool:
    if kind == "Categorical":
        return text in item["Values"]
    return float(item["MinValue"]) <= float(text) <= float(item["MaxValue"])


def _mirrored(item: Mapping[str, Any], value: float) -> float:
    """Reverse logarithmic scaling is a logarithmic one of what is left to 1."""
    return 1 - value if item.get("ScalingType") == "ReverseLogarithmic" else value


def _distribution(kind: str, item: Mapping[str, Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if kind == "Categorical":
        return CategoricalDistribution(item["Values"])
    # What SageMaker makes of Auto it does not say; here it is linear.
    scaling = item.get("ScalingType", "Auto")
    if kind == "Integer":
        return IntDistribution(int(item["MinValue"]), int(item["MaxValue"]), log=scaling == "Logarithmic")
    low, high = sorted(_mirrored(item, float(item[end])) for end in ("MinValue", "MaxValue"))
    return FloatDistribution(low, high, log=scaling in ("Logarithmic", "ReverseLogarithmic"))


def _sampler(strategy: str, seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    if strategy == "Bayesian":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # Side by side: a trial that has not ended counts as a bad one, and the next lies elsewhere.
            return optuna.samplers.TPESampler(seed=seed, n_startup_trials=_STARTUP, constant_liar=True)
    return optuna.samplers.RandomSampler(seed=seed)


def _pruner(config: Mapping[str, Any], hyperband: tuple[int, int] | None) -> optuna.pruners.BasePruner:
    import optuna

    if hyperband is not None:
        least, most = hyperband
        return optuna.pruners.HyperbandPruner(min_resource=least, max_resource=most)
    if config.get("TrainingJobEarlyStoppingType") == "Auto":
        # "Stop Training Jobs Early": worse than the median of the running averages up to the same epoch.
        return optuna.pruners.MedianPruner(n_startup_trials=_MEDIAN_AFTER)
    return optuna.pruners.NopPruner()
