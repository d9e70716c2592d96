"""The compiled contract: what code that runs in an account reads. Standard library only.

``ml_contract.load`` makes it from a ``workload.yaml``; it travels as one JSON file beside the code of every
Lambda function, Glue job and container. Its text is canonical: the same workload gives the same bytes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Final, Literal

from ml_contract.expressions import Expr

__all__ = ["Column", "CompiledContract", "Feature", "FitSpec", "LabelSpec", "Window", "WindowSpec"]

VERSION: Final = 1

#: Type of a field -> type of its column in the Glue Data Catalog (Hive's names).
HIVE_TYPES: Final[dict[str, str]] = {
    "integer": "bigint",
    "number": "double",
    "string": "string",
    "boolean": "boolean",
    "date": "date",
    "timestamp": "timestamp",
}


@dataclass(frozen=True, kw_only=True)
class Column:
    """One field of the record. ``source`` is its name in incoming records."""

    name: str
    source: str
    type: str
    required: bool = False
    minimum: float | None = None
    maximum: float | None = None
    allowed: tuple[str, ...] | None = None
    pattern: str | None = None
    max_length: int | None = None
    missing: tuple[str, ...] = ()
    format: str | None = None
    sensitive: str | None = None


@dataclass(frozen=True, kw_only=True)
class LabelSpec:
    """What is predicted. ``values`` are the classes as texts, in order; None for regression.

    A binary label's second value is the positive one. In a feature frame a class is this text, and the
    label of a regression a number.
    """

    task: Literal["binary", "multiclass", "regression"]
    field: str
    values: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One stateless feature: a number, or a category (a text)."""

    name: str
    type: Literal["number", "category"]
    expression: Expr


@dataclass(frozen=True, kw_only=True)
class Window:
    """One window feature."""

    name: str
    aggregate: str
    field: str | None
    over_hours: int


@dataclass(frozen=True, kw_only=True)
class WindowSpec:
    """The window features of a workload."""

    key: str
    windows: tuple[Window, ...]

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields that are aggregated, each once."""
        return tuple(dict.fromkeys(w.field for w in self.windows if w.field is not None))


@dataclass(frozen=True, kw_only=True)
class FitSpec:
    """How features are fitted on the training split."""

    impute_numbers: Literal["median", "mean", "zero", "none"] = "none"
    max_categories: int = 50
    minimum_category_count: int = 1
    #: By feature, as the workload's blocks have them; features without an entry take the defaults.
    impute: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    outliers: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    encode: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    scale: Literal["none", "standard", "min_max", "robust"] = "none"
    scale_fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    #: Number of fitted bins by feature.
    bins: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CompiledContract:
    """Everything that runtime code needs to know of a workload."""

    name: str
    identifier: str
    event_time: str
    late_after_days: int | None
    columns: tuple[Column, ...]
    label: LabelSpec
    features: tuple[Feature, ...]
    fit: FitSpec
    decision_threshold: float
    split: dict[str, Any]
    acceptance: dict[str, Any]
    monitoring: dict[str, Any]
    training: dict[str, Any]
    rules: tuple[str, ...]
    #: Of the ``batch`` block: ``dedup`` and the ``severity`` of data quality rules.
    batch: dict[str, Any] = dataclasses.field(default_factory=dict)
    windows: WindowSpec | None = None
    #: The ``evaluation`` block.
    evaluation: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def slug(self) -> str:
        """The name as AWS names have it: ``claims-fraud``."""
        return self.name.replace("_", "-")

    @cached_property
    def by_name(self) -> Mapping[str, Column]:
        """Columns by name."""
        return {c.name: c for c in self.columns}

    @cached_property
    def input_columns(self) -> tuple[Column, ...]:
        """What features are made from: the fields of the record, and the window features as numbers.

        A request brings the latter, as they stand in the online store; a table has them computed.
        """
        if self.windows is None:
            return self.columns
        return (
            *self.columns,
            *(Column(name=w.name, source=w.name, type="number") for w in self.windows.windows),
        )

    @cached_property
    def for_requests(self) -> CompiledContract:
        """The contract of requests to a model: a caller brings the window features, as any field."""
        return self if self.windows is None else replace(self, columns=self.input_columns, windows=None)

    @cached_property
    def types(self) -> Mapping[str, str]:
        """Type by name, of the fields and the window features."""
        return {c.name: c.type for c in self.input_columns}

    @property
    def label_column(self) -> Column:
        """The field that holds the label."""
        return self.by_name[self.label.field]

    def glue_columns(self) -> list[tuple[str, str]]:
        """Columns of the raw and the curated table with their Hive types, delivery's two last."""
        columns = [(c.name, HIVE_TYPES[c.type]) for c in self.columns]
        return [*columns, ("record_id", "string"), ("received_at", "timestamp")]

    @property
    def group(self) -> str | None:
        """The field whose rows stay in one part of the split."""
        found: str | None = self.split.get("group")
        return found

    @property
    def group_key(self) -> str | None:
        """The group where it is a column of the features table for its own sake: no key and no feature."""
        others = {self.identifier, self.event_time, self.label.field, *(f.name for f in self.features)}
        return None if self.group in others else self.group

    @cached_property
    def audit(self) -> tuple[Feature, ...]:
        """Fields that models are judged by and never see: facets, subgroups, segments that are no features.

        They are computed as features are, stand last in the features table, and end with the held-out rows.
        """
        bias = self.evaluation.get("bias") or {}
        named = {*self.evaluation.get("subgroups", ()), *bias.get("facets", ()), bias.get("group")}
        named |= set(self.monitoring.get("segments", ()))
        there = {self.identifier, self.event_time, self.label.field, *(f.name for f in self.features)}
        return tuple(
            Feature(
                name=column.name,
                type="category" if column.type == "string" else "number",
                expression=Expr("col", (), (column.name,)),
            )
            # In the order of the record: that of a block is lost on the way.
            for column in self.columns
            if column.name in named and column.name not in there and column.name != self.group_key
        )

    def feature_columns(self) -> list[tuple[str, str]]:
        """Columns of the features table with Hive types: training's, then what models are judged by."""
        return [
            *self.training_columns(),
            *((f.name, "double" if f.type == "number" else "string") for f in self.audit),
        ]

    def training_columns(self) -> list[tuple[str, str]]:
        """Columns that training reads, with Hive types.

        Identifier, event time, label, the group of a grouped split if it is no feature, then each feature.
        """
        identifier = self.by_name[self.identifier]
        keys = [(self.identifier, HIVE_TYPES[identifier.type]), (self.event_time, "string")]
        label = (self.label.field, "double" if self.label.task == "regression" else "string")
        features = [(f.name, "double" if f.type == "number" else "string") for f in self.features]
        group = [(self.group_key, "string")] if self.group_key is not None else []
        return [*keys, label, *group, *features]

    def feature_definitions(self) -> list[tuple[str, str]]:
        """The same columns with their Feature Store types."""
        names = {"bigint": "Integral", "double": "Fractional", "string": "String"}
        return [(name, names[kind]) for name, kind in self.feature_columns()]

    # --- as text --------------------------------------------------------------------------------------

    def to_json(self) -> str:
        """Canonical text: sorted keys, no blanks."""
        data = {
            "version": VERSION,
            "name": self.name,
            "identifier": self.identifier,
            "event_time": self.event_time,
            "late_after_days": self.late_after_days,
            "columns": [asdict(c) for c in self.columns],
            "label": asdict(self.label),
            "features": [
                {"name": f.name, "type": f.type, "expression": f.expression.to_json()} for f in self.features
            ],
            "fit": asdict(self.fit),
            "decision_threshold": self.decision_threshold,
            "split": self.split,
            "acceptance": self.acceptance,
            "monitoring": self.monitoring,
            "training": self.training,
            "rules": self.rules,
            "batch": self.batch,
            "windows": None if self.windows is None else asdict(self.windows),
            "evaluation": self.evaluation,
        }
        return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> CompiledContract:
        """Read what ``to_json`` wrote. Raises ValueError when another version wrote it."""
        data = json.loads(text)
        version = data.pop("version", None)
        if version != VERSION:
            raise ValueError(f"compiled contract of version {version!r}; this reader knows version {VERSION}")
        label = data.pop("label")
        columns = data.pop("columns")
        features = data.pop("features")
        fit = data.pop("fit")
        rules = data.pop("rules")
        windows = data.pop("windows")
        return cls(
            columns=tuple(
                Column(
                    **{
                        **c,
                        "allowed": None if c["allowed"] is None else tuple(c["allowed"]),
                        "missing": tuple(c["missing"]),
                    }
                )
                for c in columns
            ),
            label=LabelSpec(
                task=label["task"],
                field=label["field"],
                values=None if label["values"] is None else tuple(label["values"]),
            ),
            features=tuple(
                Feature(name=f["name"], type=f["type"], expression=Expr.from_json(f["expression"]))
                for f in features
            ),
            fit=FitSpec(**fit),
            rules=tuple(rules),
            windows=None
            if windows is None
            else WindowSpec(key=windows["key"], windows=tuple(Window(**w) for w in windows["windows"])),
            **data,
        )
