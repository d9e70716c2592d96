"""Makes the classes of the training part even: rows repeated, or made up between neighbours."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
from ml_contract.compiled import CompiledContract
from ml_runtime.job import BadInputError

#: Rows of its own class among which SMOTE makes one up (Chawla et al. 2002, "SMOTE", k = 5).
NEIGHBOURS: Final = 5
#: Stands for a missing category while rows are compared; no text of a record holds a zero byte twice.
GAP: Final = "\0\0"


def balanced(train: pl.DataFrame, contract: CompiledContract) -> pl.DataFrame:
    """Return the training part with as many rows of each class as its largest one has.

    Rows that are made up come last, and have neither identifier nor event time: nothing happened then.
    ``class_weight`` changes no row; the training weighs them.
    """
    how = contract.training.get("balance", "none")
    if how == "oversample":
        return _oversampled(train, contract)
    if how == "smote":
        return _made_up(train, contract)
    return train


def _oversampled(train: pl.DataFrame, contract: CompiledContract) -> pl.DataFrame:
    from imblearn.over_sampling import RandomOverSampler

    rows = np.arange(train.height)[:, None]
    sampler = RandomOverSampler(random_state=contract.split["seed"])
    chosen, _ = sampler.fit_resample(rows, train[contract.label.field].to_numpy())
    oversampled: pl.DataFrame = train[chosen[:, 0]]
    return oversampled


def _made_up(train: pl.DataFrame, contract: CompiledContract) -> pl.DataFrame:
    """SMOTE for numbers and categories.

    A made-up row lies between a row and one of its neighbours; its categories are those of most of the
    neighbours, and so is what is missing, so that gaps stay as frequent as they are.
    """
    from imblearn.over_sampling import SMOTENC

    label = contract.label.field
    smallest = int(train[label].value_counts()["count"].min())  # type: ignore[arg-type]
    if smallest < 2:
        raise BadInputError(
            "balance smote needs two training rows of each class, to make rows up between them"
        )
    table = _Table(train, contract)
    sampler = SMOTENC(
        categorical_features=table.categorical,
        random_state=contract.split["seed"],
        k_neighbors=min(NEIGHBOURS, smallest - 1),
    )
    rows, labels = sampler.fit_resample(table.rows, train[label].to_numpy())
    made = table.back(rows[train.height :], labels[train.height :])
    return pl.concat([train, made.select(train.columns).cast(dict(train.schema))])  # type: ignore[arg-type]


class _Table:
    """The training part as SMOTE takes it: no gaps, numbers and categories in one array of objects."""

    def __init__(self, train: pl.DataFrame, contract: CompiledContract) -> None:
        self.contract = contract
        self.numbers: list[str] = []
        self.gaps: list[str] = []
        self.texts: list[str] = []
        columns: list[npt.NDArray[Any]] = []
        types = contract.types
        kinds = {feature.name: feature.type for feature in contract.features}
        for name, kind in kinds.items():
            if kind == "number" and types.get(name) != "boolean":
                self.numbers.append(name)
                known = train[name].fill_nan(None)
                columns.append(known.fill_null(_middle(known)).to_numpy())
                if known.null_count():
                    self.gaps.append(name)
        for name in self.gaps:
            columns.append(train[name].fill_nan(None).is_null().to_numpy().astype(object))
        for name, kind in kinds.items():
            if name not in self.numbers:
                self.texts.append(name)
                values = train[name] if kind == "category" else train[name].fill_nan(None).cast(pl.String)
                columns.append(values.fill_null(GAP).to_numpy())
        self.rows = np.column_stack([column.astype(object) for column in columns])
        first = len(self.numbers)
        self.categorical = list(range(first, first + len(self.gaps) + len(self.texts)))

    def back(self, rows: npt.NDArray[Any], labels: npt.NDArray[Any]) -> pl.DataFrame:
        """Return made-up rows as a feature table has them."""
        contract = self.contract
        names = [*self.numbers, *(f"gap of {name}" for name in self.gaps), *self.texts]
        columns: dict[str, pl.Series] = {}
        for position, name in enumerate(names):
            values = rows[:, position].tolist()
            if name in self.numbers:
                numbers = pl.Series(name, values, pl.Float64)
                # Between 2 and 3 vehicles lie no 2.4 vehicles.
                columns[name] = numbers.round() if contract.types.get(name) == "integer" else numbers
            elif name in self.texts:
                texts = pl.Series(name, [None if value == GAP else value for value in values], pl.String)
                columns[name] = texts
            else:
                columns[name] = pl.Series(name, [bool(value) for value in values], pl.Boolean)
        for name in self.gaps:
            gap = columns.pop(f"gap of {name}")
            columns[name] = pl.select(pl.when(~gap).then(columns[name]).alias(name)).to_series()
        columns[contract.label.field] = pl.Series(contract.label.field, labels.tolist())
        made = pl.DataFrame(columns)
        absent = [name for name, _ in contract.training_columns() if name not in made.columns]
        return made.with_columns(pl.lit(None).alias(name) for name in absent)


def _middle(known: pl.Series) -> float:
    middle = known.median()
    return float(middle) if isinstance(middle, float) else 0.0
