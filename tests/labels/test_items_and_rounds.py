"""Items on a table: who gets one, whose vote counts, what a round does when it is done twice."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from label_support import NOW, Clock, Steps, item, item_table, name_of, rules, stored
from label_tasks.consensus import Vote
from label_tasks.errors import BadEventError, MisconfiguredError, TransientError
from label_tasks.review import Person, RefusalError, Review
from label_tasks.rounds import Rounds, signal
from label_tasks.tasks import ConflictError, Task, Tasks

ADA, BEN, CEM = (Person(name=name) for name in ("ada", "ben", "cem"))
DEE = Person(name="dee", adjudicator=True)


class Desk:
    """Review and rounds on one table."""

    def __init__(self, table: Any, **changes: Any) -> None:
        self.tasks, self.steps, self.clock = Tasks(table), Steps(), Clock()
        self.rules = rules(**changes)
        self.review = Review(
            self.tasks, self.rules, signal=lambda task: signal(self.steps, task), now=self.clock
        )
        self.rounds = Rounds(self.tasks, self.rules, self.steps)

    def get(self, number: int = 1) -> Task:
        found = self.tasks.get(name_of(number))
        assert found is not None
        return found

    def given(self, person: Person) -> str | None:
        task = self.review.next(person)["task"]
        return None if task is None else str(task["task"])

    def label(self, person: Person, label: str, number: int = 1) -> dict[str, Any]:
        return self.review.label(person, name_of(number), label)


@pytest.fixture
def desk() -> Iterator[Desk]:
    with item_table() as table:
        yield Desk(table)


# --- who gets an item ---------------------------------------------------------------------------------


def test_should_offer_the_oldest_item_to_as_many_people_as_it_needs(desk: Desk) -> None:
    stored(desk.tasks, item(2), item(1))
    assert [desk.given(p) for p in (ADA, BEN, CEM)] == [name_of(1), name_of(1), name_of(2)]
    # Who has one open gets the same again.
    assert desk.given(ADA) == name_of(1)


def test_should_offer_an_item_again_when_its_lock_has_run_out(desk: Desk) -> None:
    stored(desk.tasks, item(1))
    assert [desk.given(p) for p in (ADA, BEN, CEM)] == [name_of(1), name_of(1), None]
    desk.clock.wait(minutes=desk.rules.lock_minutes)
    assert desk.given(CEM) == name_of(1)


def test_should_not_offer_what_was_labelled_skipped_or_is_over(desk: Desk) -> None:
    stored(desk.tasks, item(1), item(2), item(3, expires=int(NOW.timestamp())))
    desk.label(ADA, "yes", 1)
    desk.review.skip(ADA, name_of(2))
    assert desk.given(ADA) is None
    assert desk.given(BEN) == name_of(1)


def test_should_offer_adjudications_to_adjudicators_who_have_not_voted(desk: Desk) -> None:
    stored(desk.tasks, item(1, queue="adjudication", needed=1), item(2))
    assert desk.given(ADA) == name_of(2)
    assert desk.given(DEE) == name_of(1)
    with pytest.raises(RefusalError, match="waits for an adjudicator") as refused:
        desk.label(ADA, "yes")
    assert refused.value.status == 403


def test_should_show_neither_the_prediction_nor_the_identifier(desk: Desk) -> None:
    stored(desk.tasks, item(1))
    shown = desk.review.next(ADA)["task"]
    assert shown == {
        "task": name_of(1),
        "queue": "review",
        "fields": [
            {"title": "weight kg", "value": "1.5", "personal": False},
            {"title": "addressee", "value": "", "personal": True},
        ],
    }


# --- whose label counts -------------------------------------------------------------------------------


def test_should_count_a_label_once_and_tell_the_state_machine_when_enough_have_voted(desk: Desk) -> None:
    stored(desk.tasks, item(1))
    assert desk.label(ADA, "yes")["again"] is False
    assert desk.label(ADA, "yes")["again"] is True
    assert desk.steps.answered == []
    desk.label(BEN, "yes")
    assert desk.steps.answered == [("token 1", {"votes": 2})]
    # The signal may have been lost: the same label again sends it again, and counts nothing.
    desk.label(BEN, "yes")
    assert len(desk.steps.answered) == 2
    assert [v.by for v in desk.get().votes] == ["ada", "ben"]


def test_should_refuse_another_label_of_the_same_person(desk: Desk) -> None:
    stored(desk.tasks, item(1))
    desk.label(ADA, "yes")
    with pytest.raises(RefusalError, match="already") as refused:
        desk.label(ADA, "no")
    assert refused.value.status == 409
    assert [v.label for v in desk.get().votes] == ["yes"]


@pytest.mark.parametrize("label", ["maybe", "", None, 1, ["yes"]])
def test_should_refuse_what_is_no_class(desk: Desk, label: object) -> None:
    stored(desk.tasks, item(1))
    with pytest.raises(RefusalError, match="must be one of no, yes") as refused:
        desk.review.label(ADA, name_of(1), label)
    assert refused.value.status == 400


def test_should_refuse_a_label_that_nobody_waits_for(desk: Desk) -> None:
    stored(desk.tasks, item(1, queue=None), item(2, expires=int(NOW.timestamp())), item(3))
    for number, why in ((1, "decided"), (2, "time")):
        with pytest.raises(RefusalError, match=why):
            desk.label(ADA, "yes", number)
    assert desk.given(ADA) == desk.given(BEN) == name_of(3)
    with pytest.raises(RefusalError, match="others label this item now"):
        desk.label(CEM, "yes", 3)
    with pytest.raises(RefusalError, match="no such item") as refused:
        desk.label(ADA, "yes", 9)
    assert refused.value.status == 404


def test_should_take_a_label_of_whose_lock_has_run_out_while_there_is_room(desk: Desk) -> None:
    stored(desk.tasks, item(1))
    assert desk.given(ADA) == name_of(1)
    desk.clock.wait(hours=1)
    assert desk.label(ADA, "yes")["counted"] is True


def test_should_let_one_of_two_changes_at_once_win_and_count_both_votes(desk: Desk) -> None:
    stored(desk.tasks, item(1))
    ready = threading.Barrier(2)

    def label(person: Person) -> None:
        ready.wait()
        desk.label(person, "yes")

    threads = [threading.Thread(target=label, args=(p,)) for p in (ADA, BEN)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(v.by for v in desk.get().votes) == ["ada", "ben"]


def test_should_give_up_when_others_change_the_item_all_the_time(desk: Desk) -> None:
    stored(desk.tasks, item(1))

    def always_late(current: Task) -> Task:
        desk.tasks._store(replace(current, revision=current.revision + 1), seen=current.revision)
        return replace(current, needed=9)

    with pytest.raises(ConflictError):
        desk.tasks.change(name_of(1), always_late)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from([ADA, BEN, CEM, DEE]), st.sampled_from(["no", "yes"]), st.integers(0, 20)),
        max_size=12,
    )
)
def test_should_hold_no_more_votes_than_needed_and_one_per_person_whatever_people_do(
    said: list[tuple[Person, str, int]],
) -> None:
    with item_table() as table:
        desk = Desk(table)
        stored(desk.tasks, item(1))
        for person, label, minutes in said:
            desk.clock.wait(minutes=minutes)
            if minutes % 2:
                desk.given(person)
            with contextlib.suppress(RefusalError):
                desk.label(person, label)
        votes = desk.get().votes
        assert len(votes) <= 2
        assert len({v.by for v in votes}) == len(votes)
        assert (len(votes) == 2) == bool(desk.steps.answered)


# --- rounds -------------------------------------------------------------------------------------------


def test_should_open_the_first_round_for_as_many_as_the_rules_say(desk: Desk) -> None:
    stored(desk.tasks, item(1, queue=None, needed=0, token=None))
    opened = desk.rounds.open(name_of(1), token="t", queue=None, needed=None)
    assert (opened["queue"], opened["needed"]) == ("review", 2)
    assert desk.get().token == "t"
    assert desk.steps.answered == []


def test_should_signal_at_once_when_the_votes_are_there_already(desk: Desk) -> None:
    votes = (Vote(by="ada", label="yes", at="1"), Vote(by="ben", label="yes", at="2"))
    stored(desk.tasks, item(1, votes=votes))
    desk.rounds.open(name_of(1), token="new", queue=None, needed=None)
    assert desk.steps.answered == [("new", {"votes": 2})]


def test_should_decide_once_and_keep_the_decision(desk: Desk) -> None:
    stored(desk.tasks, item(1))
    desk.label(ADA, "yes")
    desk.label(BEN, "yes")
    first = desk.rounds.decide(name_of(1), ended=False, now=NOW)
    decision = desk.get().decision
    assert first["state"] == "agreed"
    assert decision == {
        "label": "yes",
        "labelled_at": "2026-11-21T12:00:00.000+00:00",
        "labelled_by": ["ada", "ben"],
        "votes": 2,
        "agreement": 1.0,
        "resolution": "consensus",
    }
    assert (desk.get().queue, desk.get().token) == (None, None)
    desk.clock.wait(hours=3)
    assert desk.rounds.decide(name_of(1), ended=True, now=desk.clock()) == first
    assert desk.get().decision == decision


def test_should_go_through_a_disagreement_to_the_adjudicator() -> None:
    with item_table() as table:
        desk = Desk(table, agreement=0.75)
        stored(desk.tasks, item(1))
        desk.label(ADA, "yes")
        desk.label(BEN, "no")
        more = desk.rounds.decide(name_of(1), ended=False, now=NOW)
        assert more == {"state": "more", "queue": "review", "needed": 3}
        desk.rounds.open(name_of(1), token="t2", queue=more["queue"], needed=more["needed"])
        desk.label(CEM, "no")
        asked = desk.rounds.decide(name_of(1), ended=False, now=NOW)
        assert asked == {"state": "adjudicate", "queue": "adjudication", "needed": 1}
        desk.rounds.open(name_of(1), token="t3", queue=asked["queue"], needed=asked["needed"])
        assert desk.review.next(DEE)["task"]["said"] == [
            {"value": "no", "votes": 2},
            {"value": "yes", "votes": 1},
        ]
        desk.label(DEE, "yes")
        assert [token for token, _ in desk.steps.answered] == ["token 1", "t2", "t3"]
        assert desk.rounds.decide(name_of(1), ended=False, now=NOW)["state"] == "agreed"
        decision = desk.get().decision
        assert decision is not None
        assert (decision["label"], decision["resolution"]) == ("yes", "adjudicator")
        assert (decision["votes"], decision["agreement"]) == (4, 0.5)


def test_should_count_votes_whose_signal_got_lost_when_the_time_is_over(desk: Desk) -> None:
    votes = (Vote(by="ada", label="yes", at="1"), Vote(by="ben", label="yes", at="2"))
    stored(desk.tasks, item(1, votes=votes), item(2, votes=votes[:1]))
    assert desk.rounds.decide(name_of(1), ended=True, now=NOW)["state"] == "agreed"
    assert desk.rounds.decide(name_of(2), ended=True, now=NOW)["state"] == "expired"
    desk.rounds.close(name_of(2), state="expired")
    desk.rounds.close(name_of(2), state="expired")
    assert (desk.get(2).state, desk.get(2).queue) == ("expired", None)
    assert list(desk.tasks.waiting("review")) == []


def test_should_measure_how_long_the_oldest_item_has_waited(desk: Desk) -> None:
    stored(desk.tasks, item(1), item(2, queue="adjudication", needed=1), item(3, queue=None))
    desk.clock.wait(hours=2)
    measured = desk.rounds.measure(desk.clock())
    assert measured == {"waiting": 2, "oldest_seconds": 2 * 3600 - 1}


def test_should_say_that_there_is_no_such_item(desk: Desk) -> None:
    for step in (
        lambda: desk.rounds.open(name_of(9), token="t", queue=None, needed=None),
        lambda: desk.rounds.decide(name_of(9), ended=False, now=NOW),
        lambda: desk.rounds.close(name_of(9), state="expired"),
    ):
        with pytest.raises(BadEventError, match="no item"):
            step()


@pytest.mark.parametrize(
    ("code", "error"),
    [("TaskTimedOut", None), ("ThrottlingException", TransientError), ("AccessDenied", MisconfiguredError)],
)
def test_should_not_mind_a_state_machine_that_waits_no_longer(
    desk: Desk, code: str, error: type[Exception] | None
) -> None:
    desk.steps.error = code
    if error is None:
        assert signal(desk.steps, item(1)) is False
        return
    with pytest.raises(error):
        signal(desk.steps, item(1))
