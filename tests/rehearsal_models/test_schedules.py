"""When schedules fire, and how many instances a target wants."""

from datetime import UTC, datetime, timedelta

import pytest

from rehearsal.executors.scheduler import next_time, substitute
from rehearsal.executors.serving.scaling_rules import desired_count

ANCHOR = datetime(2026, 3, 1, 0, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "zone", "expected"),
    [
        ("rate(1 hour)", "UTC", ANCHOR + timedelta(hours=2)),
        ("rate(30 days)", "UTC", ANCHOR + timedelta(days=30)),
        ("cron(0 * ? * * *)", "UTC", datetime(2026, 3, 1, 2, 0, tzinfo=UTC)),
        ("cron(0 6 ? * MON *)", "UTC", datetime(2026, 3, 2, 6, 0, tzinfo=UTC)),
        ("cron(0 6 * * ? *)", "Europe/Berlin", datetime(2026, 3, 1, 5, 0, tzinfo=UTC)),
        ("at(2026-03-01T04:00:00)", "America/New_York", datetime(2026, 3, 1, 9, 0, tzinfo=UTC)),
        ("at(2026-03-01T00:00:00)", "UTC", None),
    ],
)
def test_should_find_the_next_time_of_a_schedule(
    expression: str, zone: str, expected: datetime | None
) -> None:
    after = ANCHOR + timedelta(hours=1, minutes=20)
    assert next_time(expression, after=after, anchor=ANCHOR, zone=zone) == expected


@pytest.mark.parametrize("expression", ["rate(0 hours)", "cron(0 * * * *)", "hourly"])
def test_should_refuse_an_expression_that_aws_refuses(expression: str) -> None:
    with pytest.raises(ValueError, match=r"rate must be positive|not a cron expression"):
        next_time(expression, after=ANCHOR, anchor=ANCHOR)


def test_should_substitute_the_context_attributes_of_scheduler() -> None:
    given = '{"Name": "monitor-<aws.scheduler.execution-id>", "At": "<aws.scheduler.scheduled-time>"}'
    context = {"execution-id": "e-1", "scheduled-time": "2026-03-01T00:10:00Z"}
    assert substitute(given, context) == '{"Name": "monitor-e-1", "At": "2026-03-01T00:10:00Z"}'


@pytest.mark.parametrize(
    ("values", "current", "expected"),
    [
        ([100.0] * 12 + [250.0, 250.0, 300.0], 1, 3),
        ([100.0] * 12 + [90.0, 250.0, 300.0], 1, 1),
        ([900.0] * 15, 2, 4),
        ([10.0] * 15, 3, 1),
        ([10.0] * 14 + [95.0], 3, 3),
        ([None] * 15, 3, 1),
    ],
)
def test_should_scale_by_the_tracked_metric(values: list[float | None], current: int, expected: int) -> None:
    assert desired_count(values, current=current, target=100, minimum=1, maximum=4) == expected
