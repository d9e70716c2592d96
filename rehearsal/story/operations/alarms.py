"""Cells: every alarm of the deployed stage goes off once, tells the topic, and is over again.

What can be brought about cheaply is (a message that nobody handles, a function that is given nonsense, a
state machine whose input is wrong, a source that brings nothing); else the metric is published as its service
would publish it. The evidence says which.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from rehearsal.story.operations.cells import Cell
from rehearsal.story.operations.monitors import WORKLOAD
from rehearsal.story.telling import Evidence, StoryError, require, wait_until

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["CELLS", "ORDER", "WORKLOAD", "breaching", "calm", "runbook_of", "span_seconds"]

CHAPTER = "Alarms"
#: Time passes here, and monitors and sources notice; what others look at comes before.
ORDER = 85

Alarm = dict[str, Any]
#: The pages of docs/runbooks: a kind of alarm each.
KINDS: Mapping[str, str] = {
    "attribution": "The model goes by other features",
    "batch-not-landed": "A batch could not be landed",
    "bias": "Answers favour a group",
    "conversion-fails": "Records do not convert",
    "dead-letters": "Something waits in a dead-letter queue",
    "delivery-late": "The raw zone is stale",
    "drift": "Traffic violates its baseline",
    "endpoint-errors": "The endpoint answers with errors",
    "endpoint-latency": "The endpoint is slow",
    "endpoint-silent": "Nobody asks for predictions",
    "function-fails": "A function fails",
    "functions-throttled": "Functions are throttled",
    "labelling": "Labelling stands still",
    "quality": "Answers are worse than they were",
    "records-kept-aside": "Lambda gave up records",
    "source-stale": "A source brings nothing",
    "stream-read-late": "The stream is read late",
    "training-failed": "A training failed",
    "transform-fails": "Firehose cannot transform records",
    "unjudged": "A monitor could not judge",
}
_MARGIN = 0.25


def runbook_of(alarm: Mapping[str, Any]) -> str:
    """The page that the alarm's description ends with.

    Raises:
        StoryError: it names none.
    """
    found = re.search(r"Runbook: docs/runbooks/([a-z0-9-]+)\.md$", str(alarm.get("AlarmDescription", "")))
    if found is None:
        text = alarm.get("AlarmDescription")
        raise StoryError(f"the alarm {alarm['AlarmName']} names no runbook: {text!r}")
    return found[1]


def _metric_of(alarm: Mapping[str, Any]) -> dict[str, Any]:
    """The metric whose values decide, with period, of a plain alarm or of one with metric math."""
    if "MetricName" in alarm:
        return {**alarm, "Period": int(alarm["Period"])}
    stats = [query["MetricStat"] for query in alarm["Metrics"] if "MetricStat" in query]
    return {**stats[0]["Metric"], "Period": int(stats[0]["Period"])}


def span_seconds(alarm: Mapping[str, Any]) -> float:
    """How long the periods are that the alarm looks at."""
    return float(_metric_of(alarm)["Period"] * int(alarm["EvaluationPeriods"]))


def breaching(alarm: Mapping[str, Any]) -> list[float]:
    """A value per evaluation period, each beyond the threshold."""
    threshold = float(alarm["Threshold"])
    step = max(abs(threshold) * _MARGIN, 1.0)
    if str(alarm["ComparisonOperator"]).startswith("Greater"):
        value = threshold + step
    else:
        # No count and no share is below zero.
        value = max(threshold - step, 0.0)
    return [value] * int(alarm["EvaluationPeriods"])


def calm(alarm: Mapping[str, Any]) -> float:
    """A value on the good side of the threshold."""
    threshold = float(alarm["Threshold"])
    step = max(abs(threshold) * _MARGIN, 1.0)
    greater = str(alarm["ComparisonOperator"]).startswith("Greater")
    return max(threshold - step, 0.0) if greater else threshold + step


class Listener:
    """A queue that hears what the notices' topics say."""

    def __init__(self, tale: Tale, topics: set[str]) -> None:
        self._sqs = tale.cloud.client("sqs")
        self._url = self._sqs.create_queue(QueueName="alarm-listener")["QueueUrl"]
        arn = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=["QueueArn"])
        for topic in topics:
            tale.cloud.client("sns").subscribe(
                TopicArn=topic, Protocol="sqs", Endpoint=arn["Attributes"]["QueueArn"]
            )
        self._heard: dict[str, set[str]] = {}

    def states(self, name: str) -> set[str]:
        """States that the topic has told of an alarm."""
        answer = self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10, WaitTimeSeconds=0)
        for message in answer.get("Messages", ()):
            self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
            text = json.loads(message["Body"]).get("Message", "")
            try:
                told = json.loads(text)
            except ValueError:
                continue  # a notice in words, of something else
            if isinstance(told, dict) and "AlarmName" in told:
                self._heard.setdefault(told["AlarmName"], set()).add(told["NewStateValue"])
        return self._heard.get(name, set())


def _alarms(tale: Tale) -> list[Alarm]:
    pages = tale.cloud.client("cloudwatch").get_paginator("describe_alarms").paginate()
    own = {stack.name for stack in tale.stage_stacks}
    return [
        alarm
        for page in pages
        for alarm in page["MetricAlarms"]
        if any(str(alarm["AlarmName"]).startswith(name) for name in own)
    ]


def _listener(tale: Tale) -> Listener:
    if "alarm listener" not in tale.known:
        topics = {
            action for alarm in _alarms(tale) for action in alarm.get("AlarmActions", ()) if ":sns:" in action
        }
        tale.known["alarm listener"] = Listener(tale, topics)
    found: Listener = tale.known["alarm listener"]
    return found


def _state(tale: Tale, name: str) -> Alarm:
    found: Alarm = tale.cloud.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"][0]
    return found


def _publish(tale: Tale, alarm: Alarm, values: list[float]) -> None:
    metric = _metric_of(alarm)
    tale.cloud.server.control(
        "POST",
        "/metrics",
        {
            "namespace": metric["Namespace"],
            "name": metric["MetricName"],
            "dimensions": {d["Name"]: d["Value"] for d in metric.get("Dimensions", ())},
            "values": values,
            "apart_seconds": metric["Period"],
            "ago_seconds": 1,
        },
    )


# -- what brings an alarm about --------------------------------------------------------------------------


def _dimension(alarm: Alarm, name: str) -> str | None:
    return next((d["Value"] for d in alarm.get("Dimensions", ()) if d["Name"] == name), None)


def _message_nobody_handles(tale: Tale, alarm: Alarm) -> Callable[[], None] | None:
    """Leave a message in the queue that the alarm watches; what is returned takes it away."""
    queue = _dimension(alarm, "QueueName")
    if alarm.get("MetricName") != "ApproximateNumberOfMessagesVisible" or queue is None:
        return None
    sqs = tale.cloud.client("sqs")
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"left by": "the rehearsal"}))

    def take_away() -> None:
        for message in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", ()):
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    return take_away


def _nonsense_for_a_function(tale: Tale, alarm: Alarm) -> Callable[[], None] | None:
    """Give the function an event that it cannot understand."""
    function = _dimension(alarm, "FunctionName")
    if (alarm.get("Namespace"), alarm.get("MetricName")) != ("AWS/Lambda", "Errors") or function is None:
        return None
    answer = tale.cloud.client("lambda").invoke(FunctionName=function, Payload=b'{"no": "event"}')
    # One that looks at the account and not at its event does not mind.
    return (lambda: None) if "FunctionError" in answer else None


def _input_that_no_state_takes(tale: Tale, alarm: Alarm) -> Callable[[], None] | None:
    """Start the state machine with an input that none of its states can work with."""
    machine = _dimension(alarm, "StateMachineArn")
    if alarm.get("MetricName") != "ExecutionsFailed" or machine is None:
        return None
    states = tale.cloud.client("stepfunctions")
    arn = states.start_execution(stateMachineArn=machine, input='{"no": "input"}')["executionArn"]
    try:
        status = wait_until(
            "the end of the execution",
            lambda: s if (s := states.describe_execution(executionArn=arn)["status"]) != "RUNNING" else None,
            seconds=15,
        )
    except StoryError:
        states.stop_execution(executionArn=arn)
        return None
    return (lambda: None) if status == "FAILED" else None


def _silence(_tale: Tale, alarm: Alarm) -> Callable[[], None] | None:
    """Where nothing at all is the trouble, time has to pass, and nothing else."""
    missing = alarm.get("TreatMissingData") == "breaching"
    return (lambda: None) if missing else None


_CAUSES = (
    ("a message that nobody handles", _message_nobody_handles),
    ("an event that the function cannot understand", _nonsense_for_a_function),
    ("an input that no state takes", _input_that_no_state_takes),
    ("nothing came for as long as the alarm waits", _silence),
)


def _bring_about(tale: Tale, alarm: Alarm) -> tuple[str, Callable[[], None]]:
    for title, cause in _CAUSES:
        undo = cause(tale, alarm)
        if undo is not None:
            return f"caused: {title}", undo
    _publish(tale, alarm, breaching(alarm))
    return "published as its service does", lambda: None


# -- the cells -------------------------------------------------------------------------------------------


def _fire(tale: Tale, alarm: Alarm) -> dict[str, Any]:
    """Let one alarm go off and be over; return what was seen."""
    name, listener = alarm["AlarmName"], _listener(tale)
    tells = any(":sns:" in action for action in alarm.get("AlarmActions", ()))
    how, undo = _bring_about(tale, alarm)
    if how.endswith("waits"):
        tale.cloud.pass_over(hours=span_seconds(alarm) / 3600)
    # A queue tells its depth every five minutes, an alarm looks each minute.
    for _ in range(3):
        tale.cloud.advance(minutes=2)
        if (went := _state(tale, name))["StateValue"] == "ALARM":
            break
    require(went["StateValue"] == "ALARM", f"{name} is {went['StateValue']}: {went.get('StateReason')}")
    seen = {"how": how, "why": went.get("StateReason", "")[:160]}
    if tells:
        wait_until(f"a notice of {name}", lambda: "ALARM" in listener.states(name), seconds=20)
        seen["told"] = "the notices' topic"
    else:
        seen["told"] = "nobody: its action is a policy of scaling"
    undo()
    missing = alarm.get("TreatMissingData")
    tale.cloud.pass_over(hours=span_seconds(alarm) / 3600 + 0.1)
    if missing != "notBreaching":
        _publish(tale, alarm, [calm(alarm)])
    for _ in range(3):
        tale.cloud.advance(minutes=2)
        if (over := _state(tale, name))["StateValue"] == "OK":
            break
    require(over["StateValue"] == "OK", f"{name} stays {over['StateValue']}: {over.get('StateReason')}")
    if tells and alarm.get("OKActions"):
        wait_until(f"the all-clear of {name}", lambda: "OK" in listener.states(name), seconds=20)
    tale.known.setdefault("alarms that went off", {})[name] = seen
    return seen


def _of_kind(kind: str, tale: Tale, evidence: Evidence) -> None:
    mine = [alarm for alarm in _alarms(tale) if runbook_of(alarm) == kind]
    require(mine, f"no alarm of the deployed stage names docs/runbooks/{kind}.md")
    for alarm in mine:
        evidence[alarm["AlarmName"]] = _fire(tale, alarm)
    # What was made to fail on purpose is no failure of a step.
    tale.cloud.idle()
    tale.known["failures told"] = sum(e["outcome"] == "failed" for e in tale.cloud.ledger())


def _all(tale: Tale, evidence: Evidence) -> None:
    went: dict[str, dict[str, str]] = tale.known.get("alarms that went off", {})
    names = {alarm["AlarmName"] for alarm in _alarms(tale)}
    left = names - set(went)
    # Played alone, the cell lets all of them go off by itself.
    for alarm in [a for a in _alarms(tale) if a["AlarmName"] in left]:
        _fire(tale, alarm)
    went = tale.known["alarms that went off"]
    tale.cloud.idle()
    tale.known["failures told"] = sum(e["outcome"] == "failed" for e in tale.cloud.ledger())
    caused = sorted(name for name in names if went[name]["how"].startswith("caused"))
    evidence |= {
        "alarms": len(names),
        "went_off_and_were_over": len(names & set(went)),
        "caused": len(caused),
        "published": len(names) - len(caused),
        "runbooks": sorted({runbook_of(alarm) for alarm in _alarms(tale)}),
        "told_the_topic": sum(went[name]["told"].startswith("the notices") for name in names),
    }


CELLS = (
    *(
        Cell(
            id=f"alarm.{kind}",
            title=f"Alarm: {title}",
            chapter=CHAPTER,
            # Only an alarm on an endpoint's silence waits for the endpoint.
            ground="serving" if kind == "endpoint-silent" else "deployed",
            run=partial(_of_kind, kind),
            capabilities=("observe.dashboards",),
        )
        for kind, title in KINDS.items()
    ),
    Cell(
        id="alarm.all",
        title="Every alarm of the stage went off once, told people, and was over",
        chapter=CHAPTER,
        ground="deployed",
        run=_all,
        capabilities=("observe.dashboards",),
    ),
)
