"""A cell whose job is to fail: that failure is expected, any other is not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rehearsal.story.matrix.resuming import _told
from rehearsal.story.telling import StoryError, require_no_new_failure


def tale(*failed: str) -> Any:
    """Return a tale whose ledger holds these failures, the first of which was told already."""
    entries = [{"outcome": "failed", "kind": "training-job", "name": name, "why": "x"} for name in failed]
    ran = {"outcome": "ran", "kind": "training-job", "name": "fine", "why": ""}
    cloud = SimpleNamespace(ledger=lambda: [entries[0], ran, *entries[1:]])
    process = SimpleNamespace(poll=lambda: None)
    return SimpleNamespace(
        cloud=cloud, known={"failures told": 1}, server=SimpleNamespace(process=process), log=print
    )


def test_should_expect_the_failure_of_the_job_that_was_to_fail() -> None:
    told = tale("older", "watched-1")
    _told(told, "watched-1")
    require_no_new_failure(told)


@pytest.mark.parametrize("failed", [("older", "another"), ("older", "watched-1", "another")])
def test_should_expect_no_other_failure(failed: tuple[str, ...]) -> None:
    told = tale(*failed)
    _told(told, "watched-1")
    with pytest.raises(StoryError, match=r"failed in the background: .*another"):
        require_no_new_failure(told)
