"""The container under load: the program of a rehearsal's serving image, on a model of the rehearsal."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rehearsal.images import ImageError, Images

__all__ = ["LoadTestError", "newest_model", "running", "serving_image"]

_READY_SECONDS = 60.0
#: What SageMaker asks of an image that takes its port from a variable, and so of every serving image here.
_LABEL = "com.amazonaws.sagemaker.capabilities.accept-bind-to-port"


class LoadTestError(Exception):
    """There is nothing to put load on, or it cannot be started."""


def newest_model(state: Path) -> Path:
    """Return the model that the rehearsal in ``state`` trained last."""
    found = sorted(
        (state / "sagemaker" / "training-jobs").glob("*/model.tar.gz"), key=lambda path: path.stat().st_mtime
    )
    if not found:
        raise LoadTestError(
            f"{state} holds no trained model; run `make rehearse` first, or name one with --model"
        )
    return found[-1]


def serving_image(state: Path) -> str:
    """Return the URI of the serving image that the rehearsal in ``state`` built."""
    images = Images(state)
    known: dict[str, object] = {}
    if images.database.exists():
        known = json.loads(images.database.read_text(encoding="utf-8"))
    for uri in sorted(known):
        entry = images.entry(uri)
        dockerfile = Path(entry["context"]) / entry["dockerfile"]
        if dockerfile.exists() and _LABEL in dockerfile.read_text(encoding="utf-8"):
            return uri
    raise LoadTestError(f"{state} holds no serving image; run `make rehearse` first")


@contextmanager
def running(state: Path, image: str, model: Path, *, workers: int) -> Iterator[tuple[str, int]]:
    """Start the container and give its address; stop it at the end.

    Raises:
        LoadTestError: the image or the model is not to be had, or the container does not become ready.
    """
    with tempfile.TemporaryDirectory(prefix="load-test-") as folder:
        base = Path(folder)
        _unpack(model, base / "model")
        try:
            program = Images(state).program(image)
        except ImageError as error:
            raise LoadTestError(str(error)) from error
        port = _free_port()
        log = base / "container.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [*program.entrypoint, "serve"],
                env=_environment(program.env, base, port, workers),
                cwd=program.cwd,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        try:
            _await_ready(process, port, log)
            yield "127.0.0.1", port
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _environment(own: Mapping[str, str], base: Path, port: int, workers: int) -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", ""),
        **own,
        "SAGEMAKER_BASE_DIR": str(base),
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "SAGEMAKER_MODEL_SERVER_WORKERS": str(workers),
        "SERVING_HOST": "127.0.0.1",
    }


def _unpack(archive: Path, target: Path) -> None:
    target.mkdir()
    try:
        with tarfile.open(archive, "r:gz") as tar:
            tar.extractall(target, filter="data")
    except (tarfile.TarError, OSError) as error:
        raise LoadTestError(f"{archive} is no readable model.tar.gz: {error}") from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", "/ping")
            status = connection.getresponse().status
            connection.close()
        except OSError:
            status = 0
        if status == 200:
            return
        time.sleep(0.05)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
    raise LoadTestError(f"the container did not become ready: {tail or 'it said nothing'}")
