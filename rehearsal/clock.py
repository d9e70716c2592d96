"""The rehearsal's clock: hours of a lifecycle pass in seconds, and what is due fires in the order it is due.

Three speeds, one line of time that never runs backwards:

- nobody waits: it runs with the wall clock, ahead of it by what was advanced;
- somebody sleeps on it (the baking period of a canary): it runs `scale` times as fast, so that ten minutes
  of baking take ten seconds while real traffic still arrives within them;
- `advance`: it jumps from one due piece of work to the next. After each piece it waits until the work that
  was started in the background has ended or sleeps, so that an hour's schedule never runs over the next.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

__all__ = ["Clock", "Due", "Fired", "Source"]

_WAKE = "wake a sleeper"


@dataclass(frozen=True, kw_only=True)
class Due:
    """One piece of work and when it is due. `run` is quick: what takes long it starts in the background."""

    when: datetime
    title: str
    run: Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Fired:
    """What an advance fired; `error` is the text of the exception that `run` raised, if it did.

    `skipped`: it fell due in a jump that passed over it.
    """

    when: datetime
    title: str
    error: str | None = None
    skipped: bool = False


class Source(Protocol):
    """Recurring work whose definition may change at any time (schedules, alarms)."""

    def next_due(self, after: datetime) -> Sequence[Due]:
        """All work at the earliest moment strictly after `after`; empty when there is none."""
        ...


@dataclass(order=True)
class _Entry:
    when: datetime
    number: int
    due: Due = field(compare=False)
    cancelled: bool = field(default=False, compare=False)


@dataclass
class _Sleeper:
    awake: bool = False


class Clock:
    """An explicit virtual clock. Thread-safe.

    :param scale: how many virtual seconds pass in a real one while somebody sleeps on the clock
    :param start: the virtual time at which it begins; default: the wall clock
    :param real: a monotonic source of real seconds
    """

    def __init__(
        self,
        *,
        scale: float = 60.0,
        start: datetime | None = None,
        real: Callable[[], float] = time.monotonic,
    ) -> None:
        if scale < 1:
            raise ValueError(f"scale must be at least 1 (the wall clock's speed), got {scale}")
        if start is not None and start.tzinfo is None:
            raise ValueError(f"start must carry a time zone, got {start.isoformat()}; add tzinfo=UTC")
        self.scale = scale
        self._real = real
        self._anchor_virtual = start if start is not None else datetime.now(UTC)
        self._anchor_real = real()
        self._changed = threading.Condition(threading.RLock())
        self._turn = threading.RLock()
        self._advancing: int | None = None
        self._numbers = itertools.count()
        self._heap: list[_Entry] = []
        self._sources: dict[int, tuple[Source, datetime]] = {}
        self._working: dict[int, str] = {}
        self._sleeping = 0
        self._sleeping_workers = 0
        self._local = threading.local()
        self._runner: threading.Thread | None = None
        self._stopped = False
        self.on_error: Callable[[str, BaseException], None] | None = None

    # ------------------------------------------------------------------ time

    def now(self) -> datetime:
        """The virtual time, aware, in UTC."""
        with self._changed:
            return self._anchor_virtual + timedelta(seconds=(self._real() - self._anchor_real) * self._rate())

    def timestamp(self) -> float:
        """The virtual time as seconds since the epoch."""
        return self.now().timestamp()

    def _rate(self) -> float:
        return self.scale if self._sleeping else 1.0

    def _anchor(self, now: datetime) -> None:
        self._anchor_virtual = now
        self._anchor_real = self._real()
        self._changed.notify_all()

    def sleep(self, seconds: float, *, stop: threading.Event | None = None) -> bool:
        """Wait for virtual `seconds`, with time `scale` times as fast. True when `stop` ended it early."""
        if seconds <= 0:
            return stop is not None and stop.is_set()
        worker = len(getattr(self._local, "tokens", ()))
        sleeper = _Sleeper()
        with self._changed:
            until = self.now() + timedelta(seconds=seconds)
            self._anchor(self.now())
            self._sleeping += 1
            self._sleeping_workers += worker
            entry = self._push(
                Due(when=until, title=_WAKE, run=lambda: self._wake(sleeper, worker=worker)),
            )
            while not sleeper.awake:
                if self.now() >= until or (stop is not None and stop.is_set()):
                    entry.cancelled = True
                    self._wake(sleeper, worker=worker)
                    break
                remaining = (until - self.now()).total_seconds() / self._rate()
                self._changed.wait(min(remaining, 0.1) if stop is not None else remaining)
        return stop is not None and stop.is_set()

    def _wake(self, sleeper: _Sleeper, *, worker: int) -> None:
        with self._changed:
            if sleeper.awake:
                return
            self._anchor(self.now())
            sleeper.awake = True
            self._sleeping -= 1
            self._sleeping_workers -= worker
            self._changed.notify_all()

    # ------------------------------------------------------------------ due work

    def at(self, when: datetime, title: str, run: Callable[[], object]) -> Callable[[], None]:
        """Fire `run` once at `when`; the returned function cancels it."""
        if when.tzinfo is None:
            raise ValueError(f"{title}: the due time must carry a time zone, got {when.isoformat()}")
        with self._changed:
            entry = self._push(Due(when=when, title=title, run=run))

        def cancel() -> None:
            entry.cancelled = True

        return cancel

    def _push(self, due: Due) -> _Entry:
        entry = _Entry(due.when, next(self._numbers), due)
        heapq.heappush(self._heap, entry)
        self._changed.notify_all()
        return entry

    def add_source(self, source: Source) -> None:
        """Ask `source` for due work from now on."""
        with self._changed:
            self._sources[next(self._numbers)] = (source, self.now())
            self._changed.notify_all()

    def advance(
        self,
        seconds: float,
        *,
        settle_s: float = 900.0,
        skip: Callable[[Due], bool] = lambda _due: False,
    ) -> list[Fired]:
        """Move the clock forward by `seconds`, firing what is due on the way, in order.

        :param skip: says of a piece of work that it is passed over; it is returned as skipped
        :param settle_s: real seconds that background work may take before the next piece fires
        :raises ValueError: `seconds` is negative
        :raises TimeoutError: background work did not end within `settle_s`; the message names it
        """
        if seconds < 0:
            raise ValueError(f"the clock only moves forward, got {seconds} seconds")
        if self._advancing == threading.get_ident():
            raise RuntimeError("advance was called by work that an advance fired")
        with self._turn:
            self._advancing = threading.get_ident()
            try:
                target = self.now() + timedelta(seconds=seconds)
                fired: list[Fired] = []
                while batch := self._take(target):
                    with self._changed:
                        self._anchor(max(self.now(), batch[0].when))
                    for due in batch:
                        passed = due.title != _WAKE and skip(due)
                        done = (
                            Fired(when=due.when, title=due.title, skipped=True) if passed else self._fire(due)
                        )
                        fired += [] if due.title == _WAKE else [done]
                    self.settle(settle_s)
                with self._changed:
                    self._anchor(max(self.now(), target))
                return fired
            finally:
                self._advancing = None

    def _take(self, until: datetime) -> list[Due]:
        """The earliest due work at or before `until`, taken off its list."""
        with self._changed:
            while self._heap and self._heap[0].cancelled:
                heapq.heappop(self._heap)
            earliest = self._heap[0].when if self._heap else None
            sources = list(self._sources.items())
        offers: list[tuple[int, Source, Sequence[Due]]] = []
        for number, (source, seen) in sources:
            offer = source.next_due(seen)
            if offer:
                offers.append((number, source, offer))
                if earliest is None or offer[0].when < earliest:
                    earliest = offer[0].when
        if earliest is None or earliest > until:
            return []
        batch: list[Due] = []
        with self._changed:
            while self._heap and self._heap[0].when <= earliest:
                entry = heapq.heappop(self._heap)
                if not entry.cancelled:
                    batch.append(entry.due)
            for number, source, offer in offers:
                if offer[0].when <= earliest:
                    batch += offer
                    self._sources[number] = (source, offer[0].when)
        return batch

    def _fire(self, due: Due) -> Fired:
        try:
            due.run()
        except Exception as error:  # noqa: BLE001 - one failing schedule must not stop the clock; it is reported
            if self.on_error is not None:
                self.on_error(due.title, error)
            return Fired(when=due.when, title=due.title, error=f"{type(error).__name__}: {error}")
        return Fired(when=due.when, title=due.title)

    # ------------------------------------------------------------------ the clock by itself

    def start(self) -> None:
        """Fire due work by itself too, as time passes (one daemon thread)."""
        with self._changed:
            if self._runner is not None:
                return
            self._stopped = False
            self._runner = threading.Thread(target=self._run, name="rehearsal-clock", daemon=True)
            self._runner.start()

    def stop(self) -> None:
        """End the thread that `start` started."""
        with self._changed:
            runner, self._runner = self._runner, None
            self._stopped = True
            self._changed.notify_all()
        if runner is not None:
            runner.join(timeout=5)

    def _run(self) -> None:
        while not self._stopped:
            with self._turn:
                try:
                    batch = self._take(self.now())
                except Exception as error:  # noqa: BLE001 - a source that fails is reported, the clock goes on
                    batch = []
                    if self.on_error is not None:
                        self.on_error("a source of due work", error)
                for due in batch:
                    self._fire(due)
            if not batch:
                with self._changed:
                    self._changed.wait(0.05 if self._sleeping else 0.5)

    # ------------------------------------------------------------------ background work

    @contextmanager
    def working(self, title: str) -> Iterator[None]:
        """Count what runs inside as background work: `settle` and `wait_idle` wait for it."""
        token = next(self._numbers)
        tokens: list[int] = self._local.__dict__.setdefault("tokens", [])
        with self._changed:
            self._working[token] = title
        tokens.append(token)
        try:
            yield
        finally:
            tokens.remove(token)
            with self._changed:
                del self._working[token]
                self._changed.notify_all()

    @property
    def busy(self) -> list[str]:
        """The titles of the background work that is under way, sleeping or not."""
        with self._changed:
            return list(self._working.values())

    def settle(self, timeout_s: float = 900.0) -> None:
        """Wait (real seconds) until all background work has ended or sleeps on this clock."""
        self._wait(lambda: len(self._working) <= self._sleeping_workers, timeout_s)

    def wait_idle(self, timeout_s: float = 900.0) -> None:
        """Wait (real seconds) until no background work is left.

        :raises TimeoutError: naming what is still under way
        """
        self._wait(lambda: not self._working, timeout_s)

    def _wait(self, done: Callable[[], bool], timeout_s: float) -> None:
        with self._changed:
            own = len(getattr(self._local, "tokens", ()))
            if own:
                raise RuntimeError("background work must not wait for background work: it is some itself")
            if not self._changed.wait_for(done, timeout_s):
                raise TimeoutError(
                    f"after {timeout_s:g} s still under way: {', '.join(sorted(self._working.values()))}"
                )
