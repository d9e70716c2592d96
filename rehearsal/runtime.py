"""What every part of the rehearsal's server shares: state, clients, events, child processes, the ledger.

There is one `Runtime` per server process. It is handed to executors and control functions; nothing of it is
global.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rehearsal.control import ControlError, control

if TYPE_CHECKING:
    from rehearsal.clock import Clock
    from rehearsal.executors.trails import Trails
    from rehearsal.iam import Authorizer, Credentials, Identities
    from rehearsal.images import Images
    from rehearsal.services.engine import Service

__all__ = ["Entry", "Ledger", "Runtime"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the ledger."""

    number: int
    outcome: str  # ran | recorded | failed
    kind: str
    name: str
    why: str
    at: datetime
    detail: dict[str, Any] = field(default_factory=dict)


class Ledger:
    """The honest record of what ran for real, what was only written down, and what failed.

    The report is made from it, so an executor that cannot do what AWS would do says so here instead of
    passing over it.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._entries: list[Entry] = []
        self._lock = threading.Lock()

    def ran(self, kind: str, name: str, **detail: Any) -> None:
        """Note that something was executed for real: a container program, a Spark job, a Lambda function."""
        self._add("ran", kind, name, "", detail)

    def recorded(self, kind: str, name: str, why: str, **detail: Any) -> None:
        """Note that something was accepted and kept but not executed, and why."""
        self._add("recorded", kind, name, why, detail)

    def failed(self, kind: str, name: str, why: str, **detail: Any) -> None:
        """Note that something failed."""
        self._add("failed", kind, name, why, detail)

    def entries(self, *, outcome: str | None = None, kind: str | None = None) -> tuple[Entry, ...]:
        """Return the entries so far, oldest first."""
        with self._lock:
            return tuple(e for e in self._entries if outcome in (None, e.outcome) and kind in (None, e.kind))

    def _add(self, outcome: str, kind: str, name: str, why: str, detail: dict[str, Any]) -> None:
        with self._lock:
            self._entries.append(
                Entry(
                    number=len(self._entries),
                    outcome=outcome,
                    kind=kind,
                    name=name,
                    why=why,
                    at=self._now(),
                    detail=detail,
                )
            )


class Runtime:
    """The shared services of one rehearsal server.

    ``endpoint`` is the gateway's URL, ``state`` a folder that belongs to this server, ``account`` and
    ``region`` its defaults.
    """

    def __init__(
        self,
        *,
        endpoint: str,
        state: Path,
        account: str,
        region: str,
        clock: Clock,
        images: Images,
        identities: Identities,
        authorizer: Authorizer,
    ) -> None:
        self.endpoint = endpoint
        self.state = state
        self.account = account
        self.region = region
        self.clock = clock
        self.images = images
        self.identities = identities
        self.authorizer = authorizer
        self.ledger = Ledger(lambda: datetime.now(UTC))
        self.stopping = threading.Event()
        #: Told of every call by the gateway, once it is installed.
        self.trails: Trails | None = None
        self._clients: dict[tuple[str, str | None, str], Any] = {}
        self._services: dict[tuple[str, str], Service] = {}
        self._work: dict[int, str] = {}
        self._work_numbers = itertools.count(1)
        self._work_changed = threading.Condition()
        #: With the access key that each acts by, "" for none.
        self._children: dict[subprocess.Popen[bytes], str] = {}
        self._lock = threading.RLock()

    # -- clients and credentials -----------------------------------------------------------------------

    def client(self, service: str, *, role: str | None = None, region: str | None = None) -> Any:
        """Return a boto3 client at the gateway.

        With ``role`` (an ARN) the client's calls are allowed only what that role's deployed policies allow;
        without it the client acts as the operator who runs the rehearsal.
        """
        key = (service, role, self.region if region is None else region)
        with self._lock:
            if key not in self._clients:
                self._clients[key] = self._new_client(*key)
            return self._clients[key]

    def _new_client(self, service: str, role: str | None, region: str) -> Any:
        import boto3.session
        from botocore.config import Config

        credentials = self._credentials(role)
        session: Any = boto3.session.Session(
            aws_access_key_id=credentials.access_key_id,
            aws_secret_access_key=credentials.secret_access_key,
            aws_session_token=credentials.session_token,
            region_name=region,
        )
        return session.client(
            service,
            endpoint_url=self.endpoint,
            # A refused or failed call must surface at once; only our own gateway answers, so a retry hides a
            # defect.
            config=Config(
                retries={"total_max_attempts": 1},
                s3={"addressing_style": "path"},
                read_timeout=900,
                connect_timeout=10,
                max_pool_connections=50,
                proxies={},
                # There is one host here, whatever a service puts before its name (api., env.).
                inject_host_prefix=False,
            ),
        )

    def forwarding_client(self, service: str, *, region: str | None = None) -> Any:
        """Return an operator's client whose calls reach ministack even where our engine answers them."""
        name = self.region if region is None else region
        key = (f"{service}/forward", None, name)
        with self._lock:
            if key not in self._clients:
                client = self._new_client(service, None, name)

                def mark(request: Any, **_: Any) -> None:
                    request.headers["x-rehearsal-forward"] = "1"

                client.meta.events.register("before-send.*", mark)
                self._clients[key] = client
            return self._clients[key]

    def _credentials(self, role: str | None) -> Credentials:
        return self.identities.operator if role is None else self.identities.for_role(role)

    def role_environment(self, role_arn: str, region: str | None = None) -> dict[str, str]:
        """Return the ``AWS_*`` variables of a child process that acts as ``role_arn``."""
        return self._environment(self.identities.for_role(role_arn), region)

    def operator_environment(self, region: str | None = None) -> dict[str, str]:
        """Return the ``AWS_*`` variables of a program that acts as the operator (the CDK CLI, the story)."""
        return self._environment(self.identities.operator, region)

    def _environment(self, credentials: Credentials, region: str | None) -> dict[str, str]:
        name = self.region if region is None else region
        variables = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": credentials.access_key_id,
            "AWS_SECRET_ACCESS_KEY": credentials.secret_access_key,
            "AWS_REGION": name,
            "AWS_DEFAULT_REGION": name,
            # Without these boto3 would look at the user's own configuration and at the instance metadata
            # service.
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        if credentials.session_token is not None:
            variables["AWS_SESSION_TOKEN"] = credentials.session_token
        return variables

    # -- services and events ---------------------------------------------------------------------------

    def service(self, name: str, region: str | None = None) -> Service:
        """Return the state of one of our own services (``sagemaker``, ``lakeformation``, ...) in a region."""
        from rehearsal.services.engine import Service

        key = (name, self.region if region is None else region)
        with self._lock:
            if key not in self._services:
                self._services[key] = Service(name, account=self.account, region=key[1], runtime=self)
            return self._services[key]

    def services(self) -> tuple[Service, ...]:
        """Return every service that was used so far."""
        with self._lock:
            return tuple(self._services.values())

    def emit(
        self,
        source: str,
        detail_type: str,
        detail: Mapping[str, Any],
        resources: Sequence[str] = (),
        *,
        region: str | None = None,
        time: datetime | None = None,
    ) -> None:
        """Put an event of an AWS service on the default event bus; its rules and targets are EventBridge's
        own.

        ``time`` is the event's ``time`` field, the rehearsal clock's now unless given.
        """
        from rehearsal import ministack_bridge

        ministack_bridge.emit_event(
            source=source,
            detail_type=detail_type,
            detail=dict(detail),
            resources=list(resources),
            account=self.account,
            region=self.region if region is None else region,
            time=self.clock.now() if time is None else time,
        )

    # -- work and processes ----------------------------------------------------------------------------

    def background(self, title: str, function: Callable[..., object], *args: Any) -> threading.Thread:
        """Run ``function(*args)`` on a thread of its own; ``wait_idle`` waits for it.

        An exception lands in the ledger and, with its trace, on stderr: it cannot get lost.
        """
        # Counted before the thread starts, so that "idle" can never be answered between the two.
        number = self._begin(title)
        counted = threading.Event()

        def run() -> None:
            try:
                with self.clock.working(title):
                    counted.set()
                    function(*args)
            except Exception as error:  # noqa: BLE001 - recorded, whatever it is
                self.ledger.failed("background", title, f"{type(error).__name__}: {error}")
                print(f"rehearsal: {title} failed\n{traceback.format_exc()}", file=sys.stderr, flush=True)
            finally:
                self._end(number)

        thread = threading.Thread(target=run, name=title, daemon=True)
        thread.start()
        # The clock must know of the work before whoever started it goes on, or it would not wait for it.
        counted.wait(5)
        return thread

    @contextmanager
    def working(self, title: str) -> Iterator[None]:
        """Count the body as work that ``wait_idle`` waits for."""
        number = self._begin(title)
        try:
            yield
        finally:
            self._end(number)

    def _begin(self, title: str) -> int:
        with self._work_changed:
            number = next(self._work_numbers)
            self._work[number] = title
            return number

    def _end(self, number: int) -> None:
        with self._work_changed:
            del self._work[number]
            self._work_changed.notify_all()

    def work(self) -> tuple[str, ...]:
        """Return the titles of the work in progress."""
        with self._work_changed:
            return tuple(self._work.values())

    def wait_idle(self, timeout_seconds: float) -> tuple[str, ...]:
        """Wait until no background work is left; return the titles of what still ran at the time-out."""
        with self._work_changed:
            self._work_changed.wait_for(lambda: not self._work, timeout=timeout_seconds)
            return tuple(self._work.values())

    def popen(
        self, argv: Sequence[str | os.PathLike[str]], *, env: Mapping[str, str], cwd: Path, log: Path
    ) -> subprocess.Popen[bytes]:
        """Start a child process; its output goes to ``log``. It ends with the server.

        ``env`` is the whole environment of the child: nothing of the server's leaks into it.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with self._lock, log.open("ab") as output:
            if self.stopping.is_set():
                raise RuntimeError(f"{argv[0]} was not started; the rehearsal is stopping")
            self._children = {child: key for child, key in self._children.items() if child.poll() is None}
            child = subprocess.Popen(
                [os.fspath(part) for part in argv],
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            self._children[child] = env.get("AWS_ACCESS_KEY_ID", "")
        return child

    def children_of(self, role_arn: str) -> list[subprocess.Popen[bytes]]:
        """Return the child processes that run now and act as ``role_arn``."""
        own = self.identities.for_role(role_arn).access_key_id
        with self._lock:
            return [child for child, key in self._children.items() if key == own and child.poll() is None]

    def end_child(self, child: subprocess.Popen[bytes], grace_seconds: float = 3) -> None:
        """End one child started by `popen`: asked first, killed after ``grace_seconds``."""
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(grace_seconds)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        with self._lock:
            self._children.pop(child, None)

    def stop(self) -> None:
        """End every child process. Children live in the server's own process group, which its starter ends
        last.
        """
        self.stopping.set()
        with self._lock:
            children = [child for child in self._children if child.poll() is None]
        for child in children:
            child.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 3
        for child in children:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


@control("GET", "/ledger")
def _ledger(runtime: Runtime, body: dict[str, Any]) -> dict[str, Any]:
    """Return the ledger; ``outcome`` and ``kind`` narrow it."""
    entries = runtime.ledger.entries(outcome=body.get("outcome"), kind=body.get("kind"))
    return {
        "entries": [
            {
                "number": entry.number,
                "outcome": entry.outcome,
                "kind": entry.kind,
                "name": entry.name,
                "why": entry.why,
                "at": entry.at.isoformat(),
                "detail": entry.detail,
            }
            for entry in entries
        ]
    }


@control("GET", "/idle")
def _idle(runtime: Runtime, body: dict[str, Any]) -> dict[str, Any]:
    """Wait up to ``timeout_seconds`` (60) until no background work is left."""
    try:
        timeout = float(body.get("timeout_seconds", 60))
    except (TypeError, ValueError):
        raise ControlError(
            f"timeout_seconds must be a number of seconds, got {body['timeout_seconds']!r}"
        ) from None
    left = runtime.wait_idle(timeout)
    return {"idle": not left, "work": list(left)}
