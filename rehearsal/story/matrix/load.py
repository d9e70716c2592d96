"""Traffic at a constant rate, whoever serves, and who answered: every answer names the model that gave it."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rehearsal.story.traffic import quantile

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["Load", "Reply", "Send", "endpoint_sender", "read_prediction", "share", "within"]

#: Requests a second over all threads; a laptop's two cores answer them beside everything else.
RATE = 30.0
THREADS = 4
#: Sends one body; returns the model that answered (``<package group>/<version>``) or raises.
Send = Callable[[bytes], str]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One request: when it was sent (seconds from the beginning), how long it took, who answered."""

    at: float
    seconds: float
    model: str | None
    error: str | None = None


def read_prediction(body: bytes) -> str:
    """Who gave an answer.

    Raises:
        ValueError: its score is no number, or it names no model.
    """
    answer = json.loads(body)
    score = float(answer["predictions"][0]["score"])
    if not math.isfinite(score):
        raise ValueError(f"the score is {score}")
    model = answer.get("model")
    if not isinstance(model, str):
        raise ValueError("the answer names no model")  # noqa: TRY004 - a wrong answer, not a wrong call
    # Where the group is named by its ARN, so is the version.
    return "/".join(model.split("/")[-2:])


def endpoint_sender(tale: Tale, **more: str) -> Send:
    """Ask the workload's endpoint; ``more`` goes into the request (``TargetModel=``, say)."""
    name = tale.outputs("Serving")["EndpointName"]
    runtime = tale.cloud.client("sagemaker-runtime")

    def send(body: bytes) -> str:
        answer = runtime.invoke_endpoint(
            EndpointName=name, ContentType="application/json", Accept="application/json", Body=body, **more
        )
        return read_prediction(answer["Body"].read())

    return send


class Load:
    """Requests in the background, from entering the context to leaving it.

    ``probe`` is asked four times a second for the share that the rollout has given the new model.
    """

    def __init__(
        self,
        send: Send,
        bodies: Sequence[bytes],
        *,
        rate: float = RATE,
        probe: Callable[[], float | None] | None = None,
    ) -> None:
        self._send = send
        self._bodies = bodies
        self._rate = rate
        self._probe = probe
        self._replies: list[Reply] = []
        self._shares: list[tuple[float, float]] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._next = 0
        self._began = time.monotonic()
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(THREADS)]
        if probe is not None:
            self._threads.append(threading.Thread(target=self._watch, daemon=True))

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def at(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    @property
    def replies(self) -> tuple[Reply, ...]:
        """What came back so far, in the order it was sent."""
        with self._lock:
            return tuple(sorted(self._replies, key=lambda reply: reply.at))

    @property
    def failed(self) -> tuple[Reply, ...]:
        """Those that failed so far."""
        return tuple(reply for reply in self.replies if reply.error is not None)

    @property
    def shares(self) -> tuple[tuple[float, float], ...]:
        """``(seconds, share of the new model)`` as the service said."""
        with self._lock:
            return tuple(self._shares)

    def series(self, old: str) -> list[dict[str, float | None]]:
        """Answers per second: of the ``old`` model, of any other, failed; and the share then in force."""
        replies, shares = self.replies, self.shares
        length = int(max((reply.at for reply in replies), default=-1.0)) + 1
        counts = [{"old": 0.0, "new": 0.0, "failed": 0.0} for _ in range(length)]
        for reply in replies:
            who = "failed" if reply.error is not None else "old" if reply.model == old else "new"
            counts[int(reply.at)][who] += 1.0
        points: list[dict[str, float | None]] = []
        for second, count in enumerate(counts):
            said = [s for at, s in shares if second <= at < second + 1]
            points.append({"at": float(second), **count, "plan": sum(said) / len(said) if said else None})
        return points

    def summary(self) -> dict[str, Any]:
        """Counts and milliseconds."""
        replies = self.replies
        good = [reply.seconds * 1000 for reply in replies if reply.error is None]
        return {
            "answered_by": {
                model: sum(1 for reply in replies if reply.model == model)
                for model in sorted({reply.model for reply in replies if reply.model is not None})
            },
            "p50_ms": round(quantile(good, 0.5), 1) if good else None,
            "p99_ms": round(quantile(good, 0.99), 1) if good else None,
            "first_error": next((reply.error for reply in replies if reply.error is not None), None),
        }

    def _run(self, number: int) -> None:
        pause = THREADS / self._rate
        due = time.monotonic() + number / self._rate
        while not self._stop.wait(due - time.monotonic()):
            with self._lock:
                body = self._bodies[self._next % len(self._bodies)]
                self._next += 1
            began = time.monotonic()
            try:
                model, error = self._send(body), None
            except Exception as caught:  # noqa: BLE001 - a failed request of any kind is what is counted
                model, error = None, f"{type(caught).__name__}: {caught}"[:300]
            reply = Reply(at=began - self._began, seconds=time.monotonic() - began, model=model, error=error)
            with self._lock:
                self._replies.append(reply)
            due = max(due + pause, time.monotonic())

    def _watch(self) -> None:
        assert self._probe is not None
        while not self._stop.wait(0.25):
            said = self._probe()
            if said is not None:
                with self._lock:
                    self._shares.append((self.at, said))


def share(replies: Sequence[Reply], model: str) -> float:
    """The share of the answers that a model gave; not a number when there are none."""
    good = [reply for reply in replies if reply.model is not None]
    return sum(reply.model == model for reply in good) / len(good) if good else math.nan


def within(found: int, count: int, wanted: float, *, deviations: float = 4.0) -> bool:
    """Whether ``found`` of ``count`` is what chance leaves of a share, give or take one."""
    spread = math.sqrt(count * wanted * (1 - wanted))
    return abs(found - count * wanted) <= deviations * spread + 1
