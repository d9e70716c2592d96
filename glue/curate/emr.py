"""The curate job as EMR Serverless runs it: ``spark-submit``, no Glue; ``curate.job`` does the work."""

from __future__ import annotations

import sys

from lake_files.submitted import submitted

from curate import job

if __name__ == "__main__":
    with submitted(sys.argv, job.ARGUMENTS, job.OPTIONAL) as (spark, arguments):
        job.run(spark, arguments, arguments["run_id"], job.judge_here)
