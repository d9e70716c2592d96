"""The ``training`` block: how the table is split and a model is trained."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from ml_contract.spec.blocks import ColumnName, Strict
from ml_contract.spec.preparation import Balance


class Split(Strict):
    """Parts of the table, by weight."""

    train: float = Field(default=0.7, gt=0, lt=1)
    validation: float = Field(default=0.1, gt=0, lt=1)
    test: float = Field(default=0.2, gt=0, lt=1)
    strategy: Literal["stratified", "shuffled", "time", "grouped", "stratified_grouped"] = "stratified"
    group: ColumnName | None = Field(
        default=None, description="Grouped strategies: rows with the same value stay in one part."
    )
    seed: int = 7

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + validation + test must be 1, got {total:g}")
        grouped = self.strategy in ("grouped", "stratified_grouped")
        if grouped and self.group is None:
            raise ValueError(f"strategy {self.strategy} needs group, the field whose rows stay together")
        if self.group is not None and not grouped:
            raise ValueError(
                f"group goes with strategy grouped or stratified_grouped, not with {self.strategy}"
            )
        return self


def _no_pipe(mode: object) -> object:
    if mode == "Pipe":
        raise ValueError(
            "'Pipe' must be 'File' or 'FastFile': a pipe is read once, from its beginning, and the Parquet "
            "files that training reads begin at their end; FastFile starts as fast and reads files"
        )
    return mode


#: Amazon SageMaker API Reference, Channel: InputMode.
InputMode = Annotated[Literal["File", "FastFile"], BeforeValidator(_no_pipe)]


class Training(Strict):
    """How a model is trained."""

    algorithm: Literal["xgboost"] = "xgboost"
    hyperparameters: dict[str, float | int | str] = Field(default_factory=dict)
    rounds: int = Field(default=200, ge=1, le=100_000)
    early_stopping_rounds: int | None = Field(default=20, ge=1)
    split: Split = Split()
    balance: Balance = Field(
        default="none",
        description="Classes of unlike size, in the training split only: weights, repeated rows or rows "
        "made up between neighbours.",
    )
    instance_type: str = "ml.m5.xlarge"
    instance_count: Literal[1] = 1
    processing_instance_type: str = "ml.m5.xlarge"
    volume_gb: int = Field(default=30, ge=1, le=16_384)
    input_mode: InputMode = Field(
        default="File",
        description="How training reads S3: copied before it starts, or FastFile: fetched as it is read.",
    )
    max_runtime_minutes: int = Field(
        default=60, ge=1, le=40_320, description="A training job may run 28 days."
    )
    spot: bool = False
    cache_hours: int | None = Field(
        default=None, ge=1, description="Reuse pipeline steps whose input is unchanged."
    )
