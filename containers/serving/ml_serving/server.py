"""The process side: one worker per vCPU, the model loaded behind /ping, an end without a lost request."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from types import FrameType

import uvicorn
from ml_runtime.job import BadInputError
from ml_runtime.model import Model

from ml_serving.app import Application
from ml_serving.fetch import model_folder
from ml_serving.multi_model import ModelShelf
from ml_serving.predictor import Predictor
from ml_serving.protocol import PatientProtocol, hang_up_on_slow_callers
from ml_serving.settings import Settings

log = logging.getLogger("ml_serving")

BACKLOG = 2048
#: SageMaker's router keeps connections; closing one under a request that is on its way would lose it.
KEEP_ALIVE_SECONDS = 75
#: SageMaker kills a container 30 seconds after SIGTERM.
DRAIN_SECONDS = 20.0
#: Nobody asked for this long: nobody holds a connection that he is about to use.
IDLE_SECONDS = 0.5


class DrainingServer(uvicorn.Server):
    """Uvicorn that, told to stop, first tells its callers.

    From SIGTERM on /ping is 503 and every answer carries ``Connection: close``, while requests are still
    taken. When none has come for a moment, or no connection is left, listening ends and what is running is
    finished.
    """

    def __init__(self, config: uvicorn.Config, application: Application) -> None:
        super().__init__(config)
        self.application = application
        self._deadline = 0.0
        self._parent = os.getppid()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start draining; a second signal ends it at once."""
        del sig, frame
        if self.application.draining:
            self.should_exit = self.force_exit = True
            return
        self.drain()

    def drain(self) -> None:
        """Stop taking requests as soon as nobody sends any."""
        self.application.draining = True
        self._deadline = time.monotonic() + DRAIN_SECONDS

    async def on_tick(self, counter: int) -> bool:
        """Look every 0.1 s whether draining is over; every second whether the parent still lives, and who
        sends too slowly.
        """
        if counter % 10 == 0:
            hang_up_on_slow_callers(self.server_state.connections, time.monotonic())
        if self.application.draining and not self.should_exit:
            now = time.monotonic()
            application = self.application
            quiet = not application.running and now - application.last_request > IDLE_SECONDS
            if quiet or not self.server_state.connections or now > self._deadline:
                self.should_exit = True
        elif counter % 10 == 0 and os.getppid() != self._parent:
            self.drain()
        return await super().on_tick(counter)


def load_predictor(folder: pathlib.Path, settings: Settings) -> Predictor:
    """Load the model of a folder and make the process ready to score.

    Raises:
        BadInputError: there is no sound model.
    """
    predictor = Predictor(Model.load(folder), served_as=settings.served_as, threshold=settings.threshold)
    # The model lives as long as the process: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    return predictor


def _load(settings: Settings) -> Predictor | None:
    """Return the predictor; none when there is no sound model, which is then logged."""
    try:
        return load_predictor(model_folder(settings.model_data_url), settings)
    except BadInputError as error:
        log.error("the model cannot be loaded: %s", error)  # noqa: TRY400 - the text says all
    except Exception:
        log.exception("the model cannot be loaded")
    return None


async def _serve(
    listener: socket.socket, application: Application, settings: Settings, announce: int | None
) -> int:
    config = uvicorn.Config(
        application,
        http=PatientProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(DRAIN_SECONDS),
    )
    server = DrainingServer(config, application)

    async def load() -> None:
        application.predictor = await asyncio.to_thread(_load, settings)
        if application.predictor is None:
            server.should_exit = True
        elif announce is not None:
            os.close(announce)

    waits = application.predictor is None and application.shelf is None
    loading = asyncio.create_task(load()) if waits else None
    await server.serve(sockets=[listener])
    if loading is not None:
        loading.cancel()
    served = application.predictor is not None or application.shelf is not None
    return 0 if served or application.draining else 1


def run_worker(descriptor: int, *, announce: int | None = None, follow: int | None = None) -> int:
    """Serve from a socket that is already bound, until told to stop.

    The first worker listens at once, says 503 until its model is loaded, and then closes ``announce``. Any
    other one listens when its own model is loaded and ``follow``, the other end, has ended: once /ping was
    200, no worker answers that it is not ready.
    """
    import uvloop

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    settings = Settings.of(os.environ)
    shelf = ModelShelf(group=settings.group, threshold=settings.threshold) if settings.multi_model else None
    application = Application(shelf)
    if follow is not None:
        application.predictor = _load(settings)
        if application.predictor is None:
            return 1
        os.read(follow, 1)
    listener = socket.socket(fileno=descriptor)
    listener.listen(BACKLOG)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(listener, application, settings, announce))


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    # Named as TCP: asyncio turns Nagle's delay off only where the protocol says so.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        # The kernel hands each connection to one of the workers; a shared listener would let the first take
        # all.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise BadInputError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener


def serve(environment: Mapping[str, str]) -> int:
    """Serve with one worker process per vCPU, or as many as SAGEMAKER_MODEL_SERVER_WORKERS says."""
    try:
        settings = Settings.of(environment)
        host, port = settings.host, settings.port
        if settings.workers == 1:
            return run_worker(_bound(host, port, shared=False).detach())
        # A port that somebody uses is an error, not a share of his requests: so once without sharing.
        _bound(host, port, shared=False).close()
        listeners = [_bound(host, port, shared=True) for _ in range(settings.workers)]
    except BadInputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return _supervise(listeners)


def _supervise(listeners: list[socket.socket]) -> int:
    """Run one worker per listener; when one ends by itself, end all: SageMaker starts the container anew."""
    children: list[subprocess.Popen[bytes]] = []
    stopping = False

    def stop(sig: int, frame: FrameType | None) -> None:
        nonlocal stopping
        del sig, frame
        stopping = True
        for child in children:
            child.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    follow, announce = os.pipe()
    for position, listener in enumerate(listeners):
        role, end = ("follows", follow) if position else ("leads", announce)
        command = [sys.executable, "-m", "ml_serving", "worker", str(listener.fileno()), role, str(end)]
        children.append(subprocess.Popen(command, pass_fds=[listener.fileno(), end]))
    # Only the workers may hold them: the kernel would go on handing connections to a listener of a dead
    # worker, and a pipe ends when nobody holds its other end.
    for listener in listeners:
        listener.close()
    os.close(follow)
    os.close(announce)
    # Looks without reaping, so that each child's exit code stays its own.
    os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    if not stopping:
        print("error: a worker ended by itself; the server stops", file=sys.stderr, flush=True)
        stop(signal.SIGTERM, None)
        for child in children:
            child.wait()
        return 1
    # One that was told to stop before it served has nothing to drain: the signal ends it.
    return max(code if (code := child.wait()) != -signal.SIGTERM else 0 for child in children)
