"""One training: from the prepared splits to the model folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from ml_contract.algorithms.pytorch import METRICS
from ml_runtime.job import BadInputError, say
from ml_runtime.model import METADATA_FILE
from ml_trainer.data import Inputs, Split
from ml_trainer.folds import cross_validate
from ml_trainer.hosts import Hosts
from ml_trainer.interruption import Interruption
from ml_trainer.output import write_model
from ml_trainer.parent import Parent, read_parent
from ml_trainer.rules import Rules
from safetensors.torch import load, save

from ml_training_torch.export import check_neuron, prove_equal, to_neuron, to_onnx
from ml_training_torch.fitting import Fitting, Label, deterministic, fit_to_end
from ml_training_torch.hyperparameters import Hyperparameters, read_hyperparameters
from ml_training_torch.job import Job, new_network
from ml_training_torch.launch import processes_per_host, run_processes
from ml_training_torch.network import Scorer, scales_of
from ml_training_torch.tables import Table
from ml_training_torch.together import Tensors, Together, device_of
from ml_training_torch.worker import fit, threads_of

WEIGHTS_FILE = "model.safetensors"
NEURON_FOLDER = "neuron"
#: What makes a network another one.
_SHAPE = ("width", "blocks")


def train(interruption: Interruption) -> None:
    """Train on the channels under ``input/data``; the first host writes the model folder."""
    inputs, hosts = Inputs.read(), Hosts.read()
    wanted = read_hyperparameters(inputs.hyperparameters)
    if wanted["compile_for"] == "neuron":
        check_neuron()
    processes = processes_per_host(wanted, hosts)
    folds = inputs.settings.get("k_folds")
    if folds is not None and hosts.count * processes > 1:
        raise BadInputError("k_folds is for small tables, which one process trains; remove distribution")
    device_of(wanted["device"])
    parent = read_parent(inputs)
    train_split, validation_split = inputs.split("train"), inputs.split("validation")
    label = _label(inputs, train_split, parent)
    rules = Rules(inputs.settings.get("rules"), loss=METRICS[label.task][-1])
    rules.before(_rows_per_class(train_split, label))
    rows = {"train": train_split.rows, "validation": validation_split.rows}
    columns = train_split.matrix.shape[1]
    say(
        f"training on {rows['train']} rows of {columns} columns, validating on {rows['validation']}, "
        f"{processes} process{'es' * (processes > 1)} on each of {hosts.count} hosts"
    )
    more: dict[str, Any] = {"k_folds": None}
    if folds is not None:
        more["k_folds"] = _folds(inputs, wanted, label, train_split, folds=folds, asked=interruption)
    start = None if parent is None else _start(parent, wanted)
    with tempfile.TemporaryDirectory(prefix="training-") as scratch:
        job = Job(pathlib.Path(scratch), _fingerprint(inputs, start), label, columns)
        Table.of(train_split).save(job.folder, "train")
        Table.of(validation_split).save(job.folder, "validation")
        job.save(start)
        matrix = np.array(validation_split.matrix)
        # From here on the rows are read from where every process maps them.
        del train_split, validation_split
        if hosts.count * processes == 1:
            fit(job, inputs, wanted, Together(device_of(wanted["device"])), interruption)
        else:
            run_processes(job, hosts, processes, interruption)
        if not hosts.first:
            return
        best, outcome = job.outcome()
    more |= {"rules": [dataclasses.asdict(one) for one in rules.noted] + outcome.pop("rules")}
    kept = outcome.pop("parent_kept")
    more |= {"parent": None if parent is None else {"training_job": parent.training_job, "kept": kept}}
    more |= {"hosts": hosts.count}
    _write(inputs, wanted, label, best=best, matrix=matrix, told={**outcome, **more, "rows": rows})


def _label(inputs: Inputs, split: Split, parent: Parent | None) -> Label:
    task = inputs.contract.label.task
    if task != "regression":
        return Label(task, inputs.classes)
    if parent is not None:
        # What the parent learned is in its own units.
        told = json.loads(parent.read(METADATA_FILE)).get("label_scale")
        if told is not None:
            return Label(task, 0, told["center"], told["width"])
    values = split.labels.astype(np.float64)
    return Label(task, 0, float(values.mean()), float(values.std()) or 1.0)


def _rows_per_class(split: Split, label: Label) -> list[int]:
    if label.task == "regression":
        return []
    return [int(n) for n in np.bincount(split.labels.astype(np.int64), minlength=label.classes)]


def _start(parent: Parent, wanted: Hyperparameters) -> Tensors:
    """Return the parent's tensors. Raises BadInputError when its network is of another shape."""
    tensors: Tensors = load(parent.read(WEIGHTS_FILE))
    had = json.loads(parent.read(METADATA_FILE))["hyperparameters"]
    others = [
        f"{name} {had[name]}, asked for is {wanted[name]}" for name in _SHAPE if had[name] != wanted[name]
    ]
    if others:
        raise BadInputError(f"the parent model has {'; '.join(others)}: keep the parent's or remove parent")
    return tensors


def _fingerprint(inputs: Inputs, start: Tensors | None) -> str:
    return inputs.fingerprint("" if start is None else hashlib.sha256(save(start)).hexdigest())


def _folds(
    inputs: Inputs,
    wanted: Hyperparameters,
    label: Label,
    split: Split,
    *,
    folds: int,
    asked: Interruption,
) -> dict[str, Any]:
    """Return how far the metrics of parts of the training split lie apart."""
    together = Together(device_of(wanted["device"]))

    def metrics(part: Split, held: Split) -> Mapping[str, float]:
        asked.check("in a fold")
        deterministic(wanted["seed"], threads_of(wanted), together.device)
        network = new_network(wanted.values, part.matrix.shape[1], label)
        network.set_scales(scales_of(part.matrix))
        fitting = Fitting(
            network,
            label=label,
            wanted=wanted,
            together=together,
            train=Table.of(part),
            validation=Table.of(held),
        )
        best = fit_to_end(fitting)
        names = METRICS[label.task]
        return {name: fitting.state.history[f"validation-{name}"][best] for name in names}

    return cross_validate(split, inputs.contract, int(folds), metrics).as_json()


def _write(
    inputs: Inputs,
    wanted: Hyperparameters,
    label: Label,
    *,
    best: Tensors,
    matrix: Any,
    told: dict[str, Any],
) -> None:
    """Export the best network, prove the export, and write the model folder."""
    network = new_network(wanted.values, matrix.shape[1], label)
    network.load_state_dict(best)
    scorer = Scorer(network, task=label.task, center=label.center, width=label.width)
    onnx_model = to_onnx(scorer, matrix.shape[1])
    proof = prove_equal(scorer, onnx_model, matrix)
    say(f"onnx equals the network on {proof.rows} rows within {proof.largest_difference:.2g}")
    metadata = {
        **told,
        "algorithm": "pytorch",
        "hyperparameters": wanted.as_metadata(),
        "parameters": sum(one.numel() for one in network.parameters()),
        "torch": torch.__version__,
    }
    if label.task == "regression":
        metadata["label_scale"] = {"center": label.center, "width": label.width}
    if wanted["compile_for"] == "neuron":
        metadata["neuron"] = to_neuron(scorer, matrix.shape[1], inputs.model_folder / NEURON_FOLDER)
    write_model(inputs, onnx_model, proof, metadata)
    (inputs.model_folder / WEIGHTS_FILE).write_bytes(save(best))
