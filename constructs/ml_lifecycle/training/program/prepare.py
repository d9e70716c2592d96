"""Prepare: the features become splits, a fitted transform, a baseline and the lineage of every row."""

from __future__ import annotations

from .common import Prepared, Run

OUTPUTS = ("train", "validation", "test", "transform", "baseline", "lineage")


def prepare(run: Run) -> Prepared:
    """Define the step."""
    return Prepared(
        step=run.processing(
            "Prepare",
            display_name="Split the features and fit what is learned from the training part",
            command="prepare",
            inputs={"contract": run.values["contract_uri"], "features": run.features_uri},
            outputs={name: run.uri("prepare", name) for name in OUTPUTS},
        )
    )
