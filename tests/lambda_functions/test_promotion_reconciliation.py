"""What no event has told of: the hourly look at what is open, and all that it leaves alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import test_challenger as tests_of_tests
from model_promotion.challenger import ATTEMPTS
from model_promotion.cloud import NONE
from model_promotion.logic import Event, handle
from model_promotion.reconciliation import GRACE, RECONCILIATION
from test_model_promotion import ONE, SETTINGS, THREE, TWO, FakeCloud, act

HOUR = timedelta(hours=1)


def looked(at: datetime) -> dict[str, Any]:
    """What the schedule sends."""
    return {"id": "hour", "detail-type": RECONCILIATION, "time": at.isoformat(), "detail": {}}


def later(cloud: FakeCloud, by: timedelta = HOUR) -> dict[str, Any]:
    cloud.clock += by
    return looked(cloud.clock)


@pytest.fixture
def cloud() -> FakeCloud:
    """Package 1 is in service."""
    cloud = FakeCloud()
    assert act(cloud, cloud.approve(ONE)) == "promoted"
    cloud.finish(succeeded=True)
    return cloud


def test_should_promote_an_approved_version_whose_event_was_lost(cloud: FakeCloud) -> None:
    cloud.approve(TWO)

    outcome = handle(Event.parse(later(cloud)), cloud, SETTINGS)

    assert (outcome.action, outcome.package) == ("promoted", TWO)
    assert "its event was lost" in outcome.why
    assert (cloud.parameter, cloud.attempted) == (TWO, TWO)
    assert cloud.versions[-1].approved_at == cloud.packages[TWO].modified


def test_should_promote_the_first_version_too() -> None:
    cloud = FakeCloud()
    cloud.approve(ONE)

    assert act(cloud, later(cloud)) == "promoted"


def test_should_promote_once_when_it_looks_twice_and_the_event_comes_after_all(cloud: FakeCloud) -> None:
    event = cloud.approve(TWO)
    look = later(cloud)
    act(cloud, look)
    cloud.finish(succeeded=True)

    assert [act(cloud, again) for again in (look, event, later(cloud))] == ["ignored"] * 3
    assert (cloud.updates, len(cloud.versions)) == (2, 3)


def test_should_leave_what_was_just_approved_to_its_own_event(cloud: FakeCloud) -> None:
    cloud.approve(TWO)

    assert act(cloud, later(cloud, GRACE - timedelta(seconds=1))) == "ignored"
    assert cloud.parameter == ONE


def test_should_take_the_newest_of_several(cloud: FakeCloud) -> None:
    cloud.approve(THREE)
    cloud.approve(TWO)

    act(cloud, later(cloud))
    cloud.finish(succeeded=True)

    assert cloud.serves == THREE
    assert act(cloud, later(cloud)) == "ignored"


def test_should_not_bring_back_an_older_version_whatever_changed_of_it(cloud: FakeCloud) -> None:
    act(cloud, cloud.approve(THREE))
    cloud.finish(succeeded=True)
    cloud.approve(TWO)
    cloud.packages[ONE] = replace(cloud.packages[ONE], modified=cloud.tick())

    assert act(cloud, later(cloud)) == "ignored"
    assert cloud.parameter == THREE


def test_should_keep_to_the_older_version_that_a_person_went_back_to(cloud: FakeCloud) -> None:
    act(cloud, cloud.approve(TWO))
    cloud.finish(succeeded=True)
    act(cloud, cloud.approve(ONE))
    cloud.finish(succeeded=True)

    assert act(cloud, later(cloud)) == "ignored"
    assert cloud.serves == ONE


def test_should_leave_alone_what_was_approved_before_the_parameter_was_made() -> None:
    cloud = FakeCloud()
    cloud.approve(TWO)
    cloud.versions = [replace(cloud.versions[0], modified=cloud.tick())]

    assert act(cloud, later(cloud)) == "ignored"


def test_should_refuse_what_is_not_good_enough_as_its_event_would_have(cloud: FakeCloud) -> None:
    cloud.approve(TWO, auc=0.5)

    assert act(cloud, later(cloud)) == "refused"
    assert cloud.packages[TWO].approval_status == "Rejected"
    assert act(cloud, later(cloud)) == "ignored"


def test_should_update_a_stack_that_does_not_follow_the_parameter(cloud: FakeCloud) -> None:
    event = cloud.approve(TWO)
    cloud.crash_before = "update"
    with pytest.raises(Exception, match="before update"):
        act(cloud, event)
    assert act(cloud, later(cloud, timedelta(minutes=1))) == "ignored"

    assert act(cloud, later(cloud)) == "promoted"
    assert (cloud.attempted, len(cloud.versions)) == (TWO, 3)


def test_should_undo_a_rollback_that_nobody_told_of(cloud: FakeCloud) -> None:
    act(cloud, cloud.approve(TWO))
    cloud.finish(succeeded=False)

    assert act(cloud, later(cloud)) == "restored"
    assert (cloud.parameter, cloud.packages[TWO].approval_status) == (ONE, "Rejected")
    assert act(cloud, later(cloud)) == "ignored"


@pytest.mark.parametrize("status", ["UPDATE_IN_PROGRESS", "UPDATE_ROLLBACK_FAILED"])
def test_should_ask_again_an_hour_later_when_the_stack_cannot_be_updated(
    cloud: FakeCloud, status: str
) -> None:
    cloud.approve(TWO)
    cloud.status = status

    assert act(cloud, later(cloud)) == "ignored"
    assert cloud.parameter == ONE


def test_should_do_nothing_before_anything_was_approved() -> None:
    cloud = FakeCloud()

    assert act(cloud, later(cloud)) == "ignored"


# --- with tests of challengers ---


@pytest.fixture
def fleet() -> tests_of_tests.Fleet:
    return tests_of_tests.serving()


def hour(fleet: tests_of_tests.Fleet, by: timedelta = HOUR) -> str:
    fleet.clock += by
    return tests_of_tests.act(fleet, looked(fleet.clock))


def test_should_begin_the_test_of_a_version_whose_approval_was_lost(fleet: tests_of_tests.Fleet) -> None:
    fleet.approve(tests_of_tests.TWO)

    assert hour(fleet) == "testing"
    assert len(fleet.planned) == 1


def test_should_go_on_with_a_test_that_the_stack_has_not_begun(fleet: tests_of_tests.Fleet) -> None:
    event = fleet.approve(tests_of_tests.TWO)
    before = fleet.update
    fleet.update = lambda *_: False
    tests_of_tests.act(fleet, event)
    fleet.update = before

    assert hour(fleet, timedelta(minutes=1)) == "ignored"
    assert hour(fleet) == "testing"
    fleet.finish()
    assert fleet.runs == (tests_of_tests.ONE, tests_of_tests.TWO)


def test_should_leave_a_test_alone_while_it_goes_on(fleet: tests_of_tests.Fleet) -> None:
    tests_of_tests.tried(fleet)
    fleet.approve(tests_of_tests.THREE)

    assert hour(fleet) == "ignored"
    assert fleet.runs == (tests_of_tests.ONE, tests_of_tests.TWO)


def test_should_reject_a_challenger_whose_alarm_nobody_told_of(fleet: tests_of_tests.Fleet) -> None:
    tests_of_tests.tried(fleet)
    fleet.ringing.add(tests_of_tests.ALARM)

    assert hour(fleet) == "rejected"
    fleet.finish()
    assert fleet.runs == (tests_of_tests.ONE, NONE)


def test_should_judge_a_test_whose_end_nobody_told_of(fleet: tests_of_tests.Fleet) -> None:
    tests_of_tests.tried(fleet)

    assert hour(fleet, timedelta(days=1, hours=ATTEMPTS + 1)) == "promoted"
    fleet.finish()
    assert fleet.runs == (tests_of_tests.TWO, NONE)


def test_should_conclude_a_test_that_was_cut_off_before_the_stack_followed(
    fleet: tests_of_tests.Fleet,
) -> None:
    tests_of_tests.tried(fleet)
    # The two parameters are written, the stack is not updated.
    fleet.put(tests_of_tests.CHAMPION, tests_of_tests.TWO, "")
    fleet.put(tests_of_tests.CHALLENGER, NONE, "")

    assert hour(fleet) == "promoted"
    fleet.finish()
    assert fleet.runs == (tests_of_tests.TWO, NONE)
