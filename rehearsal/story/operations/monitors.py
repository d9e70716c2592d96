"""Cells of the four monitors: quiet on usual traffic, heard when the world has changed, never silent for
want of evidence.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rehearsal.story.ingestion import deliver, json_lines, plain, send
from rehearsal.story.judging import judge, metric_of
from rehearsal.story.operations.cells import Cell
from rehearsal.story.processing import curate
from rehearsal.story.serving import parameter_value
from rehearsal.story.telling import Evidence, StoryError, require, wait_until
from rehearsal.story.traffic import Answer, ask, inference_id, questions

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = [
    "CELLS",
    "MOST_HOURS",
    "PREFIXES",
    "WORKLOAD",
    "Hour",
    "alarm_state",
    "changed_hour",
    "next_hour",
    "traffic_in_an_hour",
    "usual_hour",
    "verdict",
]

CHAPTER = "Monitoring"
#: Early: they judge the first model, and others train more of them.
ORDER = 40
#: Labels come within the hour after their prediction, so that a run judges the hour before last.
WORKLOAD: Mapping[str, Any] = {
    "monitoring": {
        "quality": {"delay_hours": 1, "every_hours": 1, "minimum_labels": 50, "tolerance": 0.15},
        "bias": {"every_hours": 1, "limits": {"DPPL": 0.3}, "tolerance": 0.25},
        "attribution": {"every_hours": 1, "rows": 100, "ndcg": 0.9},
    }
}
#: What the outputs and metrics of a kind begin with.
PREFIXES: Mapping[str, str] = {"data": "", "quality": "Quality", "bias": "Bias", "attribution": "Attribution"}
#: Share of the predictions that never get a label.
NEVER_LABELLED = 0.2
#: Hours until an hour of traffic is judged: its own, the delay, and one in which a schedule was just missed.
MOST_HOURS = 4
#: The page over all models, beside the report.
MODELS_PAGE = "model-dashboard.html"


@dataclass(frozen=True, kw_only=True)
class Hour:
    """An hour with traffic in it."""

    start: datetime
    records: Sequence[Mapping[str, Any]]
    answers: Sequence[Answer]


def _now(tale: Tale) -> datetime:
    return datetime.fromisoformat(tale.cloud.server.control("GET", "/clock")["now"])


def _advance(tale: Tale, *, seconds: float) -> None:
    fired = tale.cloud.advance(seconds=seconds)
    errors = [f"{f['title']}: {f['error']}" for f in fired if f.get("error")]
    require(not errors, f"a schedule failed: {'; '.join(errors)}")
    tale.cloud.idle()


def next_hour(tale: Tale) -> datetime:
    """Let the clock run to a minute past the next full hour; return that hour."""
    now = _now(tale)
    start = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    _advance(tale, seconds=(start - now).total_seconds() + 60)
    return start


def traffic_in_an_hour(tale: Tale, records: Sequence[Mapping[str, Any]]) -> Hour:
    """Ask about records in an hour of their own."""
    start = next_hour(tale)
    answers = ask(tale, questions(tale, records))
    tale.cloud.server.control("POST", "/endpoints/flush", {})
    require(_now(tale) < start + timedelta(hours=1), "the traffic took longer than its hour")
    return Hour(start=start, records=records, answers=answers)


def _labels_arrive(tale: Tale, records: Sequence[dict[str, Any]], evidence: Evidence) -> None:
    """Records arrive with their labels, are curated, and become ground truth."""
    told: Evidence = {}
    deliver(tale, send(tale, plain(records), told), told)
    curate(tale, told)
    wanted = {inference_id(tale.contract, body) for body in questions(tale, records)}
    uri = tale.outputs("Operations")["GroundTruthUri"]

    def there() -> bool:
        return wanted <= {line["eventMetadata"]["eventId"] for line in json_lines(tale, uri)}

    wait_until("ground truth of every label that came", there, seconds=120, every=0.5)
    files = tale.cloud.objects.list(uri, suffix=".jsonl")
    evidence |= {
        "labels_delivered": len(records),
        "ground_truth": files[-1],
        "ground_truth_files": len(files),
    }


def verdict(tale: Tale, kind: str, hour: datetime) -> tuple[str, dict[str, Any]]:
    """Let the clock run until a kind has told of an hour; return where it stands and what it says."""
    uri = tale.outputs("Operations")[f"{PREFIXES[kind]}MonitoringUri"]
    for _ in range(MOST_HOURS + 1):
        for found in reversed(tale.cloud.objects.list(uri, suffix="report.json")):
            report = tale.cloud.objects.read_json(found)
            start = report["window"]["start"]
            if start is not None and datetime.fromisoformat(start) == hour:
                return found, report
        _advance(tale, seconds=3_600)
    raise StoryError(f"no run of the {kind} monitor told of the hour from {hour:%H:%M} in {MOST_HOURS} hours")


def _newest(tale: Tale, kind: str) -> datetime:
    """The newest hour that a kind has told of."""
    uri = tale.outputs("Operations")[f"{PREFIXES[kind]}MonitoringUri"]
    reports = map(tale.cloud.objects.read_json, tale.cloud.objects.list(uri, suffix="report.json"))
    return max(datetime.fromisoformat(one["window"]["start"]) for one in reports)


def alarm_state(tale: Tale, kind: str, alarm: str, wanted: str, evidence: Evidence) -> None:
    """Wait until an alarm (``Drift``, ``Unjudged``) of a kind is in a state."""
    name = tale.outputs("Operations")[f"{PREFIXES[kind]}{alarm}AlarmName"]

    def found() -> Mapping[str, Any] | None:
        [one] = tale.cloud.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
        return one if one["StateValue"] == wanted else None

    one: Mapping[str, Any] = wait_until(f"{name} in {wanted}", found, seconds=60)
    evidence |= {
        f"{kind}_{alarm.lower()}_alarm": f"{one['MetricName']}: {one['StateValue']}",
        f"{kind}_{alarm.lower()}_runbook": str(one.get("AlarmDescription", "")).rpartition("Runbook: ")[2],
    }


def _told(evidence: Evidence, uri: str, report: Mapping[str, Any]) -> None:
    evidence |= {"report": uri, "window": report["window"], "judged": report["judged"]}
    if report["judged"]:
        evidence["violations"] = [one["description"] for one in report["violations"]][:5]
    else:
        evidence["why_not_judged"] = report["reason"]


def _quiet(tale: Tale, kind: str, hour: Hour, evidence: Evidence) -> dict[str, Any]:
    """A kind has judged an hour and found nothing."""
    uri, report = verdict(tale, kind, hour.start)
    _told(evidence, uri, report)
    require(report["judged"], f"the usual hour was not judged: {report.get('reason')}")
    require(not report["violations"], f"usual traffic violates: {evidence.get('violations')}")
    alarm_state(tale, kind, "Drift", "OK", evidence)
    if _newest(tale, kind) == hour.start:
        # A kind that waits for no labels has told of later hours meanwhile, in which nobody asked.
        alarm_state(tale, kind, "Unjudged", "OK", evidence)
    return report


def _heard(tale: Tale, kind: str, hour: Hour, evidence: Evidence) -> dict[str, Any]:
    """A kind has judged an hour and alarms."""
    uri, report = verdict(tale, kind, hour.start)
    _told(evidence, uri, report)
    require(report["judged"], f"the changed hour was not judged: {report.get('reason')}")
    require(report["violations"], "nothing was found to violate anything")
    alarm_state(tale, kind, "Drift", "ALARM", evidence)
    return report


# --- the hours; each is made once, whichever cells are played ---


def usual_hour(tale: Tale, evidence: Evidence, part: int = 0) -> Hour:
    """Usual traffic, labels of most of it within the delay. ``part``: which half of the records, 0 or 1.

    Each half is labelled once: a label that was collected long before is none that comes.
    """
    key = f"usual hour {part}"
    if key not in tale.known:
        records = tale.inputs.live[part::2]
        hour = traffic_in_an_hour(tale, records)
        never = math.ceil(len(records) * NEVER_LABELLED)
        _labels_arrive(tale, records[never:], evidence)
        tale.known[key] = hour
    found: Hour = tale.known[key]
    evidence["predictions"] = len(found.answers)
    return found


def changed_hour(tale: Tale, evidence: Evidence, part: int = 0) -> Hour:
    """Traffic of a changed world, with its labels; ``part`` as with the usual hour."""
    key = f"changed hour {part}"
    if key not in tale.known:
        records = tale.inputs.changed_live[part::2]
        hour = traffic_in_an_hour(tale, records)
        _labels_arrive(tale, records, evidence)
        tale.known[key] = hour
    found: Hour = tale.known[key]
    evidence |= {"predictions": len(found.answers), "changed_by": tale.inputs.change}
    return found


# --- model quality ---


def _model_quiet(tale: Tale, evidence: Evidence) -> None:
    hour = usual_hour(tale, evidence)
    evidence["by_all_labels"] = judge(hour.records, hour.answers, tale.contract)
    report = _quiet(tale, "quality", hour, evidence)
    evidence |= {key: report[key] for key in ("metrics", "labelled", "unlabelled_share") if key in report}


def _model_heard(tale: Tale, evidence: Evidence) -> None:
    hour = changed_hour(tale, evidence)
    evidence["by_all_labels"] = judge(hour.records, hour.answers, tale.contract)
    evidence["metric"] = metric_of(tale.contract)
    _heard(tale, "quality", hour, evidence)


def _model_unlabelled(tale: Tale, evidence: Evidence) -> None:
    """No label comes: no verdict, and somebody hears of it."""
    hour = _one_sided_hour(tale)
    uri, report = verdict(tale, "quality", hour.start)
    _told(evidence, uri, report)
    require(not report["judged"], "predictions without a label were judged")
    alarm_state(tale, "quality", "Unjudged", "ALARM", evidence)


# --- bias ---


def _bias_quiet(tale: Tale, evidence: Evidence) -> None:
    _quiet(tale, "bias", usual_hour(tale, evidence), evidence)


def _one_sided(tale: Tale) -> tuple[list[Mapping[str, Any]], str]:
    """Records whose answers are all to the disadvantage of one group, chosen from the usual ones."""
    contract = tale.contract
    rules = tale.workload.evaluation.bias
    if rules is None or rules.favourable is None:
        raise StoryError("the workload names no label that is favourable; the cell needs evaluation.bias")
    facet, rule = next(iter(rules.facets.items()))
    if rule.disadvantaged is None:
        raise StoryError(f"the facet {facet} is a number; the cell needs one with values")
    source = contract.by_name[facet].source
    good, poor = {str(v) for v in rules.favourable}, {str(v) for v in rule.disadvantaged}
    answered = zip(tale.inputs.live, tale.known["usual answers"], strict=True)
    return [
        record
        for record, answer in answered
        if (str(record.get(source)) in poor) != (str(answer.label) in good)
    ], facet


def _one_sided_hour(tale: Tale) -> Hour:
    """One-sided traffic; nobody labels it."""
    if "one-sided hour" not in tale.known:
        records, _ = _one_sided(tale)
        tale.known["one-sided hour"] = traffic_in_an_hour(tale, records)
    found: Hour = tale.known["one-sided hour"]
    return found


def _bias_heard(tale: Tale, evidence: Evidence) -> None:
    hour = _one_sided_hour(tale)
    evidence |= {"predictions": len(hour.records), "facet": _one_sided(tale)[1]}
    _heard(tale, "bias", hour, evidence)


# --- feature attribution ---


def _attribution_quiet(tale: Tale, evidence: Evidence) -> None:
    _quiet(tale, "attribution", usual_hour(tale, evidence), evidence)


def _baseline_of(tale: Tale, name: str) -> Mapping[str, Any]:
    """A drift baseline of the version that serves."""
    package = tale.cloud.client("sagemaker").describe_model_package(ModelPackageName=parameter_value(tale))
    found: Mapping[str, Any] = package["DriftCheckBaselines"][name]
    return found


def _all_alike(tale: Tale, most: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Usual records in which the fields that the model goes by most are all the same, and say little.

    Of each such field the value is taken whose records are scored most like all of them together.
    """
    contract = tale.contract
    package = tale.cloud.client("sagemaker").describe_model_package(ModelPackageName=parameter_value(tale))
    report = tale.cloud.objects.read_json(package["ModelMetrics"]["Explainability"]["Report"]["S3Uri"])
    # As SageMaker Clarify writes it, by label.
    shares = next(iter(report["explanations"]["kernel_shap"].values()))["global_shap_values"]
    importance = sorted(shares, key=lambda name: -shares[name])
    records, answers = tale.inputs.live, tale.known["usual answers"]
    average = sum(a.score for a in answers) / len(answers)
    fixed: dict[str, Any] = {}
    for name in importance:
        column = contract.by_name.get(name)
        if column is None:
            continue
        scores: defaultdict[str, list[float]] = defaultdict(list)
        for record, answer in zip(records, answers, strict=True):
            scores[json.dumps(record.get(column.source))].append(answer.score)
        common = {v: s for v, s in scores.items() if len(s) >= min(20, len(records) // 20)} or scores
        nearest = min(common, key=lambda value: abs(sum(common[value]) / len(common[value]) - average))
        fixed[column.source] = json.loads(nearest)
        if len(fixed) == most:
            break
    return [{**record, **fixed} for record in records], fixed


def _attribution_heard(tale: Tale, evidence: Evidence) -> None:
    records, fixed = _all_alike(tale, most=2)
    evidence["all_alike_in"] = fixed
    hour = traffic_in_an_hour(tale, records)
    report = _heard(tale, "attribution", hour, evidence)
    evidence |= {key: report[key] for key in ("ndcg",) if key in report}


# --- no evidence ---


def _nothing(tale: Tale, evidence: Evidence) -> None:
    """An hour in which nobody asked is no hour without drift: every monitor says that it could not judge."""
    hour = next_hour(tale)
    for kind in _kinds(tale):
        _, report = verdict(tale, kind, hour)
        require(not report["judged"], f"the {kind} monitor judged an hour without traffic")
        evidence[f"{kind}_reason"] = report["reason"]
        alarm_state(tale, kind, "Unjudged", "ALARM", evidence)


def _kinds(tale: Tale) -> list[str]:
    return [
        kind for kind in PREFIXES if kind == "data" or getattr(tale.workload.monitoring, kind) is not None
    ]


def _no_baseline(tale: Tale, evidence: Evidence) -> None:
    """Somebody took the baseline away: no verdict either."""
    uri: str = _baseline_of(tale, "ModelDataQuality")["Statistics"]["S3Uri"]
    content = tale.cloud.objects.read(uri)
    parts = urlsplit(uri)
    tale.cloud.client("s3").delete_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"))
    evidence["taken_away"] = uri
    try:
        hour = traffic_in_an_hour(
            tale, tale.inputs.live[: max(100, tale.workload.monitoring.minimum_records)]
        )
        found, report = verdict(tale, "data", hour.start)
    finally:
        tale.cloud.objects.write(uri, content)
    _told(evidence, found, report)
    require(not report["judged"], "traffic was judged without a baseline")
    alarm_state(tale, "data", "Unjudged", "ALARM", evidence)


def _all_models(tale: Tale, evidence: Evidence) -> None:
    """The page over all models is written, and says of this one what its alarms say."""
    outputs = tale.cdk.outputs(f"{tale.stage}/Platform")
    answer = tale.cloud.client("lambda").invoke(
        FunctionName=outputs["ModelDashboardFunctionName"],
        Payload=json.dumps({"time": _now(tale).isoformat()}).encode(),
    )
    told = json.loads(answer["Payload"].read())
    require("FunctionError" not in answer, f"the page was not written: {told}")
    uri = outputs["ModelDashboardUri"]
    (tale.out / MODELS_PAGE).write_bytes(tale.cloud.objects.read(uri))
    found = {
        one["name"]: one for one in tale.cloud.objects.read_json(uri.replace("index.html", "models.json"))
    }
    own = found[tale.workload.name]
    evidence |= {
        "page": MODELS_PAGE,
        "state": own["state"],
        "monitors": {one["kind"]: one["verdict"] for one in own["monitors"]},
        "alarms": [one["what"][:120] for one in own["alarms"]],
    }
    require(own["approved"] == parameter_value(tale), "the page names another version than the parameter")
    require({one["kind"] for one in own["monitors"]} == set(_kinds(tale)), "a monitor is missing on the page")
    require((own["state"] == "alarm") == bool(own["alarms"]), f"the page says {own['state']}")


CELLS = (
    Cell(
        id="monitor.model.quiet",
        title="Model quality on usual traffic: labels come late, some never; no violation",
        chapter=CHAPTER,
        run=_model_quiet,
        capabilities=("monitor.model",),
    ),
    Cell(
        id="monitor.bias.quiet",
        title="Bias on usual traffic: no violation",
        chapter=CHAPTER,
        run=_bias_quiet,
        capabilities=("monitor.bias",),
    ),
    Cell(
        id="monitor.attribution.quiet",
        title="Feature attribution on usual traffic: the model goes by what it went by",
        chapter=CHAPTER,
        run=_attribution_quiet,
        capabilities=("monitor.attribution",),
    ),
    Cell(
        id="monitor.model.heard",
        title="The world has changed and its labels have come: model quality alarms",
        chapter=CHAPTER,
        run=_model_heard,
        capabilities=("monitor.model",),
    ),
    Cell(
        id="monitor.bias.heard",
        title="Answers to the disadvantage of one group: bias alarms",
        chapter=CHAPTER,
        run=_bias_heard,
        capabilities=("monitor.bias",),
    ),
    Cell(
        id="monitor.model.unlabelled",
        title="Predictions whose labels do not come: not judged, and somebody hears of it",
        chapter=CHAPTER,
        run=_model_unlabelled,
        capabilities=("monitor.model",),
    ),
    Cell(
        id="monitor.attribution.heard",
        title="Traffic in which the weightiest fields say nothing: attribution alarms",
        chapter=CHAPTER,
        run=_attribution_heard,
        capabilities=("monitor.attribution",),
    ),
    Cell(
        id="monitor.nothing.asked",
        title="An hour without traffic: no monitor takes it for health",
        chapter=CHAPTER,
        run=_nothing,
        capabilities=("monitor.data",),
    ),
    Cell(
        id="monitor.nothing.baseline",
        title="The baseline is gone: not judged, and somebody hears of it",
        chapter=CHAPTER,
        run=_no_baseline,
        capabilities=("monitor.data",),
    ),
    Cell(
        id="monitor.models.page",
        title="A page over all models: what serves, who asks, what the monitors say, which alarms are on",
        chapter=CHAPTER,
        run=_all_models,
        capabilities=("monitor.data", "observe.dashboards"),
    ),
)
