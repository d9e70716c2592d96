"""How a story is told: in order, with evidence, to the first failure."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rehearsal.report import StepResult
from rehearsal.story import STORY, Evidence, Step, StoryError, Tale, tell
from rehearsal.story.telling import require, wait_until


class Listener:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def begin(self, step: Step, number: int, total: int) -> None:
        self.told.append(f"begin {number}/{total} {step.id}")

    def note(self, line: str) -> None:
        self.told.append(line)

    def end(self, result: StepResult) -> None:
        self.told.append(f"end {result.id} {result.status}")

    def say(self, text: str) -> None:
        self.told.append(text)


class FakeTale:
    """A tale without an AWS."""

    workload: Any = None
    server: Any = None
    cloud: Any = None

    def __init__(self) -> None:
        self.logged: list[str] = []
        self.known: dict[str, Any] = {}

    def log(self, text: str) -> None:
        self.logged.append(text)


def step(step_id: str, run: Any, **more: Any) -> Step:
    return Step(
        id=step_id, title=step_id.title(), chapter="One", run=run, capabilities=lambda _: ("a.b",), **more
    )


def showing(tale: Tale, evidence: Evidence) -> None:
    evidence["seen"] = 1


def told(*steps: Step) -> tuple[list[StepResult], Listener, FakeTale]:
    listener, tale = Listener(), FakeTale()
    return list(tell(steps, cast(Tale, tale), listener)), listener, tale


def test_should_run_steps_in_order_and_keep_their_evidence() -> None:
    results, listener, _ = told(step("one", showing), step("two", showing, recorded=True))

    assert [(r.id, r.status, r.evidence, r.capabilities) for r in results] == [
        ("one", "passed", {"seen": 1}, ("a.b",)),
        ("two", "recorded", {"seen": 1}, ("a.b",)),
    ]
    assert listener.told == ["begin 1/2 one", "end one passed", "begin 2/2 two", "end two recorded"]


def test_should_end_at_the_first_failure_with_what_the_step_had_shown() -> None:
    def failing(tale: Tale, evidence: Evidence) -> None:
        evidence["seen"] = 1
        require(False, "a record is lost")

    results, _, tale = told(step("one", showing), step("two", failing), step("three", showing))

    assert [(r.id, r.status) for r in results] == [("one", "passed"), ("two", "failed")]
    assert results[1].evidence == {"seen": 1, "reason": "a record is lost"}
    assert tale.logged == []


def test_should_fail_with_one_line_and_keep_the_trace_when_a_step_breaks() -> None:
    def breaking(tale: Tale, evidence: Evidence) -> None:
        raise KeyError("no\nsuch")

    results, _, tale = told(step("one", breaking))

    assert results[0].status == "failed"
    assert "\n" not in results[0].evidence["reason"]
    assert results[0].evidence["reason"].startswith("KeyError: ")
    assert "Traceback" in tale.logged[0]


class FakeCloud:
    """A server whose ledger is given."""

    def __init__(self, *ledgers: list[dict[str, str]]) -> None:
        self.ledgers = list(ledgers)

    def ledger(self) -> list[dict[str, str]]:
        return self.ledgers.pop(0) if len(self.ledgers) > 1 else self.ledgers[0]

    def permissions(self) -> list[dict[str, Any]]:
        return [{"role": "arn:role/R", "refused": [{"action": "s3:GetObject", "resource": "b"}]}]

    def function_errors(self) -> list[str]:
        return ["f: broke"]


class Running:
    """A process that runs."""

    def poll(self) -> None:
        return None


def test_should_fail_a_step_behind_whose_back_something_failed() -> None:
    failed = {"outcome": "failed", "kind": "schedule", "name": "monitor", "why": "AccessDenied"}
    ran = {"outcome": "ran", "kind": "lambda", "name": "f", "why": ""}
    tale = FakeTale()
    tale.server = SimpleNamespace(process=Running())
    tale.cloud = FakeCloud([ran], [ran, failed])

    results = list(tell([step("one", showing), step("two", showing)], cast(Tale, tale), Listener()))

    assert [r.status for r in results] == ["passed", "failed"]
    assert results[1].evidence == {
        "seen": 1,
        "reason": "failed in the background: schedule monitor: AccessDenied",
        "failed_in_the_background": ["schedule monitor: AccessDenied"],
        "refused": ["s3:GetObject on b for R"],
        "functions_said": ["f: broke"],
    }


def test_should_let_the_user_s_interruption_through() -> None:
    def interrupted(tale: Tale, evidence: Evidence) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        told(step("one", interrupted))


def test_should_return_what_it_waited_for() -> None:
    answers = iter([None, 0, "there"])

    assert wait_until("it", lambda: next(answers), seconds=5, every=0) == "there"


def test_should_say_what_did_not_come_in_time() -> None:
    with pytest.raises(StoryError, match=r"the delivery did not happen within 0 s"):
        wait_until("the delivery", lambda: None, seconds=0, every=0)


def test_should_stop_waiting_for_what_can_no_longer_come() -> None:
    with pytest.raises(StoryError, match="the endpoint cannot happen any more: the stack is gone"):
        wait_until("the endpoint", lambda: None, seconds=60, every=0, ending=lambda: "the stack is gone")


def test_should_name_every_step_once() -> None:
    ids = [s.id for s in STORY]

    assert len(ids) == len(set(ids))


def test_should_tell_each_chapter_in_one_piece() -> None:
    chapters = [s.chapter for s in STORY]
    changes = [c for i, c in enumerate(chapters) if i == 0 or c != chapters[i - 1]]

    assert len(changes) == len(set(changes))


def test_should_write_logs_to_the_output_folder(tmp_path: Path) -> None:
    tale = Tale(
        loaded=cast(Any, None),
        app=tmp_path,
        out=tmp_path,
        stage="Dev",
        seed=1,
        inputs=cast(Any, None),
        report=cast(Any, None),
        start_server=cast(Any, None),
    )
    tale.log("one\n")
    tale.log("two")

    assert (tmp_path / "rehearsal.log").read_text() == "one\ntwo\n"


def test_should_go_on_after_a_step_that_stands_alone() -> None:
    def failing(tale: Tale, evidence: Evidence) -> None:
        raise StoryError("not this one")

    results, _, _ = told(step("one", failing, alone=True), step("two", showing), step("three", failing))

    assert [r.status for r in results] == ["failed", "passed", "failed"]


def test_should_blame_a_failure_in_the_background_on_one_step_only() -> None:
    def failing(tale: Tale, evidence: Evidence) -> None:
        raise StoryError("not this one")

    broken = {"outcome": "failed", "kind": "lambda", "name": "f", "why": "it broke"}
    tale = FakeTale()
    tale.server = SimpleNamespace(process=Running())
    tale.cloud = FakeCloud([broken])

    steps = [step("one", failing, alone=True), step("two", showing)]
    results = list(tell(steps, cast(Tale, tale), Listener()))

    assert [r.status for r in results] == ["failed", "passed"]
    assert results[0].evidence["failed_in_the_background"] == ["lambda f: it broke"]
