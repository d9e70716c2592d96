"""What must hold inside the training block, and between it and what stands beside the workload."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from ml_contract.algorithms import pytorch, xgboost
from ml_contract.algorithms.values import Choice, Number
from ml_contract.checks.rules import check_rules
from ml_contract.problems import suggest

if TYPE_CHECKING:
    from ml_contract.checks.workload import Checks
    from ml_contract.problems import Location

__all__ = ["BUILT_IN_NAMES", "OUR_IMAGES", "check_training"]

#: Algorithms whose image is this project's.
OUR_IMAGES: Final = ("xgboost", "pytorch")
#: Built-in algorithms whose artifact becomes a model folder.
BUILT_IN_NAMES: Final = ("xgboost",)


def check_training(checks: Checks) -> None:
    """Algorithm and its block, spot, pools, several instances, where it reads from, what it goes on from."""
    _check_algorithm(checks)
    _check_spot(checks)
    _check_distribution(checks)
    _check_hyperparameters(checks)
    check_rules(checks)
    training = checks.workload.training
    if training.file_system is not None and training.input_mode != "File":
        checks.wrong(
            ("training", "input_mode"),
            f"got {training.input_mode!r}; a file system is mounted, so input_mode is File",
        )
    ours = training.algorithm in OUR_IMAGES
    if training.parent is not None and training.algorithm == "built_in":
        checks.wrong(
            ("training", "parent"),
            "SageMaker's XGBoost does not go on from a model; use algorithm: xgboost or remove parent",
        )
    if training.k_folds is not None and not ours:
        checks.wrong(
            ("training", "k_folds"),
            f"goes with algorithm {' or '.join(OUR_IMAGES)}, whose images fold; got {training.algorithm}",
        )
    if training.balance == "class_weight" and not ours:
        checks.wrong(
            ("training", "balance"),
            f"class_weight is applied by the images of {' and '.join(OUR_IMAGES)}; with {training.algorithm} "
            "use oversample or smote, which Prepare applies",
        )


def _check_algorithm(checks: Checks) -> None:
    """The block of the algorithm is there, no other is, and what it names exists."""
    training = checks.workload.training
    for name in ("built_in", "script", "image"):
        given = getattr(training, name) is not None
        if given and training.algorithm != name:
            checks.wrong(
                ("training", name),
                f"goes with algorithm: {name}, got {training.algorithm}; remove it or set the algorithm",
            )
        if not given and training.algorithm == name:
            checks.wrong(("training", "algorithm"), f"{name} needs training.{name}; add it")
    folder = Path(checks.file).parent
    if training.built_in is not None and training.built_in.name not in BUILT_IN_NAMES:
        checks.wrong(
            ("training", "built_in", "name"),
            f"got {training.built_in.name!r}; allowed: {', '.join(BUILT_IN_NAMES)}. The artifact of another "
            "algorithm cannot become the model folder that serving, judging and monitoring read; use "
            "algorithm: script or image, which write it themselves",
        )
    if training.script is not None:
        entry = folder / "training" / training.script.entry_point
        if not entry.is_file():
            checks.wrong(
                ("training", "script", "entry_point"),
                f"there is no training/{entry.name} beside the workload; write it or name another file",
            )
        if (folder / "training" / "requirements.txt").exists():
            checks.wrong(
                ("training", "script"),
                "training/requirements.txt cannot be installed: training jobs have no network; "
                "use algorithm: image with what you need in it",
            )
    if (
        training.image is not None
        and training.image.folder is not None
        and not (folder / training.image.folder / "Dockerfile").is_file()
    ):
        checks.wrong(
            ("training", "image", "folder"),
            f"there is no {training.image.folder}/Dockerfile beside the workload; write it or give uri",
        )


def _check_spot(checks: Checks) -> None:
    """What goes with spot capacity, and what does not."""
    training = checks.workload.training
    if not training.spot:
        for name in ("max_wait_minutes", "checkpoint_every_rounds", "checkpoint_every_minutes"):
            if getattr(training, name) is not None:
                checks.wrong(("training", name), "goes with spot: true; remove it or set spot")
    elif training.warm_pool_minutes is not None:
        # SageMaker developer guide, "SageMaker AI managed warm pools": spot instances are not supported.
        checks.wrong(("training", "warm_pool_minutes"), "spot capacity keeps no pool; remove it or spot")
    if training.max_wait_minutes is not None and training.max_wait_minutes < training.max_runtime_minutes:
        checks.wrong(
            ("training", "max_wait_minutes"),
            f"got {training.max_wait_minutes}; it counts the run too, so at least "
            f"max_runtime_minutes ({training.max_runtime_minutes})",
        )
    for name in ("checkpoint_every_rounds", "checkpoint_every_minutes"):
        if getattr(training, name) is not None and training.algorithm not in OUR_IMAGES:
            checks.wrong(
                ("training", name),
                f"is read by the images of {' and '.join(OUR_IMAGES)}; a {training.algorithm} writes "
                "/opt/ml/checkpoints as it likes, remove it",
            )


def _check_distribution(checks: Checks) -> None:
    """Several instances need a program that divides the work."""
    training = checks.workload.training
    script = training.script
    torch = training.algorithm == "pytorch" or (script is not None and script.framework.startswith("pytorch"))
    if training.distribution is not None and not torch:
        checks.wrong(
            ("training", "distribution"),
            f"is started by torchrun, which {training.algorithm} does not use; remove it or use pytorch",
        )
    # XGBoost's own collective needs no launcher.
    divides = training.distribution is not None or training.algorithm in ("image", "xgboost")
    if training.instance_count > 1 and not divides:
        fix = "add training.distribution" if torch else "use algorithm: xgboost or pytorch"
        checks.wrong(
            ("training", "instance_count"),
            f"got {training.instance_count}; each instance would train the same model by itself, {fix}",
        )


def _check_hyperparameters(checks: Checks) -> None:
    """What our images would refuse an hour later is refused here: one table for both."""
    training, task = checks.workload.training, checks.workload.label.task
    known: dict[str, Number | Choice]
    if training.algorithm == "xgboost":
        known = {**xgboost.PARAMETERS, "objective": Choice(xgboost.OBJECTIVES[task])}
        aliases = xgboost.ALIASES
    elif training.algorithm == "pytorch":
        known, aliases = dict(pytorch.PARAMETERS), pytorch.ALIASES
    else:
        return
    seen: dict[str, str] = {}
    for given, value in training.hyperparameters.items():
        path: Location = ("training", "hyperparameters", given)
        name = aliases.get(given, given)
        if name not in known:
            hint = suggest(given, [*known, *aliases])
            checks.wrong(path, f"got {given!r}, which is no hyperparameter of {training.algorithm}{hint}")
            continue
        if name in seen:
            checks.wrong(path, f"is the same hyperparameter as {seen[name]}; give one")
        seen[name] = given
        try:
            known[name].read(str(value))
        except ValueError as error:
            checks.wrong(path, f"got {value!r}; {error}")
