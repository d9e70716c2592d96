"""The point-in-time job as AWS Glue runs it; the work is ``point_in_time.job``.

Arguments: ``--contract --labels_uri --feature_group_name --target_uri`` (Glue adds ``--JOB_NAME`` and
``--JOB_RUN_ID``), optional ``--aws_region``, ``--label_time``, ``--cutoff`` and ``--keep_unknown true``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from awsglue.context import GlueContext
from awsglue.job import Job
from awsglue.utils import getResolvedOptions
from pyspark import SparkContext

from point_in_time import job


def main(argv: Sequence[str]) -> None:
    """Run the job."""
    optional = [name for name in job.OPTIONAL if f"--{name}" in argv]
    arguments = getResolvedOptions(argv, ["JOB_NAME", *job.ARGUMENTS, *optional])
    glue_context = GlueContext(SparkContext.getOrCreate())
    run = Job(glue_context)
    run.init(arguments["JOB_NAME"], arguments)
    job.run(glue_context.spark_session, arguments)
    run.commit()


if __name__ == "__main__":
    main(sys.argv)
