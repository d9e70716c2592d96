"""Which trials a search proposes, and what it does with their results."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rehearsal.executors.tuning.request import problems
from rehearsal.executors.tuning.search import Known, Search, combinations

DEPTH = {"Name": "max_depth", "MinValue": "2", "MaxValue": "9", "ScalingType": "Linear"}
ETA = {"Name": "eta", "MinValue": "0.001", "MaxValue": "1", "ScalingType": "Logarithmic"}
POLICY = {"Name": "grow_policy", "Values": ["depthwise", "lossguide"]}
RANGES = {
    "IntegerParameterRanges": [DEPTH],
    "ContinuousParameterRanges": [ETA],
    "CategoricalParameterRanges": [POLICY],
}


def search(strategy: str = "Random", ranges: dict[str, Any] | None = None, **more: Any) -> Search:
    """A search that minimises."""
    config = {"Strategy": strategy, "RandomSeed": 3, **more.pop("config", {})}
    return Search(config, ranges=RANGES if ranges is None else ranges, maximize=False, **more)


def drawn(found: Search, count: int, value: float = 1.0) -> list[dict[str, str]]:
    """Ask for trials one after the other, each with the same result."""
    trials = []
    for _ in range(count):
        trial = found.ask()
        found.tell(trial.number, value)
        trials.append(dict(trial.parameters))
    return trials


@pytest.mark.parametrize("strategy", ["Random", "Bayesian"])
def test_should_draw_within_the_ranges(strategy: str) -> None:
    for parameters in drawn(search(strategy), 30):
        assert 2 <= int(parameters["max_depth"]) <= 9
        assert 0.001 <= float(parameters["eta"]) <= 1
        assert parameters["grow_policy"] in POLICY["Values"]


def test_should_draw_the_same_trials_for_the_same_seed() -> None:
    assert drawn(search(), 5) == drawn(search(), 5)
    assert drawn(search(), 5) != drawn(search(config={"RandomSeed": 4}), 5)


def test_should_draw_evenly_over_the_magnitudes_of_a_logarithmic_range() -> None:
    small = [p for p in drawn(search(), 200) if float(p["eta"]) < math.sqrt(0.001)]
    assert 70 <= len(small) <= 130


def test_should_draw_a_reverse_logarithmic_range_close_to_one() -> None:
    ranges = {
        "ContinuousParameterRanges": [
            {"Name": "momentum", "MinValue": "0", "MaxValue": "0.999", "ScalingType": "ReverseLogarithmic"}
        ]
    }
    values = [float(p["momentum"]) for p in drawn(search(ranges=ranges), 200)]
    assert all(0 <= value <= 0.999 for value in values)
    assert 70 <= sum(value > 1 - math.sqrt(0.001) for value in values) <= 130


def test_should_try_every_point_of_a_grid_once() -> None:
    ranges = {
        "CategoricalParameterRanges": [POLICY, {"Name": "max_depth", "Values": ["3", "5", "7"]}],
    }
    assert combinations(ranges) == 6
    trials = drawn(search("Grid", ranges), 6)
    assert len({tuple(sorted(trial.items())) for trial in trials}) == 6


def test_should_find_what_a_bayesian_search_is_led_to() -> None:
    """Among as many trials, TPE comes closer to the minimum of a simple bowl than chance, mostly."""

    def best(strategy: str, seed: int) -> float:
        ranges = {
            "ContinuousParameterRanges": [
                {"Name": name, "MinValue": "0", "MaxValue": "1"} for name in ("x", "y")
            ]
        }
        found = search(strategy, ranges, config={"RandomSeed": seed})
        values = []
        for _ in range(30):
            trial = found.ask()
            x, y = float(trial.parameters["x"]), float(trial.parameters["y"])
            values.append((x - 0.3) ** 2 + (y - 0.7) ** 2)
            found.tell(trial.number, values[-1])
        return min(values)

    assert sum(best("Bayesian", seed) < best("Random", seed) for seed in range(10)) >= 7


def test_should_begin_a_warm_start_with_the_parents_trials_that_lie_in_the_ranges() -> None:
    inside = Known(parameters={"max_depth": "4", "eta": "0.1", "grow_policy": "depthwise"}, value=0.2)
    deep = Known(parameters={"max_depth": "40", "eta": "0.1", "grow_policy": "depthwise"}, value=0.1)
    other = Known(parameters={"max_depth": "4"}, value=0.1)
    assert search("Bayesian", known=[inside, deep, other]).known == [inside]


def test_should_stop_a_trial_that_is_worse_than_the_median() -> None:
    found = search(config={"TrainingJobEarlyStoppingType": "Auto"})
    for level in (0.3, 0.2, 0.1):
        trial = found.ask()
        assert not found.hopeless(trial.number, [level] * 4)
        found.tell(trial.number, level)
    bad, good = found.ask(), found.ask()
    assert found.hopeless(bad.number, [0.9, 0.9])
    assert not found.hopeless(good.number, [0.05, 0.05])


def test_should_let_hyperband_stop_a_bad_trial_at_a_rung_and_not_before_its_least_resource() -> None:
    found = search("Hyperband", hyperband=(3, 27))
    stopped = {}
    for number in range(12):
        trial = found.ask()
        level = number / 10
        stopped[number] = next((n for n in range(1, 28) if found.hopeless(trial.number, [level] * n)), None)
        found.tell(trial.number, level)
    rounds = [n for n in stopped.values() if n is not None]
    assert rounds
    assert min(rounds) >= 3
    assert stopped[0] is None


def test_should_not_learn_from_a_trial_without_a_result() -> None:
    found = search("Bayesian")
    trial = found.ask()
    found.tell(trial.number, None)
    assert found.ask().number == trial.number + 1


def request(**changes: Any) -> dict[str, Any]:
    """A sound request with some members of its configuration replaced."""
    config = {
        "Strategy": "Bayesian",
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "validation:loss"},
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 4, "MaxParallelTrainingJobs": 2},
        "ParameterRanges": RANGES,
    }
    return {
        "HyperParameterTuningJobConfig": config | changes,
        "TrainingJobDefinition": {
            "AlgorithmSpecification": {
                "TrainingImage": "x",
                "MetricDefinitions": [{"Name": "validation:loss", "Regex": "l:(.*)"}],
            },
            "StaticHyperParameters": {"rounds": "10"},
        },
    }


def test_should_take_a_sound_request() -> None:
    assert problems(request()) == []


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"Strategy": "Grid"}, "categorical parameter ranges only"),
        (
            {
                "Strategy": "Grid",
                "ParameterRanges": {"CategoricalParameterRanges": [POLICY]},
            },
            "number of the grid's points, 2, got 4",
        ),
        ({"StrategyConfig": {"HyperbandStrategyConfig": {}}}, "goes with the strategy Hyperband"),
        ({"Strategy": "Hyperband"}, "MaxResource is required"),
        (
            {
                "Strategy": "Hyperband",
                "StrategyConfig": {"HyperbandStrategyConfig": {"MinResource": 9, "MaxResource": 3}},
            },
            "MinResource must not be above",
        ),
        (
            {
                "Strategy": "Hyperband",
                "TrainingJobEarlyStoppingType": "Auto",
                "StrategyConfig": {"HyperbandStrategyConfig": {"MaxResource": 3}},
            },
            "must be Off",
        ),
        ({"HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "x"}}, "none of the alg"),
        ({"ParameterRanges": {}}, "At least one"),
        (
            {"ParameterRanges": {"IntegerParameterRanges": [{**DEPTH, "Name": "rounds"}]}},
            "both static and has a range",
        ),
        (
            {"ParameterRanges": {"IntegerParameterRanges": [{**DEPTH, "MinValue": "0.5"}]}},
            "must be integers",
        ),
        (
            {"ParameterRanges": {"ContinuousParameterRanges": [{**ETA, "MinValue": "0"}]}},
            "needs values above 0",
        ),
        (
            {"ParameterRanges": {"IntegerParameterRanges": [{**DEPTH, "MinValue": "9"}]}},
            "MinValue below MaxValue",
        ),
        ({"ResourceLimits": {"MaxParallelTrainingJobs": 1}}, "MaxNumberOfTrainingJobs is required"),
        (
            {"ResourceLimits": {"MaxNumberOfTrainingJobs": 751, "MaxParallelTrainingJobs": 1}},
            "at most 750",
        ),
    ],
)
def test_should_refuse_what_sagemaker_refuses(changes: dict[str, Any], word: str) -> None:
    assert any(word in line for line in problems(request(**changes)))
