"""The workload contract: the typed form of a ``workload.yaml``.

One frozen pydantic model per block. Pydantic reports every problem of an input at once;
``ml_contract.load`` adds the line of each. The JSON Schema that editors complete from is generated from
these same classes.

Nothing here knows of AWS or of the CDK. Infrastructure reads this model; code that runs in an account reads
its compiled form (``ml_contract.compiled``), which needs neither pydantic nor YAML.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from ml_contract.batching import Batch
from ml_contract.blocks import Classification, ColumnName, Percent, Slug, Strict
from ml_contract.feature_store import FeatureStore
from ml_contract.governance import GovernanceSpec
from ml_contract.labelling import Labelling
from ml_contract.preparation import Balance, Encoding, Imputation, Outliers, QuantileBinFeature, Scale
from ml_contract.sources import Sources
from ml_contract.streaming import Stream
from ml_contract.window_blocks import Windows

#: Feature Store reserves these column names (CreateFeatureGroup, FeatureDefinitions).
RESERVED_COLUMNS = frozenset(
    {"is_deleted", "write_time", "api_invocation_time", "year", "month", "day", "hour"}
)
#: The columns that delivery adds to every record of the raw zone.
DELIVERY_COLUMNS = frozenset({"record_id", "received_at"})

FieldType = Literal["integer", "number", "string", "boolean", "date", "timestamp"]
Sensitivity = Literal["pii", "protected"]
Task = Literal["binary", "multiclass", "regression"]

# --- the record ---------------------------------------------------------------------------------------


class RecordField(Strict):
    """One field of a record."""

    type: FieldType
    source: str | None = Field(
        default=None,
        min_length=1,
        description="Name of the field in incoming records when it is not the column's name.",
    )
    format: str | None = Field(
        default=None, description="strptime format of a date or timestamp; the default is ISO 8601."
    )
    required: bool = Field(
        default=False, description="A record without a value for this field is quarantined."
    )
    minimum: float | None = None
    maximum: float | None = None
    allowed: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="The only values of a string."
    )
    pattern: str | None = Field(
        default=None, description="Regular expression that a string must match as a whole."
    )
    max_length: int | None = Field(default=None, ge=1, description="Longest string, in characters.")
    missing: tuple[str, ...] = Field(default=(), description="Texts that mean 'no value', e.g. '?'.")
    sensitive: Sensitivity | None = Field(
        default=None,
        description="pii identifies a person and is never a feature; "
        "protected is one only when a feature names it.",
    )
    description: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        if self.type not in ("integer", "number") and (self.minimum is not None or self.maximum is not None):
            problems.append(f"minimum and maximum go with integer and number, not with {self.type}")
        if self.type != "string" and (self.allowed or self.pattern or self.max_length):
            problems.append(f"allowed, pattern and max_length go with string, not with {self.type}")
        if self.type not in ("date", "timestamp") and self.format:
            problems.append(f"format goes with date and timestamp, not with {self.type}")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            problems.append(f"minimum {self.minimum:g} is above maximum {self.maximum:g}")
        if self.pattern:
            try:
                re.compile(self.pattern)
            except re.error as error:
                problems.append(f"pattern {self.pattern!r} is no regular expression: {error}")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class RecordSpec(Strict):
    """What a record is."""

    schema_version: int = Field(
        default=1,
        ge=1,
        description="Raised with a change that breaks senders or readers; see record.lock.json.",
    )
    identifier: ColumnName = Field(
        description="Field that identifies a record; a later one replaces an earlier one."
    )
    event_time: ColumnName = Field(description="Date or timestamp field that says when it happened (UTC).")
    late_after_days: int | None = Field(
        default=None, ge=0, description="Records older than this on arrival are kept and counted as late."
    )
    fields: dict[ColumnName, RecordField] = Field(min_length=3)


class BinaryLabel(Strict):
    """Two classes; the second value is the positive one and becomes 1."""

    task: Literal["binary"]
    field: ColumnName
    values: tuple[str | bool | int, str | bool | int] = Field(
        description="[negative, positive], as they stand in records."
    )


class MulticlassLabel(Strict):
    """Three classes or more; a class becomes its position."""

    task: Literal["multiclass"]
    field: ColumnName
    values: tuple[str | bool | int, ...] = Field(min_length=3)


class RegressionLabel(Strict):
    """A number."""

    task: Literal["regression"]
    field: ColumnName


Label = Annotated[BinaryLabel | MulticlassLabel | RegressionLabel, Field(discriminator="task")]


# --- features -----------------------------------------------------------------------------------------


class BinFeature(Strict):
    """Number to named interval. Intervals are closed on the left: ``edges[i] <= x < edges[i + 1]``."""

    kind: Literal["bin"]
    field: ColumnName
    edges: tuple[float, ...] = Field(min_length=2)
    labels: tuple[str, ...] = Field(min_length=1)
    below: str = "below"
    above: str = "above"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if list(self.edges) != sorted(set(self.edges)):
            raise ValueError(f"edges must rise, got {list(self.edges)}")
        if len(self.labels) != len(self.edges) - 1:
            raise ValueError(
                f"{len(self.edges)} edges make {len(self.edges) - 1} labels, got {len(self.labels)}"
            )
        return self


class DaysBetweenFeature(Strict):
    """Days from one date to another; negative when ``until`` is the earlier one."""

    kind: Literal["days_between"]
    since: ColumnName
    until: ColumnName


class RatioFeature(Strict):
    """``numerator / denominator``; no value where the denominator is 0 or missing."""

    kind: Literal["ratio"]
    numerator: ColumnName
    denominator: ColumnName


class DatePartFeature(Strict):
    """Part of a date as an integer: weekday is 1 (Monday) to 7 (Sunday)."""

    kind: Literal["date_part"]
    field: ColumnName
    part: Literal["year", "month", "day", "weekday", "hour"]


class PythonFeature(Strict):
    """An expression of that name in the workload's own ``features.py``."""

    kind: Literal["python"]
    type: Literal["number", "category"]


DerivedFeature = Annotated[
    BinFeature | QuantileBinFeature | DaysBetweenFeature | RatioFeature | DatePartFeature | PythonFeature,
    Field(discriminator="kind"),
]


class Exclusion(Strict):
    """A field that could be a feature and is not."""

    field: ColumnName
    reason: str = Field(min_length=3)


class Features(Strict):
    """What the model sees: every field unless excluded, sensitive, the label, a key or a date."""

    fields: Literal["all"] | tuple[ColumnName, ...] = "all"
    exclude: tuple[Exclusion, ...] = ()
    derive: dict[ColumnName, DerivedFeature] = Field(default_factory=dict)
    impute_numbers: Literal["median", "mean", "zero", "none"] = Field(
        default="none",
        description="none leaves gaps to the algorithm; the value is fitted on the training split.",
    )
    max_categories: int = Field(
        default=50,
        ge=2,
        le=1000,
        description="Most frequent categories kept per field; the rest share one column.",
    )
    minimum_category_count: int = Field(default=1, ge=1)
    store: FeatureStore = FeatureStore()
    impute: dict[ColumnName, Imputation] = Field(
        default_factory=dict, description="Gaps of single features, before they are encoded and scaled."
    )
    outliers: dict[ColumnName, Outliers] = Field(
        default_factory=dict, description="Limits of single number features, before gaps are filled."
    )
    encode: dict[ColumnName, Encoding] = Field(
        default_factory=dict, description="Categories that are not encoded one hot."
    )
    scale: Scale = Field(
        default="none",
        description="All number columns, and categories encoded as one; trees need none.",
    )
    scale_fields: dict[ColumnName, Scale] = Field(
        default_factory=dict, description="Scales of single features."
    )


# --- training and judging -----------------------------------------------------------------------------


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


BinaryMetric = Literal["auc", "average_precision", "accuracy", "precision", "recall", "f1", "log_loss"]
MulticlassMetric = Literal["accuracy", "macro_f1", "log_loss"]
RegressionMetric = Literal["rmse", "mae", "mse", "r2"]
Metric = Literal[
    "auc",
    "average_precision",
    "accuracy",
    "precision",
    "recall",
    "f1",
    "log_loss",
    "macro_f1",
    "rmse",
    "mae",
    "mse",
    "r2",
]
#: Metrics where less is better.
LOSS_METRICS = frozenset({"log_loss", "rmse", "mae", "mse"})
METRICS: dict[str, tuple[str, ...]] = {
    "binary": ("auc", "average_precision", "accuracy", "precision", "recall", "f1", "log_loss"),
    "multiclass": ("accuracy", "macro_f1", "log_loss"),
    "regression": ("rmse", "mae", "mse", "r2"),
}


class Acceptance(Strict):
    """When a trained model is good enough to be registered: its metric on the held-out test split."""

    metric: Metric
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        loss = self.metric in LOSS_METRICS
        if loss and (self.at_most is None or self.at_least is not None):
            raise ValueError(f"{self.metric} is better when it is lower: give at_most, not at_least")
        if not loss and (self.at_least is None or self.at_most is not None):
            raise ValueError(f"{self.metric} is better when it is higher: give at_least, not at_most")
        return self


# --- serving ------------------------------------------------------------------------------------------


class ServingScaling(Strict):
    """Target tracking on invocations per instance and minute."""

    min_capacity: int = Field(default=1, ge=1)
    max_capacity: int = Field(default=4, ge=1)
    target_invocations_per_instance: int = Field(default=1_000, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_capacity > self.max_capacity:
            raise ValueError(f"min_capacity {self.min_capacity} is above max_capacity {self.max_capacity}")
        return self


class Rollout(Strict):
    """How traffic moves to a new model, and what moves it back."""

    strategy: Literal["all_at_once", "canary", "linear"] = "canary"
    step_percent: int = Field(
        default=10, ge=5, le=50, description="Share of the first (canary) or each (linear) step."
    )
    bake_minutes: int = Field(
        default=10, ge=1, le=60, description="Wait after each step; alarms roll back meanwhile."
    )
    max_error_percent: float = Field(default=1.0, gt=0, le=100)
    max_latency_ms: int = Field(default=500, ge=1, le=60_000, description="p99 of ModelLatency.")


class Serving(Strict):
    """How the approved model answers."""

    instance_type: str = "ml.m5.large"
    initial_instance_count: int = Field(default=1, ge=1, le=100)
    scaling: ServingScaling = ServingScaling()
    rollout: Rollout = Rollout()
    capture_percent: Percent = 100
    decision_threshold: float = Field(
        default=0.5, gt=0, lt=1, description="Binary only: positive from this score on."
    )


# --- watching and retraining --------------------------------------------------------------------------


class DriftRule(Strict):
    """When the distribution of a field counts as drifted from its baseline."""

    distance: Literal["psi", "ks", "js"] = Field(
        default="psi", description="Population stability index, Kolmogorov-Smirnov, Jensen-Shannon (base 2)."
    )
    threshold: float = Field(default=0.25, gt=0)


class Monitoring(Strict):
    """What is watched on live traffic."""

    engine: Literal["processing", "model_monitor"] = Field(
        default="processing",
        description="model_monitor is closed to accounts that did not use it before 2026-07-30.",
    )
    every_hours: Literal[1, 2, 3, 4, 6, 8, 12, 24] = 1
    instance_type: str = "ml.m5.large"
    minimum_records: int = Field(
        default=100, ge=1, description="Fewer captured records are no evidence: alarm, not judged."
    )
    drift: DriftRule = DriftRule()
    fields: dict[ColumnName, DriftRule] = Field(default_factory=dict, description="Rules of single fields.")
    ignore: tuple[ColumnName, ...] = ()
    minimum_completeness: float = Field(default=0.95, ge=0, le=1)
    alarm_after_violations: int = Field(default=1, ge=1)


class Retraining(Strict):
    """When the training pipeline is started again."""

    on_drift: bool = True
    on_new_data: bool = False
    every_days: int | None = Field(default=None, ge=1, le=365)
    cooldown_hours: int = Field(default=24, ge=0, description="At least this long between two starts.")


# --- sources ------------------------------------------------------------------------------------------


# --- the whole ----------------------------------------------------------------------------------------


class Workload(Strict):
    """One use case: its data, its model and its care."""

    version: Literal[1]
    name: Slug
    title: str = Field(min_length=3, max_length=120)
    owner: str = Field(min_length=3, description="Who answers for it: a team or an address.")
    classification: Classification = "confidential"
    record: RecordSpec
    label: Label
    features: Features = Features()
    windows: Windows | None = None
    stream: Stream = Stream()
    sources: Sources = Field(default_factory=dict, description="Batch sources by name, beside the stream.")
    batch: Batch = Batch()
    training: Training = Training()
    acceptance: Acceptance
    serving: Serving = Serving()
    monitoring: Monitoring = Monitoring()
    retraining: Retraining = Retraining()
    governance: GovernanceSpec = GovernanceSpec()
    labelling: Labelling | None = None

    @property
    def id(self) -> str:
        """PascalCase form of the name, for construct ids: ``claims_fraud`` is ``ClaimsFraud``."""
        return "".join(part[:1].upper() + part[1:] for part in self.name.split("_"))

    @property
    def slug(self) -> str:
        """Hyphenated form of the name, for AWS names: ``claims_fraud`` is ``claims-fraud``."""
        return self.name.replace("_", "-")

    def json_dict(self) -> dict[str, Any]:
        """Plain JSON data of the whole workload, defaults included."""
        return self.model_dump(mode="json")
