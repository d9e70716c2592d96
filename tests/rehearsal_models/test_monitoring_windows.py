"""What an execution of Model Monitor judges: its window, and labels merged with what was captured."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rehearsal.executors.ground_truth_merge import merged_lines
from rehearsal.executors.monitoring import _offset, _window
from rehearsal.services.engine import ApiError

WHEN = datetime(2026, 1, 9, 13, 5, tzinfo=UTC)


def captured(event: str, inference: str | None = None) -> str:
    metadata = {"eventId": event} | ({} if inference is None else {"inferenceId": inference})
    return json.dumps({"captureData": {"of": event}, "eventMetadata": metadata, "eventVersion": "0"})


def truth(name: str, data: str) -> str:
    return json.dumps(
        {"groundTruthData": {"data": data, "encoding": "CSV"}, "eventMetadata": {"eventId": name}}
    )


def test_should_merge_by_the_callers_id_and_else_by_the_services_own() -> None:
    lines = merged_lines(
        [captured("e1", "a"), captured("e2"), captured("e3", "c")],
        [truth("a", "1"), truth("e2", "0"), truth("e3", "1"), truth("z", "1")],
    )
    found = [json.loads(line) for line in lines]
    # The third has an id of its caller: its event id is none.
    assert [(one["captureData"]["of"], one["groundTruthData"]["data"]) for one in found] == [
        ("e1", "1"),
        ("e2", "0"),
    ]


def test_should_take_the_last_of_several_labels() -> None:
    [line] = merged_lines([captured("e1", "a")], [truth("a", "0"), truth("a", "1")])
    assert json.loads(line)["groundTruthData"]["data"] == "1"


@pytest.mark.parametrize(
    ("config", "source", "hours"),
    [
        ({}, {}, (12, 13)),
        ({"DataAnalysisStartTime": "-PT6H", "DataAnalysisEndTime": "-PT0H"}, {}, (7, 13)),
        ({}, {"StartTimeOffset": "-PT2H", "EndTimeOffset": "-PT2H"}, (10, 11)),
    ],
)
def test_should_judge_the_hour_before_unless_told_otherwise(
    config: dict[str, Any], source: dict[str, Any], hours: tuple[int, int]
) -> None:
    begin, end = _window({"ScheduleConfig": config}, source, WHEN)
    assert (begin, end) == tuple(datetime(2026, 1, 9, hour, tzinfo=UTC) for hour in hours)


def test_should_count_days_and_refuse_what_is_no_offset() -> None:
    # The example of the Developer Guide: -P8D to -P1D.
    begin, end = _window({}, {"StartTimeOffset": "-P8D", "EndTimeOffset": "-P1D"}, WHEN)
    assert end - begin == timedelta(days=7, hours=1)
    for text in ("-P7H", "PT", "P", "7H"):
        with pytest.raises(ApiError, match="is no offset"):
            _offset(text)
