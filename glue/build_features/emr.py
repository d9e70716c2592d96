"""The feature job as EMR Serverless runs it: ``spark-submit``; the work is ``build_features.job``."""

from __future__ import annotations

import sys

from lake_files.submitted import submitted

from build_features import job

if __name__ == "__main__":
    with submitted(sys.argv, job.ARGUMENTS, job.OPTIONAL) as (spark, arguments):
        job.run(spark, arguments)
