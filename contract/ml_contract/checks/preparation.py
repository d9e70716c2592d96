"""What holds between the blocks that say how features are fitted and the fields they name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ml_contract.problems import Location, short, suggest
from ml_contract.spec.features import BinFeature, PythonFeature
from ml_contract.spec.preparation import (
    Imputation,
    OrdinalEncoding,
    Outliers,
    QuantileBinFeature,
    TargetEncoding,
)
from ml_contract.spec.record import RegressionLabel
from ml_contract.spec.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["check_preparation"]

#: What a field may be whose rows stay together.
GROUP_TYPES = ("string", "integer", "boolean")


def check_preparation(
    workload: Workload, features: list[str], wrong: Callable[[Location, str], None]
) -> None:
    """Report every problem of the blocks to ``wrong``; ``features`` are the names of all features."""
    checks = _Checks(workload, features, wrong)
    checks.imputation()
    checks.outliers()
    checks.encodings()
    checks.scales()
    checks.training()


class _Checks:
    def __init__(
        self, workload: Workload, features: list[str], wrong: Callable[[Location, str], None]
    ) -> None:
        self.workload = workload
        self.block = workload.features
        self.wrong = wrong
        self.kinds = {name: self._kind(name) for name in features}

    def _kind(self, name: str) -> str:
        derived = self.block.derive.get(name)
        if self.workload.windows is not None and name in self.workload.windows.features:
            return "number"
        if derived is None:
            return "category" if self.workload.record.fields[name].type == "string" else "number"
        if isinstance(derived, PythonFeature):
            return derived.type
        return "category" if isinstance(derived, BinFeature) else "number"

    def _known(self, block: str, named: Mapping[str, object]) -> list[str]:
        """Names that are features; the others are problems."""
        for name in named:
            if name in self.kinds:
                continue
            if name in self.workload.record.fields:
                message = f"{name} is a field but no feature, so nothing is fitted for it; remove it here"
            else:
                message = f"got {name!r}, which is no feature{suggest(name, list(self.kinds))}"
            self.wrong(("features", block, name), message)
        return [name for name in named if name in self.kinds]

    def imputation(self) -> None:
        for name in self._known("impute", self.block.impute):
            self._imputation(("features", "impute", name), name, self.block.impute[name])

    def _imputation(self, path: Location, name: str, impute: Imputation) -> None:
        kind = self.kinds[name]
        if kind == "category" and impute.kind in ("median", "mean", "zero"):
            self.wrong(
                (*path, "kind"),
                f"got {impute.kind!r}, but {name} is a category; allowed: most_frequent, constant, none",
            )
        value = impute.value
        if value is None:
            return
        if isinstance(value, str) != (kind == "category"):
            self.wrong((*path, "value"), f"got {short(value)}, but {name} is a {kind}")
        elif isinstance(value, float) and not math.isfinite(value):
            self.wrong((*path, "value"), f"got {value}; a constant must be finite")
        limits = self.block.outliers.get(name)
        if limits is not None and isinstance(value, float):
            for bound, beyond in (("lower", -1), ("upper", 1)):
                limit = getattr(limits, bound)
                if limit is not None and (value - limit) * beyond > 0:
                    self.wrong(
                        (*path, "value"),
                        f"got {value:g}, beyond features.outliers.{name}.{bound} {limit:g}; move one of them",
                    )

    def outliers(self) -> None:
        for name in self._known("outliers", self.block.outliers):
            path: Location = ("features", "outliers", name)
            if self.kinds[name] == "category":
                self.wrong(path, f"{name} is a category; only numbers have outliers")
                continue
            self._limits(path, self.block.outliers[name])

    def _limits(self, path: Location, limits: Outliers) -> None:
        for side in ("lower", "upper"):
            value = getattr(limits, side)
            if value is not None and not math.isfinite(value):
                self.wrong((*path, side), f"got {value}; a limit must be finite")

    def encodings(self) -> None:
        for name in self._known("encode", self.block.encode):
            path: Location = ("features", "encode", name)
            encoding = self.block.encode[name]
            if self.kinds[name] == "number":
                self.wrong(path, f"{name} is a number; only categories are encoded")
            elif isinstance(encoding, OrdinalEncoding):
                self._order((*path, "order"), name, encoding)
            elif isinstance(encoding, TargetEncoding) and self.workload.training.balance == "smote":
                self.wrong(
                    (*path, "kind"),
                    "got 'target', but training.balance smote makes rows up between others, whose labels the "
                    "encoding would tell; use oversample or class_weight, or another encoding",
                )

    def _order(self, path: Location, name: str, encoding: OrdinalEncoding) -> None:
        order = encoding.order
        if len(set(order)) != len(order):
            self.wrong(path, f"got {short(list(order))}, which names a value twice")
        impute = self.block.impute.get(name)
        constant = impute.value if impute is not None and isinstance(impute.value, str) else None
        if constant is not None and constant not in order:
            self.wrong(
                path, f"lacks {constant!r}, which features.impute.{name} fills gaps with; add it to the order"
            )
        field = self.workload.record.fields.get(name)
        derived = self.block.derive.get(name)
        known: tuple[str, ...] | None = None
        if field is not None:
            known = field.allowed
        elif isinstance(derived, BinFeature):
            known = (derived.below, *derived.labels, derived.above)
        if known is None:
            return
        missing = [value for value in known if value not in order]
        if missing:
            self.wrong(
                path, f"lacks {', '.join(missing)}, which would count as missing; place it in the order"
            )
        for i, value in enumerate(order):
            if value not in known and value != constant:
                self.wrong((*path, i), f"got {value!r}, which {name} never is{suggest(value, list(known))}")

    def scales(self) -> None:
        for name in self._known("scale_fields", self.block.scale_fields):
            path: Location = ("features", "scale_fields", name)
            encoding = self.block.encode.get(name)
            if self.kinds[name] == "category" and (encoding is None or encoding.kind == "one_hot"):
                self.wrong(
                    path, f"{name} is encoded one hot; columns of 0 and 1 are not scaled, remove it here"
                )
            elif isinstance(self.block.derive.get(name), QuantileBinFeature):
                self.wrong(path, f"{name} is a column per interval; 0 and 1 are not scaled, remove it here")

    def training(self) -> None:
        training, label = self.workload.training, self.workload.label
        if training.balance != "none":
            if isinstance(label, RegressionLabel):
                self.wrong(
                    ("training", "balance"),
                    f"got {training.balance!r}; a regression label has no classes to balance, remove it",
                )
            if "scale_pos_weight" in training.hyperparameters:
                self.wrong(
                    ("training", "hyperparameters", "scale_pos_weight"),
                    f"balances the classes as training.balance {training.balance} does; keep one",
                )
        group = training.split.group
        if group is None:
            return
        path: Location = ("training", "split", "group")
        field = self.workload.record.fields.get(group)
        if field is None:
            hint = suggest(group, list(self.workload.record.fields))
            self.wrong(path, f"got {group!r}, which is no field of the record{hint}")
        elif group == self.workload.record.identifier:
            self.wrong(
                path,
                f"got {group!r}, the identifier: every row is a group of its own; use stratified or shuffled",
            )
        elif group == label.field:
            self.wrong(path, f"got {group!r}, the label; name the field whose rows stay together")
        elif field.type not in GROUP_TYPES:
            self.wrong(path, f"{group} is {field.type}; allowed here: {', '.join(GROUP_TYPES)}")
