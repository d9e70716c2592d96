"""What the tests of the embedded AWS share."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from rehearsal.cdk import Cdk, node_binary
from rehearsal.server import ServerProcess

ROOT = Path(__file__).resolve().parents[2]
APP = Path(__file__).resolve().parent / "app" / "app.py"


def synthesised(out: Path, **environment: str) -> Path:
    """Synthesise the test app into a folder."""
    context = '{"@aws-cdk/core:defaultCrossStackReferences": "strong"}'
    run = subprocess.run(
        [sys.executable, str(APP)],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(out.parent),
            "JSII_NODE": str(node_binary()),
            "CDK_OUTDIR": str(out),
            "CDK_CONTEXT_JSON": context,
            **environment,
        },
        cwd=out.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return out


@dataclass
class Deployed:
    """A server, the CLI on the test app, and clients."""

    server: ServerProcess
    cdk: Cdk
    lines: list[str]

    def client(self, service: str) -> Any:
        """Return an operator's client."""
        return client_of(self.server, service)


def client_of(server: ServerProcess, service: str, **credentials: str) -> Any:
    """Return a boto3 client at a server, the operator's unless credentials are given."""
    given = credentials or {"aws_access_key_id": server.account, "aws_secret_access_key": "x"}
    session: Any = boto3.session.Session
    return session(region_name=server.region, **given).client(
        service,
        endpoint_url=server.endpoint,
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, proxies={}),
    )
