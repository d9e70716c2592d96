"""A producer of the operator's own: a role that may put records on the stream, and does not wait for long."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rehearsal.story.ingestion import Batch, Sent, record_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rehearsal.story.tale import Tale

__all__ = ["NAME", "impatient"]

NAME = "impatient-producer"
#: So long it waits for an answer, in seconds, and so often it asks.
PATIENCE, TRIES = 1, 2


def impatient(tale: Tale, messages: Sequence[Sent]) -> Batch:
    """Put records on the stream as a client does that asks again when no answer comes in time.

    Returns:
        What lies on the stream once the first answer came too late: each record two times.
    """
    import boto3.session
    from botocore.config import Config

    iam, kinesis = tale.cloud.client("iam"), tale.cloud.client("kinesis")
    stream = tale.outputs("Data")["StreamName"]
    described = kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
    account = tale.cloud.server.account
    anyone_here = {"AWS": f"arn:aws:iam::{account}:root"}
    trust = {"Effect": "Allow", "Principal": anyone_here, "Action": "sts:AssumeRole"}
    allowed = [
        {"Effect": "Allow", "Action": "kinesis:PutRecords", "Resource": described["StreamARN"]},
        {"Effect": "Allow", "Action": "kms:GenerateDataKey", "Resource": "*"},
    ]
    # The stream's key is for roles of its workload, which their tags say.
    consumer = tale.cloud.client("lambda").get_function_configuration(
        FunctionName=tale.outputs("Data")["StreamConsumerName"]
    )["Role"]
    tags = iam.list_role_tags(RoleName=consumer.rpartition("/")[2])["Tags"]
    role = iam.create_role(RoleName=NAME, AssumeRolePolicyDocument=_policy([trust]), Tags=tags)["Role"]["Arn"]
    iam.put_role_policy(RoleName=NAME, PolicyName="put", PolicyDocument=_policy(allowed))
    try:
        given = tale.cloud.client("sts").assume_role(RoleArn=role, RoleSessionName=NAME)["Credentials"]
        session: Any = boto3.session.Session(
            aws_access_key_id=given["AccessKeyId"],
            aws_secret_access_key=given["SecretAccessKey"],
            aws_session_token=given["SessionToken"],
            region_name=tale.cloud.server.region,
        )
        config = Config(
            retries={"mode": "standard", "total_max_attempts": TRIES}, read_timeout=PATIENCE, proxies={}
        )
        producer = session.client("kinesis", endpoint_url=tale.cloud.server.endpoint, config=config)
        producer.put_records(
            StreamName=stream,
            Records=[{"Data": m.data, "PartitionKey": record_id(m.data)} for m in messages],
        )
    finally:
        iam.delete_role_policy(RoleName=NAME, PolicyName="put")
        iam.delete_role(RoleName=NAME)
    batch = Batch(messages=[*messages, *messages])
    tale.report.records["sent"] += len(batch.messages)
    return batch


def _policy(statements: list[dict[str, Any]]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})
