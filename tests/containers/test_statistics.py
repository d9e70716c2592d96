"""Statistics of a baseline, distances from it, and the six checks."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import polars as pl
import pytest
from container_support import features_of, make_contract, make_records
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ml_contract.compiled import CompiledContract
from ml_statistics.baseline import baseline, raw_columns, rules, segments_of
from ml_statistics.checks import Judgement, Observed, judge
from ml_statistics.describe import OTHER, describe
from ml_statistics.drift import (
    Drift,
    Rule,
    category_counts,
    correct,
    counted,
    cramers_v,
    earth_movers_distance,
    kolmogorov_smirnov,
    ks_distance,
    measure,
    number_counts,
    population_stability_index,
)
from scipy import stats


def described(values: list[Any], kind: str = "number") -> dict[str, Any]:
    """Describe one column."""
    dtype = pl.Float64 if kind == "number" else pl.String
    frame = pl.DataFrame({"x": pl.Series(values, dtype=dtype)})
    document = describe(frame, {"x": kind}, integers=frozenset())  # type: ignore[dict-item]
    return dict(document["features"][0])


def drift_of(before: list[Any], after: list[Any], distance: str = "psi", kind: str = "number") -> Drift:
    """Measure one column against another."""
    column = pl.Series("x", after, dtype=pl.Float64 if kind == "number" else pl.String)
    found = measure(described(before, kind), column, Rule(distance, 0.25))  # type: ignore[arg-type]
    assert found is not None
    return found


# --- statistics -----------------------------------------------------------------------------------


def test_should_describe_a_number_in_the_schema_of_model_monitor() -> None:
    values = [*np.random.default_rng(1).normal(size=500).tolist(), None, None]
    feature = described(values)
    numbers = feature["numerical_statistics"]
    present = np.array(values[:-2])
    assert feature["inferred_type"] == "Fractional"
    assert numbers["common"] == {"num_present": 500, "num_missing": 2}
    assert numbers["mean"] == pytest.approx(present.mean())
    assert numbers["std_dev"] == pytest.approx(present.std())
    assert (numbers["min"], numbers["max"]) == (present.min(), present.max())
    buckets = numbers["distribution"]["kll"]["buckets"]
    assert len(buckets) == 10
    assert sum(bucket["count"] for bucket in buckets) == 500
    assert numbers["distribution"]["kll"]["sketch"]["data"][0] == sorted(present)


def test_should_give_each_of_few_values_a_bucket_of_its_own() -> None:
    buckets = described([0, 0, 1, 2, 2, 2])["numerical_statistics"]["distribution"]["kll"]["buckets"]
    assert [bucket["count"] for bucket in buckets] == [2, 1, 3]


def test_should_describe_a_category_and_gather_the_rare_ones() -> None:
    values = ["a"] * 5 + ["b"] * 3 + [None] + [f"rare{n:03}" for n in range(200)]
    text = described(values, "category")["string_statistics"]
    buckets = text["distribution"]["categorical"]["buckets"]
    assert buckets[:2] == [{"value": "a", "count": 5}, {"value": "b", "count": 3}]
    assert buckets[-1] == {"value": OTHER, "count": 102}
    assert text["common"] == {"num_present": 208, "num_missing": 1}
    assert text["distinct_count"] == 202


@given(
    st.lists(st.none() | st.floats(allow_nan=True, allow_infinity=True), max_size=60),
    st.lists(st.none() | st.floats(allow_nan=True, allow_infinity=True), max_size=60),
    st.sampled_from(["psi", "ks", "js", "wasserstein"]),
)
@settings(deadline=None, max_examples=150)
@example([0.0] * 5, [0.0] * 4 + [1.0], "ks")  # rounding lifts the exact chance above 1
def test_should_measure_any_numbers_without_failing(
    before: list[float | None], after: list[float | None], distance: str
) -> None:
    feature = described(before)
    json.dumps(feature, allow_nan=False)
    column = pl.Series("x", after, dtype=pl.Float64)
    found = measure(feature, column, Rule(distance, 0.25))  # type: ignore[arg-type]
    if found is not None:
        assert found.value >= 0
        assert np.isfinite(found.value)
        assert 0 <= found.chance <= 1


@given(
    st.lists(st.none() | st.sampled_from("abcdef"), max_size=60),
    st.lists(st.none() | st.text(max_size=3), max_size=60),
)
@settings(deadline=None, max_examples=100)
def test_should_count_every_category_once(before: list[str | None], after: list[str | None]) -> None:
    feature = described(before, "category")
    counts = counted(pl.Series("x", after, dtype=pl.String))
    expected, actual = category_counts(feature["string_statistics"], counts)
    assert expected.sum() == sum(value is not None for value in before)
    assert actual.sum() == sum(value is not None for value in after)


def test_should_count_values_outside_the_baseline() -> None:
    expected, actual = number_counts(
        described([5.0] * 40)["numerical_statistics"], np.array([1.0, 5.0, 9.0, 9.0])
    )
    assert expected.tolist() == [0, 40, 0]
    assert actual.tolist() == [1, 1, 2]


# --- distances ------------------------------------------------------------------------------------


def test_should_agree_with_the_definition_of_the_index() -> None:
    p, q = np.array([30.0, 70.0]), np.array([50.0, 50.0])
    a, b = (p + 0.5) / 101, (q + 0.5) / 101
    assert population_stability_index(p, q) == pytest.approx(float(((b - a) * np.log(b / a)).sum()))
    assert population_stability_index(p, p) == 0


@pytest.mark.parametrize("distance", ["psi", "ks", "js"])
def test_should_see_a_shifted_number_and_not_an_unchanged_one(distance: str) -> None:
    rng = np.random.default_rng(3)
    before = rng.normal(size=2000).tolist()
    same = drift_of(before, rng.normal(size=500).tolist(), distance)
    moved = drift_of(before, rng.normal(1.5, size=500).tolist(), distance)
    assert same.value < 0.15 < 0.3 < moved.value
    assert same.chance > 0.001 > moved.chance


@pytest.mark.parametrize("distance", ["psi", "ks", "js"])
def test_should_see_categories_change_places(distance: str) -> None:
    before = ["a"] * 600 + ["b"] * 300 + ["c"] * 100
    moved = drift_of(before, ["a"] * 50 + ["b"] * 50 + ["new"] * 300, distance, "category")
    same = drift_of(before, ["a"] * 62 + ["b"] * 28 + ["c"] * 10, distance, "category")
    assert moved.drifted
    assert not same.drifted


def test_should_see_a_constant_take_another_value() -> None:
    assert drift_of([1.0] * 500, [2.0] * 200).drifted


def test_should_take_the_kolmogorov_smirnov_distance_from_scipy() -> None:
    rng = np.random.default_rng(5)
    before, after = rng.normal(size=400), rng.normal(0.4, size=300)
    expected = stats.ks_2samp(before, after, method="asymp")
    found = drift_of(before.tolist(), after.tolist(), "ks")
    assert (found.value, found.chance) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue))


numbers = st.lists(st.integers(-5, 5).map(float) | st.floats(-1e6, 1e6), min_size=1, max_size=80)


@given(numbers, numbers)
@settings(deadline=None, max_examples=150)
def test_should_find_the_largest_difference_of_shares(before: list[float], after: list[float]) -> None:
    first, second = np.sort(before), np.sort(after)
    everywhere = np.concatenate([first, second])
    shares = [np.searchsorted(one, everywhere, "right") / one.size for one in (first, second)]
    assert ks_distance(first, second) == pytest.approx(np.abs(shares[0] - shares[1]).max())


@pytest.mark.parametrize("size", [150, 5_000])
def test_should_give_the_chance_that_scipy_gives(size: int) -> None:
    rng = np.random.default_rng(size)
    # Ties and all: half of the values are whole.
    first, second = (np.sort(np.round(rng.normal(shift, 2, size), 1)) for shift in (0, 0.1))
    expected = stats.ks_2samp(first, second, method="asymp")
    assert kolmogorov_smirnov(first, second) == pytest.approx((expected.statistic, expected.pvalue))


@given(numbers, numbers)
@settings(deadline=None, max_examples=150)
def test_should_move_earth_as_far_as_scipy_does(before: list[float], after: list[float]) -> None:
    expected = stats.wasserstein_distance(before, after)
    found = earth_movers_distance(np.sort(before), np.sort(after))
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9 * np.abs([*before, *after]).max())


@pytest.mark.parametrize(("few", "many"), [(2_048, 100_003), (2_048, 8_192), (500, 700), (1, 9)])
def test_should_move_earth_of_large_samples_as_far_as_scipy_does(few: int, many: int) -> None:
    rng = np.random.default_rng(few)
    one, other = np.sort(rng.normal(size=few)), np.sort(np.round(rng.lognormal(0.1, 2, many), 1))
    expected = stats.wasserstein_distance(one, other)
    assert earth_movers_distance(one, other) == pytest.approx(expected)
    assert earth_movers_distance(other, one) == pytest.approx(expected)


def test_should_take_the_wasserstein_distance_in_deviations_of_the_baseline() -> None:
    rng = np.random.default_rng(4)
    before, after = rng.normal(10, 4, 800), rng.normal(12, 4, 500)
    found = drift_of(before.tolist(), after.tolist(), "wasserstein")
    assert found.value == pytest.approx(stats.wasserstein_distance(before, after) / before.std())
    assert found.drifted
    # A constant column has no deviation: its own unit then.
    assert drift_of([5.0] * 400, [7.0] * 300, "wasserstein").value == pytest.approx(2)


def test_should_take_cramers_v_of_categories() -> None:
    before, after = ["a"] * 60 + ["b"] * 40, ["a"] * 30 + ["b"] * 70
    found = drift_of(before, after, "chi2", "category")
    # By hand: chi-squared is n (ad - bc)^2 over the product of the margins; V its root over n.
    assert found.value == pytest.approx(abs(60 * 70 - 40 * 30) / np.sqrt(100 * 100 * 90 * 110))
    chance = stats.chi2_contingency([[60, 40], [30, 70]], correction=False).pvalue
    assert found.chance == pytest.approx(chance)
    assert cramers_v(np.array([5.0, 0.0]), np.array([7.0, 0.0])) == 0
    assert cramers_v(np.array([5.0, 0.0]), np.array([0.0, 7.0])) == pytest.approx(1)


@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=40),
    st.lists(st.text("abcd", max_size=1), max_size=40),
)
@settings(deadline=None, max_examples=60)
def test_should_measure_any_categories_without_failing(before: list[str], after: list[str]) -> None:
    column = pl.Series("x", after, dtype=pl.String)
    found = measure(described(before, "category"), column, Rule("chi2", 0.1))
    if found is not None:
        assert 0 <= found.value <= 1 + 1e-9
        assert 0 <= found.chance <= 1


def test_should_hold_chance_to_the_rate_of_the_workload() -> None:
    one = Drift("x", "psi", 1.0, 0.25, 0.02, 100)
    assert not correct([one])[0].drifted
    assert correct([one], rate=0.05)[0].drifted
    assert not correct([one, *[Drift("y", "psi", 0.0, 0.25, 0.9, 100)] * 5], rate=0.05)[0].drifted


def test_should_not_take_chance_for_drift() -> None:
    """Small windows of an unchanged table: a large index happens, a verdict must not."""
    rng = np.random.default_rng(11)
    categories = [f"c{n}" for n in range(20)]
    before = [categories[i] for i in rng.integers(0, 20, 700)]
    large, verdicts = 0, 0
    for _ in range(40):
        drifts = correct(
            [
                drift_of(before, [categories[i] for i in rng.integers(0, 20, 60)], "psi", "category")
                for _ in range(5)
            ]
        )
        large += sum(drift.value > 0.25 for drift in drifts)
        verdicts += sum(drift.drifted for drift in drifts)
    assert large > 20
    assert verdicts == 0


def test_should_correct_for_the_number_of_columns() -> None:
    one = Drift("x", "psi", 1.0, 0.25, 0.0008, 100)
    others = [Drift(f"y{n}", "psi", 0.0, 0.25, 0.9, 100) for n in range(30)]
    assert correct([one])[0].drifted
    assert not correct([one, *others])[0].drifted
    assert correct([]) == ()


def test_should_not_compare_what_has_no_value() -> None:
    empty = pl.Series("x", [None, None], dtype=pl.Float64)
    assert measure(described([1.0, 2.0]), empty, Rule("psi", 0.25)) is None
    assert measure(described([None]), pl.Series("x", [1.0]), Rule("psi", 0.25)) is None


# --- the six checks -------------------------------------------------------------------------------


def observe(
    contract: CompiledContract, records: list[dict[str, Any]], reasons: dict[Any, int] | None = None
) -> Observed:
    """Return what a window of good records holds."""
    frame = features_of(records, contract).select([f.name for f in contract.features])
    named = {column.name: len(records) for column in raw_columns(contract)}
    refused = sum((reasons or {}).values())
    return Observed(len(records) + refused, frame, named, reasons or {})


def judged(contract: CompiledContract, observed: Observed, **options: Any) -> Judgement:
    """Judge against a baseline of 600 records."""
    statistics, constraints = baseline(features_of(make_records("binary", 600, seed=1), contract), contract)
    # As it is read back: through JSON.
    return judge(
        observed,
        json.loads(json.dumps(statistics)),
        json.loads(json.dumps(constraints)),
        **{"rule_of": rules(contract), "minimum_completeness": 0.95, **options},
    )


def found(judgement: Judgement) -> set[tuple[str, str]]:
    """Return check and feature of every violation."""
    return {(v.constraint_check_type, v.feature_name) for v in judgement.violations}


def test_should_find_nothing_in_unchanged_traffic(contract: CompiledContract) -> None:
    for seed in (2, 3, 4):
        judgement = judged(contract, observe(contract, make_records("binary", 300, seed=seed)))
        assert judgement.violations == ()
        assert {drift.feature for drift in judgement.drift} == {f.name for f in contract.features}


def test_should_find_drift_in_what_drifted_and_only_there(contract: CompiledContract) -> None:
    records = make_records("binary", 300, seed=2, snow=0.5, scale=2.5)
    assert found(judged(contract, observe(contract, records))) == {
        ("baseline_drift_check", "distance"),
        ("baseline_drift_check", "weather"),
    }


def test_should_leave_ignored_fields_alone(contract: CompiledContract) -> None:
    records = make_records("binary", 300, seed=2, snow=0.5, scale=2.5)
    judgement = judged(contract, observe(contract, records), ignored=frozenset({"distance", "weather"}))
    assert judgement.violations == ()


def test_should_leave_alone_what_the_sdk_of_model_monitor_switched_off(contract: CompiledContract) -> None:
    before = features_of(make_records("binary", 600, seed=1), contract)
    statistics, constraints = baseline(before, contract)
    for entry in constraints["features"]:
        if entry["name"] == "distance":
            entry["monitoring_config_overrides"] = {"evaluate_constraints": "Disabled"}
    observed = observe(contract, make_records("binary", 300, seed=2, snow=0.5, scale=2.5))
    judgement = judge(observed, statistics, constraints, rule_of=rules(contract), minimum_completeness=0.95)
    assert found(judgement) == {("baseline_drift_check", "weather")}


def test_should_find_values_that_are_missing(contract: CompiledContract) -> None:
    records = make_records("binary", 300, seed=2)
    for record in records[:90]:
        record.pop("driver", None)
    assert found(judged(contract, observe(contract, records))) == {("completeness_check", "driver")}


def test_should_find_a_missing_column(contract: CompiledContract) -> None:
    records = make_records("binary", 300, seed=2)
    for record in records:
        record.pop("driver", None)
    observed = observe(contract, records)
    observed = Observed(observed.total, observed.frame, {**observed.named, "driver": 0}, observed.reasons)
    assert found(judged(contract, observed)) == {("missing_column_check", "driver")}


def test_should_find_categories_that_nobody_knew(contract: CompiledContract) -> None:
    records = make_records("binary", 300, seed=2)
    for record in records[:40]:
        record["driver"] = "eve"
    assert ("categorical_values_check", "driver") in found(judged(contract, observe(contract, records)))


def test_should_sort_refused_records_into_the_checks(contract: CompiledContract) -> None:
    reasons = {
        ("wrong_type", "passengers"): 30,
        ("unparseable_date", "booked_on"): 30,
        ("unknown_field", "colour"): 1,
        ("not_allowed", "weather"): 30,
        ("not_json", None): 30,
    }
    judgement = judged(contract, observe(contract, make_records("binary", 300, seed=2), reasons))
    assert found(judgement) == {
        ("data_type_check", "passengers"),
        ("data_type_check", "booked_on"),
        ("extra_column_check", "colour"),
        ("categorical_values_check", "weather"),
        ("data_type_check", "<record>"),
    }


def test_should_tolerate_a_single_wrong_value_among_many(contract: CompiledContract) -> None:
    observed = observe(contract, make_records("binary", 300, seed=2), {("wrong_type", "passengers"): 1})
    assert judged(contract, observed).violations == ()


def test_should_refuse_to_judge_nothing(contract: CompiledContract) -> None:
    frame = features_of(make_records("binary", 1), contract).clear()
    with pytest.raises(ValueError, match="empty window"):
        judged(contract, Observed(0, frame, {}, {}))


def test_should_suggest_constraints_for_features_and_for_raw_columns(contract: CompiledContract) -> None:
    _, constraints = baseline(features_of(make_records("binary", 600, seed=1), contract), contract)
    entries = {entry["name"]: entry for entry in constraints["features"]}
    assert set(entries) == {f.name for f in contract.features} | {c.name for c in raw_columns(contract)}
    assert entries["weather"]["string_constraints"]["domains"] == ["dry", "rain", "snow"]
    assert entries["distance"]["num_constraints"] == {"is_non_negative": True}
    assert entries["passengers"]["inferred_type"] == "Integral"
    assert 0.9 < entries["passengers"]["completeness"] < 1
    assert entries["trip_id"]["completeness"] == 1.0
    assert "outcome" not in entries


def test_should_take_the_rule_of_a_field_from_the_contract(contract: CompiledContract) -> None:
    rule_of = rules(contract)
    assert rule_of("distance") == Rule("psi", 0.25)


# --- segments -------------------------------------------------------------------------------------

SEGMENTS = {
    "monitoring: {minimum_records: 50, drift: {distance: psi, threshold: 0.25}}": (
        "monitoring: {minimum_records: 50, segments: [weather, depot]}"
    ),
    "    driver: {type: string}\n": (
        "    driver: {type: string}\n    depot: {type: string, sensitive: protected}\n"
    ),
}


def of_depots(count: int, seed: int, *, far: bool = False, share: float = 0.5) -> list[dict[str, Any]]:
    """Return records of two depots; those of the south drive further when told to."""
    near, other = (make_records("binary", count, seed=seed, scale=scale) for scale in (1.0, 3.0))
    return [
        (other if far and number % 100 < share * 100 else near)[number]
        | {"depot": "south" if number % 100 < share * 100 else "north"}
        for number in range(count)
    ]


def judged_apart(contract: CompiledContract, records: list[dict[str, Any]]) -> Judgement:
    before = features_of(of_depots(800, seed=1, share=0.3), contract)
    statistics, constraints = baseline(before, contract)
    frame = features_of(records, contract)
    named = {column.name: len(records) for column in raw_columns(contract)}
    observed = Observed(
        len(records),
        frame.select([f.name for f in contract.features]),
        named,
        {},
        segments_of(frame, contract),
    )
    return judge(
        observed,
        json.loads(json.dumps(statistics)),
        json.loads(json.dumps(constraints)),
        rule_of=rules(contract),
        minimum_completeness=0.95,
        rate=contract.monitoring["false_discovery_rate"],
        minimum_records=contract.monitoring["minimum_records"],
    )


def test_should_find_drift_that_only_one_segment_has(tmp_path: pathlib.Path) -> None:
    contract = make_contract(tmp_path, "binary", **SEGMENTS)
    assert [feature.name for feature in contract.audit] == ["depot"]
    judgement = judged_apart(contract, of_depots(900, seed=2, far=True, share=0.1))
    assert {(d.feature, d.segment) for d in judgement.drift if d.drifted} == {("distance", "depot=south")}
    [violation] = judgement.violations
    assert violation.feature_name == "distance"
    assert violation.description.startswith("among depot=south: psi distance")
    # A segment is not judged by the field that makes it.
    assert not [d for d in judgement.drift if d.segment == "weather=dry" and d.feature == "weather"]


def test_should_say_which_segments_are_not_judged(tmp_path: pathlib.Path) -> None:
    contract = make_contract(tmp_path, "binary", **SEGMENTS)
    records = of_depots(400, seed=2, share=0.05)
    for record in records[-3:]:
        record["depot"] = "east"
    judgement = judged_apart(contract, records)
    assert judgement.segments["depot=south"] == 20
    assert judgement.unjudged_segments["depot=south"] == "20 records, at least 50 are needed"
    assert judgement.unjudged_segments["depot=east"] == "the baseline has too few records of it"
    assert "depot=north" not in judgement.unjudged_segments
    assert judgement.violations == ()
