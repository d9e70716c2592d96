"""When people agree: the same people saying the same decide the same, in any order, however often."""

from __future__ import annotations

from collections import Counter

from hypothesis import example, given
from hypothesis import strategies as st
from label_tasks.consensus import ADJUDICATION, REVIEW, Vote, decide, distinct

LABELS = ("no", "yes", "unclear")
votes = st.lists(
    st.builds(
        Vote,
        by=st.sampled_from([f"p{n}" for n in range(8)]),
        label=st.sampled_from(LABELS),
        at=st.integers(0, 59).map(lambda second: f"2026-11-21T12:00:{second:02d}.000+00:00"),
    ),
    max_size=12,
)
rules = st.integers(1, 5).flatmap(
    lambda per_item: st.fixed_dictionaries(
        {
            "per_item": st.just(per_item),
            "at_most": st.integers(per_item, 7),
            "agreement": st.sampled_from([0.51, 0.6, 0.66, 0.75, 1.0]),
        }
    )
)


def vote(by: str, label: str, second: int = 0, queue: str = REVIEW) -> Vote:
    return Vote(by=by, label=label, at=f"2026-11-21T12:00:{second:02d}.000+00:00", queue=queue)


@given(votes, rules, st.booleans(), st.randoms(use_true_random=False))
@example([vote("p0", "yes"), vote("p1", "no")], {"per_item": 2, "at_most": 2, "agreement": 0.51}, False, None)
def test_should_decide_the_same_in_any_order_of_votes_and_however_often_they_come(
    given_votes: list[Vote], options: dict[str, float], ended: bool, random: object
) -> None:
    outcome = decide(given_votes, ended=ended, **options)  # type: ignore[arg-type]
    again = [*reversed(given_votes), *given_votes]
    if random is not None:
        random.shuffle(again)  # type: ignore[attr-defined]
    assert decide(again, ended=ended, **options) == outcome  # type: ignore[arg-type]


@given(votes, rules, st.booleans())
def test_should_only_agree_with_enough_people_and_enough_agreement(
    given_votes: list[Vote], options: dict[str, float], ended: bool
) -> None:
    outcome = decide(given_votes, ended=ended, **options)  # type: ignore[arg-type]
    said = {v.by: v.label for v in distinct(given_votes)}
    counts = Counter(said.values())
    if outcome.state == "agreed":
        assert outcome.label is not None
        assert len(said) >= options["per_item"]
        assert counts[outcome.label] / len(said) >= options["agreement"]
        assert set(outcome.labelled_by) == {who for who, label in said.items() if label == outcome.label}
        assert outcome.votes == len(said)
        assert outcome.resolution == "consensus"
    else:
        best = max(counts.values(), default=0)
        enough = len(said) >= options["per_item"]
        assert not (enough and best / len(said) >= options["agreement"])
        assert outcome.label is None
    # When the time is over nobody is asked any more; before, somebody always is.
    assert (outcome.state in ("more", "adjudicate")) == (outcome.state != "agreed" and not ended)


@given(votes, rules)
def test_should_ask_for_more_people_until_the_limit_and_for_an_adjudicator_then(
    given_votes: list[Vote], options: dict[str, float]
) -> None:
    outcome = decide(given_votes, **options)  # type: ignore[arg-type]
    people = len({v.by for v in given_votes})
    if outcome.state == "more":
        assert outcome.queue == REVIEW
        assert people < outcome.needed <= max(options["at_most"], options["per_item"])
    if outcome.state == "adjudicate":
        assert people >= options["at_most"]
        assert (outcome.queue, outcome.needed) == (ADJUDICATION, 1)


@given(votes, rules, st.sampled_from(LABELS), st.booleans())
def test_should_follow_the_adjudicator_whatever_others_said(
    given_votes: list[Vote], options: dict[str, float], label: str, ended: bool
) -> None:
    both = [*given_votes, vote("judge", label, queue=ADJUDICATION)]
    outcome = decide(both, ended=ended, **options)  # type: ignore[arg-type]
    assert (outcome.state, outcome.label, outcome.resolution) == ("agreed", label, "adjudicator")
    assert "judge" in outcome.labelled_by
    # How far the others agreed stays to be seen.
    same = sum(1 for v in distinct(given_votes) if v.label == label)
    assert outcome.agreement == (same + 1) / (len(distinct(given_votes)) + 1)


def test_should_count_a_person_once_with_what_they_said_first() -> None:
    assert distinct([vote("p", "yes", 5), vote("p", "no", 1), vote("q", "yes", 2)]) == [
        vote("p", "no", 1),
        vote("q", "yes", 2),
    ]


def test_should_let_two_of_two_decide_and_ask_a_third_when_they_differ() -> None:
    options = {"per_item": 2, "at_most": 3, "agreement": 0.66}
    one = vote("a", "yes")
    assert decide([], **options).needed == 2  # type: ignore[arg-type]
    assert decide([one, vote("b", "yes")], **options).state == "agreed"  # type: ignore[arg-type]
    differ = [one, vote("b", "no")]
    third = decide(differ, **options)  # type: ignore[arg-type]
    assert (third.state, third.needed) == ("more", 3)
    settled = decide([*differ, vote("c", "no")], **options)  # type: ignore[arg-type]
    assert (settled.label, settled.labelled_by, round(settled.agreement, 2)) == ("no", ("b", "c"), 0.67)
    strict = decide([*differ, vote("c", "no")], **{**options, "agreement": 0.75})  # type: ignore[arg-type]
    assert strict.state == "adjudicate"
    assert decide(differ, ended=True, **options).state == "expired"  # type: ignore[arg-type]
