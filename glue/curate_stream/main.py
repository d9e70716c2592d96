"""The streaming job as AWS Glue runs it; the work is ``curate_stream.job``.

Arguments: ``--contract --stream_name --data_uri --quarantine_uri --checkpoint_uri --window_seconds --files
--aws_region`` (Glue adds ``--JOB_NAME``). It ends when a micro-batch fails; the next run takes it up again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import boto3
from awsglue.context import GlueContext
from awsglue.job import Job
from awsglue.utils import getResolvedOptions
from lake_files.objects import S3Uri, read_text
from pyspark import SparkContext

from curate_stream import job


def put(uri: str, body: bytes) -> None:
    """Write one object, on a worker."""
    place = S3Uri.parse(uri)
    boto3.client("s3").put_object(Bucket=place.bucket, Key=place.key, Body=body)


def main(argv: Sequence[str]) -> None:
    """Run the job."""
    optional = [name for name in job.OPTIONAL if f"--{name}" in argv]
    arguments = getResolvedOptions(argv, ["JOB_NAME", *job.ARGUMENTS, *optional])
    glue_context = GlueContext(SparkContext.getOrCreate())
    run = Job(glue_context)
    run.init(arguments["JOB_NAME"], arguments)
    contract = read_text(boto3.client("s3"), arguments["contract"])
    frame = job.read_stream(glue_context.spark_session, arguments)
    job.start(frame, arguments, contract, put).awaitTermination()
    run.commit()


if __name__ == "__main__":
    main(sys.argv)
