"""What is fitted on the training split: values that fill gaps, and the categories of each field.

A fitted transform is literals only, so it travels with the model as JSON and gives the same numbers for a
table (``matrix``) and for one record (``vector``).

- A number feature is one column; a gap is the fitted value, or NaN when the contract imputes nothing.
- A category feature is one column per kept value (``f=value``) and one for every other value
  (``f=<other>``). A missing category is 0 in all of them.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from ml_contract.compiled import CompiledContract

__all__ = ["Fitted", "fit"]

OTHER: Final = "<other>"
VERSION: Final = 1


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """The fitted transform. ``categories`` and ``imputed`` hold one entry per feature of that kind."""

    features: tuple[tuple[str, str], ...]
    imputed: Mapping[str, float | None]
    categories: Mapping[str, tuple[str, ...]]

    @cached_property
    def output_names(self) -> list[str]:
        """Names of the columns of the matrix, in order."""
        names = []
        for name, kind in self.features:
            if kind == "number":
                names.append(name)
            else:
                names += [f"{name}={value}" for value in self.categories[name]]
                names.append(f"{name}={OTHER}")
        return names

    def matrix(self, native: Any) -> Any:
        """Feature table (any engine) to a float32 array ``[rows, len(output_names)]``; NaN is missing."""
        import numpy as np

        table = _collected(native, [name for name, _ in self.features])
        rows = len(table)
        result = np.zeros((rows, len(self.output_names)), dtype=np.float32)
        position = 0
        for name, kind in self.features:
            if kind == "number":
                values = _numbers(table, name)
                fill = self.imputed[name]
                if fill is not None:
                    values = np.where(np.isnan(values), fill, values)
                result[:, position] = _float32(values)
                position += 1
            else:
                index = {value: i for i, value in enumerate(self.categories[name])}
                other = len(index)
                codes = np.fromiter(
                    (-1 if v is None else index.get(v, other) for v in _texts(table, name)),
                    dtype=np.int64,
                    count=rows,
                )
                present = np.flatnonzero(codes >= 0)
                result[present, position + codes[present]] = 1.0
                position += other + 1
        return result

    def vector(self, features: Mapping[str, float | str | None]) -> list[float]:
        """One record's features to the same numbers, 64 bits wide; the model reads them as float32."""
        return self._vector(features)

    @cached_property
    def _vector(self) -> Callable[[Mapping[str, float | str | None]], list[float]]:
        lines = ["def vector(f):", "    v = template.copy()"]
        namespace: dict[str, Any] = {"template": [0.0] * len(self.output_names), "nan": math.nan}
        position = 0
        for name, kind in self.features:
            lines.append(f"    x = f[{name!r}]")
            if kind == "number":
                fill = self.imputed[name]
                lines.append(
                    f"    v[{position}] = {'nan' if fill is None else repr(fill)} if x is None else x"
                )
                position += 1
            else:
                values = self.categories[name]
                namespace[f"i{position}"] = {value: position + i for i, value in enumerate(values)}
                lines.append("    if x is not None:")
                lines.append(f"        v[i{position}.get(x, {position + len(values)})] = 1.0")
                position += len(values) + 1
        lines.append("    return v")
        # Made from repr() of names and numbers only.
        exec(compile("\n".join(lines), "<fitted vector>", "exec"), namespace)  # noqa: S102
        function: Callable[[Mapping[str, float | str | None]], list[float]] = namespace["vector"]
        return function

    def to_json(self) -> str:
        """Canonical text."""
        data = {
            "version": VERSION,
            "features": [list(f) for f in self.features],
            "imputed": dict(self.imputed),
            "categories": {name: list(values) for name, values in self.categories.items()},
        }
        return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Fitted:
        """Read what ``to_json`` wrote. Raises ValueError when another version wrote it."""
        data = json.loads(text)
        if data.get("version") != VERSION:
            raise ValueError(
                f"fitted transform of version {data.get('version')!r}; this reader knows version {VERSION}"
            )
        return cls(
            features=tuple((name, kind) for name, kind in data["features"]),
            imputed=data["imputed"],
            categories={name: tuple(values) for name, values in data["categories"].items()},
        )


def fit(native: Any, contract: CompiledContract) -> Fitted:
    """Fit on a feature table (what ``feature_frame`` gives); only the training split belongs here."""
    table = _collected(native, [f.name for f in contract.features])
    imputed: dict[str, float | None] = {}
    categories: dict[str, tuple[str, ...]] = {}
    for feature in contract.features:
        if feature.type == "number":
            imputed[feature.name] = _fill_value(_numbers(table, feature.name), contract.fit.impute_numbers)
        else:
            counts = Counter(v for v in _texts(table, feature.name) if v is not None)
            kept = [v for v, n in counts.items() if n >= contract.fit.minimum_category_count]
            kept.sort(key=lambda v: (-counts[v], v))
            categories[feature.name] = tuple(sorted(kept[: contract.fit.max_categories]))
    return Fitted(
        features=tuple((f.name, f.type) for f in contract.features), imputed=imputed, categories=categories
    )


def _fill_value(values: Any, how: str) -> float | None:
    import numpy as np

    if how == "none":
        return None
    known = values[~np.isnan(values)]
    if how == "zero" or len(known) == 0:
        return 0.0
    # Sorted first: the mean of floats depends on their order, and engines deliver rows in any order.
    return float(np.median(known)) if how == "median" else float(math.fsum(np.sort(known)) / len(known))


def _collected(native: Any, columns: list[str]) -> Any:
    import narwhals as nw

    frame = nw.from_native(native).select(columns)
    return frame.collect() if isinstance(frame, nw.LazyFrame) else frame


def _numbers(table: Any, name: str) -> Any:
    """float64 array, NaN where there is no value."""
    import numpy as np

    values = np.array([math.nan if v is None else v for v in table[name].to_list()], dtype=np.float64)
    values[~np.isfinite(values)] = math.nan
    return values


def _texts(table: Any, name: str) -> list[str | None]:
    return [v if isinstance(v, str) else None for v in table[name].to_list()]


def _float32(values: Any) -> Any:
    """As float32. What does not fit becomes infinite, as it does when a vector is made float32."""
    import numpy as np

    with np.errstate(over="ignore"):
        return values.astype(np.float32)
