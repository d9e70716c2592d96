"""The server: the environment that ministack reads, its ASGI application and its services."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from rehearsal.ministack_bridge._inside import PINNED_VERSION


def check_version() -> None:
    """Raise when another version of ministack is installed than the one this room knows."""
    installed = version("ministack")
    if installed != PINNED_VERSION:
        raise RuntimeError(
            f"ministack {installed} is installed, but the rehearsal reaches into {PINNED_VERSION}; run "
            f"'make setup', or raise PINNED_VERSION once tests/rehearsal_core/test_ministack_bridge.py passes"
        )


def configure(*, port: int, account: str, region: str, state: str) -> None:
    """Set the environment that ministack reads when it is imported."""
    check_version()
    os.environ.update(
        GATEWAY_PORT=str(port),
        # Its default is every network interface.
        BIND_HOST="127.0.0.1",
        MINISTACK_HOST="127.0.0.1",
        MINISTACK_ACCOUNT_ID=account,
        MINISTACK_REGION=region,
        # No listeners beside the gateway.
        IOT_MTLS_ENABLED="0",
        SFTP_ENABLED="0",
        PERSIST_STATE="0",
        LOG_LEVEL="WARNING",
        # A dead address: the user's Docker daemon is never touched.
        DOCKER_HOST="tcp://127.0.0.1:1",
        # Functions run as local processes of this machine's Python.
        LAMBDA_EXECUTOR="local",
        # A quarter of a second and a half between the attempts at an event, where Lambda waits minutes.
        LAMBDA_ASYNC_RETRY_BASE_SECONDS="0.25",
        AWS_ACCESS_KEY_ID=account,
        AWS_SECRET_ACCESS_KEY="rehearsal",  # noqa: S106 - nothing checks it
        AWS_DEFAULT_REGION=region,
        TMPDIR=state,
    )
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_REGION"):
        os.environ.pop(name, None)


def application() -> Callable[..., Any]:
    """Return ministack's ASGI application."""
    app = importlib.import_module("ministack.app")
    return app.app  # type: ignore[no-any-return]


def service_names() -> frozenset[str]:
    """Return the names under which ministack serves services."""
    return frozenset(importlib.import_module("ministack.app").SERVICE_HANDLERS)
