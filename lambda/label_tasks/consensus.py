"""When several people agree. Pure: what they said in, what follows out.

The order of votes never matters: a person's vote is one, a label wins with more than half of them, and
``agreement`` is above half.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

__all__ = ["ADJUDICATION", "REVIEW", "Outcome", "Vote", "decide", "distinct"]

#: The queue of everybody, and that of the people who settle what others disagree on.
REVIEW = "review"
ADJUDICATION = "adjudication"


@dataclass(frozen=True, kw_only=True)
class Vote:
    """What one person said; ``at`` is ISO 8601 in UTC."""

    by: str
    label: str
    at: str
    queue: str = REVIEW


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What follows from the votes.

    ``agreed`` carries the label; ``more`` and ``adjudicate`` say who is asked next and how many votes of that
    queue are then needed; ``expired`` is the end of what nobody finished.
    """

    state: Literal["agreed", "more", "adjudicate", "expired"]
    label: str | None = None
    labelled_by: tuple[str, ...] = ()
    votes: int = 0
    agreement: float = 0.0
    resolution: Literal["consensus", "adjudicator"] | None = None
    queue: str = REVIEW
    needed: int = 0


def distinct(votes: Iterable[Vote]) -> list[Vote]:
    """One vote per person and queue, the earliest; by person."""
    first: dict[tuple[str, str], Vote] = {}
    for vote in votes:
        held = first.get((vote.queue, vote.by))
        if held is None or (vote.at, vote.label) < (held.at, held.label):
            first[vote.queue, vote.by] = vote
    return [first[key] for key in sorted(first)]


def decide(
    votes: Iterable[Vote], *, per_item: int, at_most: int, agreement: float, ended: bool = False
) -> Outcome:
    """Say what follows from ``votes``.

    Args:
        per_item: people who label each item.
        at_most: people asked before an adjudicator decides.
        agreement: share of the votes that a label needs, above one half.
        ended: whether the time of the item is over: nobody is asked any more.
    """
    counted = distinct(votes)
    everybody = [vote for vote in counted if vote.queue == REVIEW]
    adjudicators = [vote for vote in counted if vote.queue == ADJUDICATION]
    if adjudicators:
        # One decides; should two have done so at once, the first did.
        deciding = min(adjudicators, key=lambda vote: (vote.at, vote.by))
        return _agreed(counted, deciding.label, "adjudicator")
    if len(everybody) >= per_item:
        label, count = max(Counter(vote.label for vote in everybody).items(), key=lambda item: item[1])
        if count / len(everybody) >= agreement:
            return _agreed(everybody, label, "consensus")
    if ended:
        return Outcome(state="expired", votes=len(counted))
    if len(everybody) < at_most:
        needed = max(per_item, len(everybody) + 1)
        return Outcome(state="more", votes=len(counted), queue=REVIEW, needed=needed)
    return Outcome(state="adjudicate", votes=len(counted), queue=ADJUDICATION, needed=1)


def _agreed(votes: list[Vote], label: str, resolution: Literal["consensus", "adjudicator"]) -> Outcome:
    by = [vote.by for vote in votes if vote.label == label]
    return Outcome(
        state="agreed",
        label=label,
        labelled_by=tuple(sorted(set(by))),
        votes=len(votes),
        agreement=len(by) / len(votes),
        resolution=resolution,
    )
