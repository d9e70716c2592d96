"""Requests to the endpoint, as clients send them: one record each, all the time, measured."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ml_contract.records.codec import RecordCodec, Rejected
from ml_contract.windows.engines import with_windows

from rehearsal.story.telling import StoryError

if TYPE_CHECKING:
    from ml_contract.compiled import CompiledContract

    from rehearsal.story.tale import Tale

__all__ = ["Answer", "Answers", "Traffic", "ask", "inference_id", "quantile", "questions", "windows_of"]

#: Requests a second that the background traffic aims at, over all its threads.
RATE = 24.0
THREADS = 3
#: Two models that score a record this close cannot be told apart by it.
SAME_SCORE = 1e-6
#: SageMaker Runtime API reference, InvokeEndpoint: InferenceId is ASCII of this length at most.
MOST_CHARACTERS = 64


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One request and what came back; ``score`` is ``None`` when it failed."""

    index: int
    at: float
    seconds: float
    score: float | None
    label: str | None
    error: str | None = None


def questions(tale: Tale, records: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """Bodies of requests: each record without its label, which nobody knows yet.

    A caller of a workload with windows sends them along, as the online store has them at the moment of the
    record; many moments are asked at once here, so they are computed from the records before each.
    """
    contract = tale.contract
    label = contract.label_column.source
    bodies = [{k: v for k, v in r.items() if k != label} for r in records]
    if contract.windows is not None:
        known = [*tale.inputs.initial, *tale.inputs.live, *tale.inputs.changed, *tale.inputs.changed_live]
        asked = {id(record) for record in records}
        before = [record for record in known if id(record) not in asked]
        over_time = windows_of(contract, records, before)
        bodies = [body | values for body, values in zip(bodies, over_time, strict=True)]
    return [json.dumps(body).encode() for body in bodies]


def windows_of(
    contract: CompiledContract, records: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]]
) -> list[dict[str, float | None]]:
    """The window features of each record over all of them; every one must fit the contract."""
    import polars as pl

    spec = contract.windows
    if spec is None:
        return [{} for _ in records]
    codec = RecordCodec(contract)
    names = list(dict.fromkeys([contract.event_time, spec.key, *spec.fields]))
    kinds = {"integer": pl.Int64, "number": pl.Float64}
    rows = []
    for record in (*records, *before):
        decoded = codec.decode(json.dumps(record).encode())
        if isinstance(decoded, Rejected):
            raise StoryError(f"a record does not fit the contract: {decoded.reasons[0].message}")
        rows.append({name: decoded.values.get(name) for name in names})
    frame = pl.DataFrame(rows, schema={n: kinds.get(contract.types[n], pl.String) for n in names})
    moment = pl.col(contract.event_time).str.to_datetime(time_unit="us", time_zone="UTC", strict=True)
    made = with_windows(frame.with_columns(moment.dt.replace_time_zone(None)), contract)
    mine = made.head(len(records)).select(window.name for window in spec.windows)
    found: list[dict[str, float | None]] = mine.to_dicts()
    return found


def _ask(
    runtime: Any, endpoint: str, body: bytes, index: int, began: float, *, name: str | None = None
) -> Answer:
    started = time.monotonic()
    named = {} if name is None else {"InferenceId": name}
    try:
        answer = runtime.invoke_endpoint(
            EndpointName=endpoint,
            ContentType="application/json",
            Accept="application/json",
            Body=body,
            **named,
        )
        prediction = json.loads(answer["Body"].read())["predictions"][0]
        score = float(prediction["score"])
    except Exception as error:  # noqa: BLE001 - a failed request of any kind is what is counted
        return Answer(
            index=index,
            at=started - began,
            seconds=time.monotonic() - started,
            score=None,
            label=None,
            error=f"{type(error).__name__}: {error}",
        )
    label = prediction.get("label")
    finite = math.isfinite(score)
    return Answer(
        index=index,
        at=started - began,
        seconds=time.monotonic() - started,
        score=score if finite else None,
        label=None if label is None else str(label),
        error=None if finite else f"the score is {score}",
    )


def inference_id(contract: CompiledContract, body: bytes) -> str | None:
    """The identifier of a question's record, as its caller passes it on; ``None`` when it does not fit.

    By it a label that comes later finds its prediction (``lambda/ground_truth``).
    """
    value = json.loads(body).get(contract.by_name[contract.identifier].source)
    name = "" if value is None else str(value)
    return name if name.isascii() and 1 <= len(name) <= MOST_CHARACTERS else None


def ask(tale: Tale, bodies: Sequence[bytes]) -> list[Answer]:
    """Send each body once, in order, under the name of its record; every one must be answered."""
    endpoint = tale.outputs("Serving")["EndpointName"]
    runtime = tale.cloud.client("sagemaker-runtime")
    names = [inference_id(tale.contract, body) for body in bodies]
    began = time.monotonic()
    answers = [
        _ask(runtime, endpoint, body, index, began, name=name)
        for index, (body, name) in enumerate(zip(bodies, names, strict=True))
    ]
    failed = [a for a in answers if a.error is not None]
    if failed:
        raise StoryError(f"{len(failed)} of {len(answers)} requests failed; the first: {failed[0].error}")
    return answers


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The answers of a while of traffic."""

    answers: tuple[Answer, ...]

    @property
    def failed(self) -> list[Answer]:
        """Those that failed."""
        return [a for a in self.answers if a.error is not None]

    def series(self, old: Sequence[float], new: Sequence[float] | None) -> list[dict[str, float]]:
        """Answers per second by who gave them.

        A model is known by its scores: ``old[i]`` and ``new[i]`` are what each model says to question i.
        Without ``new``, whatever is not the old score is the new model's.
        """
        seconds = int(max((a.at for a in self.answers), default=-1.0)) + 1
        points = [{"at": float(s), "old": 0.0, "new": 0.0, "failed": 0.0} for s in range(seconds)]
        for answer in self.answers:
            points[int(answer.at)][self.who(answer, old, new)] += 1.0
        return points

    def who(self, answer: Answer, old: Sequence[float], new: Sequence[float] | None) -> str:
        """``old``, ``new`` or ``failed``."""
        if answer.score is None:
            return "failed"
        is_old = abs(answer.score - old[answer.index]) <= SAME_SCORE
        if new is None:
            return "old" if is_old else "new"
        return (
            "old" if abs(answer.score - old[answer.index]) <= abs(answer.score - new[answer.index]) else "new"
        )

    def summary(self) -> dict[str, Any]:
        """Counts and milliseconds."""
        good = [a.seconds * 1000 for a in self.answers if a.error is None]
        return {
            "requests": len(self.answers),
            "failed": len(self.failed),
            "p50_ms": round(quantile(good, 0.5), 1) if good else None,
            "p99_ms": round(quantile(good, 0.99), 1) if good else None,
        }


class Traffic:
    """Traffic in the background, from entering the context to leaving it."""

    def __init__(self, tale: Tale, bodies: Sequence[bytes]) -> None:
        self._endpoint = tale.outputs("Serving")["EndpointName"]
        self._runtime = tale.cloud.client("sagemaker-runtime")
        self._bodies = bodies
        self._answers: list[Answer] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._next = 0
        self._began = time.monotonic()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(THREADS)]

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
    def answers(self) -> Answers:
        """What was answered so far."""
        with self._lock:
            return Answers(answers=tuple(sorted(self._answers, key=lambda a: a.at)))

    def _run(self) -> None:
        pause = THREADS / RATE
        due = time.monotonic()
        while not self._stop.is_set():
            with self._lock:
                index = self._next % len(self._bodies)
                self._next += 1
            answer = _ask(self._runtime, self._endpoint, self._bodies[index], index, self._began)
            with self._lock:
                self._answers.append(answer)
            due = max(due + pause, time.monotonic())
            self._stop.wait(due - time.monotonic())
