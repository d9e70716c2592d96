"""The training block: what goes together, and what is said about the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
from ml_contract.load import ContractError, LoadedWorkload, load_workload

RECORD = """
version: 1
name: parcel_delay
title: Parcels that arrive late
owner: logistics@example.com
record:
  identifier: parcel
  event_time: sent_at
  fields:
    parcel: {type: string, required: true}
    sent_at: {type: timestamp, required: true}
    weight_kg: {type: number}
    late: {type: string, allowed: ["no", "yes"]}
label: {task: binary, field: late, values: ["no", "yes"]}
acceptance: {metric: auc, at_least: 0.6}
"""
BUILT_IN = 'algorithm: built_in, built_in: {name: xgboost, version: "3.2-0"}'
SCRIPT = 'algorithm: script, script: {framework: pytorch, version: "2.10"}'
URI = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/trainer:1"


def load(folder: Path, block: str, *files: str) -> LoadedWorkload:
    home = folder / "parcel_delay"
    home.mkdir()
    for name in files:
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text("")
    (home / "workload.yaml").write_text(f"{RECORD}training: {{{block}}}\n")
    return load_workload(home)


@pytest.mark.parametrize(
    ("block", "file"),
    [
        ("algorithm: pytorch", None),
        (BUILT_IN, None),
        (SCRIPT, "training/train.py"),
        ("algorithm: image, image: {folder: trainer}", "trainer/Dockerfile"),
        (f"algorithm: image, image: {{uri: '{URI}'}}, instance_count: 4", None),
        ("algorithm: pytorch, instance_count: 2, distribution: {kind: fully_sharded}", None),
        (f"{SCRIPT}, instance_count: 2, distribution: {{kind: data_parallel}}", "training/train.py"),
        ("spot: true, max_wait_minutes: 90, checkpoint_every_rounds: 10", None),
        ("warm_pool_minutes: 30", None),
        ("file_system: lustre", None),
        ("parent: approved", None),
        ("k_folds: 5", None),
        ("hyperparameters: {reg_lambda: 2, grow_policy: lossguide}", None),
        (f"algorithm: image, image: {{uri: '{URI}'}}, hyperparameters: {{anything: at all}}", None),
    ],
)
def test_should_take(tmp_path: Path, block: str, file: str | None) -> None:
    assert load(tmp_path, block, *([file] if file else [])).workload.training


def test_should_train_one_xgboost_on_demand_unless_told_otherwise(tmp_path: Path) -> None:
    training = load(tmp_path, "rounds: 10").workload.training
    off = ("built_in", "script", "image", "distribution", "max_wait_minutes", "warm_pool_minutes")
    off += ("checkpoint_every_rounds", "checkpoint_every_minutes", "file_system", "parent", "k_folds")
    assert [getattr(training, name) for name in off] == [None] * len(off)
    assert (training.algorithm, training.instance_count, training.spot) == ("xgboost", 1, False)


@pytest.mark.parametrize(
    ("block", "path", "said"),
    [
        ("algorithm: built_in", "training.algorithm", "built_in needs training.built_in; add it"),
        ("algorithm: script", "training.algorithm", "script needs training.script; add it"),
        ("algorithm: image", "training.algorithm", "image needs training.image; add it"),
        (
            'built_in: {name: xgboost, version: "3.2-0"}',
            "training.built_in",
            "goes with algorithm: built_in, got xgboost",
        ),
        (
            'algorithm: built_in, built_in: {name: linear-learner, version: "1"}',
            "training.built_in.name",
            "cannot become the model folder",
        ),
        (SCRIPT, "training.script.entry_point", "there is no training/train.py beside the workload"),
        (
            "algorithm: image, image: {folder: trainer}",
            "training.image.folder",
            "there is no trainer/Dockerfile beside the workload",
        ),
        ("algorithm: image, image: {}", "training.image", "give folder"),
        (f"algorithm: image, image: {{folder: a, uri: '{URI}'}}", "training.image", "one of them"),
        ("algorithm: image, image: {uri: trainer}", "training.image.uri", "must match"),
        ("max_wait_minutes: 90", "training.max_wait_minutes", "goes with spot: true"),
        ("checkpoint_every_rounds: 5", "training.checkpoint_every_rounds", "goes with spot: true"),
        ("checkpoint_every_minutes: 5", "training.checkpoint_every_minutes", "goes with spot: true"),
        (
            "spot: true, max_wait_minutes: 59",
            "training.max_wait_minutes",
            "got 59; it counts the run too, so at least max_runtime_minutes (60)",
        ),
        ("spot: true, warm_pool_minutes: 5", "training.warm_pool_minutes", "spot capacity keeps no pool"),
        ("warm_pool_minutes: 61", "training.warm_pool_minutes", "at most 60 is allowed"),
        (
            f"{BUILT_IN}, spot: true, checkpoint_every_rounds: 5",
            "training.checkpoint_every_rounds",
            "is read by the images of xgboost and pytorch",
        ),
        (
            "distribution: {kind: data_parallel}",
            "training.distribution",
            "is started by torchrun, which xgboost does not use",
        ),
        ("algorithm: pytorch, instance_count: 2", "training.instance_count", "add training.distribution"),
        (f"{BUILT_IN}, instance_count: 2", "training.instance_count", "would train the same model"),
        ("instance_count: 21", "training.instance_count", "at most 20 is allowed"),
        (
            "file_system: lustre, input_mode: FastFile",
            "training.input_mode",
            "a file system is mounted, so input_mode is File",
        ),
        (f"{BUILT_IN}, parent: approved", "training.parent", "does not go on from a model"),
        (f"{BUILT_IN}, k_folds: 5", "training.k_folds", "goes with algorithm xgboost or pytorch"),
        (f"{BUILT_IN}, balance: class_weight", "training.balance", "use oversample or smote"),
        ("k_folds: 1", "training.k_folds", "at least 2 is allowed"),
        (
            "hyperparameters: {max_dept: 4}",
            "training.hyperparameters.max_dept",
            "got 'max_dept', which is no hyperparameter of xgboost; did you mean max_depth?",
        ),
        (
            "hyperparameters: {eta: 2}",
            "training.hyperparameters.eta",
            "got 2; must be a number above 0 up to 1",
        ),
        (
            "hyperparameters: {eta: 0.1, learning_rate: 0.2}",
            "training.hyperparameters.learning_rate",
            "is the same hyperparameter as eta",
        ),
        (
            "hyperparameters: {objective: 'reg:squarederror'}",
            "training.hyperparameters.objective",
            "must be one of binary:logistic",
        ),
        (
            "algorithm: pytorch, hyperparameters: {max_depth: 4}",
            "training.hyperparameters.max_depth",
            "is no hyperparameter of pytorch",
        ),
    ],
)
def test_should_refuse_with_the_place_and_the_fix(tmp_path: Path, block: str, path: str, said: str) -> None:
    with pytest.raises(ContractError) as caught:
        load(tmp_path, block)
    found = {problem.path: problem for problem in caught.value.problems}
    assert path in found, caught.value
    assert said in found[path].message
    assert found[path].line == len(RECORD.splitlines()) + 1


def test_should_refuse_packages_that_a_job_without_network_cannot_install(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"requirements\.txt cannot be installed"):
        load(tmp_path, SCRIPT, "training/train.py", "training/requirements.txt")
