"""The ``training`` block: how the table is split and a model is trained."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from ml_contract.spec.blocks import ColumnName, Strict
from ml_contract.spec.preparation import Balance
from ml_contract.spec.rules import Rules, Track


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


class BuiltIn(Strict):
    """An algorithm of SageMaker's own image; its artifact is exported to the model folder that ours write."""

    name: str = Field(min_length=1, description="e.g. xgboost.")
    version: str = Field(min_length=1, description="e.g. 3.0-5.")


class Script(Strict):
    """A program of the workload, in ``training/`` beside its ``workload.yaml``, run by SageMaker's image."""

    framework: Literal["pytorch", "xgboost"]
    version: str = Field(min_length=1, description="As SageMaker's image has it, e.g. 2.10.0.")
    entry_point: str = Field(default="train.py", pattern=r"^[A-Za-z_][A-Za-z0-9_]*\.py$")


class OwnImage(Strict):
    """An image that honours the ``/opt/ml`` contract and writes the model folder."""

    folder: str | None = Field(
        default=None,
        pattern=r"^[a-z][a-z0-9_]*$",
        description="A folder with a Dockerfile beside the workload.yaml.",
    )
    uri: str | None = Field(
        default=None,
        pattern=r"^[0-9]{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(\.cn)?/[a-z0-9._/-]+(:[\w.-]+|@sha256:[0-9a-f]{64})$",
        description="An image of ECR, with its tag or digest.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.folder is None) == (self.uri is None):
            raise ValueError(
                "give folder (built and pushed with the stack) or uri (an image of ECR), one of them"
            )
        return self


class Distribution(Strict):
    """Several processes train one model, started by torchrun.

    ``data_parallel``: each process holds the whole model and a part of each batch. ``fully_sharded``: each
    holds a part of the model too.
    """

    kind: Literal["data_parallel", "fully_sharded"]
    processes_per_instance: int | None = Field(
        default=None, ge=1, le=64, description="None: one per accelerator, one on an instance without."
    )


class Training(Strict):
    """How a model is trained.

    ``xgboost`` and ``pytorch`` are this project's images; ``built_in``, ``script`` and ``image`` need the
    block of the same name.
    """

    algorithm: Literal["xgboost", "pytorch", "built_in", "script", "image"] = "xgboost"
    built_in: BuiltIn | None = None
    script: Script | None = None
    image: OwnImage | None = None
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
    # Amazon SageMaker endpoints and quotas: 20 instances per training job unless a quota says more.
    instance_count: int = Field(default=1, ge=1, le=20)
    distribution: Distribution | None = None
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
    max_wait_minutes: int | None = Field(
        default=None,
        ge=1,
        description="Spot: training and waiting together; None: twice max_runtime_minutes.",
    )
    checkpoint_every_rounds: int | None = Field(
        default=None, ge=1, description="Spot: rounds (xgboost) or epochs (pytorch) between checkpoints."
    )
    checkpoint_every_minutes: int | None = Field(
        default=None, ge=1, le=1_440, description="Spot: minutes between checkpoints."
    )
    # ResourceConfig.KeepAlivePeriodInSeconds: at most 3,600.
    warm_pool_minutes: int | None = Field(
        default=None, ge=1, le=60, description="Keep the instances that long for the next training."
    )
    file_system: Literal["lustre"] | None = Field(
        default=None, description="Read from the environment's file system in place of S3."
    )
    parent: Literal["approved"] | None = Field(
        default=None, description="Go on from the approved model, where there is one."
    )
    k_folds: int | None = Field(
        default=None,
        ge=2,
        le=20,
        description="Also train on k parts of the data, for how sure the metrics are.",
    )
    rules: Rules | None = Field(default=None, description="Rules that watch the training and may stop it.")
    track: Track = Field(
        default="none",
        description="mlflow: record each training on the environment's MLflow tracking server.",
    )
    cache_hours: int | None = Field(
        default=None, ge=1, description="Reuse pipeline steps whose input is unchanged."
    )
