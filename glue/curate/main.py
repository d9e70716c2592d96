"""The curate job as AWS Glue runs it; the work is ``curate.job``.

Arguments: ``--contract --raw_uri --curated_uri --curated_database --curated_table --quality_uri
--ruleset_name`` (Glue adds ``--JOB_NAME`` and ``--JOB_RUN_ID``), optional ``--aws_region``,
``--quarantine_uri`` and ``--raw_table``. See ``docs/batch.md``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import boto3
from awsglue.context import GlueContext
from awsglue.dynamicframe import DynamicFrame
from awsglue.job import Job
from awsglue.utils import getResolvedOptions
from awsgluedq.transforms import EvaluateDataQuality
from lake_files.report import RuleOutcome
from ml_contract.compiled import CompiledContract
from ml_contract.quality.dqdl import parse
from ml_contract.quality.rules import severity_of
from pyspark import SparkContext

from curate import job, transforms

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def main(argv: Sequence[str]) -> None:
    """Run the job."""
    optional = [name for name in job.OPTIONAL if f"--{name}" in argv]
    arguments = getResolvedOptions(argv, ["JOB_NAME", *job.ARGUMENTS, "ruleset_name", *optional])
    glue_context = GlueContext(SparkContext.getOrCreate())
    run = Job(glue_context)
    run.init(arguments["JOB_NAME"], arguments)
    glue = boto3.client("glue", region_name=arguments.get("aws_region"))
    ruleset = glue.get_data_quality_ruleset(Name=arguments["ruleset_name"])["Ruleset"]

    def judge(frame: DataFrame, contract: CompiledContract) -> list[RuleOutcome]:
        """Evaluate the ruleset of the account, by Glue."""
        found = EvaluateDataQuality.apply(
            frame=DynamicFrame.fromDF(frame, glue_context, "curated"),
            ruleset=ruleset,
            publishing_options={
                "dataQualityEvaluationContext": "curated",
                "enableDataQualityCloudWatchMetrics": False,
                "enableDataQualityResultsPublishing": False,
            },
        )
        severities = {rule.text: severity_of(rule, contract) for rule in parse(ruleset)}
        return transforms.rule_outcomes((row.asDict() for row in found.toDF().collect()), severities)

    job.run(glue_context.spark_session, arguments, arguments["JOB_RUN_ID"], judge)
    run.commit()


if __name__ == "__main__":
    main(sys.argv)
