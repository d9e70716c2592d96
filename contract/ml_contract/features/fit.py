"""What is fitted on the training split: limits, values that fill gaps, encodings and scales.

A fitted transform is literals only, so it travels with the model as JSON and gives the same numbers for a
table (``matrix``) and for one record (``vector``). Each feature goes through these steps, in this order:

- A number: what is not finite is missing; beyond a limit it is put on the limit or is missing; a gap is
  filled; then it is scaled. Or it falls into one of the fitted intervals, a column each (``f=1``).
- A category: a gap is filled; then it is encoded. One hot, the default, is one column per kept value
  (``f=value``) and one for every other value (``f=<other>``). The other encodings are a table from value to
  number (``f``; ``f=class`` per class of a multiclass label), scaled if asked for.
- What is still missing is NaN in a number column and 0 in the columns that are 0 or 1.
- An indicator (``f=<missing>``) is 1 where the value was missing before the gap was filled.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, Literal

from ml_contract.compiled import CompiledContract, Feature

__all__ = ["CategoryFit", "Fitted", "NumberFit", "fit"]

OTHER: Final = "<other>"
MISSING: Final = "<missing>"
VERSION: Final = 2
#: Categories kept by encodings that need no column for each.
MAX_ENCODED: Final = 10_000

Numbers = tuple[float | None, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NumberFit:
    """How one number becomes columns. ``center`` and ``width`` are 0 and 1 where nothing is scaled."""

    name: str
    low: float | None = None
    high: float | None = None
    beyond: Literal["clip", "missing"] = "clip"
    fill: float | None = None
    indicator: bool = False
    center: float = 0.0
    width: float = 1.0
    #: Inner edges of fitted intervals, each closed on the left; None where the number stays one column.
    edges: tuple[float, ...] | None = None

    @property
    def columns(self) -> list[str]:
        names = [self.name] if self.edges is None else [f"{self.name}={i + 1}" for i in range(self.bins)]
        return [*names, f"{self.name}={MISSING}"] if self.indicator else names

    @property
    def bins(self) -> int:
        """Number of intervals."""
        return len(self.edges or ()) + 1

    @property
    def scaled(self) -> bool:
        """Whether anything has to be subtracted or divided by."""
        return (self.center, self.width) != (0.0, 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CategoryFit:
    """How one category becomes columns.

    One hot has ``codes`` None. Else ``codes`` holds the numbers of each value, one tuple per output column,
    ``other`` those of a value that is not among ``values``; None is NaN. ``folds`` holds for target encoding
    the codes that each fold of the training rows gets.
    """

    name: str
    encoding: Literal["one_hot", "ordinal", "frequency", "target"] = "one_hot"
    values: tuple[str, ...] = ()
    fill: str | None = None
    indicator: bool = False
    outputs: tuple[str, ...] = ()
    codes: tuple[Numbers, ...] | None = None
    other: Numbers = ()
    folds: tuple[tuple[tuple[Numbers, ...], Numbers], ...] = ()

    @property
    def columns(self) -> list[str]:
        if self.codes is None:
            names = [*(f"{self.name}={value}" for value in self.values), f"{self.name}={OTHER}"]
        else:
            names = list(self.outputs)
        return [*names, f"{self.name}={MISSING}"] if self.indicator else names


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitted:
    """The fitted transform: one entry per feature, in the order of the contract.

    ``fold_key`` names the column whose rows share a fold of the training split; None where no encoding
    looks at the label.
    """

    fits: tuple[NumberFit | CategoryFit, ...]
    fold_key: str | None = None

    @cached_property
    def output_names(self) -> list[str]:
        """Names of the columns of the matrix, in order."""
        return [name for one in self.fits for name in one.columns]

    @cached_property
    def imputed(self) -> Mapping[str, float | None]:
        """The value that fills the gaps of each number; None where they stay."""
        return {one.name: one.fill for one in self.fits if isinstance(one, NumberFit)}

    @cached_property
    def categories(self) -> Mapping[str, tuple[str, ...]]:
        """The known values of each category."""
        return {one.name: one.values for one in self.fits if isinstance(one, CategoryFit)}

    # --- a table ----------------------------------------------------------------------------------------

    def matrix(self, native: Any) -> Any:
        """Feature table (any engine) to a float32 array ``[rows, len(output_names)]``; NaN is missing."""
        return self._matrix(_collected(native, [one.name for one in self.fits]), None)

    def training_matrix(self, native: Any) -> Any:
        """As ``matrix``, for the rows that were fitted on: target encodings leave out the row's own fold."""
        if self.fold_key is None:
            return self.matrix(native)
        table = _collected(native, [self.fold_key, *(one.name for one in self.fits)])
        return self._matrix(table, table[self.fold_key].to_list())

    def _matrix(self, table: Any, keys: list[object] | None) -> Any:
        import numpy as np

        rows = len(table)
        result = np.zeros((rows, len(self.output_names)), dtype=np.float32)
        position = 0
        for one in self.fits:
            width = len(one.columns)
            part = result[:, position : position + width]
            if isinstance(one, NumberFit):
                _fill_number(part, one, _numbers(table, one.name))
            else:
                _fill_category(part, one, table, keys)
            position += width
        return result

    # --- one record -------------------------------------------------------------------------------------

    def vector(self, features: Mapping[str, float | str | None]) -> list[float]:
        """One record's features to the same numbers, 64 bits wide; the model reads them as float32."""
        return self._vector(features)

    @cached_property
    def _vector(self) -> Callable[[Mapping[str, float | str | None]], list[float]]:
        writer = _VectorWriter(len(self.output_names))
        for one in self.fits:
            writer.write(one)
        return writer.function()

    # --- what it does to a table -------------------------------------------------------------------------

    def counts(self, native: Any) -> dict[str, dict[str, int]]:
        """By feature, how many rows of the table are missing, filled, beyond a limit, or not known."""
        import numpy as np

        table = _collected(native, [one.name for one in self.fits])
        result: dict[str, dict[str, int]] = {}
        for one in self.fits:
            if isinstance(one, NumberFit):
                values = _numbers(table, one.name)
                counted = {"missing": int(np.isnan(values).sum())}
                if one.low is not None:
                    counted["below"] = int((values < one.low).sum())
                if one.high is not None:
                    counted["above"] = int((values > one.high).sum())
                if one.fill is not None:
                    beyond = one.beyond == "missing"
                    counted["filled"] = counted["missing"] + beyond * (
                        counted.get("below", 0) + counted.get("above", 0)
                    )
            else:
                codes = _codes(table, one.name, one.values)
                counted = {
                    "missing": int((codes < 0).sum()),
                    "unknown": int((codes == len(one.values)).sum()),
                }
                if one.fill is not None:
                    counted["filled"] = counted["missing"]
            result[one.name] = counted
        return result

    # --- as text ------------------------------------------------------------------------------------------

    def to_json(self) -> str:
        """Canonical text."""
        data = {
            "version": VERSION,
            "features": [
                {"type": "number" if isinstance(one, NumberFit) else "category", **_told(one)}
                for one in self.fits
            ],
            "fold_key": self.fold_key,
        }
        return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Fitted:
        """Read what ``to_json`` wrote, or its first version. Raises ValueError for any other."""
        data = json.loads(text)
        version = data.get("version")
        if version == 1:
            return cls(
                fits=tuple(
                    NumberFit(name=name, fill=data["imputed"][name])
                    if kind == "number"
                    else CategoryFit(name=name, values=tuple(data["categories"][name]))
                    for name, kind in data["features"]
                )
            )
        if version != VERSION:
            raise ValueError(
                f"fitted transform of version {version!r}; this reader knows versions 1 and {VERSION}"
            )
        fits: list[NumberFit | CategoryFit] = []
        for entry in data["features"]:
            values = {key: _frozen(value) for key, value in entry.items() if key != "type"}
            fits.append(NumberFit(**values) if entry["type"] == "number" else CategoryFit(**values))
        return cls(fits=tuple(fits), fold_key=data["fold_key"])


def _told(one: NumberFit | CategoryFit) -> dict[str, Any]:
    """Its fields, without those that are at their default."""
    return {
        field.name: getattr(one, field.name)
        for field in dataclasses.fields(one)
        if field.default is dataclasses.MISSING or getattr(one, field.name) != field.default
    }


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value


# --- one record as generated code -------------------------------------------------------------------------


class _VectorWriter:
    """Writes the function of one record: straight lines, and only for what a feature needs."""

    def __init__(self, width: int) -> None:
        self.lines = ["def vector(f):", "    v = template.copy()"]
        self.names: dict[str, Any] = {"template": [0.0] * width, "nan": math.nan, "bisect": bisect_right}
        self.position = 0

    def write(self, one: NumberFit | CategoryFit) -> None:
        self._line(f"x = f[{one.name!r}]")
        if isinstance(one, NumberFit):
            self._number(one)
        else:
            self._category(one)
        self.position += len(one.columns)

    def function(self) -> Callable[[Mapping[str, float | str | None]], list[float]]:
        self._line("return v")
        # Made from repr() of names and numbers only.
        exec(compile("\n".join(self.lines), "<fitted vector>", "exec"), self.names)  # noqa: S102
        made: Callable[[Mapping[str, float | str | None]], list[float]] = self.names["vector"]
        return made

    def _line(self, code: str) -> None:
        self.lines.append(f"    {code}")

    def _constant(self, value: object) -> str:
        name = f"c{self.position}_{len(self.names)}"
        self.names[name] = value
        return name

    def _number(self, one: NumberFit) -> None:
        low, high = (None if limit is None else repr(limit) for limit in (one.low, one.high))
        if one.beyond == "missing":
            beyond = [f"x < {low}"] * (low is not None) + [f"x > {high}"] * (high is not None)
            if beyond:
                self._line(f"if x is not None and ({' or '.join(beyond)}):")
                self._line("    x = None")
        here = self.position
        if one.indicator:
            self._line("if x is None:")
            self._line(f"    v[{here + len(one.columns) - 1}] = 1.0")
        known = "x"
        if one.beyond == "clip" and low is not None:
            known = f"({low} if {known} < {low} else {known})"
        if one.beyond == "clip" and high is not None:
            known = f"({high} if x > {high} else {known})"
        if one.edges is not None:
            edges = self._constant(list(one.edges))
            if one.fill is None:
                self._line("if x is not None:")
                self._line(f"    v[{here} + bisect({edges}, {known})] = 1.0")
            else:
                gap = here + bisect_right(one.edges, one.fill)
                self._line(f"v[{gap} if x is None else {here} + bisect({edges}, {known})] = 1.0")
            return
        gap_text = "nan" if one.fill is None else repr(_scaled(one.fill, one.center, one.width))
        if one.scaled:
            known = f"({known} - {one.center!r}) / {one.width!r}"
        self._line(f"v[{here}] = {_spelled(gap_text)} if x is None else {known}")

    def _category(self, one: CategoryFit) -> None:
        here = self.position
        if one.indicator:
            self._line("if x is None:")
            self._line(f"    v[{here + len(one.columns) - 1}] = 1.0")
        if one.fill is not None:
            self._line("if x is None:")
            self._line(f"    x = {one.fill!r}")
        if one.codes is None:
            places = self._constant({value: here + i for i, value in enumerate(one.values)})
            place = f"v[{places}.get(x, {here + len(one.values)})] = 1.0"
            if one.fill is None:
                self._line("if x is not None:")
                place = f"    {place}"
            self._line(place)
            return
        for column in range(len(one.outputs)):
            codes: dict[str | None, float] = {
                value: _nan(numbers[column]) for value, numbers in zip(one.values, one.codes, strict=True)
            }
            codes[None] = math.nan
            table, other = self._constant(codes), self._constant(_nan(one.other[column]))
            self._line(f"v[{here + column}] = {table}.get(x, {other})")


def _spelled(number: str) -> str:
    """``inf`` and ``-inf`` as an expression that needs no name."""
    return {"inf": "1e999", "-inf": "-1e999"}.get(number, number)


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


# --- a table as arrays --------------------------------------------------------------------------------------


def _fill_number(part: Any, one: NumberFit, values: Any) -> None:
    import numpy as np

    if one.beyond == "missing":
        for limit, outside in ((one.low, np.less), (one.high, np.greater)):
            if limit is not None:
                values[outside(values, limit)] = math.nan
    missing = np.isnan(values)
    if one.indicator:
        part[:, -1] = missing
    if one.beyond == "clip":
        if one.low is not None:
            values = np.where(values < one.low, one.low, values)
        if one.high is not None:
            values = np.where(values > one.high, one.high, values)
    if one.fill is not None:
        values = np.where(missing, one.fill, values)
    if one.edges is not None:
        present = np.flatnonzero(~np.isnan(values))
        intervals = np.searchsorted(np.array(one.edges), values[present], side="right")
        part[present, intervals] = 1.0
        return
    if one.scaled:
        with np.errstate(over="ignore"):
            values = (values - one.center) / one.width
    part[:, 0] = _float32(values)


def _fill_category(part: Any, one: CategoryFit, table: Any, keys: list[object] | None) -> None:
    import numpy as np

    codes = _codes(table, one.name, one.values)
    if one.indicator:
        part[:, -1] = codes < 0
    if one.fill is not None:
        places = {value: i for i, value in enumerate(one.values)}
        codes = np.where(codes < 0, places.get(one.fill, len(one.values)), codes)
    if one.codes is None:
        present = np.flatnonzero(codes >= 0)
        part[present, codes[present]] = 1.0
        return
    if keys is None or not one.folds:
        _look_up(part, one.codes, one.other, codes)
        return
    folds = np.array([fold_of(key, len(one.folds)) for key in keys], dtype=np.int64)
    for number, (fold_codes, fold_other) in enumerate(one.folds):
        rows = np.flatnonzero(folds == number)
        answers = np.empty((len(rows), part.shape[1]), dtype=np.float32)
        _look_up(answers, fold_codes, fold_other, codes[rows])
        part[rows, : len(one.outputs)] = answers[:, : len(one.outputs)]


def _look_up(part: Any, codes: Sequence[Numbers], other: Numbers, positions: Any) -> None:
    import numpy as np

    # Missing is position -1: the last row.
    known = [*codes, other, (None,) * len(other)]
    numbers = np.array([[_nan(n) for n in row] for row in known], dtype=np.float64)
    part[:, : len(other)] = _float32(numbers[positions])


def fold_of(key: object, folds: int) -> int:
    """Fold of a training row by its key: the same on every machine, whatever the order of rows."""
    return zlib.crc32(str(key).encode()) % folds


def _collected(native: Any, columns: list[str]) -> Any:
    import narwhals as nw

    frame = nw.from_native(native).select(list(dict.fromkeys(columns)))
    return frame.collect() if isinstance(frame, nw.LazyFrame) else frame


def _numbers(table: Any, name: str) -> Any:
    """float64 array, NaN where there is no finite value."""
    import narwhals as nw
    import numpy as np

    values = np.array(table[name].cast(nw.Float64).to_numpy(), dtype=np.float64)
    values[~np.isfinite(values)] = math.nan
    return values


def _encoded(table: Any, name: str) -> tuple[Any, list[str]]:
    """Position of each row's text among the distinct ones, -1 for none; and those texts."""
    import numpy as np
    import pyarrow as pa

    column = table[name].to_arrow()
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        column = column.cast(pa.large_string())
    encoded = column.dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    positions = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return positions, encoded.dictionary.to_pylist()


def _codes(table: Any, name: str, values: Sequence[str]) -> Any:
    """Position of each row's text in ``values``; their number for any other text, -1 for none."""
    import numpy as np

    positions, distinct = _encoded(table, name)
    index = {value: i for i, value in enumerate(values)}
    # Missing is position -1: the last entry.
    places = np.array([*(index.get(text, len(index)) for text in distinct), -1], dtype=np.int64)
    return places[positions]


def _float32(values: Any) -> Any:
    """As float32. What does not fit becomes infinite, as it does when a vector is made float32."""
    import numpy as np

    with np.errstate(over="ignore"):
        return values.astype(np.float32)


# --- fitting ----------------------------------------------------------------------------------------------


def fit(native: Any, contract: CompiledContract) -> Fitted:
    """Fit on a feature table (what ``feature_frame`` gives); only the training split belongs here."""
    spec = contract.fit
    targeted = any(encode["kind"] == "target" for encode in spec.encode.values())
    key = (contract.group or contract.identifier) if targeted else None
    names = [f.name for f in contract.features]
    if key is not None:
        names += [key, contract.label.field]
    table = _collected(native, names)
    target = None if key is None else _Target(table, key, contract)
    return Fitted(
        fits=tuple(
            _number_fit(table, feature, contract)
            if feature.type == "number"
            else _category_fit(table, feature, contract, target)
            for feature in contract.features
        ),
        fold_key=key,
    )


def _number_fit(table: Any, feature: Feature, contract: CompiledContract) -> NumberFit:
    import numpy as np

    spec, name = contract.fit, feature.name
    values = _numbers(table, name)
    # Sorted: sums of floats depend on their order, and engines deliver rows in any order.
    known = np.sort(values[~np.isnan(values)])
    limits = spec.outliers.get(name)
    low = high = None
    beyond: Literal["clip", "missing"] = "clip"
    if limits is not None:
        beyond = limits["kind"]
        low = _limit(known, limits["lower"], limits["lower_quantile"])
        high = _limit(known, limits["upper"], limits["upper_quantile"])
        if low is not None and high is not None:
            low = min(low, high)  # a fitted limit may pass a fixed one
        inside = (known >= (-math.inf if low is None else low)) & (
            known <= (math.inf if high is None else high)
        )
        known = (
            np.clip(known, low, high) if beyond == "clip" and (low, high) != (None, None) else known[inside]
        )
    impute = spec.impute.get(name, {"kind": spec.impute_numbers, "indicator": False})
    fill = _fill_value(known, impute["kind"], impute.get("value"))
    if fill is not None and len(known) < len(values):
        known = np.sort(np.concatenate([known, np.full(len(values) - len(known), fill)]))
    if name in spec.bins:
        return NumberFit(
            name=name, low=low, high=high, beyond=beyond, fill=fill, indicator=impute["indicator"],
            edges=_quantile_edges(known, spec.bins[name]),
        )  # fmt: skip
    center, width = _scale(known, spec.scale_fields.get(name, spec.scale))
    return NumberFit(
        name=name, low=low, high=high, beyond=beyond, fill=fill, indicator=impute["indicator"],
        center=center, width=width,
    )  # fmt: skip


def _limit(known: Any, fixed: float | None, quantile: float | None) -> float | None:
    if quantile is None:
        return None if fixed is None else float(fixed)
    return _quantile(known, quantile) if len(known) else None


def _quantile(known: Any, share: float) -> float:
    """The smallest value that at least this share of the sorted values do not exceed."""
    return float(known[max(0, math.ceil(share * len(known) - 1e-9) - 1)])


def _quantile_edges(known: Any, bins: int) -> tuple[float, ...]:
    if not len(known):
        return ()
    edges = {_quantile(known, i / bins) for i in range(1, bins)}
    # Nothing is below the smallest value.
    return tuple(sorted(edge for edge in edges if edge > known[0]))


def _fill_value(known: Any, how: str, constant: Any) -> float | None:
    import numpy as np

    if how in ("none", "constant"):
        return None if how == "none" else float(constant)
    if how == "zero" or len(known) == 0:
        return 0.0
    if how == "most_frequent":
        values, counts = np.unique(known, return_counts=True)
        return float(values[counts.argmax()])
    return _mean(known) if how == "mean" else _median(known)


def _median(known: Any) -> float:
    middle = len(known) // 2
    if len(known) % 2:
        return float(known[middle])
    value = (float(known[middle - 1]) + float(known[middle])) / 2
    return value if math.isfinite(value) else float(known[middle - 1])


def _mean(known: Any) -> float:
    try:
        return float(math.fsum(known) / len(known))
    except OverflowError:
        return math.fsum(known / len(known))


def _scale(known: Any, how: str) -> tuple[float, float]:
    """What is subtracted and what is divided by: 1 where all values are the same."""
    import numpy as np

    if how == "none" or not len(known):
        return 0.0, 1.0
    lowest, highest = float(known[0]), float(known[-1])
    if lowest == highest:
        return lowest, 1.0
    if how == "min_max":
        center, width = lowest, highest - lowest
    elif how == "robust":
        center, width = _quantile(known, 0.5), _quantile(known, 0.75) - _quantile(known, 0.25)
    else:
        center = _mean(known)
        largest = max(abs(lowest), abs(highest)) or 1.0
        # By the largest value, so that no square overflows.
        width = float(np.std(known / largest)) * largest
    if not math.isfinite(width):
        width = sys.float_info.max
    # Most of the values may be the same, and what is next to nothing would blow up the others.
    return center, width if width > 1e-12 * max(abs(lowest), abs(highest)) else 1.0


def _scaled(value: float, center: float, width: float) -> float:
    return (value - center) / width


def _category_fit(
    table: Any, feature: Feature, contract: CompiledContract, target: _Target | None
) -> CategoryFit:
    import numpy as np

    spec, name = contract.fit, feature.name
    positions, distinct = _encoded(table, name)
    counts = Counter(
        dict(
            zip(
                distinct,
                np.bincount(positions[positions >= 0], minlength=len(distinct)).tolist(),
                strict=True,
            )
        )
    )
    impute = spec.impute.get(name, {"kind": "none", "indicator": False})
    fill: str | None = impute.get("value")
    if impute["kind"] == "most_frequent" and counts:
        fill = min(counts, key=lambda value: (-counts[value], value))
    gaps = int((positions < 0).sum())
    if fill is not None and gaps:
        counts[fill] += gaps
    encode = spec.encode.get(name, {"kind": "one_hot", "max_categories": None})
    how = encode["kind"]
    common: dict[str, Any] = {
        "name": name,
        "encoding": how,
        "fill": fill,
        "indicator": impute["indicator"],
        "outputs": (name,),
    }
    scale = spec.scale_fields.get(name, spec.scale)
    if how == "ordinal":
        values = tuple(encode["order"])
        codes = tuple((float(i),) for i in range(len(values)))
        weights = [counts.get(value, 0) for value in values]
        return CategoryFit(
            **common, values=values, **_scaled_codes(codes, (None,), weights=weights, scale=scale)
        )
    values = _kept(counts, encode["max_categories"] or spec.max_categories, spec.minimum_category_count)
    if how == "one_hot":
        return CategoryFit(**(common | {"outputs": ()}), values=values)
    total = max(1, sum(counts.values()))
    weights = [counts[value] for value in values]
    if how == "frequency":
        codes = tuple((counts[value] / total,) for value in values)
        return CategoryFit(
            **common, values=values, **_scaled_codes(codes, (0.0,), weights=weights, scale=scale)
        )
    if target is None:
        raise RuntimeError("target encoding needs the label")
    rows = _codes(table, name, values)
    if fill is not None:
        rows = np.where(rows < 0, values.index(fill) if fill in values else len(values), rows)
    return target.encode(
        common | {"outputs": target.outputs(name)}, values, rows, encode, weights=weights, scale=scale
    )


def _kept(counts: Mapping[str, int], limit: int, minimum: int) -> tuple[str, ...]:
    kept = [value for value, n in counts.items() if n >= minimum]
    kept.sort(key=lambda value: (-counts[value], value))
    return tuple(sorted(kept[:limit]))


def _scaled_codes(
    codes: tuple[Numbers, ...],
    other: Numbers,
    *,
    weights: Sequence[int],
    scale: str,
    folds: tuple[tuple[tuple[Numbers, ...], Numbers], ...] = (),
) -> dict[str, Any]:
    """Codes as the matrix has them: scaled by how often each value occurs among the training rows."""
    import numpy as np

    if scale != "none" and codes:
        scales = []
        for column in range(len(other)):
            numbers = np.array([row[column] for row in codes], dtype=np.float64)
            scales.append(_scale(np.sort(np.repeat(numbers, weights)), scale))

        def scaled(row: Numbers) -> Numbers:
            return tuple(None if n is None else _scaled(n, *by) for n, by in zip(row, scales, strict=True))

        codes, other = tuple(scaled(row) for row in codes), scaled(other)
        folds = tuple((tuple(scaled(row) for row in rows), scaled(rest)) for rows, rest in folds)
    return {"codes": codes, "other": other, "folds": folds}


class _Target:
    """The label of the training rows as numbers, and the fold of each."""

    def __init__(self, table: Any, key: str, contract: CompiledContract) -> None:
        import numpy as np

        label = contract.label
        self.classes: tuple[str, ...] = ()
        if label.values is None:
            self.numbers = _numbers(table, label.field)[:, None]
        else:
            positions = _codes(table, label.field, label.values)
            if label.task == "multiclass":
                self.classes = label.values
                self.numbers = (positions[:, None] == np.arange(len(label.values))).astype(np.float64)
            else:
                self.numbers = (positions == 1).astype(np.float64)[:, None]
        self.keys = table[key].to_list()

    def outputs(self, name: str) -> tuple[str, ...]:
        return tuple(f"{name}={value}" for value in self.classes) if self.classes else (name,)

    def encode(
        self,
        common: dict[str, Any],
        values: tuple[str, ...],
        rows: Any,
        encode: Mapping[str, Any],
        *,
        weights: Sequence[int],
        scale: str,
    ) -> CategoryFit:
        """``rows`` are positions among ``values``, their number for others, -1 for none."""
        import numpy as np

        count, smoothing = encode["folds"], float(encode["smoothing"])
        folds = np.array([fold_of(key, count) for key in self.keys], dtype=np.int64)
        everything = np.ones(len(rows), dtype=bool)
        codes, other = self._means(rows, everything, len(values), smoothing)
        apart = tuple(self._means(rows, folds != number, len(values), smoothing) for number in range(count))
        return CategoryFit(
            **common,
            values=values,
            **_scaled_codes(codes, other, weights=weights, scale=scale, folds=apart),
        )

    def _means(
        self, rows: Any, used: Any, size: int, smoothing: float
    ) -> tuple[tuple[Numbers, ...], Numbers]:
        """Smoothed mean of the label per value, and of all rows."""
        import numpy as np

        numbers, places = self.numbers[used], rows[used]
        columns = numbers.shape[1]
        # Sums of floats in an order that does not depend on that of the rows.
        prior = [_mean(np.sort(numbers[:, c])) if len(numbers) else 0.0 for c in range(columns)]
        means = np.empty((size, columns))
        for c in range(columns):
            order = np.lexsort((numbers[:, c], places))
            sums = np.bincount(places[order] + 1, weights=numbers[order, c], minlength=size + 2)[1 : size + 1]
            counts = np.bincount(places + 1, minlength=size + 2)[1 : size + 1]
            weight = counts + smoothing
            means[:, c] = np.where(
                weight > 0, (sums + smoothing * prior[c]) / np.where(weight > 0, weight, 1), prior[c]
            )
        return tuple(tuple(row) for row in means.tolist()), tuple(prior)
