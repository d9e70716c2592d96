"""The chaos play: its cells, and that a cell fails whose fault hit nothing or left something behind."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from rehearsal.story import StoryError
from rehearsal.story.chaos import CELLS, chaos, loop

LIFTED = [(kind, {"forget": True}) for kind in loop.KINDS]


class Server:
    """Remembers what was planned."""

    def __init__(self) -> None:
        self.planned: list[tuple[str, dict[str, Any]]] = []

    def control(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert method == "POST"
        self.planned.append((path, body))
        return {"left": {}}


class Loop:
    """A tale whose state the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server, self.entries = Server(), list[dict[str, Any]]()
        self.executions, self.version, self.served, self.stopped = ["first"], 1, "package", list[str]()
        cloud = SimpleNamespace(server=self.server, idle=lambda: None, ledger=lambda: list(self.entries))
        inputs = SimpleNamespace(live=[{}] * 50, changed=[])
        self.tale = cast(Any, SimpleNamespace(cloud=cloud, known={}, inputs=inputs, server=None))
        account = SimpleNamespace(sent=20, delivered=20, quarantined=0, lost=0, twice=0)
        answer = SimpleNamespace(score=0.5, label="N")
        for name, made in {
            "executions": lambda tale: [{"PipelineExecutionArn": arn} for arn in self.executions],
            "_promotions": lambda tale: self.version,
            "stop": lambda tale, arn: self.stopped.append(arn),
            "settled": lambda tale, evidence: None,
            "send": lambda tale, messages, evidence: messages,
            "deliver": lambda tale, batch, evidence: account,
            "ask": lambda tale, bodies: [answer],
            "questions": lambda tale, records: [b""],
        }.items():
            monkeypatch.setattr(loop, name, made)

    def hit(self) -> None:
        self.entries.append(
            {"kind": "fault", "name": "a:B", "detail": {"what": "kill-after"}, "outcome": "ran"}
        )


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> Loop:
    return Loop(monkeypatch)


def test_should_name_each_cell_once_and_each_step_once() -> None:
    ids = [each.id for each in CELLS]
    steps = [step.id for step in chaos()]

    assert len(set(ids)) == len(ids)
    assert len(set(steps)) == len(steps)


def test_should_refuse_a_name_that_fits_no_cell() -> None:
    with pytest.raises(ValueError, match="there is no cell 'nothing'"):
        chaos("nothing")


def test_should_count_what_hit_and_lift_every_fault(whole: Loop) -> None:
    evidence: dict[str, Any] = {}

    with loop.unharmed(whole.tale, evidence, starts=1):
        whole.hit()
        whole.hit()
        whole.executions.append("second")

    assert evidence["injected"] == {"a:B: kill-after": 2}
    assert evidence["records_after_it"]["lost"] == 0
    assert whole.server.planned == LIFTED
    assert whole.stopped == ["second"]


@pytest.mark.parametrize(
    ("started", "version", "hits", "why"),
    [
        ([], 1, 0, "hit nothing"),
        (["second", "third"], 1, 1, "2 trainings were started, there should be 1"),
        ([], 1, 1, "0 trainings were started, there should be 1"),
        (["second"], 2, 1, "changed 1 times, not 0"),
    ],
)
def test_should_fail_of_what_happened_twice_or_not_at_all(
    whole: Loop, started: list[str], version: int, hits: int, why: str
) -> None:
    def body() -> None:
        with loop.unharmed(whole.tale, {}, starts=1):
            for _ in range(hits):
                whole.hit()
            whole.executions += started
            whole.version = version

    with pytest.raises(StoryError, match=why):
        body()


def test_should_lift_the_faults_of_a_cell_that_fails(whole: Loop) -> None:
    with pytest.raises(ZeroDivisionError), loop.unharmed(whole.tale, {}):
        _ = 1 // 0
    assert whole.server.planned == LIFTED


def test_should_send_each_record_once_and_say_when_there_are_no_more(whole: Loop) -> None:
    loop.sent(whole.tale, 30)
    with pytest.raises(StoryError, match="all 50 records were sent"):
        loop.sent(whole.tale, 30)
