"""What must hold between the tuning block and the training that it repeats."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any, Final

from ml_contract.algorithms import xgboost
from ml_contract.algorithms.values import Choice, Number
from ml_contract.checks.training import OUR_IMAGES
from ml_contract.problems import Location, suggest
from ml_contract.spec.tuning import MAX_JOBS, CategoricalRange, Objective, Tuning

if TYPE_CHECKING:
    from ml_contract.checks.workload import Checks
    from ml_contract.spec.workload import Workload

__all__ = ["check_tuning", "metrics_of", "objective_of", "tuned"]

#: Metrics of our images of which more is better; the others are losses.
_MORE_IS_BETTER: Final = frozenset({"auc", "accuracy", "aucpr", "r2"})


def _tables(algorithm: str) -> Any:
    """The module that says what an image of ours takes."""
    return (
        xgboost if algorithm == "xgboost" else importlib.import_module(f"ml_contract.algorithms.{algorithm}")
    )


def metrics_of(workload: Workload) -> tuple[str, ...]:
    """Metrics that an image of ours logs for the workload's task; the loss is last."""
    return tuple(_tables(workload.training.algorithm).METRICS[workload.label.task])


def objective_of(workload: Workload) -> Objective:
    """The objective, complete. Only for a workload that was checked."""
    assert workload.tuning is not None
    given = workload.tuning.objective
    if workload.training.algorithm not in OUR_IMAGES:
        assert given is not None
        return given
    metric = f"validation:{metrics_of(workload)[-1]}" if given is None else given.metric
    name = metric.removeprefix("validation:")
    return Objective(
        metric=metric,
        goal="maximize" if name in _MORE_IS_BETTER else "minimize",
        regex=f"validation-{name}:([-+0-9.eE]+)",
    )


def tuned(workload: Workload) -> frozenset[str]:
    """Hyperparameters that trials are given, under every name they have."""
    if workload.tuning is None:
        return frozenset()
    names = set(workload.tuning.ranges)
    if workload.training.algorithm in OUR_IMAGES:
        aliases = _tables(workload.training.algorithm).ALIASES
        names |= {aliases[name] for name in names if name in aliases}
        names |= {alias for alias, name in aliases.items() if name in names}
    return frozenset(names)


def check_tuning(checks: Checks) -> None:
    """Ranges, objective and limits of a search."""
    tuning = checks.workload.tuning
    if tuning is None:
        return
    _check_strategy(checks, tuning)
    _check_jobs(checks, tuning)
    _check_objective(checks, tuning)
    _check_names(checks, tuning)
    training = checks.workload.training
    if training.warm_pool_minutes is not None:
        checks.wrong(
            ("training", "warm_pool_minutes"),
            "a tuning job keeps no pool of its own; remove it or remove tuning",
        )
    if training.algorithm == "script":
        checks.wrong(
            ("tuning",),
            "does not go with algorithm: script, whose start is told to the container; a tuning job cannot "
            "(HyperParameterAlgorithmSpecification). Use algorithm: image",
        )


def _check_strategy(checks: Checks, tuning: Tuning) -> None:
    if tuning.strategy == "grid":
        for name, one in tuning.ranges.items():
            if not isinstance(one, CategoricalRange):
                # CategoricalParameterRange is all that grid search takes (HyperParameterTuningJobConfig,
                # Strategy).
                checks.wrong(
                    ("tuning", "ranges", name, "kind"),
                    f"got {one.kind!r}; a grid takes categorical ranges only: list the values",
                )
    if tuning.strategy == "hyperband":
        if tuning.early_stopping:
            checks.wrong(
                ("tuning", "early_stopping"),
                "Hyperband stops trials by a rule of its own; remove early_stopping",
            )
        most = checks.workload.training.rounds
        if tuning.hyperband is not None and tuning.hyperband.max_rounds is not None:
            most = tuning.hyperband.max_rounds
        elif most > 20_000:
            checks.wrong(
                ("tuning", "strategy"), f"Hyperband takes 20000 rounds at most, got training.rounds {most}"
            )
        if tuning.hyperband is not None and tuning.hyperband.min_rounds > most:
            checks.wrong(
                ("tuning", "hyperband", "min_rounds"),
                f"got {tuning.hyperband.min_rounds}, more than the {most} rounds there are at most",
            )
    elif tuning.hyperband is not None:
        checks.wrong(("tuning", "hyperband"), f"goes with strategy: hyperband, got {tuning.strategy}")


def _check_jobs(checks: Checks, tuning: Tuning) -> None:
    most = MAX_JOBS[tuning.strategy]
    if tuning.jobs > most:
        checks.wrong(
            ("tuning", "ranges" if tuning.max_jobs is None else "max_jobs"),
            f"got {tuning.jobs} trials; {tuning.strategy} takes at most {most}",
        )
    elif tuning.strategy == "grid" and tuning.jobs != tuning.points:
        checks.wrong(
            ("tuning", "max_jobs"),
            f"got {tuning.jobs}; the grid has {tuning.points} points and all are tried: leave it out",
        )
    elif tuning.max_parallel_jobs > tuning.jobs:
        checks.wrong(
            ("tuning", "max_parallel_jobs"),
            f"got {tuning.max_parallel_jobs}, more than the {tuning.jobs} trials there are",
        )


def _check_objective(checks: Checks, tuning: Tuning) -> None:
    workload, given = checks.workload, tuning.objective
    algorithm = workload.training.algorithm
    path: Location = ("tuning", "objective")
    if algorithm in OUR_IMAGES:
        known = [f"validation:{name}" for name in metrics_of(workload)]
        if given is None:
            return
        if given.metric not in known:
            checks.wrong((*path, "metric"), f"got {given.metric!r}; {algorithm} logs {', '.join(known)}")
            return
        goal = objective_of(workload).goal
        if given.goal not in (None, goal):
            checks.wrong((*path, "goal"), f"got {given.goal!r}; {given.metric} is to {goal}")
        if given.regex is not None:
            checks.wrong((*path, "regex"), f"{algorithm}'s log is known; remove regex")
        return
    if given is None or given.goal is None:
        checks.wrong(path, f"algorithm: {algorithm} needs an objective with metric and goal")
        return
    # HyperParameterAlgorithmSpecification, MetricDefinitions: for images that are not SageMaker's own.
    if algorithm == "built_in" and given.regex is not None:
        checks.wrong((*path, "regex"), "SageMaker knows the metrics of its algorithms; remove regex")
    if algorithm != "built_in":
        _check_regex(checks, (*path, "regex"), given.regex)


def _check_regex(checks: Checks, path: Location, regex: str | None) -> None:
    if regex is None:
        checks.wrong(path[:-1], "needs regex, which finds the metric in the log")
        return
    try:
        groups = re.compile(regex).groups
    except re.error as error:
        checks.wrong(path, f"got {regex!r}, which is no regular expression: {error}")
        return
    if groups != 1:
        checks.wrong(path, f"got {regex!r}; it needs one group, around the number")


def _check_names(checks: Checks, tuning: Tuning) -> None:
    training = checks.workload.training
    static = set(training.hyperparameters)
    for name in tuning.ranges:
        if name in static:
            checks.wrong(
                ("tuning", "ranges", name),
                "is set in training.hyperparameters too; a searched hyperparameter has no other value",
            )
    if training.algorithm not in OUR_IMAGES:
        return
    tables = _tables(training.algorithm)
    allowed: dict[str, Number | Choice] = {
        **tables.PARAMETERS,
        "rounds": xgboost.ROUNDS,
        "early_stopping_rounds": xgboost.EARLY_STOPPING,
    }
    seen: dict[str, str] = {tables.ALIASES.get(name, name): name for name in static - set(tuning.ranges)}
    for name, one in tuning.ranges.items():
        path: Location = ("tuning", "ranges", name)
        first = tables.ALIASES.get(name, name)
        if first in seen:
            checks.wrong(path, f"is the same hyperparameter as {seen[first]}; keep one")
        seen[first] = name
        if first not in allowed:
            hint = suggest(name, [*allowed, *tables.ALIASES])
            checks.wrong(path, f"is no hyperparameter of {training.algorithm}{hint}")
            continue
        values = (
            {f"values.{i}": value for i, value in enumerate(one.values)}
            if isinstance(one, CategoricalRange)
            else {"minimum": one.minimum, "maximum": one.maximum}
        )
        for key, value in values.items():
            place: Location = (
                *path,
                *((part if not part.isdigit() else int(part)) for part in key.split(".")),
            )
            try:
                allowed[first].read(str(value))
            except ValueError as error:
                checks.wrong(place, f"got {value}; {name} {error}")
        number = allowed[first]
        if isinstance(number, Choice) and not isinstance(one, CategoricalRange):
            checks.wrong((*path, "kind"), f"got {one.kind!r}; {name} is one of {', '.join(number.values)}")
        elif isinstance(number, Number) and number.whole and one.kind == "continuous":
            checks.wrong((*path, "kind"), f"got 'continuous'; {name} takes whole numbers: kind: integer")
