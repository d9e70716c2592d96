"""Who of several is to tell people something, once; and that nobody's death keeps it from being told."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from retrain_trigger.told import PATIENCE, Told

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
TEXT = "2026-11: 5 USD"


class FakeParameter:
    """A parameter of Systems Manager, its versions, and a clock that its writers share."""

    def __init__(self, value: str = "nothing") -> None:
        self.now = NOW
        self.versions: list[dict[str, Any]] = []
        self.write(value)

    def write(self, value: str) -> None:
        number = len(self.versions) + 1
        self.versions.append({"Version": number, "Value": value, "LastModifiedDate": self.now})

    def put_parameter(self, **given: Any) -> None:
        assert given == {"Name": "told", "Type": "String", "Overwrite": True, "Value": given["Value"]}
        self.write(given["Value"])

    def get_paginator(self, operation: str) -> FakeParameter:
        assert operation == "get_parameter_history"
        return self

    def paginate(self, **given: Any) -> Sequence[dict[str, Any]]:
        assert given == {"Name": "told"}
        half = len(self.versions) // 2
        return [{"Parameters": self.versions[half:]}, {"Parameters": self.versions[:half]}]


class Asker:
    """One request of the function; asked again, it is a further attempt at the same event."""

    def __init__(self, parameter: FakeParameter, request: str) -> None:
        self.told = Told(parameter, "told")
        self.parameter = parameter
        self.request = request

    def is_to_say(self, text: str = TEXT) -> bool:
        return self.told.is_mine(text, self.request, now=self.parameter.now)


@pytest.fixture
def parameter() -> FakeParameter:
    return FakeParameter()


def test_should_have_it_said_once(parameter: FakeParameter) -> None:
    first, second = Asker(parameter, "1"), Asker(parameter, "2")
    assert first.is_to_say()
    assert not second.is_to_say(), "somebody is saying it"
    first.told.said(TEXT)
    assert not second.is_to_say()
    assert not first.is_to_say()
    assert parameter.versions[-1]["Value"] == TEXT


def test_should_have_it_said_by_an_attempt_after_a_death(parameter: FakeParameter) -> None:
    assert Asker(parameter, "1").is_to_say()
    # It dies before it can publish, or before it can note that; another asks meanwhile.
    assert not Asker(parameter, "2").is_to_say()
    assert Asker(parameter, "1").is_to_say()


def test_should_let_one_of_a_crowd_speak(parameter: FakeParameter) -> None:
    # Every one of them has looked before the first has written.
    for number in range(5):
        parameter.write(f"{TEXT}, told by {number}")
    askers = [Asker(parameter, str(number)) for number in range(5)]
    assert [asker.is_to_say() for asker in askers] == [True, False, False, False, False]
    assert [asker.is_to_say() for asker in reversed(askers)] == [False, False, False, False, True]


def test_should_not_be_said_again_by_who_claims_it_behind_the_one_that_said_it(
    parameter: FakeParameter,
) -> None:
    first = Asker(parameter, "1")
    assert first.is_to_say()
    first.told.said(TEXT)
    # It had looked before the first had claimed.
    parameter.write(f"{TEXT}, told by 2")
    assert not Asker(parameter, "2").is_to_say()
    assert not Asker(parameter, "3").is_to_say()


def test_should_take_over_from_who_never_came_back(parameter: FakeParameter) -> None:
    assert Asker(parameter, "1").is_to_say()
    parameter.now += PATIENCE - timedelta(seconds=1)
    assert not Asker(parameter, "2").is_to_say()
    parameter.now += timedelta(seconds=1)
    assert Asker(parameter, "3").is_to_say()
    assert not Asker(parameter, "1").is_to_say()


@pytest.mark.parametrize("other", ["2026-12: 5 USD", "2026-11: 50 USD", "2026-11: 5 USD"[:-1]])
def test_should_have_another_month_or_limit_said_anew(parameter: FakeParameter, other: str) -> None:
    first = Asker(parameter, "1")
    assert first.is_to_say()
    first.told.said(TEXT)
    assert first.is_to_say(other)
    first.told.said(other)
    assert first.is_to_say(), "it had been set back in between"
