"""How alarms judge data points, and metric math."""

from typing import Any

import pytest

from rehearsal.executors.alarms import judge
from rehearsal.executors.metrics import MathError, evaluate_queries

PERIODS = [0.0, 60.0, 120.0]


@pytest.mark.parametrize(
    ("points", "to_alarm", "missing", "before", "after"),
    [
        ([5, 6, 7], 3, "missing", "OK", "ALARM"),
        ([5, 1, 7], 3, "missing", "ALARM", "OK"),
        ([5, 1, 7], 2, "missing", "OK", "ALARM"),
        ([None, None, None], 1, "missing", "OK", "INSUFFICIENT_DATA"),
        ([None, None, None], 1, "notBreaching", "ALARM", "OK"),
        ([None, None, None], 1, "breaching", "OK", "ALARM"),
        ([None, None, None], 1, "ignore", "ALARM", "ALARM"),
        ([None, None, 7], 1, "notBreaching", "OK", "ALARM"),
        ([None, 7, 7], 3, "breaching", "OK", "ALARM"),
        ([None, 7, 7], 3, "missing", "OK", "OK"),
        ([None, 1, 1], 1, "missing", "INSUFFICIENT_DATA", "OK"),
    ],
)
def test_should_judge_data_points_and_missing_data(
    points: list[float | None], to_alarm: int, missing: str, before: str, after: str
) -> None:
    verdict = judge(
        points,
        comparison="GreaterThanThreshold",
        threshold=4,
        to_alarm=to_alarm,
        missing=missing,
        state=before,
    )
    assert verdict.state == after


@pytest.mark.parametrize(
    ("comparison", "value", "state"),
    [
        ("GreaterThanThreshold", 4, "OK"),
        ("GreaterThanOrEqualToThreshold", 4, "ALARM"),
        ("LessThanThreshold", 4, "OK"),
        ("LessThanOrEqualToThreshold", 4, "ALARM"),
    ],
)
def test_should_compare_as_the_operator_says(comparison: str, value: float, state: str) -> None:
    assert (
        judge([value], comparison=comparison, threshold=4, to_alarm=1, missing="missing", state="OK").state
        == state
    )


def evaluate(expression: str) -> dict[float, float]:
    """The expression over errors and requests."""
    series = {
        "errors": {0.0: 1.0, 60.0: 0.0},
        "requests": {0.0: 10.0, 60.0: 0.0, 120.0: 4.0},
    }
    queries: list[dict[str, Any]] = [
        {"Id": "e1", "Expression": expression, "ReturnData": True},
        *(
            {"Id": name, "MetricStat": {"Metric": {"MetricName": name}}, "ReturnData": False}
            for name in series
        ),
    ]
    return dict(evaluate_queries(queries, lambda stat: series[stat["Metric"]["MetricName"]], PERIODS))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("100 * errors / requests", {0.0: 10.0}),
        ("FILL(errors, 0) + requests", {0.0: 11.0, 60.0: 0.0, 120.0: 4.0}),
        ("IF(requests > 0, 100 * FILL(errors, 0) / requests, 0)", {0.0: 10.0, 60.0: 0.0, 120.0: 0.0}),
        ("IF(requests > 5 AND errors > 0, 1, 0)", {0.0: 1.0, 60.0: 0.0}),
        ("SUM([errors, requests])", {0.0: 11.0, 60.0: 0.0, 120.0: 4.0}),
        ("ABS(-requests)", {0.0: 10.0, 60.0: 0.0, 120.0: 4.0}),
        ("FILL(errors, REPEAT)", {0.0: 1.0, 60.0: 0.0, 120.0: 0.0}),
    ],
)
def test_should_evaluate_metric_math(expression: str, expected: dict[float, float]) -> None:
    assert evaluate(expression) == expected


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("ANOMALY_DETECTION_BAND(errors)", "ANOMALY_DETECTION_BAND with 1 arguments is not evaluated"),
        ("latency / requests", "there is no query with the id latency"),
        ("e1 + 1", "refer to each other in a circle: e1 -> e1"),
        ("100 *", "is no metric math expression"),
    ],
)
def test_should_refuse_metric_math_that_it_does_not_know(expression: str, message: str) -> None:
    with pytest.raises(MathError, match=message):
        evaluate(expression)
