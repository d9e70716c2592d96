"""One build: its folder, its environment, its commands, and what becomes of them."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import sys
import threading
import time
import uuid
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rehearsal.docker_shim import STATE_VARIABLE
from rehearsal.executors.code_build.specification import (
    PHASES,
    Specification,
    SpecificationError,
    parsed,
)
from rehearsal.executors.containers import JobFolder, run_to_end, ship_log
from rehearsal.node import cdk_cli, node_binary

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["Build", "Machine", "Place", "run"]

#: Where the programs of the build machine lie, and their commands.
_PROGRAMS = Path(__file__).resolve().parents[2] / "build_machine"
_COMMANDS = {"npm": _PROGRAMS / "npm.py", "cdk-assets": _PROGRAMS / "cdk_assets.py"}
_DOCKER = Path(__file__).resolve().parents[2] / "docker_shim.py"
_PLAINTEXT = "PLAINTEXT"


@dataclass(kw_only=True)
class Machine:
    """What the rehearsal gives every build beside what CodeBuild gives it.

    ``prepared`` are links in the source folder by name: what an image would have brought (installed
    packages), so that no build needs a network. ``variables`` narrow what the commands do. Both are told in
    the ledger with each build.
    """

    prepared: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Place:
    """An artifact in S3."""

    bucket: str
    key: str


@dataclass(kw_only=True)
class Build:
    """One run of a project."""

    id: str
    number: int
    project: Mapping[str, Any]
    initiator: str
    #: Source artifacts by name, the primary one first, and where artifacts go by name (empty: primary).
    inputs: Mapping[str, Place] = field(default_factory=dict)
    outputs: Mapping[str, Place] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    source_version: str = ""
    status: str = "IN_PROGRESS"
    phase: str = "QUEUED"
    phases: list[dict[str, Any]] = field(default_factory=list)
    exported: dict[str, str] = field(default_factory=dict)
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended: datetime | None = None
    log: Path | None = None
    done: threading.Event = field(default_factory=threading.Event)
    stop: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def of(cls, project: Mapping[str, Any], number: int, **given: Any) -> Build:
        """A new build of a project."""
        return cls(id=f"{project['name']}:{uuid.uuid4()}", number=number, project=project, **given)

    @property
    def arn(self) -> str:
        """Its ARN."""
        return str(self.project["arn"]).replace(":project/", ":build/").rpartition("/")[0] + f"/{self.id}"


class _BuildFailedError(Exception):
    """A command failed, or the build could not begin."""


def run(runtime: Runtime, build: Build, machine: Machine, region: str) -> None:
    """Run a build to its end; its status says how that was. Never raises for what the build did."""
    folder = JobFolder.of(runtime, "builds", build.id.replace(":", "-"))
    build.log = folder.log
    running = _Running(runtime=runtime, build=build, machine=machine, folder=folder, region=region)
    try:
        running.work()
        build.status = "SUCCEEDED"
    except (_BuildFailedError, SpecificationError) as error:
        build.status = "STOPPED" if build.stop.is_set() else "FAILED"
        with folder.log.open("a", encoding="utf-8") as log:
            log.write(f"{error}\n")
    finally:
        if build.status == "IN_PROGRESS":
            build.status = "FAULT"
        build.ended, build.phase = datetime.now(UTC), "COMPLETED"
        try:
            running.tell()
        finally:
            build.done.set()


@dataclass(frozen=True, kw_only=True)
class _Running:
    """A build under way."""

    runtime: Runtime
    build: Build
    machine: Machine
    folder: JobFolder
    region: str

    @property
    def role(self) -> str:
        """Whom it acts as."""
        return str(self.build.project["serviceRole"])

    def work(self) -> None:
        """Fetch the sources, run the phases, leave the artifacts.

        Raises:
            _BuildFailedError: one of it failed.
            SpecificationError: the specification cannot be followed.
        """
        sources = self._sources()
        root = next(iter(sources.values()), self.folder.root / "src")
        root.mkdir(exist_ok=True)
        specification = _specification(self.build.project, root)
        for name, target in self.machine.prepared.items():
            if not (root / name).exists():
                (root / name).symlink_to(target)
        environment = self._environment(specification, sources, root)
        limit = time.monotonic() + 60 * int(self.build.project.get("timeoutInMinutes", 60))
        failed = None
        for phase in PHASES:
            # post_build runs after a build that failed, not after an installation that did.
            if failed is not None and not (phase == "post_build" and failed == "build"):
                continue
            if not self._phase(phase, specification, environment, limit):
                failed = failed or phase
        if failed is not None:
            raise _BuildFailedError(f"Phase complete: {failed.upper()} State: FAILED")
        self.build.exported = _exported(self.folder, specification)
        self._leave(specification, root)

    def _s3(self) -> Any:
        return self.runtime.client("s3", role=self.role, region=self.region)

    def _sources(self) -> dict[str, Path]:
        """As CodeBuild lays them out: the primary source in src, the others beside it."""
        from botocore.exceptions import ClientError

        sources = {}
        for number, (name, place) in enumerate(self.build.inputs.items()):
            sources[name] = self.folder.root / ("src" if number == 0 else f"src-{number}")
            try:
                body = self._s3().get_object(Bucket=place.bucket, Key=place.key)["Body"].read()
            except ClientError as error:
                raise _BuildFailedError(f"DOWNLOAD_SOURCE: {name}: {error}") from error
            _unzip(body, sources[name])
        return sources

    def _environment(
        self, specification: Specification, sources: Mapping[str, Path], root: Path
    ) -> dict[str, str]:
        build = self.build
        declared = build.project.get("environment", {}).get("environmentVariables") or []
        strange = sorted(v["name"] for v in declared if v.get("type", _PLAINTEXT) != _PLAINTEXT)
        if strange:
            raise SpecificationError(
                f"the rehearsal knows variables as plain text only, not {', '.join(strange)}"
            )
        home = self.folder.root / "home"
        home.mkdir(exist_ok=True)
        kept = ("LANG", "LC_ALL", "TZ", "SSL_CERT_FILE")
        node = node_binary()
        path = [str(_commands(self.runtime)), str(node.parent), os.environ.get("PATH", os.defpath)]
        return {
            **{name: os.environ[name] for name in kept if name in os.environ},
            **self.runtime.role_environment(self.role, self.region),
            "PATH": os.pathsep.join(path),
            "HOME": str(home),
            "CI": "true",
            "CODEBUILD_BUILD_ID": build.id,
            "CODEBUILD_BUILD_ARN": build.arn,
            "CODEBUILD_BUILD_NUMBER": str(build.number),
            "CODEBUILD_INITIATOR": build.initiator,
            "CODEBUILD_SRC_DIR": str(root),
            **{f"CODEBUILD_SRC_DIR_{name}": str(path) for name, path in sources.items() if path != root},
            "CDK_DISABLE_CLI_TELEMETRY": "true",
            "JSII_NODE": str(node),
            STATE_VARIABLE: str(self.runtime.state),
            "REHEARSAL_CDK": str(cdk_cli(_PROGRAMS)),
            **specification.variables,
            **{v["name"]: v.get("value", "") for v in declared},
            **self.machine.variables,
            **build.variables,
        }

    def _phase(
        self, phase: str, specification: Specification, environment: Mapping[str, str], limit: float
    ) -> bool:
        commands, always = specification.commands[phase], specification.always[phase]
        if not commands and not always:
            return True
        build, folder = self.build, self.folder
        build.phase = phase.upper()
        started = time.monotonic()
        script = folder.root / f"{phase}.sh"
        script.write_text(_script(commands, always, folder), encoding="utf-8")
        root = Path(environment["CODEBUILD_SRC_DIR"])
        child = self.runtime.popen(["/bin/sh", script], env=environment, cwd=root, log=folder.log)
        left = max(limit - time.monotonic(), 0)
        outcome = run_to_end(self.runtime, child, limit_seconds=left, stop=build.stop)
        build.phases.append(
            {
                "phase": phase,
                "commands": list(commands),
                "exit_code": outcome.exit_code,
                "seconds": round(time.monotonic() - started, 1),
            }
        )
        if outcome.timed_out:
            raise _BuildFailedError(f"{phase}: BUILD_TIMED_OUT")
        return outcome.exit_code == 0

    def _leave(self, specification: Specification, root: Path) -> None:
        from botocore.exceptions import ClientError

        for name, place in self.build.outputs.items():
            artifact = specification.artifacts.get(name, specification.artifacts.get(""))
            if artifact is None:
                raise _BuildFailedError(f"UPLOAD_ARTIFACTS: the specification has no artifacts for {name!r}")
            try:
                self._s3().put_object(Bucket=place.bucket, Key=place.key, Body=_zip(artifact.paths(root)))
            except ClientError as error:
                raise _BuildFailedError(f"UPLOAD_ARTIFACTS: {error}") from error

    def tell(self) -> None:
        """Keep the log, enter the build into the ledger, publish its event."""
        build, runtime = self.build, self.runtime
        assert build.ended is not None
        ship_log(
            runtime,
            self.folder,
            role=self.role,
            region=self.region,
            group=f"/aws/codebuild/{build.project['name']}",
            stream=build.id.partition(":")[2],
        )
        # A build that says no has run; what becomes of it is for whoever started it.
        runtime.ledger.ran(
            "codebuild",
            build.id,
            status=build.status,
            seconds=round((build.ended - build.began).total_seconds(), 1),
            phases=list(build.phases),
            prepared=sorted(self.machine.prepared),
            narrowed=dict(self.machine.variables),
            log=str(self.folder.log),
        )
        detail = {
            "build-status": build.status,
            "project-name": build.project["name"],
            "build-id": build.arn,
            "current-phase": "COMPLETED",
            "version": "1",
        }
        runtime.emit("aws.codebuild", "CodeBuild Build State Change", detail, [build.arn], region=self.region)


def _specification(project: Mapping[str, Any], root: Path) -> Specification:
    text = str(project.get("source", {}).get("buildspec") or "buildspec.yml")
    if "\n" not in text and not text.lstrip().startswith("{"):
        path = root / text
        if not path.is_file():
            raise SpecificationError(f"the source has no {text}")
        text = path.read_text(encoding="utf-8")
    return parsed(text)


def _commands(runtime: Runtime) -> Path:
    """The folder with the commands of the build machine; written once."""
    folder = runtime.state / "build-machine"
    if folder.exists():
        return folder
    partial = runtime.state / f"build-machine.{uuid.uuid4().hex}"
    partial.mkdir()
    python = shlex.quote(sys.executable)
    lines = {name: f"exec {python} {shlex.quote(str(path))}" for name, path in _COMMANDS.items()}
    lines["docker"] = f"exec {python} {shlex.quote(str(_DOCKER))}"
    lines["cdk"] = f"exec {shlex.quote(str(node_binary()))} {shlex.quote(str(cdk_cli(_PROGRAMS)))}"
    for name, line in lines.items():
        (partial / name).write_text(f'#!/bin/sh\n{line} "$@"\n')
        (partial / name).chmod(0o755)
    try:
        partial.rename(folder)
    except OSError:
        # Another build was first.
        shutil.rmtree(partial)
    return folder


def _script(commands: Sequence[str], always: Sequence[str], folder: JobFolder) -> str:
    """The commands in one shell, each told before it runs; the first that fails ends the phase."""
    state = shlex.quote(str(folder.root / "variables.sh"))
    lines = [f"[ ! -f {state} ] || . {state}", "("]
    for command in commands:
        told = shlex.quote(f"[Container] Running command {command}")
        lines += [f"printf '%s\\n' {told}", command, "__code=$?; [ $__code -eq 0 ] || exit $__code"]
    # Variables live on into the next phase.
    lines += [f"export -p > {state}", ")", "__code=$?", *always]
    return "\n".join([*lines, "exit $__code"]) + "\n"


def _exported(folder: JobFolder, specification: Specification) -> dict[str, str]:
    path = folder.root / "variables.sh"
    if not specification.exported or not path.is_file():
        return {}
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        words = shlex.split(line) if line.startswith("export ") else []
        name, _, value = words[1].partition("=") if len(words) == 2 else ("", "", "")
        if name in specification.exported:
            found[name] = value
    return found


def _unzip(body: bytes, folder: Path) -> None:
    folder.mkdir()
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        for entry in archive.infolist():
            path = Path(archive.extract(entry, folder))
            mode = entry.external_attr >> 16
            if mode and path.is_file():
                path.chmod(mode & 0o777 or 0o644)


def _zip(files: Sequence[tuple[Path, str]]) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path, name in files:
            archive.write(path, name)
    return body.getvalue()
