"""A running rehearsal with two tiny images, a bucket and roles, shared by the tests of this folder."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from rehearsal.docker_shim import STATE_VARIABLE
from rehearsal.server import ServerProcess, start_server

IMAGES = Path(__file__).parent / "images"
REGISTRY = "123456789012.dkr.ecr.us-east-1.amazonaws.com"


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What a test needs of a running rehearsal."""

    server: ServerProcess
    bucket: str
    role: str
    job_image: str
    server_image: str

    def client(self, service: str) -> Any:
        """A client that acts as the operator."""
        environment = self.server.environment()
        make: Callable[..., Any] = boto3.client
        return make(
            service,
            endpoint_url=self.server.endpoint,
            region_name=environment["AWS_REGION"],
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
            config=Config(retries={"total_max_attempts": 1}, proxies={}, read_timeout=120),
        )

    def put(self, key: str, content: str) -> str:
        """Put an object; its URI."""
        self.client("s3").put_object(Bucket=self.bucket, Key=key, Body=content.encode())
        return f"s3://{self.bucket}/{key}"

    def read(self, key: str) -> bytes:
        """The content of an object."""
        body: bytes = self.client("s3").get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return body

    def keys(self, prefix: str) -> list[str]:
        """The keys below a prefix."""
        found = self.client("s3").list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return [item["Key"] for item in found.get("Contents", ())]

    def make_role(self, name: str, principal: str, statements: list[dict[str, Any]]) -> str:
        """A role with one inline policy; its ARN."""
        iam = self.client("iam")
        trust = {"Effect": "Allow", "Principal": {"Service": principal}, "Action": "sts:AssumeRole"}
        arn: str = iam.create_role(
            RoleName=name,
            AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]}),
        )["Role"]["Arn"]
        iam.put_role_policy(
            RoleName=name,
            PolicyName="inline",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": statements}),
        )
        return arn

    def make_queue(self, name: str) -> tuple[str, str]:
        """A queue that EventBridge may send to; its URL and its ARN."""
        arn = f"arn:aws:sqs:us-east-1:123456789012:{name}"
        statement = {"Principal": {"Service": "events.amazonaws.com"}, **allow("sqs:SendMessage", on=arn)}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        url: str = self.client("sqs").create_queue(QueueName=name, Attributes={"Policy": policy})["QueueUrl"]
        return url, arn

    def ledger(self, **query: str) -> list[dict[str, Any]]:
        """The ledger's entries."""
        text = "&".join(f"{key}={value}" for key, value in query.items())
        entries: list[dict[str, Any]] = self.server.control("GET", f"/ledger?{text}")["entries"]
        return entries


def await_(read: Callable[[], Any], done: Callable[[Any], bool], seconds: float = 60) -> Any:
    """Read until it is done."""
    deadline = time.monotonic() + seconds
    while not done(value := read()):
        assert time.monotonic() < deadline, f"still {value}"
        time.sleep(0.1)
    return value


def allow(*actions: str, on: str | list[str] = "*") -> dict[str, Any]:
    """A statement."""
    return {"Effect": "Allow", "Action": list(actions), "Resource": on}


def build_image(state: Path, uri: str, folder: Path) -> None:
    """Let the rehearsal know an image, as `docker build` through the CDK CLI does."""
    subprocess.run(
        [sys.executable, "-m", "rehearsal.docker_shim", "build", "-t", uri, str(folder)],
        env={**os.environ, STATE_VARIABLE: str(state)},
        check=True,
    )


@pytest.fixture(scope="session")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    """One server for all tests of this folder."""
    state = tmp_path_factory.mktemp("models") / "state"
    with start_server(state) as server:
        images = {}
        for name in ("job", "server"):
            images[name] = f"{REGISTRY}/{name}:1"
            build_image(state, images[name], IMAGES / name)
        bare = Rehearsal(
            server=server,
            bucket="models-bucket",
            role="",
            job_image=images["job"],
            server_image=images["server"],
        )
        bare.client("s3").create_bucket(Bucket=bare.bucket)
        arn = f"arn:aws:s3:::{bare.bucket}"
        role = bare.make_role(
            "jobs",
            "sagemaker.amazonaws.com",
            [
                allow("s3:GetObject", "s3:PutObject", on=f"{arn}/*"),
                allow("s3:ListBucket", on=arn),
                allow("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"),
            ],
        )
        yield Rehearsal(
            server=server,
            bucket=bare.bucket,
            role=role,
            job_image=images["job"],
            server_image=images["server"],
        )
