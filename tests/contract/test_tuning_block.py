"""The tuning block: ranges, objective and limits, and what is refused with its line."""

from __future__ import annotations

import re
from pathlib import Path

import botocore.session
import pytest
from ml_contract.algorithms import xgboost
from ml_contract.checks.tuning import objective_of, tuned
from ml_contract.load import ContractError, LoadedWorkload, load_workload
from ml_contract.spec.tuning import Hyperband, Tuning

YAML = """
version: 1
name: parcel_delay
title: Parcels that arrive late
owner: logistics@example.com
record:
  identifier: parcel
  event_time: sent_at
  fields:
    parcel: {type: string, required: true, max_length: 40, sensitive: pii}
    sent_at: {type: timestamp, required: true}
    weight_kg: {type: number, minimum: 0, maximum: 70}
    late: {type: string, allowed: ["no", "yes"]}
label: {task: binary, field: late, values: ["no", "yes"]}
acceptance: {metric: auc, at_least: 0.6}
"""
DEPTH = "max_depth: {kind: integer, minimum: 2, maximum: 8}"
POLICY = "grow_policy: {kind: categorical, values: [depthwise, lossguide]}"


def load(folder: Path, tuning: str, training: str = "{}") -> LoadedWorkload:
    path = folder / "parcel_delay"
    path.mkdir()
    (path / "workload.yaml").write_text(f"{YAML}training: {training}\ntuning: {tuning}\n")
    return load_workload(path)


def test_should_load_what_the_docs_show(tmp_path: Path) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "workloads.md").read_text()
    blocks = [re.search(rf"```yaml {name}\n(.*?)```", text, re.DOTALL) for name in ("tuning", "alternatives")]
    path = tmp_path / "parcel_delay"
    path.mkdir()
    (path / "workload.yaml").write_text(YAML + "".join(found[1] for found in blocks if found is not None))
    workload = load_workload(path).workload
    assert workload.tuning is not None
    assert workload.tuning.jobs == 20
    assert workload.alternatives.foundation_model is not None


def test_should_complete_what_is_not_said(tmp_path: Path) -> None:
    workload = load(tmp_path, f"{{ranges: {{{DEPTH}}}}}").workload
    tuning = workload.tuning
    assert tuning is not None
    assert (tuning.strategy, tuning.jobs, tuning.max_parallel_jobs) == ("bayesian", 20, 2)
    assert (tuning.early_stopping, tuning.warm_start, tuning.seed) == (False, None, 7)
    objective = objective_of(workload)
    assert (objective.metric, objective.goal) == ("validation:logloss", "minimize")
    assert objective.regex == "validation-logloss:([-+0-9.eE]+)"


def test_should_maximise_a_metric_of_which_more_is_better(tmp_path: Path) -> None:
    found = load(tmp_path, f"{{ranges: {{{DEPTH}}}, objective: {{metric: 'validation:auc'}}}}")
    assert objective_of(found.workload).goal == "maximize"


def test_should_try_every_point_of_a_grid(tmp_path: Path) -> None:
    ranges = f"{{{POLICY}, max_bin: {{kind: categorical, values: [64, 128, 256]}}}}"
    tuning = load(tmp_path, f"{{strategy: grid, ranges: {ranges}}}").workload.tuning
    assert tuning is not None
    assert tuning.jobs == 6


def test_should_know_a_searched_hyperparameter_by_all_its_names(tmp_path: Path) -> None:
    found = load(tmp_path, "{ranges: {learning_rate: {kind: continuous, minimum: 0.01, maximum: 0.5}}}")
    assert {"eta", "learning_rate"} <= tuned(found.workload)
    assert set(xgboost.ALIASES) >= {"learning_rate"}


@pytest.mark.parametrize(
    ("tuning", "message"),
    [
        (f"{{strategy: grid, ranges: {{{DEPTH}}}}}", "a grid takes categorical ranges only"),
        (f"{{strategy: grid, max_jobs: 5, ranges: {{{POLICY}}}}}", "the grid has 2 points"),
        (f"{{max_jobs: 751, ranges: {{{DEPTH}}}}}", "bayesian takes at most 750"),
        (f"{{max_jobs: 2, max_parallel_jobs: 3, ranges: {{{DEPTH}}}}}", "more than the 2 trials"),
        ("{ranges: {}}", "tuning.ranges"),
        ("{ranges: {max_dept: {kind: integer, minimum: 2, maximum: 8}}}", "did you mean max_depth?"),
        ("{ranges: {max_depth: {kind: integer, minimum: 8, maximum: 2}}}", "minimum must be below maximum"),
        ("{ranges: {max_depth: {kind: integer, minimum: 2, maximum: 99}}}", "max_depth must be an integer"),
        ("{ranges: {max_depth: {kind: continuous, minimum: 2, maximum: 8}}}", "takes whole numbers"),
        ("{ranges: {eta: {kind: continuous, minimum: 0, maximum: 0.5, scaling: logarithmic}}}", "above 0"),
        (
            "{ranges: {alpha: {kind: continuous, minimum: 0, maximum: 1, scaling: reverse_logarithmic}}}",
            "0 <= minimum < maximum < 1",
        ),
        ("{ranges: {grow_policy: {kind: categorical, values: [depthwise, best]}}}", "must be one of"),
        ("{ranges: {grow_policy: {kind: integer, minimum: 1, maximum: 2}}}", "is one of depthwise"),
        (
            "{ranges: {eta: {kind: continuous, minimum: 0.1, maximum: 0.5}, "
            "learning_rate: {kind: continuous, minimum: 0.1, maximum: 0.5}}}",
            "is the same hyperparameter as eta",
        ),
        (f"{{objective: {{metric: accuracy}}, ranges: {{{DEPTH}}}}}", "xgboost logs validation:auc"),
        (
            f"{{objective: {{metric: 'validation:auc', goal: minimize}}, ranges: {{{DEPTH}}}}}",
            "validation:auc is to maximize",
        ),
        (
            f"{{objective: {{metric: 'validation:auc', regex: 'a(b)'}}, ranges: {{{DEPTH}}}}}",
            "xgboost's log is known",
        ),
        (f"{{hyperband: {{min_rounds: 3}}, ranges: {{{DEPTH}}}}}", "goes with strategy: hyperband"),
        (
            f"{{strategy: hyperband, early_stopping: true, ranges: {{{DEPTH}}}}}",
            "Hyperband stops trials by a rule of its own",
        ),
        (
            f"{{strategy: hyperband, hyperband: {{min_rounds: 300}}, ranges: {{{DEPTH}}}}}",
            "more than the 200 rounds",
        ),
        (f"{{warm_start: {{parent: 'a b'}}, ranges: {{{DEPTH}}}}}", "tuning.warm_start.parent"),
    ],
)
def test_should_refuse_what_does_not_fit(tmp_path: Path, tuning: str, message: str) -> None:
    with pytest.raises(ContractError) as refused:
        load(tmp_path, tuning)
    assert message in str(refused.value)
    assert "workload.yaml:" in str(refused.value)


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ("{hyperparameters: {max_depth: 4}}", "is set in training.hyperparameters too"),
        ("{warm_pool_minutes: 10}", "a tuning job keeps no pool"),
    ],
)
def test_should_refuse_what_training_says_otherwise(tmp_path: Path, training: str, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        load(tmp_path, f"{{ranges: {{{DEPTH}}}}}", training)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("", "algorithm: image needs an objective with metric and goal"),
        ("objective: {metric: loss, goal: minimize},", "needs regex"),
        ("objective: {metric: loss, goal: minimize, regex: 'loss=.*'},", "needs one group"),
        ("objective: {metric: loss, goal: minimize, regex: 'loss=(.*'},", "is no regular expression"),
    ],
)
def test_should_ask_an_own_image_for_its_metric(tmp_path: Path, objective: str, message: str) -> None:
    image = "{algorithm: image, image: {uri: '123456789012.dkr.ecr.us-east-1.amazonaws.com/own:1'}}"
    with pytest.raises(ContractError, match=message):
        load(
            tmp_path,
            f"{{{objective} ranges: {{anything: {{kind: integer, minimum: 1, maximum: 2}}}}}}",
            image,
        )


def test_should_hold_to_the_limits_of_the_api() -> None:
    model = botocore.session.get_session().get_service_model("sagemaker")
    shapes = {name: model.shape_for(name).metadata for name in model.shape_names}
    runtime = shapes["HyperParameterTuningMaxRuntimeInSeconds"]
    limits = Tuning.model_fields["max_runtime_minutes"].metadata
    least, most = (next(getattr(m, k) for m in limits if hasattr(m, k)) for k in ("ge", "le"))
    assert runtime["min"] <= least * 60
    assert most * 60 <= runtime["max"]
    assert shapes["CategoricalParameterRanges"]["max"] == 30
    assert shapes["ParameterValues"]["max"] == 30
    patience = next(m.ge for m in Tuning.model_fields["patience_jobs"].metadata if hasattr(m, "ge"))
    assert patience == shapes["MaxNumberOfTrainingJobsNotImproving"]["min"]
    assert Hyperband().min_rounds == shapes["HyperbandStrategyMinResource"]["min"]
