"""Cells: every alarm of the deployed stage goes off once, tells the topic, and is over again.

What can be brought about cheaply is (a message that nobody handles, a function that is given nonsense, a
state machine whose input is wrong, a source that brings nothing); else the metric is published as its service
would publish it. The evidence says which.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
#: A queue tells its depth every five minutes, an alarm looks each minute.
MOST_MINUTES = 8


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
        self._sns = tale.cloud.client("sns")
        self._subscriptions = [
            self._sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn["Attributes"]["QueueArn"])[
                "SubscriptionArn"
            ]
            for topic in topics
        ]
        self._heard: dict[str, set[str]] = {}

    def close(self) -> None:
        """Take subscriptions and queue away."""
        for subscription in self._subscriptions:
            self._sns.unsubscribe(SubscriptionArn=subscription)
        self._sqs.delete_queue(QueueUrl=self._url)

    def states(self, name: str) -> set[str]:
        """States that the topic has told of an alarm."""
        while messages := self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10).get(
            "Messages"
        ):
            for message in messages:
                self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
                self._note(json.loads(message["Body"]).get("Message", ""))
        return self._heard.get(name, set())

    def _note(self, text: str) -> None:
        try:
            told = json.loads(text)
        except ValueError:
            return  # a notice in words, of something else
        if isinstance(told, dict) and "AlarmName" in told:
            self._heard.setdefault(told["AlarmName"], set()).add(told["NewStateValue"])


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


PUBLISHED = "published as its service does"
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
    return PUBLISHED, lambda: None


# -- the cells -------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Seen:
    """What was seen of an alarm."""

    how: str
    tells: bool
    why: str = ""
    wrong: str = ""

    def shown(self) -> dict[str, str]:
        """As evidence."""
        told = "the notices' topic" if self.tells else "nobody: its action is no notice"
        return {"how": self.how, "why": self.why, "told": told}


def _went(tale: Tale) -> dict[str, Seen]:
    """Let every alarm of the stage go off and be over, all of them together, once; what was seen by name."""
    if "alarms that went off" not in tale.known:
        tale.known["alarms that went off"] = _fire_all(tale, _alarms(tale))
        # What was made to fail on purpose is no failure of a step.
        tale.cloud.idle()
        tale.known["failures told"] = sum(e["outcome"] == "failed" for e in tale.cloud.ledger())
    found: dict[str, Seen] = tale.known["alarms that went off"]
    return found


def _fire_all(tale: Tale, alarms: list[Alarm]) -> dict[str, Seen]:
    _listener(tale)
    longest = max(span_seconds(alarm) for alarm in alarms)
    # First what only time brings about: what is published would be long ago after it. Where nothing has ever
    # come, the alarm stands since the deploy, when nobody listened.
    silent = [alarm for alarm in alarms if alarm.get("TreatMissingData") == "breaching"]
    for alarm in silent:
        _publish(tale, alarm, [calm(alarm)])
    _await(tale, {alarm["AlarmName"] for alarm in silent}, "OK")
    tale.cloud.pass_over(hours=longest / 3600 + 0.1)
    undo, seen = [], dict[str, Seen]()
    for alarm in alarms:
        how, take_back = _bring_about(tale, alarm)
        undo.append(take_back)
        tells = any(":sns:" in action for action in alarm.get("AlarmActions", ()))
        seen[alarm["AlarmName"]] = Seen(how=how, tells=tells)
    published = [alarm for alarm in alarms if seen[alarm["AlarmName"]].how == PUBLISHED]
    for name, why in _await(tale, set(seen), "ALARM", published).items():
        seen[name].why = why[:160]
    for take_back in undo:
        take_back()
    tale.cloud.pass_over(hours=longest / 3600 + 0.1)
    for alarm in alarms:
        if alarm.get("TreatMissingData") != "notBreaching":
            _publish(tale, alarm, [calm(alarm)])
    over = _await(tale, set(seen), "OK")
    for name, one in seen.items():
        if not one.why:
            one.wrong = f"{name} did not go off ({one.how}): {_state(tale, name).get('StateReason')}"
        elif name not in over:
            one.wrong = f"{name} is not over: {_state(tale, name).get('StateReason')}"
    return _heard(tale, seen)


def _await(tale: Tale, names: set[str], state: str, published: Sequence[Alarm] = ()) -> dict[str, str]:
    """Let minutes pass until each alarm has been in ``state``; why, by the name of those that were.

    ``published``: whose metric is published anew until then. An alarm that looks at one minute does not see
    what was published before the last.
    """
    found: dict[str, str] = {}
    for _ in range(MOST_MINUTES):
        for alarm in published:
            if alarm["AlarmName"] not in found:
                _publish(tale, alarm, breaching(alarm))
        # One minute at a time: an alarm on minutes is over in the next.
        tale.cloud.advance(minutes=1)
        for alarm in _alarms(tale):
            if alarm["AlarmName"] in names - set(found) and alarm["StateValue"] == state:
                found[alarm["AlarmName"]] = str(alarm.get("StateReason") or state)
        if set(found) == names:
            break
    return found


def _heard(tale: Tale, seen: dict[str, Seen]) -> dict[str, Seen]:
    """Note whose going off, or all-clear, nobody was told."""
    listener, wanted = _listener(tale), {"ALARM", "OK"}
    telling = {name for name, one in seen.items() if one.tells and not one.wrong}
    try:
        wait_until(
            "every notice", lambda: all(wanted <= listener.states(name) for name in telling), seconds=60
        )
    except StoryError:
        for name in telling:
            missing = wanted - listener.states(name)
            if missing:
                seen[name].wrong = f"{name}: nobody was told of {', '.join(sorted(missing))}"
    tale.known.pop("alarm listener").close()
    return seen


def _of_kind(kind: str, tale: Tale, evidence: Evidence) -> None:
    names = [alarm["AlarmName"] for alarm in _alarms(tale) if runbook_of(alarm) == kind]
    require(names, f"no alarm of the deployed stage names docs/runbooks/{kind}.md")
    went = _went(tale)
    for name in names:
        evidence[name] = went[name].shown()
    wrong = [went[name].wrong for name in names if went[name].wrong]
    require(not wrong, "; ".join(wrong))


def _all(tale: Tale, evidence: Evidence) -> None:
    kinds = {runbook_of(alarm) for alarm in _alarms(tale)}
    went = _went(tale)
    caused = [one.how for one in went.values() if one.how.startswith("caused")]
    evidence |= {
        "alarms": len(went),
        "went_off_told_and_were_over": sum(not one.wrong for one in went.values()),
        "caused": {how: caused.count(how) for how in sorted(set(caused))},
        "published": len(went) - len(caused),
        "runbooks": sorted(kinds),
        "told_the_topic": sum(one.tells for one in went.values()),
    }
    wrong = [one.wrong for one in went.values() if one.wrong]
    require(not wrong, "; ".join(wrong))
    unnamed = kinds - set(KINDS)
    require(not unnamed, f"no cell shows the alarms of {', '.join(sorted(unnamed))}")


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
