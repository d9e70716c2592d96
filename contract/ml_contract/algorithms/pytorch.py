"""The PyTorch image's hyperparameters: one table for the image and for the checks."""

from __future__ import annotations

from ml_contract.algorithms.values import Choice, Number, Task

__all__ = ["ALIASES", "DEFAULTS", "METRICS", "PARAMETERS"]

#: A residual network on the fitted feature matrix, and how it is fitted. ``batch_size`` counts the rows of
#: one step over all processes: more processes do the same step sooner.
PARAMETERS: dict[str, Number | Choice] = {
    "width": Number(4, 16_384, whole=True),
    "blocks": Number(0, 256, whole=True),
    "dropout": Number(0, 0.95),
    "learning_rate": Number(0, 1, above_minimum=True),
    "weight_decay": Number(0, 10),
    "batch_size": Number(1, 4_194_304, whole=True),
    "warmup_share": Number(0, 0.5),
    "gradient_clip": Number(0, above_minimum=True),
    "label_smoothing": Number(0, 0.5),
    "device": Choice(("auto", "cpu", "cuda")),
    "precision": Choice(("auto", "float32", "bfloat16")),
    "table_in_memory": Choice(("auto", "host", "device")),
    "compile_for": Choice(("none", "neuron")),
    "threads": Number(1, 1024, whole=True),
    "seed": Number(0, 2**31 - 1, whole=True),
}
#: What is taken where nothing is said. ``threads`` has none: the machine's cores, shared by its processes.
DEFAULTS: dict[str, float | int | str] = {
    "width": 128,
    "blocks": 2,
    "dropout": 0.1,
    "learning_rate": 0.002,
    "weight_decay": 0.01,
    "batch_size": 256,
    "warmup_share": 0.05,
    "gradient_clip": 1.0,
    "label_smoothing": 0.0,
    "device": "auto",
    "precision": "auto",
    "table_in_memory": "auto",
    "compile_for": "none",
    "seed": 0,
}
ALIASES = {"eta": "learning_rate", "random_state": "seed"}
#: What is measured each round, a pass over the training rows; early stopping follows the last, the loss.
METRICS: dict[Task, tuple[str, ...]] = {
    "binary": ("error", "logloss"),
    "multiclass": ("merror", "mlogloss"),
    "regression": ("mae", "rmse"),
}
