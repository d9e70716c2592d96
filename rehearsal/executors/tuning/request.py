"""What SageMaker refuses in a request for a tuning job, beyond what its service model says."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from rehearsal.executors.tuning.search import combinations, ranges_in

__all__ = ["hyperband_resource", "objective", "problems"]

#: Amazon SageMaker Developer Guide, "Resource Limits for Automatic Model Tuning".
_MAX_JOBS = {"Bayesian": 750, "Random": 10_000, "Hyperband": 750, "Grid": 750}
_MAX_PARALLEL = 100
_MAX_SEARCHED = 30
#: HyperbandStrategyConfig, MaxResource: taken from one of these when it is not given.
_EPOCHS = ("epochs", "numepochs", "n-epochs", "n_epochs", "num_epochs")


def objective(params: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the objective, wherever it stands."""
    found: Mapping[str, str] | None = params["HyperParameterTuningJobConfig"].get(
        "HyperParameterTuningJobObjective"
    )
    own: Mapping[str, str] = params.get("TrainingJobDefinition", {}).get("TuningObjective", {})
    return own if found is None else found


def hyperband_resource(params: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return least and most resource; None without Hyperband, or when nothing says the most."""
    config = params["HyperParameterTuningJobConfig"]
    if config["Strategy"] != "Hyperband":
        return None
    given = config.get("StrategyConfig", {}).get("HyperbandStrategyConfig", {})
    static = params["TrainingJobDefinition"].get("StaticHyperParameters", {})
    most = given.get("MaxResource", next((static[name] for name in _EPOCHS if name in static), None))
    return None if most is None else (int(given.get("MinResource", 1)), int(most))


def problems(params: Mapping[str, Any]) -> list[str]:
    """Return what is wrong, a line each."""
    if "TrainingJobDefinition" not in params:
        return ["TrainingJobDefinition is required"]
    config, definition = params["HyperParameterTuningJobConfig"], params["TrainingJobDefinition"]
    return [
        *_objective(params, definition),
        *_ranges(config.get("ParameterRanges", {}), definition.get("StaticHyperParameters", {})),
        *_limits(config),
        *_strategy(params, config),
    ]


def _objective(params: Mapping[str, Any], definition: Mapping[str, Any]) -> Iterator[str]:
    wanted = objective(params)
    algorithm = definition["AlgorithmSpecification"]
    if not wanted:
        yield "HyperParameterTuningJobObjective is required"
    elif "TrainingImage" in algorithm:
        known = [item["Name"] for item in algorithm.get("MetricDefinitions", ())]
        if wanted["MetricName"] not in known:
            yield (
                f"The objective metric {wanted['MetricName']} is none of the algorithm's metric definitions: "
                f"{', '.join(known) or 'there are none'}"
            )


def _ranges(ranges: Mapping[str, Any], static: Mapping[str, str]) -> Iterator[str]:
    found = list(ranges_in(ranges))
    names = [name for _, name, _ in found]
    if not found:
        yield "At least one hyperparameter range is required"
    if len(found) > _MAX_SEARCHED:
        yield f"At most {_MAX_SEARCHED} hyperparameters can be searched, got {len(found)}"
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"The hyperparameter {name} has two ranges"
    for name in sorted(set(names) & static.keys()):
        yield f"The hyperparameter {name} is both static and has a range"
    for kind, name, item in found:
        yield from _range(kind, name, item)


def _range(kind: str, name: str, item: Mapping[str, Any]) -> Iterator[str]:
    if kind == "Categorical":
        if len(set(item["Values"])) != len(item["Values"]):
            yield f"The values of {name} must be unique, got {', '.join(item['Values'])}"
        return
    texts = (item["MinValue"], item["MaxValue"])
    whole = kind == "Integer"
    if not all(_is_number(text, whole=whole) for text in texts):
        yield f"The range of {name} must be {'integers' if whole else 'numbers'}, got {' to '.join(texts)}"
        return
    low, high = map(float, texts)
    if low >= high:
        yield f"The range of {name} must have MinValue below MaxValue, got {' to '.join(texts)}"
    scaling = item.get("ScalingType", "Auto")
    if scaling == "Logarithmic" and low <= 0:
        yield f"Logarithmic scaling of {name} needs values above 0, got {texts[0]}"
    if scaling == "ReverseLogarithmic" and (whole or low < 0 or high >= 1):
        yield f"Reverse logarithmic scaling of {name} needs continuous values from 0 to below 1"


def _is_number(text: str, *, whole: bool) -> bool:
    if whole:
        return re.fullmatch(r"[-+]?\d+", text.strip()) is not None
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _limits(config: Mapping[str, Any]) -> Iterator[str]:
    strategy, limits = config["Strategy"], config["ResourceLimits"]
    jobs = limits.get("MaxNumberOfTrainingJobs")
    if limits["MaxParallelTrainingJobs"] > _MAX_PARALLEL:
        yield f"MaxParallelTrainingJobs must be at most {_MAX_PARALLEL}"
    if jobs is None and strategy != "Grid":
        yield f"MaxNumberOfTrainingJobs is required for the strategy {strategy}"
    if jobs is not None and jobs > _MAX_JOBS[strategy]:
        yield f"MaxNumberOfTrainingJobs must be at most {_MAX_JOBS[strategy]} for the strategy {strategy}"


def _strategy(params: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    strategy, ranges = config["Strategy"], config.get("ParameterRanges", {})
    if strategy == "Grid":
        if any(kind != "Categorical" for kind, _, _ in ranges_in(ranges)):
            yield "The strategy Grid takes categorical parameter ranges only"
            return
        points, jobs = combinations(ranges), config["ResourceLimits"].get("MaxNumberOfTrainingJobs")
        if points > _MAX_JOBS["Grid"]:
            yield f"A grid may have {_MAX_JOBS['Grid']} points, this one has {points}"
        if jobs is not None and jobs != points:
            yield f"MaxNumberOfTrainingJobs must be the number of the grid's points, {points}, got {jobs}"
    if strategy != "Hyperband":
        if "StrategyConfig" in config:
            yield f"StrategyConfig goes with the strategy Hyperband, not with {strategy}"
        return
    if config.get("TrainingJobEarlyStoppingType", "Off") != "Off":
        yield "TrainingJobEarlyStoppingType must be Off with the strategy Hyperband"
    resource = hyperband_resource(params)
    if resource is None:
        yield f"MaxResource is required, or a static hyperparameter among {', '.join(_EPOCHS)}"
    elif resource[0] > resource[1]:
        yield f"MinResource must not be above MaxResource, got {resource[0]} and {resource[1]}"
