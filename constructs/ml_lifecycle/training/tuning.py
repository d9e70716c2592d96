"""A workload's search in the terms of SageMaker: ``HyperParameterTuningJobConfig`` and what goes with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_contract.checks.training import OUR_IMAGES
from ml_contract.checks.tuning import objective_of, tuned
from ml_contract.spec.tuning import CategoricalRange, Tuning
from ml_contract.spec.workload import Workload

__all__ = ["tuning_values"]

_STRATEGIES = {"grid": "Grid", "random": "Random", "bayesian": "Bayesian", "hyperband": "Hyperband"}
_SCALINGS = {
    "auto": "Auto",
    "linear": "Linear",
    "logarithmic": "Logarithmic",
    "reverse_logarithmic": "ReverseLogarithmic",
}
_WARM_STARTS = {
    "identical_data_and_algorithm": "IdenticalDataAndAlgorithm",
    "transfer_learning": "TransferLearning",
}


def tuning_values(spec: Workload, hyperparameters: Mapping[str, str]) -> dict[str, Any]:
    """Return what the program's Tune step is given, by the names of ``definition.STAND_INS``.

    Without tuning every value is None, but for the hyperparameters, which then all stay as they are.
    """
    tuning = spec.tuning
    if tuning is None:
        nothing = ("tuning_config", "tuning_metrics", "parent_tuning_job", "warm_start_type")
        return {**dict.fromkeys(nothing), "hyperparameters": dict(hyperparameters)}
    searched, warm = tuned(spec), tuning.warm_start
    objective = objective_of(spec)
    metrics: list[dict[str, str]] | None = None
    if objective.regex is not None:
        metrics = [{"Name": objective.metric, "Regex": objective.regex}]
        if spec.training.algorithm in OUR_IMAGES:
            regex = objective.regex.replace("validation-", "train-", 1)
            metrics.append({"Name": objective.metric.replace("validation:", "train:", 1), "Regex": regex})
    return {
        "hyperparameters": {name: value for name, value in hyperparameters.items() if name not in searched},
        "tuning_config": _config(spec, tuning),
        "tuning_metrics": metrics,
        "parent_tuning_job": None if warm is None else warm.parent,
        "warm_start_type": None if warm is None else _WARM_STARTS[warm.kind],
    }


def _config(spec: Workload, tuning: Tuning) -> dict[str, Any]:
    objective = objective_of(spec)
    limits: dict[str, int] = {
        "MaxNumberOfTrainingJobs": tuning.jobs,
        "MaxParallelTrainingJobs": tuning.max_parallel_jobs,
    }
    if tuning.max_runtime_minutes is not None:
        limits["MaxRuntimeInSeconds"] = tuning.max_runtime_minutes * 60
    config: dict[str, Any] = {
        "Strategy": _STRATEGIES[tuning.strategy],
        "HyperParameterTuningJobObjective": {
            "MetricName": objective.metric,
            "Type": "Maximize" if objective.goal == "maximize" else "Minimize",
        },
        "ResourceLimits": limits,
        "ParameterRanges": _ranges(tuning),
        "TrainingJobEarlyStoppingType": "Auto" if tuning.early_stopping else "Off",
        "RandomSeed": tuning.seed,
    }
    if tuning.strategy == "hyperband":
        given = tuning.hyperband
        config["StrategyConfig"] = {
            "HyperbandStrategyConfig": {
                "MinResource": 1 if given is None else given.min_rounds,
                "MaxResource": spec.training.rounds
                if given is None or given.max_rounds is None
                else given.max_rounds,
            }
        }
    criteria: dict[str, Any] = {}
    if tuning.target is not None:
        criteria["TargetObjectiveMetricValue"] = tuning.target
    if tuning.patience_jobs is not None:
        criteria["BestObjectiveNotImproving"] = {"MaxNumberOfTrainingJobsNotImproving": tuning.patience_jobs}
    return config | ({"TuningJobCompletionCriteria": criteria} if criteria else {})


def _ranges(tuning: Tuning) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for name, one in tuning.ranges.items():
        kind = f"{one.kind.title()}ParameterRanges"
        if isinstance(one, CategoricalRange):
            entry: dict[str, Any] = {"Name": name, "Values": [str(value) for value in one.values]}
        else:
            entry = {
                "Name": name,
                "MinValue": str(one.minimum),
                "MaxValue": str(one.maximum),
                "ScalingType": _SCALINGS[one.scaling],
            }
        found.setdefault(kind, []).append(entry)
    return found
