"""The feature job as AWS Glue runs it; the work is ``build_features.job``.

Arguments: ``--contract --curated_database --curated_table --features_uri --snapshots_uri
--feature_group_name`` (Glue adds ``--JOB_NAME`` and ``--JOB_RUN_ID``), optional ``--aws_region``,
``--ingest all``, ``--curated_snapshot_id``, ``--labels_table`` and ``--labels_snapshot_id``. See
``docs/batch.md``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from awsglue.context import GlueContext
from awsglue.job import Job
from awsglue.utils import getResolvedOptions
from pyspark import SparkContext

from build_features import job


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
