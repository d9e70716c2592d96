"""Chapter: the monitor is quiet on usual traffic and speaks on changed traffic."""

from __future__ import annotations

from typing import Any

from rehearsal.story.ingestion import deliver, plain, send
from rehearsal.story.judging import judge, metric_of
from rehearsal.story.lake import read_curated
from rehearsal.story.mailbox import keep_mailbox
from rehearsal.story.processing import check_curated, curate
from rehearsal.story.tale import Tale
from rehearsal.story.telling import Evidence, Step, StoryError, require, wait_until
from rehearsal.story.traffic import ask, questions

__all__ = ["STEPS"]

CHAPTER = "Watch"
#: A schedule may fire before the traffic's hour is over; the next one judges it.
MOST_RUNS = 3


def _reports(tale: Tale) -> set[str]:
    uri = tale.outputs("Operations")["MonitoringUri"]
    return set(tale.cloud.objects.list(uri, suffix="report.json"))


def _new_reports(tale: Tale, seen: set[str]) -> set[str]:
    found: set[str] = wait_until(
        "a report of the monitor", lambda: _reports(tale) - seen, seconds=180, every=0.5
    )
    return found


def _next_verdict(tale: Tale, evidence: Evidence) -> dict[str, Any]:
    """Let the clock run to the monitor's next judged report; return it with its violations."""
    every = tale.workload.monitoring.every_hours
    seen = _reports(tale)
    unjudged = []
    for _ in range(MOST_RUNS):
        fired = tale.cloud.advance(hours=every)
        errors = [f"{f['title']}: {f['error']}" for f in fired if f.get("error")]
        require(not errors, f"a schedule failed: {'; '.join(errors)}")
        if tale.workload.monitoring.engine == "model_monitor":
            # A window without data has no run: Model Monitor fails it before our image sees it.
            tale.cloud.idle()
            new = _reports(tale) - seen
            unjudged += [] if new else ["a window without data"]
        else:
            new = _new_reports(tale, seen)
        seen |= new
        found = [(uri, tale.cloud.objects.read_json(uri)) for uri in sorted(new)]
        judged = [(uri, report) for uri, report in found if report["judged"]]
        unjudged += [report["reason"] for _, report in found if not report["judged"]]
        if judged:
            uri, report = judged[-1]
            evidence |= {
                "schedule": tale.outputs("Operations")["MonitorScheduleName"],
                "report": uri,
                "window": report["window"],
                "records_judged": report["records_judged"],
                "violations": len(report["violations"]),
                "runs_without_evidence_before": len(unjudged),
            }
            return dict(report)
    raise StoryError(f"the monitor judged nothing in {MOST_RUNS} runs: {'; '.join(unjudged)}")


def _alarm(tale: Tale, output: str) -> dict[str, Any]:
    name = tale.outputs("Operations")[output]
    found = tale.cloud.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
    require(found, f"there is no alarm {name}")
    alarm: dict[str, Any] = found[0]
    return alarm


def _quiet(tale: Tale, evidence: Evidence) -> None:
    report = _next_verdict(tale, evidence)
    tale.known["usual drift"] = {d["feature"]: d["value"] for d in report["drift"]}
    require(
        not report["violations"],
        f"usual traffic was found to violate: {[v['description'] for v in report['violations'][:3]]}",
    )
    evidence["drift_alarm"] = _alarm(tale, "DriftAlarmName")["StateValue"]
    require(evidence["drift_alarm"] != "ALARM", "the drift alarm is in ALARM without a violation")


def _pause(tale: Tale, evidence: Evidence) -> None:
    # What people are told from here on is read later.
    keep_mailbox(tale)
    hours = tale.workload.retraining.cooldown_hours
    # Nothing is sent meanwhile: a monitor of every hour would only find again that there is nothing to judge.
    evidence |= {"hours": hours, "schedules_passed_over": tale.cloud.pass_over(hours=hours)}


def _new_claims(tale: Tale, evidence: Evidence) -> None:
    batch = send(tale, plain(tale.inputs.changed), evidence)
    deliver(tale, batch, evidence)
    report = curate(tale, evidence)
    check_curated(tale, evidence, report)
    identifier = tale.contract.identifier
    curated = read_curated(tale, [identifier, "record_id"])
    kept = set(curated["record_id"].to_pylist())
    older = len(set(batch.ids) - kept)
    evidence["in_the_curated_zone"] = len(batch.messages) - older
    require(not older, f"{older} records were not replaced by the version that was sent last")


def _changed_traffic(tale: Tale, evidence: Evidence) -> None:
    records = tale.inputs.changed_live
    usual = judge(tale.inputs.live, tale.known["usual answers"], tale.contract)
    answers = ask(tale, questions(tale, records))
    changed = judge(records, answers, tale.contract)
    tale.known["changed answers"] = answers
    evidence |= {
        "requests": len(answers),
        "changed_by": tale.inputs.change,
        "on_usual_records": usual,
        "on_changed_records": changed,
    }
    tale.report.drift |= {"metric": metric_of(tale.contract), "usual": usual, "before": changed}


def _violations(tale: Tale, evidence: Evidence) -> None:
    report = _next_verdict(tale, evidence)
    usual: dict[str, float] = tale.known["usual drift"]
    tale.report.drift |= {
        "violations": report["violations"],
        "features": [
            {
                "feature": d["feature"],
                "distance": d["distance"],
                "before": usual.get(d["feature"]),
                "after": d["value"],
                "threshold": d["threshold"],
            }
            for d in report["drift"]
        ],
    }
    evidence["checks"] = sorted({v["constraint_check_type"] for v in report["violations"]})
    evidence["features"] = [v["feature_name"] for v in report["violations"]]
    require(
        len(report["violations"]) >= tale.workload.monitoring.alarm_after_violations,
        "changed traffic was not found to violate anything",
    )


def _alarmed(tale: Tale, evidence: Evidence) -> None:
    alarm = wait_until(
        "the drift alarm",
        lambda: found if (found := _alarm(tale, "DriftAlarmName"))["StateValue"] == "ALARM" else None,
        seconds=60,
    )
    evidence |= {
        "alarm": alarm["AlarmName"],
        "state": alarm["StateValue"],
        "why": alarm.get("StateReason"),
        "metric": f"{alarm.get('Namespace')} {alarm.get('MetricName')}",
    }


STEPS = (
    Step(
        id="monitor-quiet",
        title="Monitor on usual traffic: no violation",
        chapter=CHAPTER,
        run=_quiet,
        capabilities=lambda w: (
            "monitor.data",
            *(("monitor.managed",) if w.monitoring.engine == "model_monitor" else ()),
        ),
    ),
    Step(
        id="pause",
        title="The cooldown after the first training passes",
        chapter=CHAPTER,
        run=_pause,
        capabilities=lambda _: (),
    ),
    Step(
        id="new-claims",
        title="The world changes: labelled records of the new world arrive and become features",
        chapter=CHAPTER,
        run=_new_claims,
        capabilities=lambda _: ("stream.kinesis", "stream.firehose", "process.spark"),
    ),
    Step(
        id="changed-traffic",
        title="Changed records are scored; the model is worse at them",
        chapter=CHAPTER,
        run=_changed_traffic,
        capabilities=lambda _: ("serve.realtime",),
    ),
    Step(
        id="monitor-drift",
        title="Monitor on changed traffic: violations",
        chapter=CHAPTER,
        run=_violations,
        capabilities=lambda _: ("monitor.data",),
    ),
    Step(
        id="alarm",
        title="The drift alarm goes off",
        chapter=CHAPTER,
        run=_alarmed,
        capabilities=lambda _: ("observe.dashboards",),
    ),
)
