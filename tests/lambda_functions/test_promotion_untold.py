"""The promotion function dies after each of its calls: its message comes again, and people are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import pytest
import test_challenger as trials
import test_model_promotion as plain
from model_promotion import handler as entry
from model_promotion.challenger import ATTEMPTS
from model_promotion.settings import Settings, Telling

TELLING = Telling(topic_arn="topic", environment="test", workload="w", region="us-east-1")
World: TypeAlias = "plain.FakeCloud | trials.Fleet"
Scene: TypeAlias = "Callable[[], tuple[World, dict[str, Any]]]"


class DiedError(BaseException):
    """The function's process has ended."""


class Mortal:
    """A cloud, and a topic, whose caller dies after so many calls."""

    def __init__(self, world: World, published: list[dict[str, Any]]) -> None:
        self._world = world
        self._published = published
        self.left: int | None = None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *given, **named: self._carried_out(getattr(self._world, name), given, named)

    def publish(self, **request: Any) -> None:
        self._carried_out(
            self._published.append, (json.loads(json.loads(request["Message"])["default"]),), {}
        )

    def _carried_out(self, call: Callable[..., Any], given: Any, named: Any) -> Any:
        answer = call(*given, **named)
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                raise DiedError
        return answer


@dataclass
class Played:
    """What is left of a scene."""

    died: bool
    notices: list[tuple[str, str]]
    state: object


def messages(body: dict[str, Any], seen: int) -> dict[str, Any]:
    record = {
        "messageId": "m",
        "body": json.dumps(body),
        "attributes": {"ApproximateReceiveCount": str(seen)},
    }
    return {"Records": [record]}


def play(
    scene: Scene,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    *,
    dies_after: int | None,
) -> Played:
    """Hand a message over, again and again until it is handled; the first attempt dies."""
    world, body = scene()
    published: list[dict[str, Any]] = []
    mortal = Mortal(world, published)
    monkeypatch.setattr(Settings, "from_environment", lambda _: replace(settings, telling=TELLING))
    monkeypatch.setattr(entry, "_cloud", lambda _: mortal)
    monkeypatch.setattr(entry, "_sns", lambda: mortal)
    mortal.left, died = dies_after, False
    try:
        answer = entry.handler(messages(body, 1), None)
    except DiedError:
        died, answer = True, {"batchItemFailures": [{"itemIdentifier": "m"}]}
    mortal.left = None
    for attempt in range(2, 5):
        if not answer["batchItemFailures"]:
            break
        if attempt > 2 and world.status == "UPDATE_IN_PROGRESS":
            world.finish(succeeded=True)
        answer = entry.handler(messages(body, attempt), None)
    assert answer == {"batchItemFailures": []}
    if world.status == "UPDATE_IN_PROGRESS":
        world.finish(succeeded=True)
    return Played(died, [(n["notice"], n["correlation_id"]) for n in published], state_of(world))


def state_of(world: World) -> object:
    statuses = {arn: package.approval_status for arn, package in world.packages.items()}
    if isinstance(world, plain.FakeCloud):
        return statuses, world.parameter, world.serves, len(world.versions)
    values = {name: [version.value for version in found] for name, found in world.values.items()}
    return statuses, values, world.runs


# --- scenes ---


class Registry(plain.FakeCloud):
    """Keeps what was said of a version, as the registry does."""

    def reject(self, arn: str, reason: str) -> None:
        super().reject(arn, reason)
        self.packages[arn] = replace(self.packages[arn], reason=reason, modified=self.tick())


def serving() -> Registry:
    world = Registry()
    plain.act(world, world.approve(plain.ONE))
    world.finish(succeeded=True)
    return world


def approved() -> tuple[World, dict[str, Any]]:
    world = serving()
    return world, world.approve(plain.TWO)


def first_approved() -> tuple[World, dict[str, Any]]:
    world = Registry()
    return world, world.approve(plain.ONE)


def too_bad() -> tuple[World, dict[str, Any]]:
    world = serving()
    return world, world.approve(plain.TWO, auc=0.1)


def rolled_back() -> tuple[World, dict[str, Any]]:
    world = serving()
    plain.act(world, world.approve(plain.TWO))
    return world, world.finish(succeeded=False)


def in_test() -> trials.Fleet:
    return trials.tried(trials.serving())


def beside_a_champion() -> tuple[World, dict[str, Any]]:
    fleet = trials.serving()
    return fleet, fleet.approve(trials.TWO)


def passed() -> tuple[World, dict[str, Any]]:
    fleet = in_test()
    return fleet, fleet.ending()


def not_asked() -> tuple[World, dict[str, Any]]:
    fleet = in_test()
    fleet.asked = 0
    event = fleet.ending()
    return fleet, {**event, "detail": {**event["detail"], "Attempt": ATTEMPTS}}


def rang() -> tuple[World, dict[str, Any]]:
    fleet = in_test()
    return fleet, fleet.ring()


SCENES = {
    "an approval": (approved, plain.SETTINGS, "model.promoted", plain.TWO),
    "the first approval": (first_approved, plain.SETTINGS, "model.promoted", plain.ONE),
    "an approval of a bad version": (too_bad, plain.SETTINGS, "model.refused", plain.TWO),
    "a rollback": (rolled_back, plain.SETTINGS, "model.rolled_back", plain.TWO),
    "an approval beside a champion": (beside_a_champion, trials.SETTINGS, "model.testing", trials.TWO),
    "the end of a test": (passed, trials.SETTINGS, "model.promoted", trials.TWO),
    "the end of a test without requests": (not_asked, trials.SETTINGS, "model.refused", trials.TWO),
    "an alarm": (rang, trials.SETTINGS, "model.refused", trials.TWO),
}
#: More calls than any scene takes.
MOST_CALLS = 40


@pytest.mark.parametrize(("scene", "settings", "notice", "about"), SCENES.values(), ids=SCENES)
def test_should_tell_people_after_whichever_call_it_dies(
    monkeypatch: pytest.MonkeyPatch, scene: Scene, settings: Settings, notice: str, about: str
) -> None:
    untouched = play(scene, settings, monkeypatch, dies_after=None)
    assert untouched.notices == [(notice, about)]
    for number in range(1, MOST_CALLS):
        found = play(scene, settings, monkeypatch, dies_after=number)
        if not found.died:
            assert number > 3
            return
        assert found.state == untouched.state, f"it died after call {number}"
        assert set(found.notices) == {(notice, about)}, f"it died after call {number}"
        # Twice only where it died after it had told: that it lived to tell nobody knows.
        assert len(found.notices) <= 2
    raise AssertionError(f"it makes more than {MOST_CALLS} calls")


def test_should_tell_once_of_an_event_that_comes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    world, body = approved()
    published: list[dict[str, Any]] = []
    mortal = Mortal(world, published)
    monkeypatch.setattr(Settings, "from_environment", lambda _: replace(plain.SETTINGS, telling=TELLING))
    monkeypatch.setattr(entry, "_cloud", lambda _: mortal)
    monkeypatch.setattr(entry, "_sns", lambda: mortal)
    entry.handler(messages(body, 1), None)
    world.finish(succeeded=True)
    entry.handler(messages(body, 1), None)
    assert len(published) == 1
