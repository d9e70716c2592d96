"""``EvaluateDataQuality``: a ruleset on a frame, as AWS Glue's own transform answers it."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from awsglue.dynamicframe import DynamicFrame
from ml_contract.dqdl import KEYWORDS, Composite, Condition, DqdlError, Keyword, Operand, Rule, parse
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sf
from pyspark.sql import types as st

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_OUTCOMES = st.StructType(
    [
        st.StructField("Rule", st.StringType(), nullable=False),
        st.StructField("Outcome", st.StringType(), nullable=False),
        st.StructField("FailureReason", st.StringType()),
        st.StructField("EvaluatedMetrics", st.MapType(st.StringType(), st.DoubleType())),
    ]
)
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
#: Spark types that a value of the DQDL type converts to.
_DATA_TYPES = {
    "BOOLEAN": "boolean",
    "DATE": "date",
    "TIMESTAMP": "timestamp",
    "INTEGER": "int",
    "LONG": "bigint",
    "FLOAT": "float",
    "DOUBLE": "double",
}
_PUBLISHING = frozenset(
    {
        "dataQualityEvaluationContext",
        "enableDataQualityCloudWatchMetrics",
        "enableDataQualityResultsPublishing",
        "resultsS3Prefix",
    }
)
METRICS_NAMESPACE = "Glue Data Quality"


@dataclass(frozen=True)
class _Verdict:
    passed: bool
    reason: str | None
    metrics: Mapping[str, float]


class EvaluateDataQuality:
    """Glue's transform."""

    @classmethod
    def apply(
        cls,
        frame: DynamicFrame,
        ruleset: str,
        publishing_options: Mapping[str, Any] | None = None,
        additional_options: Mapping[str, Any] | None = None,
    ) -> DynamicFrame:
        """Return one row per rule: ``Rule``, ``Outcome``, ``FailureReason``, ``EvaluatedMetrics``."""
        options = dict(publishing_options or {})
        unknown = sorted(set(options) - _PUBLISHING)
        if unknown:
            raise ValueError(f"unknown publishing options {unknown}; known: {sorted(_PUBLISHING)}")
        if additional_options:
            raise NotImplementedError(f"additional_options are not emulated, got {dict(additional_options)}")
        for name in ("enableDataQualityResultsPublishing", "resultsS3Prefix"):
            if options.get(name):
                raise NotImplementedError(f"{name} is not emulated: write the outcomes from the job")
        rules = parse(ruleset)
        data = frame.toDF()
        verdicts = evaluate(data, rules)
        if options.get("enableDataQualityCloudWatchMetrics"):
            _publish(str(options.get("dataQualityEvaluationContext", "")), verdicts)
        spark: SparkSession = data.sparkSession
        rows = [
            (rule.text, "Passed" if verdict.passed else "Failed", verdict.reason, dict(verdict.metrics))
            for rule, verdict in zip(rules, verdicts, strict=True)
        ]
        return DynamicFrame.fromDF(spark.createDataFrame(rows, _OUTCOMES), frame.glue_ctx, "ruleOutcomes")


def _publish(context: str, verdicts: list[_Verdict]) -> None:
    dimensions = [{"Name": "EvaluationContext", "Value": context}] if context else []
    passed = sum(verdict.passed for verdict in verdicts)
    counts = {"passed": passed, "failed": len(verdicts) - passed}
    boto3.client("cloudwatch").put_metric_data(
        Namespace=METRICS_NAMESPACE,
        MetricData=[
            {
                "MetricName": f"glue.data.quality.rules.{name}",
                "Value": float(count),
                "Unit": "Count",
                "Dimensions": dimensions,
            }
            for name, count in counts.items()
        ],
    )


def evaluate(frame: DataFrame, rules: tuple[Rule | Composite, ...]) -> list[_Verdict]:
    """Judge every rule; the row-wise measures of all rules are taken in one pass over the data."""
    simple = [leaf for rule in rules for leaf in _leaves(rule)]
    measures: dict[str, Column] = {}
    for rule in simple:
        if _missing(frame, rule) is None and rule.kind in _MEASURES:
            for name, column in _MEASURES[rule.kind](frame, rule).items():
                measures[_key(rule, name)] = column
    values: dict[str, Any] = {}
    if measures:
        names = list(measures)
        row = frame.agg(*(measures[name].alias(f"m{i}") for i, name in enumerate(names))).first()
        if row is None:
            raise RuntimeError("an aggregate without groups gave no row")
        values = {name: row[i] for i, name in enumerate(names)}
    verdicts = {rule.text: _judge(frame, rule, values) for rule in simple}
    return [_combined(rule, verdicts) for rule in rules]


def _leaves(rule: Rule | Composite) -> list[Rule]:
    return [rule] if isinstance(rule, Rule) else [leaf for part in rule.parts for leaf in _leaves(part)]


def _combined(rule: Rule | Composite, verdicts: Mapping[str, _Verdict]) -> _Verdict:
    if isinstance(rule, Rule):
        return verdicts[rule.text]
    parts = [_combined(part, verdicts) for part in rule.parts]
    passed = all(p.passed for p in parts) if rule.operator == "and" else any(p.passed for p in parts)
    reason = None if passed else "; ".join(p.reason for p in parts if p.reason is not None)
    return _Verdict(passed, reason, {key: value for p in parts for key, value in p.metrics.items()})


def _key(rule: Rule, name: str) -> str:
    return f"{rule.text}|{name}"


def _missing(frame: DataFrame, rule: Rule) -> str | None:
    """The first column that the rule names and the frame lacks."""
    columns = () if rule.kind in ("CustomSql", "ColumnExists") else rule.parameters
    return next((column for column in columns if column not in frame.columns), None)


# -- what is measured ----------------------------------------------------------------------------------


def _considered(rule: Rule) -> Column:
    """Whether the rule looks at a row."""
    return sf.lit(True) if rule.where is None else sf.coalesce(sf.expr(rule.where), sf.lit(False))


def _share(rule: Rule, kept: Column) -> dict[str, Column]:
    considered = _considered(rule)
    kept = sf.coalesce(kept, sf.lit(False))
    return {
        "rows": sf.count(sf.when(considered, 1)),
        "kept": sf.count(sf.when(considered & kept, 1)),
        "nulls": sf.count(sf.when(considered & _column(rule).isNull(), 1)),
    }


def _column(rule: Rule) -> Column:
    return sf.col(f"`{rule.parameters[0]}`")


def _row_count(_: DataFrame, rule: Rule) -> dict[str, Column]:
    return {"value": sf.count(sf.when(_considered(rule), 1)).cast("double")}


def _complete(_: DataFrame, rule: Rule) -> dict[str, Column]:
    return _share(rule, _column(rule).isNotNull())


def _values(frame: DataFrame, rule: Rule) -> dict[str, Column]:
    kind = frame.schema[rule.parameters[0]].dataType
    return _share(rule, _holds(_column(rule), kind, _condition(rule)))


def _length(_: DataFrame, rule: Rule) -> dict[str, Column]:
    return _share(rule, _holds(sf.length(_column(rule)), st.IntegerType(), _condition(rule)))


def _data_type(_: DataFrame, rule: Rule) -> dict[str, Column]:
    condition = _condition(rule)
    wanted = condition.operands[0]
    if condition.operator != "=" or not isinstance(wanted, str) or wanted.upper() not in _DATA_TYPES:
        raise DqdlError(f'{rule.text!r}: ColumnDataType is = "<one of {", ".join(_DATA_TYPES)}>"')
    column = _column(rule)
    text = column.cast("string")
    kind = _DATA_TYPES[wanted.upper()]
    converts = text.cast(kind).isNotNull()
    if kind in ("int", "bigint"):
        # Spark reads "1.5" as 1; a fraction is no integer.
        converts = text.rlike(r"^\s*[+-]?\d+\s*$") & converts
    return _share(rule, column.isNull() | converts)


def _aggregate(function: Callable[[Column], Column]) -> Callable[[DataFrame, Rule], dict[str, Column]]:
    def measure(_: DataFrame, rule: Rule) -> dict[str, Column]:
        return {"value": function(sf.when(_considered(rule), _column(rule))).cast("double")}

    return measure


_MEASURES: dict[str, Callable[[DataFrame, Rule], dict[str, Column]]] = {
    "RowCount": _row_count,
    "IsComplete": _complete,
    "Completeness": _complete,
    "ColumnValues": _values,
    "ColumnLength": _length,
    "ColumnDataType": _data_type,
    "DistinctValuesCount": _aggregate(sf.countDistinct),
    "Mean": _aggregate(sf.avg),
    "Sum": _aggregate(sf.sum),
    "StandardDeviation": _aggregate(sf.stddev_pop),
}


def _condition(rule: Rule) -> Condition:
    if rule.condition is None:
        raise DqdlError(f"{rule.text!r} needs a condition")
    return rule.condition


def _holds(value: Column, kind: st.DataType, condition: Condition) -> Column:
    """Whether a row's value satisfies the condition. NULL satisfies only ``!=`` and ``not in``."""
    name, operands = condition.operator, condition.operands
    if name in ("!=", "not in"):
        named_null = KEYWORDS["NULL"] in operands
        among = _holds(value, kind, Condition("in", operands))
        return sf.when(value.isNull(), sf.lit(not named_null)).otherwise(~among)
    if name.startswith("not "):
        return value.isNotNull() & ~_holds(value, kind, Condition(name[4:], operands))
    if name in ("=", "in"):
        return functools.reduce(operator.or_, [_equals(value, kind, operand) for operand in operands])
    if name == "matches":
        pattern = operands[0]
        if not isinstance(pattern, str):
            raise DqdlError(f"matches wants a regular expression in quotes, got {pattern!r}")
        held = value.cast("string").rlike(f"^(?:{pattern})$")
    elif name == "between":
        (left, low), (_, high) = (_comparable(value, operand) for operand in operands)
        held = (left > low) & (left < high)
    else:
        left, right = _comparable(value, operands[0])
        held = _COMPARISONS[name](left, right)
    return sf.coalesce(held, sf.lit(False))


def _equals(value: Column, kind: st.DataType, operand: Operand) -> Column:
    if isinstance(operand, Keyword):
        text = value.cast("string")
        return {
            "NULL": value.isNull(),
            "EMPTY": sf.coalesce(text == "", sf.lit(False)),
            "WHITESPACES_ONLY": sf.coalesce(text.rlike(r"^\s+$"), sf.lit(False)),
        }[operand.name]
    left = value.cast("double") if isinstance(operand, float) else value
    if isinstance(operand, str) and not isinstance(kind, (st.DateType, st.TimestampType)):
        left = value.cast("string")
    return sf.coalesce(left == sf.lit(operand), sf.lit(False))


def _comparable(value: Column, operand: Operand) -> tuple[Column, Column]:
    if isinstance(operand, Keyword):
        raise DqdlError(f"{operand.name} goes with =, != and in")
    return (value.cast("double") if isinstance(operand, float) else value), sf.lit(operand)


# -- how it is judged ----------------------------------------------------------------------------------


def _judge(frame: DataFrame, rule: Rule, values: Mapping[str, Any]) -> _Verdict:
    missing = _missing(frame, rule)
    if missing is not None:
        return _Verdict(False, f"Column {missing} does not exist", {})
    if rule.kind in _SHARES:
        return _judge_share(rule, values)
    if rule.kind in _MEASURES:
        return _judge_value(rule, values[_key(rule, "value")])
    return _JUDGES[rule.kind](frame, rule)


_SHARES = {
    "IsComplete": "Completeness",
    "Completeness": "Completeness",
    "ColumnValues": "ColumnValues.Compliance",
    "ColumnLength": "ColumnLength.Compliance",
    "ColumnDataType": "ColumnDataType.Compliance",
}


def _judge_share(rule: Rule, values: Mapping[str, Any]) -> _Verdict:
    rows, kept = int(values[_key(rule, "rows")]), int(values[_key(rule, "kept")])
    share = 1.0 if rows == 0 else kept / rows
    metrics = {f"Column.{rule.parameters[0]}.{_SHARES[rule.kind]}": share}
    condition = rule.condition if rule.kind == "Completeness" else rule.threshold
    passed = kept == rows if condition is None else _satisfies(share, condition)
    if passed:
        return _Verdict(True, None, metrics)
    if rule.kind in ("ColumnValues", "ColumnLength") and values[_key(rule, "nulls")] and condition is None:
        reason = f"Value: NULL does not meet the constraint requirement! {rows - kept} of {rows} rows"
    else:
        reason = f"Value: {share:g} does not meet the constraint requirement! {rows - kept} of {rows} rows"
    return _Verdict(False, reason, metrics)


def _judge_value(rule: Rule, value: float | None) -> _Verdict:
    where = f"Column.{rule.parameters[0]}" if rule.parameters else "Dataset.*"
    if value is None:
        return _Verdict(False, f"{rule.kind} of no value cannot be judged", {})
    metrics = {f"{where}.{rule.kind}": float(value)}
    if _satisfies(float(value), _condition(rule)):
        return _Verdict(True, None, metrics)
    return _Verdict(False, f"Value: {value:g} does not meet the constraint requirement!", metrics)


def _satisfies(value: float, condition: Condition) -> bool:
    numbers = [operand for operand in condition.operands if isinstance(operand, float)]
    if len(numbers) != len(condition.operands):
        raise DqdlError(f"a number is compared with numbers, got {condition.operands}")
    name = condition.operator.removeprefix("not ")
    if name == "between":
        held = numbers[0] < value < numbers[1]
    elif name == "in":
        held = value in numbers
    elif name in _COMPARISONS:
        held = bool(_COMPARISONS[name](value, numbers[0]))
    else:
        raise DqdlError(f"{condition.operator} does not go with a number")
    return held != condition.operator.startswith("not ")


def _judge_unique(frame: DataFrame, rule: Rule) -> _Verdict:
    """``IsUnique``, ``Uniqueness``, ``UniqueValueRatio``, ``IsPrimaryKey``: one grouping each."""
    columns = [sf.col(f"`{column}`") for column in rule.parameters]
    considered = frame.where(_considered(rule))
    any_null = functools.reduce(operator.or_, [column.isNull() for column in columns])
    groups = considered.groupBy(*columns).count()
    row = groups.agg(
        sf.sum(sf.when(~any_null, sf.col("count")).otherwise(0)).alias("rows"),
        sf.sum(sf.when(any_null, sf.col("count")).otherwise(0)).alias("nulls"),
        sf.count(sf.when(~any_null & (sf.col("count") == 1), 1)).alias("once"),
        sf.count(sf.when(~any_null, 1)).alias("distinct"),
    ).first()
    if row is None:
        raise RuntimeError("an aggregate without groups gave no row")
    total = (row["distinct"] if rule.kind == "UniqueValueRatio" else row["rows"]) or 0
    share = 1.0 if total == 0 else row["once"] / total
    name = "UniqueValueRatio" if rule.kind == "UniqueValueRatio" else "Uniqueness"
    metrics = {f"Column.{','.join(rule.parameters)}.{name}": share}
    if rule.kind == "IsPrimaryKey" and row["nulls"]:
        return _Verdict(False, f"{row['nulls']} rows have no key", metrics)
    passed = share == 1.0 if rule.condition is None else _satisfies(share, rule.condition)
    return _Verdict(
        passed, None if passed else f"Value: {share:g} does not meet the constraint requirement!", metrics
    )


def _judge_exists(frame: DataFrame, rule: Rule) -> _Verdict:
    passed = rule.parameters[0] in frame.columns
    return _Verdict(passed, None if passed else f"Column {rule.parameters[0]} does not exist", {})


def _judge_column_count(frame: DataFrame, rule: Rule) -> _Verdict:
    return _judge_value(rule, float(len(frame.columns)))


def _judge_sql(frame: DataFrame, rule: Rule) -> _Verdict:
    if rule.where is not None:
        raise DqdlError(f"{rule.text!r}: write the filter into the statement")
    frame.createOrReplaceTempView("primary")
    rows = frame.sparkSession.sql(rule.parameters[0]).take(2)
    if len(rows) != 1 or len(rows[0]) != 1:
        raise DqdlError(f"{rule.text!r}: the statement must give one value")
    value = rows[0][0]
    whole = Rule(rule.kind, (), rule.condition, None, None, rule.text)
    return _judge_value(whole, None if value is None else float(value))


_JUDGES: dict[str, Callable[[DataFrame, Rule], _Verdict]] = {
    "IsUnique": _judge_unique,
    "Uniqueness": _judge_unique,
    "UniqueValueRatio": _judge_unique,
    "IsPrimaryKey": _judge_unique,
    "ColumnExists": _judge_exists,
    "ColumnCount": _judge_column_count,
    "CustomSql": _judge_sql,
}
