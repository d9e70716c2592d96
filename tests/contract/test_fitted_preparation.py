"""Imputation, outliers, encodings, bins and scales: fitted once, the same for tables and single records."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import polars as pl
import pytest
import zoo  # type: ignore[import-not-found]  # beside this file, where pytest looks
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_contract.compiled import CompiledContract, FitSpec, LabelSpec
from ml_contract.features.fit import CategoryFit, Fitted, NumberFit, fit, fold_of
from ml_contract.features.frame import feature_frame
from ml_contract.features.row import row_function

NUMBERS = ("f_x", "f_i", "f_boolean", "f_ratio")
TEXTS = ("f_s", "f_t", "f_cut")
CONTRACT: CompiledContract = zoo.contract(
    {
        "x": zoo.x,
        "i": zoo.i,
        "boolean": zoo.a,
        "ratio": zoo.x / zoo.y,
        "s": zoo.s,
        "t": zoo.t,
        "cut": zoo.x.cut([-1, 0, 2.5], ["low", "high"]),
    }
)
ROW = row_function(CONTRACT)
LABELS = {
    "binary": LabelSpec(task="binary", field="outcome", values=("no", "yes")),
    "multiclass": LabelSpec(task="multiclass", field="outcome", values=("no", "perhaps", "yes")),
}
FINITE = st.one_of(st.floats(-10, 10), st.sampled_from([0.0, -0.0, 1e300, -1e300]))
REASON = {"reason": "because of the test"}


def blocks(kinds: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Some of the features, each with a block."""
    return st.fixed_dictionaries({}, optional=kinds)


def impute(*kinds: str, constants: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(
        lambda kind, value, indicator: {
            "kind": kind,
            "value": value if kind == "constant" else None,
            "indicator": indicator,
            **REASON,
        },
        st.sampled_from([*kinds, "most_frequent", "constant", "none"]),
        constants,
        st.booleans(),
    )


def limits(
    kind: str, low: Any, high: Any, low_share: float | None, high_share: float | None
) -> dict[str, Any]:
    if low is not None and high is not None:
        low, high = min(low, high), max(low, high)
    return {
        "kind": kind,
        "lower": low if low_share is None else None,
        "upper": high if high_share is None else None,
        "lower_quantile": low_share,
        "upper_quantile": high_share,
        **REASON,
    }


OUTLIERS = st.builds(
    limits,
    st.sampled_from(["clip", "missing"]),
    st.none() | FINITE,
    st.none() | FINITE,
    st.none() | st.floats(0.01, 0.4),
    st.none() | st.floats(0.6, 0.99),
)
SHORT = st.sampled_from(["a", "Ab", " b ", "b", "12", "low", "other", "never"])
ENCODE = st.one_of(
    st.builds(lambda n: {"kind": "one_hot", "max_categories": n}, st.none() | st.integers(2, 4)),
    st.builds(
        lambda order: {"kind": "ordinal", "order": order},
        st.lists(SHORT, min_size=2, max_size=4, unique=True),
    ),
    st.builds(lambda n: {"kind": "frequency", "max_categories": n}, st.integers(2, 9)),
    st.builds(
        lambda smoothing, folds, n: {
            "kind": "target", "smoothing": smoothing, "folds": folds, "max_categories": n
        },
        st.sampled_from([0.0, 1.0, 20.0]),
        st.integers(2, 4),
        st.integers(2, 9),
    ),
)  # fmt: skip
SCALES = st.sampled_from(["none", "standard", "min_max", "robust"])
SPECS = st.builds(
    FitSpec,
    impute_numbers=st.sampled_from(["median", "mean", "zero", "none"]),
    max_categories=st.integers(2, 5),
    minimum_category_count=st.integers(1, 2),
    impute=st.builds(
        lambda a, b: a | b,
        blocks({name: impute("median", "mean", "zero", constants=FINITE) for name in NUMBERS}),
        blocks({name: impute(constants=SHORT) for name in TEXTS}),
    ),
    outliers=blocks(dict.fromkeys(NUMBERS, OUTLIERS)),
    encode=blocks(dict.fromkeys(TEXTS, ENCODE)),
    scale=SCALES,
    scale_fields=blocks(dict.fromkeys((*NUMBERS, *TEXTS), SCALES)),
    bins=blocks({name: st.integers(2, 5) for name in ("f_x", "f_i")}),
)


def contract_of(spec: FitSpec, task: str = "binary", **changes: Any) -> CompiledContract:
    return dataclasses.replace(CONTRACT, fit=spec, label=LABELS[task], **changes)


@settings(zoo.QUICK, max_examples=120)
@given(
    spec=SPECS,
    task=st.sampled_from(["binary", "multiclass"]),
    learned=st.lists(zoo.RECORDS, max_size=12),
    live=st.lists(zoo.RECORDS, min_size=1, max_size=8),
)
def test_should_give_a_table_a_record_and_a_copy_the_same_numbers(
    spec: FitSpec, task: str, learned: list[dict[str, Any]], live: list[dict[str, Any]]
) -> None:
    contract = contract_of(spec, task)
    fitted = fit(feature_frame(zoo.polars_frame(learned), contract), contract)
    copy = Fitted.from_json(fitted.to_json())
    assert copy == fitted
    assert copy.to_json() == fitted.to_json()
    table = feature_frame(zoo.polars_frame(live), contract)
    matrix = fitted.matrix(table)
    assert matrix.shape == (len(live), len(fitted.output_names))
    np.testing.assert_array_equal(copy.matrix(table), matrix)
    pandas = feature_frame(zoo.pandas_frame(live), contract)
    np.testing.assert_allclose(fitted.matrix(pandas), matrix, rtol=1e-6)
    with np.errstate(over="ignore"):
        vectors = np.array([copy.vector(ROW(record)) for record in live]).astype(np.float32)
    np.testing.assert_array_equal(vectors, matrix)


@settings(zoo.QUICK, max_examples=40)
@given(spec=SPECS, learned=st.lists(zoo.RECORDS, min_size=2, max_size=12), data=st.data())
def test_should_fit_the_same_whatever_the_order_of_rows_and_the_engine(
    spec: FitSpec, learned: list[dict[str, Any]], data: st.DataObject
) -> None:
    contract = contract_of(spec)
    fitted = fit(feature_frame(zoo.polars_frame(learned), contract), contract)
    other = data.draw(st.permutations(learned))
    assert fit(feature_frame(zoo.polars_frame(other), contract), contract) == fitted
    assert fit(feature_frame(zoo.pandas_frame(learned), contract), contract) == fitted
    assert all(math.isfinite(n) for n in _numbers_in(json.loads(fitted.to_json())))


def _numbers_in(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [n for v in value.values() for n in _numbers_in(v)]
    if isinstance(value, list):
        return [n for v in value for n in _numbers_in(v)]
    return [value] if isinstance(value, float) else []


# --- single kinds -----------------------------------------------------------------------------------------


def frame(**columns: list[Any]) -> pl.DataFrame:
    """A feature table: what is not given is missing."""
    (rows,) = {len(values) for values in columns.values()}
    texts = {name: [None] * rows for name in TEXTS}
    numbers: dict[str, list[Any]] = {name: [None] * rows for name in NUMBERS}
    keys = {"key": [f"k{i}" for i in range(rows)], "outcome": ["no"] * rows}
    given = keys | numbers | texts | columns
    return pl.DataFrame(given, schema={n: pl.Float64 if n in NUMBERS else pl.String for n in given})


def only(name: str, table: pl.DataFrame, spec: FitSpec, task: str = "binary") -> NumberFit | CategoryFit:
    fitted = fit(table, contract_of(spec, task))
    (one,) = (one for one in fitted.fits if one.name == name)
    return one


def column(name: str, learned: pl.DataFrame, live: pl.DataFrame, spec: FitSpec) -> list[float]:
    fitted = fit(learned, contract_of(spec))
    values: list[float] = fitted.matrix(live)[:, fitted.output_names.index(name)].tolist()
    return values


def test_should_clip_at_fitted_quantiles_and_fixed_limits() -> None:
    learned = frame(f_x=[float(n) for n in range(1, 101)])
    spec = FitSpec(outliers={"f_x": limits("clip", 10.0, None, None, 0.95)})
    assert column("f_x", learned, frame(f_x=[-5.0, 10.0, 50.0, 95.0, 1e9, None]), spec)[:5] == [
        10,
        10,
        50,
        95,
        95,
    ]


def test_should_keep_to_a_fixed_limit_that_a_fitted_one_passes() -> None:
    learned = frame(f_x=[100.0, 200.0, 300.0])
    spec = FitSpec(outliers={"f_x": limits("clip", None, 50.0, 0.3, None)})
    fitted = fit(learned, contract_of(spec))
    live = [10.0, 60.0, 400.0]
    assert column("f_x", learned, frame(f_x=live), spec) == [50.0, 50.0, 50.0]
    empty = dict.fromkeys((*NUMBERS, *TEXTS))
    assert [fitted.vector(empty | {"f_x": x})[0] for x in live] == [50.0, 50.0, 50.0]


def test_should_take_what_is_not_finite_for_missing() -> None:
    spec = FitSpec(impute_numbers="median")
    learned = frame(f_x=[1.0, math.inf, math.nan, 3.0, -math.inf])
    assert column("f_x", learned, learned, spec) == [1.0, 2.0, 2.0, 3.0, 2.0]


def test_should_call_missing_what_is_beyond_a_limit_and_fill_it() -> None:
    learned = frame(f_x=[1.0, 2.0, 3.0, 900.0])
    spec = FitSpec(
        outliers={"f_x": limits("missing", 0.0, 100.0, None, None)},
        impute={"f_x": {"kind": "median", "value": None, "indicator": True, **REASON}},
    )
    live = frame(f_x=[-1.0, 5.0, 900.0, None])
    assert column("f_x", learned, live, spec) == [2.0, 5.0, 2.0, 2.0]
    assert column("f_x=<missing>", learned, live, spec) == [1.0, 0.0, 1.0, 1.0]


def test_should_fill_a_category_before_it_is_encoded() -> None:
    learned = frame(f_s=["YES", None, "NO", None, None])
    spec = FitSpec(impute={"f_s": {"kind": "constant", "value": "UNKNOWN", "indicator": False, **REASON}})
    one = only("f_s", learned, spec)
    assert isinstance(one, CategoryFit)
    assert one.values == ("NO", "UNKNOWN", "YES")
    assert column("f_s=UNKNOWN", learned, frame(f_s=[None, "YES", "UNKNOWN", "new"]), spec) == [1, 0, 1, 0]
    frequent = FitSpec(impute={"f_s": {"kind": "most_frequent", "value": None, "indicator": False, **REASON}})
    assert only("f_s", frame(f_s=["b", "a", "b", None]), frequent).fill == "b"


def test_should_encode_by_a_given_order() -> None:
    spec = FitSpec(encode={"f_s": {"kind": "ordinal", "order": ["low", "mid", "top"]}})
    values = column("f_s", frame(f_s=["mid"]), frame(f_s=["low", "mid", "top", "else", None]), spec)
    assert values[:3] == [0, 1, 2]
    assert np.isnan(values[3:]).all()


def test_should_encode_by_frequency() -> None:
    spec = FitSpec(encode={"f_s": {"kind": "frequency", "max_categories": 10}})
    values = column("f_s", frame(f_s=["a", "a", "a", "b", None]), frame(f_s=["a", "b", "new", None]), spec)
    assert values[:3] == [0.75, 0.25, 0.0]
    assert math.isnan(values[3])


def test_should_encode_by_the_label_and_lean_on_the_mean_of_all() -> None:
    spec = FitSpec(encode={"f_s": {"kind": "target", "smoothing": 2.0, "folds": 2, "max_categories": 10}})
    learned = frame(f_s=["a", "a", "b", "b"], outcome=["yes", "yes", "no", "yes"])
    values = column("f_s", learned, frame(f_s=["a", "b", "new"]), spec)
    assert values == pytest.approx([(2 + 2 * 0.75) / 4, (1 + 2 * 0.75) / 4, 0.75])


def test_should_never_show_a_training_row_its_own_label() -> None:
    """Changing the label of one row changes nothing that its own fold is encoded with."""
    spec = FitSpec(encode={"f_s": {"kind": "target", "smoothing": 1.0, "folds": 3, "max_categories": 10}})
    contract = contract_of(spec)
    table = frame(f_s=list("aabbabab" * 3), outcome=["yes", "no", "yes", "no"] * 6)
    before = fit(table, contract).training_matrix(table)
    folds = [fold_of(key, 3) for key in table["key"]]
    assert len(set(folds)) == 3
    for row in range(table.height):
        flipped = table["outcome"].to_list()
        flipped[row] = "yes" if flipped[row] == "no" else "no"
        changed = table.with_columns(pl.Series("outcome", flipped))
        after = fit(changed, contract).training_matrix(changed)
        same = [n for n, fold in enumerate(folds) if fold == folds[row]]
        np.testing.assert_array_equal(after[same], before[same])
        assert not np.array_equal(after, before, equal_nan=True)


def test_should_keep_a_group_in_one_fold() -> None:
    spec = FitSpec(encode={"f_s": {"kind": "target", "smoothing": 1.0, "folds": 3, "max_categories": 10}})
    contract = contract_of(spec, split={"group": "t"})
    assert contract.group_key == "t"
    table = frame(f_s=["a", "b"] * 4, outcome=["yes", "no"] * 4).with_columns(pl.lit("one").alias("t"))
    fitted = fit(table, contract)
    assert fitted.fold_key == "t"
    # All rows are of one group, so nothing is left to learn its fold's codes from.
    assert set(fitted.training_matrix(table)[:, fitted.output_names.index("f_s")].tolist()) == {0.0}


def test_should_give_a_multiclass_label_a_column_per_class() -> None:
    spec = FitSpec(encode={"f_s": {"kind": "target", "smoothing": 0.0, "folds": 2, "max_categories": 10}})
    one = only("f_s", frame(f_s=["a", "a", "b"], outcome=["no", "yes", "perhaps"]), spec, "multiclass")
    assert one.columns == ["f_s=no", "f_s=perhaps", "f_s=yes"]
    assert isinstance(one, CategoryFit)
    assert one.codes == ((0.5, 0.0, 0.5), (0.0, 1.0, 0.0))


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("none", [2.0, 4.0, 10.0]),
        ("standard", [-1.0, -1 / 3, 5 / 3]),
        ("min_max", [0.0, 0.25, 1.0]),
        ("robust", [-1.0, 0.0, 3.0]),
    ],
)
def test_should_scale(how: str, expected: list[float]) -> None:
    learned = frame(f_x=[2.0, 4.0, 4.0, 10.0])
    spec = FitSpec(scale_fields={"f_x": how})
    assert column("f_x", learned, frame(f_x=[2.0, 4.0, 10.0]), spec) == pytest.approx(expected)


def test_should_scale_codes_by_how_often_they_occur() -> None:
    spec = FitSpec(scale="min_max", encode={"f_s": {"kind": "ordinal", "order": ["low", "mid", "top"]}})
    assert column("f_s", frame(f_s=["low", "top"]), frame(f_s=["low", "mid", "top"]), spec) == [0, 0.5, 1]


@pytest.mark.parametrize("how", ["standard", "min_max", "robust"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e300, -7.0])
def test_should_leave_a_constant_at_nought(how: str, value: float) -> None:
    spec = FitSpec(scale=how)  # type: ignore[arg-type]
    assert column("f_x", frame(f_x=[value] * 7), frame(f_x=[value]), spec) == [0.0]


def test_should_cut_into_intervals_of_about_as_many_rows() -> None:
    learned = frame(f_x=[float(n) for n in range(100)])
    fitted = fit(learned, contract_of(FitSpec(bins={"f_x": 4})))
    assert fitted.output_names[:4] == ["f_x=1", "f_x=2", "f_x=3", "f_x=4"]
    assert fitted.matrix(learned)[:, :4].sum(axis=0).tolist() == pytest.approx([25, 25, 25, 25], abs=1)
    assert fitted.matrix(frame(f_x=[None]))[0, :4].tolist() == [0, 0, 0, 0]


def test_should_fit_nothing_to_no_rows() -> None:
    spec = FitSpec(
        impute_numbers="median",
        scale="standard",
        bins={"f_i": 3},
        outliers={"f_x": limits("clip", None, None, 0.1, 0.9)},
        encode={"f_s": {"kind": "target", "smoothing": 0.0, "folds": 2, "max_categories": 9}},
    )
    fitted = fit(frame(f_x=[]), contract_of(spec))
    assert fitted.matrix(frame(f_x=[5.0, None]))[:, 0].tolist() == [5.0, 0.0]


def test_should_count_what_it_does_to_a_table() -> None:
    spec = FitSpec(
        outliers={"f_x": limits("missing", 0.0, 10.0, None, None)},
        impute={
            "f_x": {"kind": "zero", "value": None, "indicator": False, **REASON},
            "f_s": {"kind": "constant", "value": "?", "indicator": False, **REASON},
        },
    )
    fitted = fit(frame(f_x=[1.0, 2.0], f_s=["a", "b"]), contract_of(spec))
    counts = fitted.counts(frame(f_x=[-1.0, 11.0, 12.0, None], f_s=["a", "new", None, None]))
    assert counts["f_x"] == {"missing": 1, "below": 1, "above": 2, "filled": 4}
    assert counts["f_s"] == {"missing": 2, "unknown": 1, "filled": 2}


def test_should_read_the_first_version() -> None:
    text = json.dumps(
        {
            "version": 1,
            "features": [["n", "number"], ["c", "category"]],
            "imputed": {"n": 3.0},
            "categories": {"c": ["a", "b"]},
        }
    )
    fitted = Fitted.from_json(text)
    assert fitted.output_names == ["n", "c=a", "c=b", "c=<other>"]
    assert fitted.vector({"n": None, "c": "z"}) == [3.0, 0.0, 0.0, 1.0]
    assert fitted.imputed == {"n": 3.0}


def test_should_write_no_line_for_what_a_feature_does_not_use() -> None:
    """The endpoint's way stays as short as it was: a plain number is one line, a category two."""
    from ml_contract.features.fit import _VectorWriter

    writer = _VectorWriter(8)
    writer.write(NumberFit(name="n"))
    writer.write(CategoryFit(name="c", values=("a",)))
    assert writer.lines == [
        "def vector(f):",
        "    v = template.copy()",
        "    x = f['n']",
        "    v[0] = nan if x is None else x",
        "    x = f['c']",
        "    if x is not None:",
        f"        v[{next(n for n in writer.names if n.startswith('c1_'))}.get(x, 2)] = 1.0",
    ]
