"""Fixtures: the test app's cloud assembly, and a server with it deployed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from core_support import ROOT, Deployed, client_of, synthesised

from rehearsal.cdk import Cdk
from rehearsal.server import ServerProcess, start_server


@pytest.fixture(scope="session")
def core_assembly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test app's cloud assembly."""
    return synthesised(tmp_path_factory.mktemp("core") / "cdk.out")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for the tests of a module."""
    with start_server(tmp_path_factory.mktemp("server") / "state") as process:
        yield process


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Callable[[str], Any]:
    """Makes operator's clients at the module's server."""
    return lambda service: client_of(server, service)


@pytest.fixture(scope="module")
def deployed(server: ServerProcess, core_assembly: Path) -> Deployed:
    """The module's server with the test app bootstrapped and deployed by the CDK CLI."""
    lines: list[str] = []
    cdk = Cdk.of(ROOT, core_assembly, server, progress=lines.append)
    cdk.bootstrap()
    cdk.deploy(["--all"])
    return Deployed(server, cdk, lines)
