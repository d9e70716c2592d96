"""Prepare: the features become splits, a fitted transform, a baseline and the lineage of every row."""

from __future__ import annotations

from .common import Prepared, Run

OUTPUTS = ("train", "validation", "test", "transform", "baseline", "lineage")
#: The fitted features as numbers, the label first: for programs that know no contract.
MATRICES = ("matrix_train", "matrix_validation")


def reads_matrix(run: Run) -> bool:
    """Whether the algorithm reads matrices in place of the splits."""
    return run.values["algorithm"] in ("built_in", "script")


def prepare(run: Run) -> Prepared:
    """Define the step."""
    outputs = (*OUTPUTS, *MATRICES) if reads_matrix(run) else OUTPUTS
    inputs = {"contract": run.values["contract_uri"], "features": run.features_uri}
    if run.values["parent"]:
        # What a parent learned is true of the columns that were fitted for it: they are taken over.
        inputs["parent"] = run.champion
    return Prepared(
        step=run.processing(
            "Prepare",
            display_name="Split the features and fit what is learned from the training part",
            command="prepare",
            inputs=inputs,
            outputs={name: run.uri("prepare", name) for name in outputs},
        )
    )
