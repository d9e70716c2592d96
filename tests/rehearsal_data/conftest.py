"""One embedded AWS for all tests of this folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import boto3.session
import pytest
from botocore.config import Config

from rehearsal.server import ServerProcess, start_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with start_server(tmp_path_factory.mktemp("rehearsal") / "state") as started:
        yield started
        print(started.log.read_text(errors="replace")[-20_000:])


@pytest.fixture(scope="session")
def client(server: ServerProcess) -> Callable[[str], Any]:
    """boto3 clients that act as the operator."""
    made: dict[str, Any] = {}
    session: Any = boto3.session.Session()

    def make(service: str) -> Any:
        if service not in made:
            made[service] = session.client(
                service,
                endpoint_url=server.endpoint,
                region_name=server.region,
                aws_access_key_id=server.account,
                aws_secret_access_key="rehearsal",
                config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
            )
        return made[service]

    return make


@pytest.fixture(scope="session")
def allow(client: Callable[[str], Any]) -> Callable[[str, Sequence[dict[str, Any]]], None]:
    """Set what a role may do."""

    def put(role: str, statements: Sequence[dict[str, Any]]) -> None:
        document = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Resource": "*", **statement} for statement in statements],
        }
        client("iam").put_role_policy(RoleName=role, PolicyName="inline", PolicyDocument=json.dumps(document))

    return put


@pytest.fixture(scope="session")
def role(
    client: Callable[[str], Any], allow: Callable[[str, Sequence[dict[str, Any]]], None]
) -> Callable[[str, str, Sequence[dict[str, Any]]], str]:
    """Make a role that a service may assume, with the given statements; returns its ARN."""

    def make(name: str, service: str, statements: Sequence[dict[str, Any]]) -> str:
        trust = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}],
        }
        made = client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
        allow(name, statements)
        return str(made["Role"]["Arn"])

    return make
