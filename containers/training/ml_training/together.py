"""Several hosts train one booster, by XGBoost's own collective: each holds a part of the rows."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from ml_runtime.job import JobError, say
from ml_trainer.hosts import Hosts
from xgboost import collective
from xgboost.tracker import RabitTracker

#: Hosts of a job start within minutes of each other.
CONNECT_SECONDS = 300


@contextmanager
def joined(hosts: Hosts) -> Iterator[None]:
    """Join the hosts of the job for the body; the first one holds the tracker that they find each other by.

    Raises JobError when the first host cannot be found.
    """
    address = _resolved(hosts.address)
    tracker = None
    if hosts.first:
        tracker = RabitTracker(hosts.count, host_ip=address, port=hosts.port, sortby="task")
        tracker.start()
    with collective.CommunicatorContext(
        dmlc_tracker_uri=address,
        dmlc_tracker_port=hosts.port,
        # Ranks go by it: the order of the hosts' names.
        dmlc_task_id=f"{hosts.rank:04d}",
        dmlc_timeout=CONNECT_SECONDS,
        dmlc_retry=CONNECT_SECONDS,
    ):
        say(f"host {collective.get_rank() + 1} of {collective.get_world_size()} has joined")
        yield
    if tracker is not None:
        tracker.wait_for(CONNECT_SECONDS)


def any_of(asked: bool) -> bool:
    """Whether it is true on any host: all do the same thing after the same round."""
    if not collective.is_distributed():
        return asked
    return bool(collective.allreduce(np.array([asked], dtype=np.int32), collective.Op.MAX)[0])


def from_first(value: bytes | None) -> bytes | None:
    """Return the bytes that the first host has, or its None.

    Not by ``collective.broadcast``, which pickles: bytes are added to everybody else's zeros.
    """
    if not collective.is_distributed():
        return value
    first = collective.get_rank() == 0
    mine = -1 if value is None or not first else len(value)
    length = int(collective.allreduce(np.array([mine], dtype=np.int64), collective.Op.MAX)[0])
    if length < 0:
        return None
    content = np.zeros(length, dtype=np.uint8)
    if first and value is not None:
        content[:] = np.frombuffer(value, dtype=np.uint8)
    return bytes(collective.allreduce(content, collective.Op.MAX).tobytes())


def _resolved(name: str) -> str:
    """Return a host's address; its name may be known only a little later than the host itself."""
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            return socket.gethostbyname(name)
        except OSError as error:
            if time.monotonic() > deadline:
                raise JobError(f"the first host, {name}, is not found: {error}") from error
            time.sleep(1)
