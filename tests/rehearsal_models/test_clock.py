"""The clock of the rehearsal."""

import re
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rehearsal.clock import Clock, Due

START = datetime(2026, 1, 1, tzinfo=UTC)


def frozen() -> Clock:
    """A clock that moves only when it is told to."""
    return Clock(start=START, real=lambda: 0.0)


class Hourly:
    """Two pieces of work at every full hour."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, datetime]] = []

    def next_due(self, after: datetime) -> Sequence[Due]:
        when = after.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        return [
            Due(when=when, title=name, run=lambda name=name: self.seen.append((name, when)))  # type: ignore[misc]
            for name in ("a", "b")
        ]


def test_should_fire_due_work_in_order_and_stop_at_the_target() -> None:
    clock = frozen()
    seen: list[tuple[str, datetime]] = []
    for name, minutes in (("late", 50), ("early", 10), ("beyond", 61)):
        clock.at(START + timedelta(minutes=minutes), name, lambda n=name: seen.append((n, clock.now())))  # type: ignore[misc]
    fired = clock.advance(3600)
    assert seen == [("early", START + timedelta(minutes=10)), ("late", START + timedelta(minutes=50))]
    assert [f.title for f in fired] == ["early", "late"]
    assert clock.now() == START + timedelta(hours=1)


def test_should_fire_everything_a_source_has_due_at_one_moment_once() -> None:
    clock, source = frozen(), Hourly()
    clock.add_source(source)
    clock.advance(2.5 * 3600)
    hours = [START + timedelta(hours=n) for n in (1, 2)]
    assert source.seen == [(name, hour) for hour in hours for name in ("a", "b")]


def test_should_pass_over_what_a_jump_skips() -> None:
    clock, source = frozen(), Hourly()
    clock.add_source(source)
    fired = clock.advance(3 * 3600, skip=lambda due: due.title == "b")
    assert [name for name, _ in source.seen] == ["a", "a", "a"]
    assert [item.skipped for item in fired] == [False, True] * 3


def test_should_not_fire_cancelled_work() -> None:
    clock = frozen()
    cancel = clock.at(START + timedelta(minutes=1), "x", lambda: pytest.fail("fired"))
    cancel()
    assert clock.advance(120) == []


def test_should_fire_work_that_fired_work_makes_due() -> None:
    clock = frozen()
    seen: list[datetime] = []
    clock.at(
        START + timedelta(minutes=1),
        "first",
        lambda: clock.at(START + timedelta(minutes=2), "second", lambda: seen.append(clock.now())),
    )
    clock.advance(600)
    assert seen == [START + timedelta(minutes=2)]


def test_should_report_an_error_of_due_work_and_go_on() -> None:
    clock = frozen()
    told: list[str] = []
    clock.on_error = lambda title, error: told.append(f"{title}: {error}")

    def broken() -> None:
        raise ValueError("no such queue")

    clock.at(START + timedelta(minutes=1), "broken", broken)
    clock.at(START + timedelta(minutes=2), "good", lambda: None)
    first, second = clock.advance(600)
    assert (first.error, second.error) == ("ValueError: no such queue", None)
    assert told == ["broken: no such queue"]


def test_should_wait_for_background_work_before_the_next_piece() -> None:
    clock = frozen()
    order: list[str] = []
    release = threading.Event()

    def job() -> None:
        with clock.working("job"):
            started.set()
            release.wait(5)
            order.append("job ended")

    started = threading.Event()

    def start() -> None:
        threading.Thread(target=job, daemon=True).start()
        started.wait(5)
        threading.Timer(0.05, release.set).start()

    clock.at(START + timedelta(minutes=1), "start", start)
    clock.at(START + timedelta(minutes=2), "next", lambda: order.append("next"))
    clock.advance(600)
    assert order == ["job ended", "next"]


def test_should_compress_a_sleep_and_move_the_time_by_it() -> None:
    clock = Clock(scale=2000, start=START)
    began = time.monotonic()
    clock.sleep(600)
    assert time.monotonic() - began < 5
    assert clock.now() >= START + timedelta(minutes=10)


def test_should_wake_a_sleeper_when_the_clock_is_advanced_past_it() -> None:
    clock = Clock(start=START, scale=1)
    woke: list[datetime] = []
    asleep = threading.Event()

    def bake() -> None:
        with clock.working("bake"):
            asleep.set()
            clock.sleep(3600)
            woke.append(clock.now())

    thread = threading.Thread(target=bake, daemon=True)
    thread.start()
    asleep.wait(5)
    deadline = time.monotonic() + 5
    while clock._sleeping == 0 and time.monotonic() < deadline:
        time.sleep(0.001)
    clock.advance(2 * 3600)
    thread.join(5)
    assert woke
    assert timedelta(hours=1) <= woke[0] - START < timedelta(hours=1, minutes=1)
    assert clock.busy == []


def test_should_end_a_sleep_early_when_told_to_stop() -> None:
    clock = Clock(start=START, scale=1)
    stop = threading.Event()
    threading.Timer(0.05, stop.set).start()
    assert clock.sleep(3600, stop=stop) is True


def test_should_name_the_work_that_is_still_under_way() -> None:
    clock = Clock()
    entered, leave = threading.Event(), threading.Event()

    def job() -> None:
        with clock.working("training job x"):
            entered.set()
            leave.wait(5)

    thread = threading.Thread(target=job, daemon=True)
    thread.start()
    entered.wait(5)
    with pytest.raises(TimeoutError, match=r"after 0\.05 s still under way: training job x"):
        clock.wait_idle(0.05)
    leave.set()
    thread.join(5)
    clock.wait_idle(1)


def test_should_fire_by_itself_as_time_passes() -> None:
    clock = Clock()
    fired = threading.Event()
    clock.start()
    try:
        clock.at(clock.now() + timedelta(milliseconds=20), "soon", fired.set)
        assert fired.wait(5)
    finally:
        clock.stop()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Clock(scale=0), "scale must be at least 1"),
        (lambda: Clock(start=datetime(2026, 1, 1)), "must carry a time zone"),
        (lambda: Clock().advance(-1), "only moves forward, got -1"),
    ],
)
def test_should_refuse_a_time_that_makes_no_sense(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


def test_should_do_what_the_page_about_it_shows() -> None:
    page = (Path(__file__).parents[2] / "docs" / "rehearsal-models.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "docs/rehearsal-models.md", "exec"), {})
