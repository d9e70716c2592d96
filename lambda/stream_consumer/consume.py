"""Carries a plan out: what could not be done now is where the batch has to be tried again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeAlias

import msgspec

from stream_consumer.errors import RefusedError, TransientError
from stream_consumer.logic import Item, Plan, refusal

__all__ = ["Outcome", "carry_out"]


_Step: TypeAlias = tuple[Item, Callable[[], None]]


class _Store(Protocol):
    def put(self, texts: Mapping[str, str]) -> None: ...


class _Quarantine(Protocol):
    def write(self, key: str, lines: bytes) -> str: ...


@dataclass(slots=True)
class Outcome:
    """What became of a batch."""

    put: int = 0
    quarantined: int = 0
    #: Records whose fate is open: the batch is tried again from the first of them.
    open: list[Item] = field(default_factory=list)
    #: Why the first one is open.
    why: str | None = None

    @property
    def answer(self) -> dict[str, list[dict[str, str]]]:
        """What the event source mapping is told.

        It goes back to the lowest sequence number it is told and tries everything from there, so one says it
        all (Lambda Developer Guide, "Configuring partial batch response with Kinesis Data Streams and
        Lambda").
        """
        if not self.open:
            return {"batchItemFailures": []}
        first = min(self.open, key=lambda item: item.position)
        return {"batchItemFailures": [{"itemIdentifier": first.sequence_number}]}


def carry_out(
    plan: Plan,
    store: _Store,
    quarantine: _Quarantine,
    pool: Executor,
    *,
    out_of_time: Callable[[], bool],
) -> Outcome:
    """Put and quarantine the records of a plan, several identifiers at a time.

    A failure that may pass stops what has not begun: all of it will be tried again anyway, and a busy service
    is not helped by more calls. Whatever else is raised is raised.
    """
    outcome = Outcome()
    lock = threading.Lock()
    stop = threading.Event()

    def keep(item: Item, line: dict[str, Any]) -> None:
        quarantine.write(item.key, msgspec.json.Encoder().encode_lines([line]))
        with lock:
            outcome.quarantined += 1

    def put(item: Item, texts: Mapping[str, str]) -> None:
        try:
            store.put(texts)
        except RefusedError as error:
            keep(item, item.line([refusal(error)]))
            return
        with lock:
            outcome.put += 1

    def work(steps: list[_Step]) -> None:
        for done, (_, step) in enumerate(steps):
            why: str | None = None
            if stop.is_set() or out_of_time():
                why = "the time of the invocation was over"
            else:
                try:
                    step()
                except TransientError as error:
                    why = str(error)
                except BaseException:
                    stop.set()
                    raise
            if why is not None:
                with lock:
                    outcome.why = outcome.why if stop.is_set() else why
                    outcome.open += [item for item, _ in steps[done:]]
                    stop.set()
                return

    batches: list[list[_Step]] = [[(item, partial(keep, item, line))] for item, line in plan.refused]
    for group in plan.groups.values():
        batches.append([(item, partial(put, item, texts)) for item, texts in group])
    batches.sort(key=lambda steps: steps[0][0].position)
    begun = [pool.submit(work, steps) for steps in batches]
    # Nothing of this batch may go on behind the answer.
    wait(begun)
    for one in begun:
        one.result()
    return outcome
