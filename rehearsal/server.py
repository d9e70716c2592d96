"""The embedded AWS as one local process: ``python -m rehearsal.server PORT STATE``.

Other code starts it with `start_server`, which gives it a process group of its own, so that stopping it
leaves nothing behind: no function worker, no job, no endpoint.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rehearsal.control import control
from rehearsal.state import StateError, StateFolder

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = [
    "DEFAULT_ACCOUNT",
    "DEFAULT_REGION",
    "ServerError",
    "ServerProcess",
    "main",
    "running",
    "start_server",
]

#: AWS's own example account.
DEFAULT_ACCOUNT = "123456789012"
DEFAULT_REGION = "us-east-1"
#: File of the state folder that says where the server answers.
ADDRESS = "server.json"


class ServerError(Exception):
    """The server cannot start or did; the text is one clear line."""


@control("GET", "/health")
def _health(runtime: Runtime, body: dict[str, Any]) -> dict[str, Any]:
    """Say that the server answers, and for whom."""
    del body
    return {
        "status": "ready",
        "pid": os.getpid(),
        "endpoint": runtime.endpoint,
        "account": runtime.account,
        "region": runtime.region,
        "state": str(runtime.state),
    }


# -- inside the process -------------------------------------------------------------------------------------


def _bound(port: int) -> socket.socket:
    """Return a listening socket; a port in use is one clear error."""
    # With the protocol named, asyncio sends without delay (TCP_NODELAY); else each answer waits 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # A port whose last connections linger is free again; one that somebody listens on is not.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        raise ServerError(
            f"port {port} on 127.0.0.1 cannot be used ({error.strerror}); stop what uses it or choose another"
        ) from None
    return listener


def _build(endpoint: str, state: Path, account: str, region: str) -> tuple[Runtime, Any]:
    """Build the runtime and the gateway; ministack is imported here, after its environment is set."""
    from rehearsal import cloudformation, deliveries, event_faults, executors, functions, services
    from rehearsal import ministack_bridge as bridge
    from rehearsal.clock import Clock
    from rehearsal.gateway import Gateway
    from rehearsal.iam import Authorizer, Identities
    from rehearsal.images import Images
    from rehearsal.runtime import Runtime

    runtime = Runtime(
        endpoint=endpoint,
        state=state,
        account=account,
        region=region,
        clock=Clock(),
        images=Images(state),
        identities=Identities(account),
        authorizer=Authorizer(account),
    )
    application = bridge.application()
    bridge.correct_ecr()
    bridge.give_s3_its_key()
    services.load()
    functions.install(runtime)
    cloudformation.install(runtime)
    executors.install_all(runtime)
    deliveries.install(runtime)
    event_faults.install(runtime)
    return runtime, Gateway(runtime, application)


def _watch(parent: int, server: Any) -> None:
    """End the server when the process that started it is gone, however that ended."""
    while os.getppid() == parent:
        time.sleep(1)
    server.should_exit = True


def serve(port: int, state: Path, account: str, region: str, parent: int | None) -> None:
    """Serve until a signal, or until the process ``parent`` is gone."""
    listener = _bound(port)
    folder = StateFolder(state)
    folder.acquire()
    os.environ["TMPDIR"] = str(folder.path / "tmp")
    from rehearsal import ministack_bridge as bridge

    bridge.configure(port=port, account=account, region=region, state=str(folder.path / "tmp"))
    import uvicorn

    runtime, gateway = _build(f"http://127.0.0.1:{port}", folder.path, account, region)
    config = uvicorn.Config(
        gateway,
        log_level="warning",
        access_log=False,
        # ministack dates its answers itself; the SDK for JavaScript cannot read two dates.
        date_header=False,
        server_header=False,
        timeout_keep_alive=75,
        # Requests of processes that are being ended must not hold the server up.
        timeout_graceful_shutdown=2,
        lifespan="on",
    )

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            # uvicorn raises a signal again when it has shut down, which would end the process before the
            # clean-up.
            yield

    server = Server(config)

    def end(number: int, frame: object) -> None:
        del number, frame
        # Asked twice, it does not wait for the requests under way.
        server.force_exit = server.should_exit
        server.should_exit = True

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    if parent is not None:
        threading.Thread(target=_watch, args=(parent, server), name="parent-watch", daemon=True).start()
    runtime.clock.start()
    try:
        asyncio.run(server.serve(sockets=[listener]))
    finally:
        runtime.clock.stop()
        runtime.stop()
        bridge.end_function_workers()
        folder.release()


def main(arguments: list[str] | None = None) -> int:
    """Run the server in this process."""
    parser = argparse.ArgumentParser(prog="python -m rehearsal.server", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("state", type=Path)
    parser.add_argument("--account", default=DEFAULT_ACCOUNT)
    parser.add_argument("--region", default=DEFAULT_REGION)
    parser.add_argument("--parent", type=int, default=None, help="end when this process is gone")
    given = parser.parse_args(arguments)
    if not re.fullmatch(r"\d{12}", given.account):
        parser.error(f"account must be 12 digits, got {given.account!r}")
    try:
        serve(given.port, given.state, given.account, given.region, given.parent)
    except (ServerError, StateError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _main() -> None:
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    if os.getpgrp() == os.getpid():
        # The group is ours alone: whatever a function or a job left behind ends with us.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(os.getpgrp(), signal.SIGTERM)
    # Threads of requests that hang must not keep the process alive.
    os._exit(code)


# -- from outside -------------------------------------------------------------------------------------------


class ServerProcess:
    """A running server. Use it as a context manager, or call `stop`."""

    def __init__(self, process: subprocess.Popen[bytes], *, endpoint: str, state: Path, log: Path) -> None:
        self.process = process
        self.endpoint = endpoint
        self.state = state
        self.log = log
        self.account = DEFAULT_ACCOUNT
        self.region = DEFAULT_REGION

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self, grace_seconds: float = 10) -> None:
        """End the server and everything that it started. Safe to call again."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(grace_seconds)
        # Its group has its id and outlives it as long as one process of it does.
        deadline = time.monotonic() + 5
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < deadline:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
                time.sleep(0.01)

    def environment(self) -> dict[str, str]:
        """Return the ``AWS_*`` variables with which any SDK or CLI talks to this server as its operator."""
        return {
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
        }

    def control(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, timeout_seconds: float = 900
    ) -> dict[str, Any]:
        """Call a control function: ``control("POST", "/clock/advance", {"hours": 1})``."""
        request = urllib.request.Request(  # noqa: S310 - our own endpoint
            f"{self.endpoint}/_rehearsal{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=timeout_seconds) as response:
                answer: dict[str, Any] = json.loads(response.read())
                return answer
        except urllib.error.HTTPError as error:
            text = json.loads(error.read()).get("error", error.reason)
            raise ServerError(f"{method} /_rehearsal{path}: {text}") from None


def free_port() -> int:
    """Return a port that nothing uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_server(
    state: Path,
    port: int | None = None,
    account: str = DEFAULT_ACCOUNT,
    region: str = DEFAULT_REGION,
    *,
    timeout_seconds: float = 90,
) -> ServerProcess:
    """Start a server in a process group of its own and wait until it answers.

    Its output goes to ``STATE/server.log``. It ends with this process, whatever happens to it.

    :raises ServerError: it did not start; the text is the server's own last line
    """
    port = free_port() if port is None else port
    state = state.resolve()
    if not state.exists() or (
        state.is_dir() and ((state / ".ml-lifecycle-rehearsal").exists() or not any(state.iterdir()))
    ):
        state.mkdir(parents=True, exist_ok=True)
        log = state / "server.log"
        (state / ".ml-lifecycle-rehearsal").touch()
    else:
        raise ServerError(f"state {state} holds other files and would be cleared; name another folder")
    keep = ("PATH", "HOME", "LANG", "LC_ALL", "JAVA_HOME", "JSII_NODE", "SSL_CERT_FILE", "XDG_CACHE_HOME")
    environment = {name: os.environ[name] for name in keep if name in os.environ}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-u", "-m", "rehearsal.server", str(port), str(state)),
                *("--account", account, "--region", region, "--parent", str(os.getpid())),
            ],
            env={**environment, "PYTHONUNBUFFERED": "1"},
            cwd=Path(__file__).resolve().parent.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = ServerProcess(process, endpoint=f"http://127.0.0.1:{port}", state=state, log=log)
    server.account, server.region = account, region
    try:
        _wait(server, timeout_seconds)
        (state / ADDRESS).write_text(
            json.dumps({"endpoint": server.endpoint, "account": account, "region": region})
        )
    except BaseException:
        server.stop()
        raise
    return server


def running(state: Path) -> dict[str, str]:
    """Return endpoint, account and region of the server that uses a state folder.

    :raises ServerError: none does, or it does not answer
    """
    try:
        address: dict[str, str] = json.loads((state / ADDRESS).read_text())
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{address['endpoint']}/_rehearsal/health", timeout=5):
            return address
    except (OSError, ValueError, KeyError) as error:
        raise ServerError(
            f"no embedded AWS answers for {state}: start one with 'python -m rehearsal run --hold' ({error})"
        ) from None


def _wait(server: ServerProcess, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            lines = server.log.read_text(errors="replace").strip().splitlines()
            last = lines[-1].removeprefix("error: ") if lines else "no output"
            raise ServerError(f"{last} (log: {server.log})" if len(lines) > 1 else last)
        try:
            health = server.control("GET", "/health", timeout_seconds=1)
        except (OSError, ServerError, ValueError):
            time.sleep(0.05)
            continue
        # Another server may listen on the port while ours is failing over it.
        if health["pid"] == server.process.pid:
            return
        time.sleep(0.05)
    raise ServerError(f"the server did not answer within {timeout_seconds:g} s (log: {server.log})")


if __name__ == "__main__":
    _main()
