"""The load test: an open loop, a knee that is found, a page that says so."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rehearsal.load_test.container import LoadTestError, newest_model, serving_image
from rehearsal.load_test.drawn import document, page, sentence
from rehearsal.load_test.knee import FIRST_RATE, Curve, holds, search
from rehearsal.load_test.offered import Burst, Target, offer

LIMIT = 0.1


def burst(rate: float, *, capacity: float, seconds: float = 2.0, failed: int = 0) -> Burst:
    """What a server that answers ``capacity`` requests a second, one after the other, makes of a load."""
    count = round(rate * seconds)
    latencies, free = [], 0.0
    for number in range(count):
        due = number / rate
        free = max(free, due) + 1 / capacity
        latencies.append(free - due)
    return Burst(rate=rate, seconds=seconds, latencies=latencies[failed:], failed=failed, took=free)


# --- the knee -------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [70, 130, 777, 5_000, 33_333])
def test_should_find_what_a_server_can_do(capacity: float) -> None:
    curve = search(lambda rate: burst(rate, capacity=capacity), LIMIT)
    assert curve.bounded
    assert curve.knee is not None
    # A queue that grows by little for two seconds is still within the limit; the halvings leave 1/16.
    assert capacity * 0.9 < curve.knee.rate < capacity * 1.12
    assert [b.rate for b in curve.bursts] == sorted(b.rate for b in curve.bursts)
    above = [b for b in curve.bursts if b.rate > curve.knee.rate]
    assert above
    assert not any(holds(b, LIMIT) for b in above)


def test_should_not_take_one_hiccup_for_a_knee() -> None:
    hiccups = [True]

    def measure(rate: float) -> Burst:
        slow = rate == 200 and bool(hiccups) and hiccups.pop()
        return burst(rate, capacity=100 if slow else 1_000)

    curve = search(measure, LIMIT)
    assert curve.knee is not None
    assert curve.knee.rate > 800


def test_should_say_that_nothing_holds() -> None:
    curve = search(lambda rate: burst(rate, capacity=5), LIMIT)
    assert curve.knee is None
    assert [b.rate for b in curve.bursts] == [FIRST_RATE]
    assert sentence(curve) == "No load was answered within 100 ms (p99)."


def test_should_not_name_a_knee_that_the_generator_cannot_reach() -> None:
    curve = search(lambda rate: burst(rate, capacity=1e9), LIMIT, most=300)
    assert curve.knee is not None
    assert (curve.knee.rate, curve.bounded) == (300, False)
    assert "lies further on" in sentence(curve)


@pytest.mark.parametrize("failed", [0, 1])
def test_should_hold_only_without_a_failure(failed: int) -> None:
    assert holds(burst(100, capacity=1_000, failed=failed), LIMIT) is (failed == 0)


def test_should_count_what_was_never_answered_as_slow() -> None:
    half = Burst(rate=10, seconds=1, latencies=[0.01] * 5, unanswered=5, took=1)
    assert half.quantile(0.5) == 0.01
    assert math.isinf(half.quantile(0.99))
    assert not holds(half, 10)


# --- the open loop --------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Callable[..., Target]]:
    """A server that answers what it is told to, after so many seconds, from a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    servers: list[asyncio.Server] = []

    def start(*, seconds: float = 0.0, status: str = "200 OK", stall: tuple[int, float] = (-1, 0)) -> Target:
        count = 0

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal count
            try:
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = int(head.lower().rpartition(b"content-length: ")[2].split()[0])
                    await reader.readexactly(length)
                    count += 1
                    await asyncio.sleep(stall[1] if count >= stall[0] > 0 else seconds)
                    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}".encode())
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            finally:
                writer.close()

        async def listen() -> int:
            servers.append(await asyncio.start_server(talk, "127.0.0.1", 0))
            return int(servers[-1].sockets[0].getsockname()[1])

        port = asyncio.run_coroutine_threadsafe(listen(), loop).result(5)
        return Target(host="127.0.0.1", port=port, bodies=[b'{"a": 1}', b"{}"])

    yield start

    async def end() -> None:
        for one in servers:
            one.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)

    asyncio.run_coroutine_threadsafe(end(), loop).result(5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_should_ask_as_often_as_it_was_told(server: Callable[..., Target]) -> None:
    found = offer(server(), 200, 0.5)
    assert len(found.latencies) == 100
    assert (found.failed, found.unanswered) == (0, 0)
    assert found.took >= 0.49


def test_should_count_refusals(server: Callable[..., Target]) -> None:
    found = offer(server(status="503 Service Unavailable"), 100, 0.2)
    assert (len(found.latencies), found.failed, found.unanswered) == (0, 20, 0)


def test_should_go_on_asking_while_nobody_answers(server: Callable[..., Target]) -> None:
    """From the tenth request on each answer takes 10 s: whoever waits for answers would ask a few times."""
    found = offer(server(stall=(10, 10.0)), 300, 1.0)
    assert len(found.latencies) == 9
    assert found.unanswered == 291
    assert math.isinf(found.quantile(0.5))


def test_should_say_that_nobody_listens() -> None:
    with pytest.raises(OSError, match="Connect"):
        offer(Target(host="127.0.0.1", port=1), 10, 0.1)


# --- what people see ------------------------------------------------------------------------------


def test_should_draw_the_curve_and_write_it_down() -> None:
    curve = search(lambda rate: burst(rate, capacity=300), LIMIT)
    data = json.loads(json.dumps(document(curve, {"workload": "trips", "workers": 2})))
    assert data["knee_per_second"] == pytest.approx(300, rel=0.12)
    assert [p["holds"] for p in data["points"]].count(False) >= 1
    text = page(curve, {"workload": "<b>trips</b>", "workers": 2})
    assert "&lt;b&gt;trips" in text
    assert "<svg" in text
    assert "http-equiv" not in text
    assert 'src="' not in text


def test_should_draw_a_curve_that_never_held() -> None:
    assert "No load was answered" in page(
        Curve((burst(50, capacity=5),), None, True, LIMIT), {"workload": "x"}
    )


def test_should_ask_for_a_rehearsal_first(tmp_path: Path) -> None:
    for find in (newest_model, serving_image):
        with pytest.raises(LoadTestError, match="make rehearse"):
            find(tmp_path)
