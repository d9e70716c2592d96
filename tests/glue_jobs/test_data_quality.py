"""Judging a frame by a ruleset, as AWS Glue documents its rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def people(spark: SparkSession) -> DataFrame:
    rows = [("a", 20, "OH", "12"), ("b", 30, "IL", "x1"), ("c", None, "OH", "7"), ("c", 40, None, "8")]
    return spark.createDataFrame(rows, "id string, age int, state string, code string").persist()


def outcomes(frame: DataFrame, *rules: str) -> dict[str, Any]:
    from awsglue.dynamicframe import DynamicFrame
    from awsgluedq.transforms import EvaluateDataQuality

    found = EvaluateDataQuality.apply(
        frame=DynamicFrame.fromDF(frame, None, "people"),
        ruleset=f"Rules = [ {', '.join(rules)} ]",
        publishing_options={"dataQualityEvaluationContext": "test"},
    )
    return {row["Rule"]: row for row in found.toDF().collect()}


PASS = (
    "RowCount = 4",
    "RowCount between 3 and 5",
    "ColumnCount = 4",
    'ColumnExists "age"',
    'IsComplete "id"',
    'Completeness "age" >= 0.75',
    'IsUnique "code"',
    'Uniqueness "id" >= 0.5',
    'DistinctValuesCount "id" = 3',
    'ColumnValues "age" >= 20 where "age is not null"',
    'ColumnValues "age" between 19 and 41 where "age is not null"',
    'ColumnValues "state" in ["OH", "IL", NULL]',
    'ColumnValues "state" not in ["TX"]',
    'ColumnValues "state" != "TX"',
    'ColumnValues "id" matches "[a-c]"',
    'ColumnValues "code" matches "[0-9]+" with threshold >= 0.75',
    'ColumnLength "code" <= 2',
    'ColumnDataType "age" = "Integer"',
    'Mean "age" = 30',
    'Sum "age" = 90',
    'CustomSql "select count(*) from primary where age > 25" = 2',
    '(IsUnique "id") or (IsComplete "id")',
)
FAIL = (
    "RowCount > 4",
    "RowCount between 4 and 5",
    'ColumnExists "name"',
    'IsComplete "age"',
    'IsComplete "name"',
    'Completeness "age" > 0.75',
    'IsUnique "id"',
    'IsPrimaryKey "state"',
    'ColumnValues "age" >= 20',
    'ColumnValues "age" between 20 and 41 where "age is not null"',
    'ColumnValues "state" in ["OH", "IL"]',
    'ColumnValues "code" matches "[0-9]"',
    'ColumnDataType "code" = "Integer"',
    '(IsUnique "id") and (IsComplete "id")',
)


def test_should_pass_what_holds_and_fail_what_does_not(people: DataFrame) -> None:
    found = outcomes(people, *PASS, *FAIL)
    assert [rule for rule in PASS if found[rule]["Outcome"] != "Passed"] == []
    assert [rule for rule in FAIL if found[rule]["Outcome"] != "Failed"] == []


def test_should_say_why_a_rule_failed_and_what_was_measured(people: DataFrame) -> None:
    found = outcomes(people, 'ColumnValues "age" >= 20', 'Completeness "age" > 0.8', 'IsComplete "name"')
    values = found['ColumnValues "age" >= 20']
    assert values["FailureReason"].startswith("Value: NULL does not meet the constraint requirement!")
    assert found['Completeness "age" > 0.8']["EvaluatedMetrics"] == {"Column.age.Completeness": 0.75}
    assert found['IsComplete "name"']["FailureReason"] == "Column name does not exist"


def test_should_refuse_an_unknown_rule_instead_of_passing_it(people: DataFrame) -> None:
    from ml_contract.quality.dqdl import DqdlError

    with pytest.raises(DqdlError, match="rule type 'DataFreshness' is not known here"):
        outcomes(people, 'DataFreshness "day" <= 24')
    with pytest.raises(DqdlError, match="ColumnDataType is"):
        outcomes(people, 'ColumnDataType "age" = "Money"')


def test_should_measure_and_judge_alike_on_spark_and_on_polars(people: DataFrame) -> None:
    import polars as pl
    from ml_contract.quality.dqdl import parse
    from ml_contract.quality.on_polars import PolarsEngine
    from ml_contract.quality.on_spark import SparkEngine
    from ml_contract.quality.verdicts import evaluate

    rows = [tuple(row) for row in people.collect()]
    table = pl.DataFrame(
        rows,
        schema={"id": pl.String, "age": pl.Int32, "state": pl.String, "code": pl.String},
        orient="row",
    )
    more = (
        'StandardDeviation "age" > 1',
        'Mean "age" > 1 where "state is null"',
        'UniqueValueRatio "id" > 0.5',
    )
    rules = parse(f"Rules = [ {', '.join([*PASS, *FAIL, *more])} ]")
    on_spark, on_polars = evaluate(SparkEngine(people), rules), evaluate(PolarsEngine(table.lazy()), rules)
    assert [v.passed for v in on_polars] == [True] * len(PASS) + [False] * len(FAIL) + [True] * len(more)
    for rule, left, right in zip(rules, on_spark, on_polars, strict=True):
        assert (left.passed, left.reason) == (right.passed, right.reason), rule.text
        assert dict(left.metrics) == pytest.approx(dict(right.metrics)), rule.text
