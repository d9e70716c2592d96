"""One training process: alone, or one of those that torchrun starts on every host."""

from __future__ import annotations

import os
import pathlib
import sys
import traceback
from typing import Any

import torch
from ml_runtime.job import JobError, say
from ml_trainer import progress
from ml_trainer.checkpoints import Checkpoints
from ml_trainer.data import Inputs
from ml_trainer.interruption import InterruptedTrainingError, Interruption
from ml_trainer.rules import Rules
from ml_trainer.tracking import Tracking
from safetensors.torch import load_file, save_file

from ml_training_torch.fitting import Fitting, Round, best_of, deterministic
from ml_training_torch.hyperparameters import Hyperparameters, read_hyperparameters
from ml_training_torch.job import Job
from ml_training_torch.together import Together

_TENSORS = "state.safetensors"
#: Numbers in a layer's output from which several threads are sooner done with it than one.
WORTH_SHARING = 2**18


def fit(job: Job, inputs: Inputs, wanted: Hyperparameters, together: Together, asked: Interruption) -> None:
    """Train until the end, an interruption or a rule; the first process tracks it and leaves the outcome.

    Raises:
        InterruptedTrainingError: the end was asked for; a checkpoint holds the last whole round.
        RuleStopError: a rule of the workload stops the training.
    """
    tracking = Tracking(inputs.contract.slug, wanted.as_metadata(), writes=together.first)
    status = "FAILED"
    try:
        _fit(job, inputs, wanted, together, asked=asked, tracking=tracking)
        status = "FINISHED"
    except InterruptedTrainingError:
        status = "KILLED"
        raise
    finally:
        tracking.end(status)


def _fit(
    job: Job,
    inputs: Inputs,
    wanted: Hyperparameters,
    together: Together,
    *,
    asked: Interruption,
    tracking: Tracking,
) -> None:
    deterministic(wanted["seed"], threads_of(wanted), together.device)
    fitting = Fitting(
        job.network(wanted.values),
        label=job.label,
        wanted=wanted,
        together=together,
        train=job.table("train"),
        validation=job.table("validation"),
    )
    checkpoints = Checkpoints.of(inputs.settings, job.fingerprint, writes=together.first)
    rules = Rules(inputs.settings.get("rules"), loss=fitting.loss_name)
    if job.has_parent:
        fitting.begin_with_parent()
    _resume(fitting, checkpoints, rules)
    for one in fitting.rounds():
        values = _values(one)
        progress.report(fitting.state.rounds - 1, values)
        tracking.log(fitting.state.rounds - 1, values)
        rules.after(fitting.state.history, gradient_norm=one.gradient_norm)
        ending = together.any(asked.asked)
        if together.first_says(checkpoints.due(fitting.state.rounds) or (ending and checkpoints.enabled)):
            _save(fitting, checkpoints, rules)
        if ending:
            kept = "its checkpoint is saved" if checkpoints.enabled else "this job keeps no checkpoints"
            raise InterruptedTrainingError(f"interrupted after {fitting.state.rounds} rounds; {kept}")
    best = best_of(fitting)
    if together.first:
        outcome = _outcome(fitting, rules, best)
        say(f"best_iteration:{best}")
        # Who reads the last value of a log, as tuning does, reads that of the model that is kept.
        progress.report(max(best, 0), outcome["metrics"])
        job.finish(fitting.state.best, outcome)


def threads_of(wanted: Hyperparameters) -> int:
    """Return the threads of this process on the CPU: a fair part of the cores, one where steps are small."""
    given: int | None = wanted.values.get("threads")
    if given is not None:
        return given
    if wanted["batch_size"] * wanted["width"] < WORTH_SHARING:
        return 1
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, (os.cpu_count() or 1) // here)


def _values(one: Round) -> dict[str, float]:
    return {
        **one.metrics,
        "gradient-norm": one.gradient_norm,
        "data-wait": one.data_wait,
        "samples-per-second": one.rows_per_second,
    }


def _resume(fitting: Fitting, checkpoints: Checkpoints, rules: Rules) -> None:
    """Go on from the newest checkpoint; what the first process reads holds for all."""
    together = fitting.together
    found = checkpoints.newest() if together.first else None
    state = together.first_says(None if found is None else found.state)
    if state is None:
        return
    tensors = together.first_has(None if found is None else load_file(found.folder / _TENSORS))
    fitting.resume(tensors, state["rounds"], state["history"], state["parent"])
    rules.restore(state["rules"])
    say(f"resumed after {state['rounds']} rounds")


def _save(fitting: Fitting, checkpoints: Checkpoints, rules: Rules) -> None:
    tensors = fitting.tensors()

    def write(folder: pathlib.Path) -> None:
        save_file({name: one.contiguous() for name, one in tensors.items()}, folder / _TENSORS)

    state = fitting.state
    checkpoints.save(
        state.rounds,
        write,
        {
            "rounds": state.rounds,
            "history": state.history,
            "parent": state.parent,
            "rules": rules.state,
        },
    )


def _outcome(fitting: Fitting, rules: Rules, best: int) -> dict[str, Any]:
    history, together = fitting.state.history, fitting.together
    device = together.device
    return {
        "rounds": best + 1,
        "rounds_run": fitting.state.rounds,
        "metrics": fitting.state.parent
        if best < 0
        else {name: series[best] for name, series in history.items()},
        "parent_kept": best < 0,
        "rules": rules.state["noted"],
        "processes": together.processes,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "precision": "bfloat16" if fitting.half else "float32",
    }


def failure_of(folder: pathlib.Path, rank: int) -> pathlib.Path:
    """Where a process writes why it failed."""
    return folder / f"failure-{rank}.txt"


def main(argv: list[str]) -> int:
    """Train as torchrun's variables say; argv names the folder of the job."""
    folder = pathlib.Path(argv[0])
    rank = int(os.environ["RANK"])
    if rank:
        # One of them speaks.
        sys.stdout = pathlib.Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - to the end
    try:
        job, inputs = Job.read(folder), Inputs.read()
        wanted = read_hyperparameters(inputs.hyperparameters)
        with Interruption() as asked:
            together = Together.join(wanted["device"], wanted.distribution)
            try:
                fit(job, inputs, wanted, together, asked)
            except InterruptedTrainingError as ended:
                print(ended, flush=True)
                job.interrupt()
            together.leave()
    except JobError as error:
        failure_of(folder, rank).write_text(str(error))
        return 1
    except Exception as error:  # noqa: BLE001 - the host's process tells the reason
        traceback.print_exc()
        failure_of(folder, rank).write_text(f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
