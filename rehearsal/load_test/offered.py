"""Requests at a steady rate, whether or not the last ones are answered.

An open loop: a request is due at its time, and its latency counts from then, not from when a connection was
free. A client that waits for each answer before it asks again would slow down with the server and hide what
users of an endpoint would see ("coordinated omission").
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Burst", "Target", "offer"]

#: Connections at most; SageMaker's router holds a few per instance.
CONNECTIONS = 64
#: How long is waited for answers after the last request was due.
GRACE_SECONDS = 2.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where to ask, and what."""

    host: str
    port: int
    path: str = "/invocations"
    content_type: str = "application/json"
    bodies: Sequence[bytes] = (b"{}",)

    def request(self, number: int) -> bytes:
        """Return the bytes of one request; bodies take turns."""
        body = self.bodies[number % len(self.bodies)]
        return (
            f"POST {self.path} HTTP/1.1\r\nhost: {self.host}\r\ncontent-type: {self.content_type}\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        ).encode() + body


@dataclass(kw_only=True)
class Burst:
    """What came of asking at ``rate`` requests a second for ``seconds``."""

    rate: float
    seconds: float
    #: Seconds from when each answered request was due to its answer, in no order.
    latencies: list[float] = field(default_factory=list)
    #: Requests that were answered otherwise than 200, or not at all.
    failed: int = 0
    #: Requests whose turn never came, or whose answer came too late to be waited for.
    unanswered: int = 0
    #: Seconds from the first request to the last answer.
    took: float = 0.0

    @property
    def answered_rate(self) -> float:
        """Answers a second, over all the time that it took."""
        return len(self.latencies) / max(self.took, self.seconds)

    def quantile(self, share: float) -> float:
        """Seconds within which a share of the requests was answered; infinite when it was not."""
        asked = len(self.latencies) + self.failed + self.unanswered
        position = max(0, math.ceil(share * asked) - 1)
        ordered = sorted(self.latencies)
        return ordered[position] if position < len(ordered) else float("inf")


def offer(target: Target, rate: float, seconds: float) -> Burst:
    """Ask ``rate`` times a second for ``seconds``.

    Raises:
        OSError: nobody listens there.
    """
    return asyncio.run(_offer(target, rate, seconds))


async def _offer(target: Target, rate: float, seconds: float) -> Burst:
    burst = Burst(rate=rate, seconds=seconds)
    count = max(1, round(rate * seconds))
    due: asyncio.Queue[tuple[int, float]] = asyncio.Queue()
    callers = [asyncio.create_task(_call(target, due, burst)) for _ in range(min(CONNECTIONS, count))]
    # Connections stand before the first request is due.
    await asyncio.sleep(0.05)
    began = time.perf_counter()
    for number in range(count):
        moment = began + number / rate
        late = moment - time.perf_counter()
        if late > 0.0005:
            await asyncio.sleep(late)
        elif number % 64 == 0:
            await asyncio.sleep(0)
        due.put_nowait((number, moment))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(due.join(), GRACE_SECONDS)
    burst.took = time.perf_counter() - began
    burst.unanswered = count - len(burst.latencies) - burst.failed
    for caller in callers:
        caller.cancel()
    for outcome in await asyncio.gather(*callers, return_exceptions=True):
        if isinstance(outcome, OSError):
            raise outcome
    return burst


async def _call(target: Target, due: asyncio.Queue[tuple[int, float]], burst: Burst) -> None:
    """Ask what is due over one connection, which is made anew when the server closes it."""
    reader, writer = await asyncio.open_connection(target.host, target.port)
    try:
        while True:
            number, moment = await due.get()
            try:
                writer.write(target.request(number))
                ok, closed = await _answer(reader)
            except (ConnectionError, asyncio.IncompleteReadError):
                ok, closed = False, True
            if ok:
                burst.latencies.append(time.perf_counter() - moment)
            else:
                burst.failed += 1
            due.task_done()
            if closed:
                writer.close()
                reader, writer = await asyncio.open_connection(target.host, target.port)
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader) -> tuple[bool, bool]:
    """Read one answer: whether it is 200, and whether the server closes the connection after it."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    await reader.readexactly(int(length[1]) if length else 0)
    return head[9:12] == b"200", b"\r\nconnection: close" in head.lower()
