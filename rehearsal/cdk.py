"""Runs the pinned CDK CLI against the embedded AWS.

It is the CLI that deploys for real, with the same Node as ``tools/cdk`` uses, on any cloud assembly: the app
is synthesised by whoever owns it. The CLI gets a home of its own, so it neither reads nor writes the user's
caches, and `rehearsal.docker_shim` in place of Docker.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rehearsal.docker_shim import STATE_VARIABLE
from rehearsal.node import CdkError, cdk_cli, node_binary
from rehearsal.server import DEFAULT_ACCOUNT, DEFAULT_REGION, ServerProcess

__all__ = ["Cdk", "CdkError", "StackArtifact", "cdk_cli", "node_binary", "stack_artifacts"]

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True, kw_only=True)
class StackArtifact:
    """One stack of a cloud assembly: the id a user types, its CloudFormation name, where it goes."""

    id: str
    name: str
    account: str | None
    region: str | None
    template: Path
    dependencies: tuple[str, ...] = ()


def stack_artifacts(assembly: Path) -> tuple[StackArtifact, ...]:
    """Return the stacks of a cloud assembly, those of nested stages too."""
    manifest = assembly / "manifest.json"
    if not manifest.exists():
        raise CdkError(f"{assembly} is no cloud assembly (no manifest.json); run 'make synth' first")
    found: list[StackArtifact] = []
    for key, artifact in json.loads(manifest.read_text(encoding="utf-8")).get("artifacts", {}).items():
        properties = artifact.get("properties", {})
        if artifact["type"] == "cdk:cloud-assembly":
            found += stack_artifacts(assembly / properties["directoryName"])
        elif artifact["type"] == "aws:cloudformation:stack":
            _, _, target = artifact["environment"].partition("://")
            account, _, region = target.partition("/")
            found.append(
                StackArtifact(
                    id=artifact.get("displayName", key),
                    name=properties.get("stackName", key),
                    account=None if account.startswith("unknown") else account,
                    region=None if region.startswith("unknown") else region,
                    template=assembly / properties["templateFile"],
                    dependencies=tuple(artifact.get("dependencies", ())),
                )
            )
    return tuple(found)


class Cdk:
    """The CDK CLI on one cloud assembly and one server.

    ``root`` is the folder whose ``node_modules`` hold the CLI; ``progress`` gets each line it prints.
    """

    def __init__(
        self,
        root: Path,
        assembly: Path,
        endpoint: str,
        state: Path,
        *,
        account: str = DEFAULT_ACCOUNT,
        region: str = DEFAULT_REGION,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self.cli = cdk_cli(root)
        self.node = node_binary()
        self.assembly = assembly.resolve()
        self.endpoint = endpoint
        self.state = state.resolve()
        self.account = account
        self.region = region
        self.progress = progress
        self._home = self.state / "cdk-home"
        self._work = self.state / "cdk-work"
        for folder in (self._home, self._work):
            folder.mkdir(parents=True, exist_ok=True)
        self._docker = self._docker_command()

    @classmethod
    def of(
        cls,
        root: Path,
        assembly: Path,
        server: ServerProcess,
        *,
        progress: Callable[[str], None] | None = None,
    ) -> Cdk:
        """Return the CLI for a server that `start_server` started."""
        return cls(
            root,
            assembly,
            server.endpoint,
            server.state,
            account=server.account,
            region=server.region,
            progress=progress,
        )

    def _docker_command(self) -> Path:
        """Write the one executable that the CLI calls as docker."""
        path = self._work / "docker"
        shim = Path(__file__).with_name("docker_shim.py")
        path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(shim))} "$@"\n')
        path.chmod(0o755)
        return path

    def environment(self) -> dict[str, str]:
        """Return the whole environment of the CLI."""
        kept = ("LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")
        return {
            **{name: os.environ[name] for name in kept if name in os.environ},
            "PATH": f"{self.node.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "HOME": str(self._home),
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.account,
            "AWS_SECRET_ACCESS_KEY": "rehearsal",
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "CDK_HOME": str(self._home),
            "CDK_DOCKER": str(self._docker),
            "CDK_DISABLE_CLI_TELEMETRY": "true",
            STATE_VARIABLE: str(self.state),
        }

    # -- commands ---------------------------------------------------------------------------------------

    def bootstrap(self) -> None:
        """Bootstrap the server's account in its region and in every other that the assembly names."""
        regions = {self.region, *(s.region for s in stack_artifacts(self.assembly) if s.region is not None)}
        targets = [f"aws://{self.account}/{region}" for region in sorted(regions)]
        self._run("bootstrap", *targets)

    def deploy(
        self,
        stacks: Sequence[str],
        *,
        exclusively: bool = False,
        rollback: bool = True,
        concurrency: int = 4,
    ) -> None:
        """Deploy stacks by the ids or patterns that a user types (``["Dev/*"]``)."""
        self._run(
            "deploy",
            *self._app(),
            *stacks,
            *("--require-approval", "never", "--progress", "events"),
            *("--concurrency", str(concurrency), "--asset-parallelism"),
            *(["--exclusively"] if exclusively else []),
            *([] if rollback else ["--no-rollback"]),
        )

    def destroy(self, stacks: Sequence[str], *, exclusively: bool = False) -> None:
        """Destroy stacks without asking, and those that depend on them unless ``exclusively``."""
        self._run("destroy", *self._app(), *stacks, "--force", *(["--exclusively"] if exclusively else []))

    def diff(self, stacks: Sequence[str]) -> str:
        """Return what ``cdk diff`` prints."""
        return self._run("diff", *self._app(), *stacks)

    def list_ids(self) -> list[str]:
        """Return the ids of every stack."""
        return [line.strip() for line in self._run("list", *self._app()).splitlines() if line.strip()]

    def stacks(self) -> tuple[StackArtifact, ...]:
        """Return the stacks of the assembly."""
        return stack_artifacts(self.assembly)

    def stack_name(self, stack: str) -> str:
        """Return the CloudFormation name of a stack given by its id (``Dev/DataLake``) or by that name."""
        for artifact in self.stacks():
            if stack in (artifact.id, artifact.name, artifact.id.partition(" (")[0]):
                return artifact.name
        raise CdkError(f"no stack {stack!r}; there are: {', '.join(s.id for s in self.stacks())}")

    def outputs(self, stack: str) -> dict[str, str]:
        """Return the outputs of a deployed stack by the names that the template gives them."""
        found: list[dict[str, Any]] = self._client("cloudformation").describe_stacks(
            StackName=self.stack_name(stack)
        )["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in found[0].get("Outputs", ())}

    def _client(self, service: str) -> Any:
        import boto3.session

        session: Any = boto3.session.Session(
            aws_access_key_id=self.account,
            aws_secret_access_key="rehearsal",  # noqa: S106 - nothing checks it
            region_name=self.region,
        )
        return session.client(service, endpoint_url=self.endpoint)

    def _app(self) -> list[str]:
        return ["--app", str(self.assembly)]

    def _run(self, command: str, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
        """Run one command in a process group of its own; return its output, pass each line on."""
        argv = [str(self.node), str(self.cli), command, *arguments, "--no-notices", "--no-color", "--ci"]
        process = subprocess.Popen(
            argv,
            env={**self.environment(), **({} if environment is None else environment)},
            # An empty folder: a cdk.json of where the user stands must not be read.
            cwd=self._work,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        lines: list[str] = []
        try:
            assert process.stdout is not None
            with process.stdout:
                for raw in process.stdout:
                    line = _ANSI.sub("", raw.rstrip("\n"))
                    lines.append(line)
                    if self.progress is not None and line.strip():
                        self.progress(line)
            code = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        log = self._work / f"{command}.log"
        log.write_text("\n".join(lines) + "\n", encoding="utf-8")
        if code:
            raise CdkError(f"cdk {command} failed with exit code {code}: {_why(lines)} (log: {log})")
        return "\n".join(lines)


def _why(lines: Sequence[str]) -> str:
    """Return the lines of a failed command that say why."""
    telling = [line.strip() for line in lines if re.search(r"❌|_FAILED|[Ee]rror", line)]
    return " | ".join(dict.fromkeys(telling[-6:])) or " | ".join(line.strip() for line in lines[-4:])
