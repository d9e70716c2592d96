"""One training: from the prepared splits to the model folder."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import xgboost as xgb
from ml_runtime import model as files
from ml_runtime.job import BadInputError, say
from ml_trainer.checkpoints import Checkpoints
from ml_trainer.data import Inputs, Split
from ml_trainer.folds import cross_validate
from ml_trainer.hosts import Hosts
from ml_trainer.interruption import InterruptedTrainingError, Interruption
from ml_trainer.output import write_model
from ml_trainer.parent import Parent, read_parent
from ml_trainer.progress import History, report
from ml_trainer.rules import Rules
from ml_trainer.tracking import Tracking

from ml_training import together
from ml_training.boost import BOOSTER, Boosted, Start, boost, matrix_of, rounds_of
from ml_training.export import prove_equal, to_onnx
from ml_training.hyperparameters import Hyperparameters, read_hyperparameters


class Attendant:
    """Accompanies a training: lines for metrics, rules, tracking, checkpoints, the end that is asked for."""

    def __init__(
        self,
        *,
        rules: Rules,
        tracking: Tracking,
        checkpoints: Checkpoints,
        interruption: Interruption,
        state: dict[str, Any],
    ) -> None:
        self._rules = rules
        self._tracking = tracking
        self._checkpoints = checkpoints
        self._interruption = interruption
        self._state = state

    def after(self, number: int, values: dict[str, float], history: History) -> None:
        """Say what a round measured, and judge it."""
        report(number, values)
        self._tracking.log(number, values)
        self._rules.after(history)

    def pause(self, done: int, save: Callable[[pathlib.Path], None], history: History) -> None:
        """Save what is due, and end when that was asked for: of any host."""
        asked = together.any_of(self._interruption.asked)
        if asked or self._checkpoints.due(done):
            self._checkpoints.save(
                done, save, {**self._state, "history": history, "rules": self._rules.state}
            )
        if asked:
            kept = "its checkpoint is saved" if self._checkpoints.enabled else "this job keeps no checkpoints"
            raise InterruptedTrainingError(f"interrupted after {done} rounds; {kept}")


@dataclasses.dataclass(frozen=True)
class Job:
    """What one training has to do with."""

    inputs: Inputs
    hosts: Hosts
    wanted: Hyperparameters
    training: Split
    validation: Split
    parent: Parent | None
    parent_booster: bytes | None
    parent_rounds: int
    rules: Rules

    @classmethod
    def read(cls) -> Job:
        """Read the channels. Raises BadInputError, and RuleStopError for a split that a rule refuses."""
        inputs, hosts = Inputs.read(), Hosts.read()
        wanted = read_hyperparameters(inputs.hyperparameters, inputs.contract.label.task, inputs.classes)
        training, validation = inputs.split("train"), inputs.split("validation")
        say(
            f"training on {training.rows} rows of {training.matrix.shape[1]} columns,"
            f" validating on {validation.rows}"
        )
        rules = Rules(inputs.settings.get("rules"), loss=wanted.loss)
        if inputs.classes:
            rules.before(np.bincount(training.labels.astype(np.int64), minlength=inputs.classes).tolist())
        parent = read_parent(inputs)
        booster = None if parent is None else parent.read(files.BOOSTER_FILE)
        rounds = 0 if booster is None else rounds_of(booster, wanted)
        return cls(inputs, hosts, wanted, training, validation, parent, booster, rounds, rules)

    @property
    def parameters(self) -> dict[str, Any]:
        """What it was asked for."""
        return {
            **self.wanted.booster,
            "rounds": self.wanted.rounds,
            "early_stopping_rounds": self.wanted.early_stopping_rounds,
        }

    @property
    def fresh(self) -> Start:
        """Where it begins without a checkpoint."""
        return Start(self.parent_booster, self.parent_rounds)


def train(interruption: Interruption) -> None:
    """Train on the channels under ``input/data`` and write the model folder."""
    job = Job.read()
    interruption.check("before the first round")
    tracking = Tracking(job.inputs.contract.slug, job.parameters, writes=job.hosts.first)
    status = "FAILED"
    metadata: dict[str, Any] = {}
    try:
        boosted, folds = _boosted(job, tracking, interruption)
        if job.hosts.first:
            metadata = _write(job, boosted, folds)
        status = "FINISHED"
    except InterruptedTrainingError:
        status = "KILLED"
        raise
    finally:
        tracking.end(status, metadata)


def _boosted(
    job: Job, tracking: Tracking, interruption: Interruption
) -> tuple[Boosted, dict[str, Any] | None]:
    """Train, from a checkpoint where there is one; return what the folds said too."""
    fingerprint = job.inputs.fingerprint(xgb.__version__, job.hosts.count, job.parent_booster)
    checkpoints = Checkpoints.of(job.inputs.settings, fingerprint, writes=job.hosts.first)
    with together.joined(job.hosts) if job.hosts.count > 1 else nullcontext():
        start, state = _start(job, checkpoints)
        if "folds" not in state:
            state["folds"] = _folds(job)
        boosted = boost(
            job.wanted,
            _matrix(job.training, job.hosts),
            _matrix(job.validation, job.hosts),
            start=start,
            watch=Attendant(
                rules=job.rules,
                tracking=tracking,
                checkpoints=checkpoints,
                interruption=interruption,
                state=state,
            ),
        )
    say(f"best_iteration:{boosted.best}")
    # Who reads the last value of a log, as tuning does, reads that of the model that is kept.
    report(max(boosted.best, 0), boosted.metrics)
    return boosted, state["folds"]


def _start(job: Job, checkpoints: Checkpoints) -> tuple[Start, dict[str, Any]]:
    """Return where to begin, the first host's word for all, and what else its checkpoint kept."""
    found = checkpoints.newest()
    text = together.from_first(None if found is None else json.dumps(found.state).encode())
    booster = together.from_first(None if found is None else found.read(BOOSTER))
    if text is None or booster is None:
        return job.fresh, {}
    state = json.loads(text)
    start = Start(booster, job.parent_rounds, state["history"])
    job.rules.restore(state["rules"])
    say(f"resumed after {start.done} rounds")
    return start, {"folds": state["folds"]}


def _folds(job: Job) -> dict[str, Any] | None:
    folds = job.inputs.settings.get("k_folds")
    if folds is None:
        return None
    if job.hosts.count > 1:
        raise BadInputError("k_folds is for tables that one host holds; train on one instance, or without")
    prefix = "validation-"

    def fit(part: Split, held: Split) -> dict[str, float]:
        found = boost(job.wanted, _matrix(part), _matrix(held), start=job.fresh).metrics
        return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}

    return cross_validate(job.training, job.inputs.contract, int(folds), fit).as_json()


def _matrix(split: Split, hosts: Hosts | None = None) -> xgb.DMatrix:
    rank, count = (0, 1) if hosts is None else (hosts.rank, hosts.count)
    return matrix_of(split.matrix, split.labels, split.weights, rank=rank, count=count)


def _write(job: Job, boosted: Boosted, folds: dict[str, Any] | None) -> dict[str, Any]:
    """Export the model, prove the export, write the folder; return what is known of the training."""
    onnx_model = to_onnx(boosted.booster, job.training.matrix.shape[1])
    proof = prove_equal(boosted.booster, onnx_model, job.validation.matrix)
    say(f"onnx equals the booster on {proof.rows} rows within {proof.largest_difference:.2g}")
    parent = None
    if job.parent is not None:
        kept = boosted.best < 0
        parent = {"training_job": job.parent.training_job, "rounds": job.parent_rounds, "kept": kept}
    metadata = write_model(
        job.inputs,
        onnx_model,
        proof,
        {
            "hyperparameters": job.parameters,
            "rounds": boosted.rounds,
            "rounds_run": boosted.rounds_run,
            "metrics": boosted.metrics,
            "rows": {"train": job.training.rows, "validation": job.validation.rows},
            "hosts": job.hosts.count,
            "xgboost": xgb.__version__,
            "k_folds": folds,
            "rules": job.rules.state["noted"],
            "parent": parent,
        },
    )
    boosted.booster.save_model(job.inputs.model_folder / files.BOOSTER_FILE)
    return metadata
