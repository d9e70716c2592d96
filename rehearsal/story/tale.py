"""What the steps share: the deployed stacks as an operator sees them, and what was learned so far."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rehearsal.cdk import Cdk, StackArtifact, stack_artifacts
from rehearsal.report import Report
from rehearsal.server import ServerProcess
from rehearsal.story.telling import StoryError

if TYPE_CHECKING:
    from ml_contract.compiled import CompiledContract
    from ml_contract.load import LoadedWorkload
    from ml_contract.spec.workload import Workload

    from rehearsal.inputs import Inputs

__all__ = ["PARTS", "Cloud", "Objects", "Outputs", "Tale"]

#: What a workload's stacks are called after its id; the ids of stacks that all workloads share end otherwise.
PARTS = ("Data", "Sources", "Windows", "Labels", "Models", "Serving", "Operations")


class Outputs:
    """The outputs of one deployed stack; a missing one is an error that names it."""

    def __init__(self, stack: str, values: Mapping[str, str]) -> None:
        self.stack = stack
        self._values = dict(values)

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __getitem__(self, name: str) -> str:
        if name not in self._values:
            raise StoryError(
                f"stack {self.stack} has no output {name}; it has: {', '.join(sorted(self._values))}"
            )
        return self._values[name]

    def get(self, name: str) -> str | None:
        """The output, or ``None``."""
        return self._values.get(name)


class Objects:
    """S3 by URI, for the operator."""

    def __init__(self, s3: Any) -> None:
        self._s3 = s3

    def list(self, uri: str, *, suffix: str = "") -> list[str]:
        """URIs of the objects below a URI."""
        parts = urlsplit(uri)
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=parts.netloc, Prefix=parts.path.lstrip("/")
        )
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return [
            f"s3://{parts.netloc}/{key}" for key in keys if key.endswith(suffix) and not key.endswith("/")
        ]

    def read(self, uri: str) -> bytes:
        """Content of the object."""
        parts = urlsplit(uri)
        body: bytes = self._s3.get_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"))["Body"].read()
        return body

    def read_json(self, uri: str) -> Any:
        """Content of the object, parsed."""
        return json.loads(self.read(uri))

    def write(self, uri: str, body: bytes) -> None:
        """Write the object."""
        parts = urlsplit(uri)
        self._s3.put_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"), Body=body)


class Cloud:
    """The embedded AWS for its operator: boto3 clients, and the rehearsal's own controls."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        """A boto3 client of the operator."""
        if service not in self._clients:
            import boto3.session
            from botocore.config import Config

            environment = self.server.environment()
            session: Any = boto3.session.Session(
                aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
                region_name=environment["AWS_REGION"],
            )
            self._clients[service] = session.client(
                service,
                endpoint_url=self.server.endpoint,
                # One attempt: a retry would hide a defect of the gateway, or a request that an endpoint lost.
                config=Config(
                    retries={"total_max_attempts": 1},
                    s3={"addressing_style": "path"},
                    read_timeout=300,
                    max_pool_connections=32,
                    proxies={},
                    inject_host_prefix=False,
                ),
            )
        return self._clients[service]

    @cached_property
    def objects(self) -> Objects:
        """S3 by URI."""
        return Objects(self.client("s3"))

    def pass_over(self, *, hours: float) -> int:
        """Move the clock forward without firing schedules; return how many were passed over."""
        answer = self.server.control(
            "POST", "/clock/advance", {"hours": hours, "skip_schedules": True}, timeout_seconds=600
        )
        return int(answer["skipped"])

    def advance(self, *, hours: float = 0, minutes: float = 0, seconds: float = 0) -> list[dict[str, Any]]:
        """Move the rehearsal's clock forward; return what became due on the way."""
        answer = self.server.control(
            "POST",
            "/clock/advance",
            {"seconds": hours * 3600 + minutes * 60 + seconds},
            timeout_seconds=1_800,
        )
        fired: list[dict[str, Any]] = answer.get("fired", [])
        return fired

    def idle(self, seconds: float = 600) -> None:
        """Wait (real seconds) until nothing runs in the background any more."""
        answer = self.server.control(
            "GET", f"/idle?timeout_seconds={seconds:g}", timeout_seconds=seconds + 30
        )
        if not answer["idle"]:
            raise StoryError(f"after {seconds:g} s still under way: {', '.join(answer['work'])}")

    def ledger(self) -> list[dict[str, Any]]:
        """Everything that ran, was recorded or failed so far."""
        entries: list[dict[str, Any]] = self.server.control("GET", "/ledger")["entries"]
        return entries

    def function_errors(self) -> list[str]:
        """The latest warnings and errors that the functions logged, a line each."""
        logs = self.client("logs")
        found = []
        for group in logs.describe_log_groups()["logGroups"]:
            for event in logs.filter_log_events(logGroupName=group["logGroupName"])["events"]:
                text = event["message"].strip()
                if '"level": "ERROR"' in text or '"level": "WARNING"' in text or "Traceback" in text:
                    found.append((event["timestamp"], f"{group['logGroupName']}: {text[:600]}"))
        return [text for _, text in sorted(found)[-8:]]

    def permissions(self) -> list[dict[str, Any]]:
        """Per role: its grants with whether they were used, and what was refused."""
        roles: list[dict[str, Any]] = self.server.control("GET", "/iam")["roles"]
        return roles


@dataclass(kw_only=True)
class Tale:
    """The story so far."""

    loaded: LoadedWorkload
    app: Path
    out: Path
    stage: str
    seed: int
    inputs: Inputs
    report: Report
    note: Callable[[str], None] = lambda _line: None
    start_server: Callable[[str, str], ServerProcess]
    #: What later steps need from earlier ones, by step id.
    known: dict[str, Any] = field(default_factory=dict)
    server: ServerProcess | None = None
    #: What has to be ended before the server is.
    at_end: ExitStack = field(default_factory=ExitStack)

    @property
    def workload(self) -> Workload:
        """The workload that is rehearsed."""
        return self.loaded.workload

    @property
    def contract(self) -> CompiledContract:
        """Its compiled contract."""
        return self.loaded.compiled

    @property
    def assembly(self) -> Path:
        """Where the app was synthesised to."""
        return self.out / "cdk.out"

    @property
    def state(self) -> Path:
        """The server's folder."""
        return self.out / "state"

    @cached_property
    def cloud(self) -> Cloud:
        """The embedded AWS."""
        if self.server is None:
            raise StoryError("the embedded AWS has not been started")
        return Cloud(self.server)

    @cached_property
    def cdk(self) -> Cdk:
        """The CDK CLI on the app's assembly."""
        return Cdk.of(self.app, self.assembly, self.cloud.server, progress=self.note)

    @cached_property
    def stage_stacks(self) -> tuple[StackArtifact, ...]:
        """The stacks of the stage that this workload needs: its own and those of no workload."""
        parts = "|".join(PARTS)
        own = re.compile(rf"{re.escape(self.stage)}/{re.escape(self.workload.id)}({parts})")
        anyones = re.compile(rf"{re.escape(self.stage)}/.+({parts})")
        found = []
        for stack in stack_artifacts(self.assembly):
            name = stack.id.partition(" (")[0]
            shared = name.startswith(f"{self.stage}/") and not anyones.fullmatch(name)
            if shared or own.fullmatch(name):
                found.append(stack)
        return tuple(found)

    def has(self, part: str) -> bool:
        """Whether the workload has such a stack: what it did not switch on is not there."""
        return any(
            stack.id.partition(" (")[0] == f"{self.stage}/{self.workload.id}{part}"
            for stack in self.stage_stacks
        )

    def outputs(self, part: str) -> Outputs:
        """Outputs of one of the workload's stacks (``PARTS``)."""
        stack = f"{self.stage}/{self.workload.id}{part}"
        key = f"outputs of {stack}"
        if key not in self.known:
            self.known[key] = Outputs(stack, self.cdk.outputs(stack))
        found: Outputs = self.known[key]
        return found

    def forget_outputs(self) -> None:
        """Read outputs anew from now on: stacks were deployed again."""
        for key in [key for key in self.known if key.startswith("outputs of ")]:
            del self.known[key]

    def log(self, text: str) -> None:
        """Keep what is too long for the terminal."""
        with (self.out / "rehearsal.log").open("a", encoding="utf-8") as file:
            file.write(text.rstrip() + "\n")
