"""The job of a JDBC source: rows beyond the bookmark become Parquet files of the source's drop folder.

Arguments: ``--connection_name --connection_type --table --bookmark --columns --drop_uri`` (Glue adds
``--JOB_NAME`` and ``--JOB_RUN_ID``). Needs ``--job-bookmark-option job-bookmark-enable``: Glue keeps how far
the bookmark columns were read and moves it on ``job.commit``, after the files are written. A run that is
killed before is repeated by the next one; its rows are the same bytes then, and have the same record ids.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from awsglue.context import GlueContext
from awsglue.job import Job
from awsglue.utils import getResolvedOptions
from pyspark import SparkContext

ARGUMENTS = [
    "JOB_NAME",
    "JOB_RUN_ID",
    "connection_name",
    "connection_type",
    "table",
    "bookmark",
    "columns",
    "drop_uri",
]


def connection_options(arguments: Mapping[str, str]) -> dict[str, Any]:
    """How Glue reads the table: by the connection, and by the bookmark columns, which only grow.

    AWS Glue Developer Guide, "JDBC connections" and "Tracking processed data using job bookmarks".
    """
    return {
        "useConnectionProperties": "true",
        "connectionName": arguments["connection_name"],
        "dbtable": arguments["table"],
        "jobBookmarkKeys": arguments["bookmark"].split(","),
        "jobBookmarkKeysSortOrder": "asc",
    }


def main(argv: Sequence[str]) -> None:
    """Run the job."""
    arguments = getResolvedOptions(argv, ARGUMENTS)
    context = GlueContext(SparkContext.getOrCreate())
    context.spark_session.conf.set("spark.sql.session.timeZone", "UTC")
    job = Job(context)
    job.init(arguments["JOB_NAME"], arguments)
    frame = context.create_dynamic_frame.from_options(
        connection_type=arguments["connection_type"],
        connection_options=connection_options(arguments),
        # The bookmark hangs on this name: another one would read everything again.
        transformation_ctx="table",
    )
    rows = frame.toDF()
    if arguments["columns"] != "*":
        rows = rows.select(*arguments["columns"].split(","))
    rows = rows.persist()
    count = rows.count()
    if count:
        rows.write.mode("append").option("compression", "snappy").parquet(
            f"{arguments['drop_uri']}{arguments['JOB_RUN_ID']}"
        )
    print(f"read {count} new rows of {arguments['table']}")
    job.commit()


if __name__ == "__main__":
    main(sys.argv)
