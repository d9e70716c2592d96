"""``EvaluateDataQuality``: a ruleset on a frame, as AWS Glue's own transform answers it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import boto3
from awsglue.dynamicframe import DynamicFrame
from ml_contract.quality.dqdl import parse
from ml_contract.quality.on_spark import SparkEngine
from ml_contract.quality.verdicts import Verdict, evaluate
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
_PUBLISHING = frozenset(
    {
        "dataQualityEvaluationContext",
        "enableDataQualityCloudWatchMetrics",
        "enableDataQualityResultsPublishing",
        "resultsS3Prefix",
    }
)
METRICS_NAMESPACE = "Glue Data Quality"


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
        verdicts = evaluate(SparkEngine(data), rules)
        if options.get("enableDataQualityCloudWatchMetrics"):
            _publish(str(options.get("dataQualityEvaluationContext", "")), verdicts)
        spark: SparkSession = data.sparkSession
        rows = [
            (rule.text, "Passed" if verdict.passed else "Failed", verdict.reason, dict(verdict.metrics))
            for rule, verdict in zip(rules, verdicts, strict=True)
        ]
        return DynamicFrame.fromDF(spark.createDataFrame(rows, _OUTCOMES), frame.glue_ctx, "ruleOutcomes")


def _publish(context: str, verdicts: list[Verdict]) -> None:
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
