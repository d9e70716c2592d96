"""One run: evidence in, verdict out, as files and as CloudWatch metrics."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import boto3
from ml_contract.compiled import CompiledContract
from ml_runtime.job import BadInputError, base_folder, leave_message, only_file, say

from ml_monitoring.evidence import UnjudgedError, bucket_and_key, read_object
from ml_monitoring.history import REMEMBERED, entry, read_history, since
from ml_monitoring.kinds.answers import delay_of
from ml_monitoring.outcome import Outcome, Run
from ml_monitoring.report.page import page
from ml_monitoring.settings import Common, Kind, OwnEngine, read_settings

__all__ = ["NAMESPACE", "UnjudgedError", "monitor", "read_object"]

NAMESPACE = "MLLifecycle"
#: PutMetricData takes this many at once.
METRICS_PER_CALL = 1000
#: What the names of a kind's metrics begin with.
PREFIXES: dict[Kind, str] = {
    "data": "",
    "quality": "Quality",
    "bias": "Bias",
    "attribution": "Attribution",
}


def _contract(settings: Common) -> CompiledContract:
    folder = base_folder() / "processing" / "input" / "contract"
    if folder.is_dir():
        return CompiledContract.from_json(only_file(folder, ".json").read_bytes())
    if settings.contract_uri is None:
        raise BadInputError(f"no contract: mount it at {folder} or set CONTRACT_URI")
    bucket, key = bucket_and_key(settings.contract_uri)
    return CompiledContract.from_json(boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())


def _judge(kind: Kind) -> Callable[[Run], Outcome]:
    """What judges; each kind loads only what it needs."""
    if kind == "quality":
        from ml_monitoring.kinds.quality import judge_quality

        return judge_quality
    if kind == "bias":
        from ml_monitoring.kinds.bias import judge_bias

        return judge_bias
    if kind == "attribution":
        from ml_monitoring.kinds.attribution import judge_attribution

        return judge_attribution
    from ml_monitoring.kinds.data import judge_data

    return judge_data


def _metrics(settings: Common, values: Mapping[str, float], drift: Mapping[str, float]) -> None:
    common = [
        {"Name": "Environment", "Value": settings.environment},
        {"Name": "Workload", "Value": settings.workload},
    ]
    data: list[dict[str, Any]] = [
        {
            "MetricName": PREFIXES[settings.kind] + name,
            "Dimensions": [*common],
            "Value": value,
            "Unit": "Count",
        }
        for name, value in values.items()
    ]
    data += [
        {
            "MetricName": "FeatureDrift",
            "Dimensions": [*common, {"Name": "Feature", "Value": feature}],
            "Value": value,
            "Unit": "None",
        }
        for feature, value in drift.items()
    ]
    client = boto3.client("cloudwatch")
    for start in range(0, len(data), METRICS_PER_CALL):
        client.put_metric_data(Namespace=NAMESPACE, MetricData=data[start : start + METRICS_PER_CALL])


def _finite(value: Any) -> Any:
    """Return plain data with numbers that JSON has: what is not finite has no value."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write(folder: pathlib.Path, documents: Mapping[str, dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, document in documents.items():
        text = json.dumps(_finite(document), indent=1, sort_keys=True, allow_nan=False)
        (folder / name).write_text(text + "\n", encoding="utf-8")


def _about(run: Run) -> dict[str, Any]:
    settings = run.settings
    start: str | None
    end: str | None
    if isinstance(settings, OwnEngine):
        window = settings.window.earlier(delay_of(run))
        start, end = window.start.isoformat(), window.end.isoformat()
    else:
        start, end = settings.start, settings.end
    return {
        "kind": settings.kind,
        "workload": settings.workload,
        "environment": settings.environment,
        "window": {"start": start, "end": end},
    }


def _judged(outcome: Outcome, about: Mapping[str, Any], earlier: list[dict[str, Any]]) -> dict[str, Any]:
    history = [*earlier, entry(about["window"], outcome.findings, len(outcome.violations))]
    return {
        **about,
        "judged": True,
        "baseline": outcome.baseline,
        "records_judged": outcome.judged,
        **outcome.report,
        "violations": [dict(one) for one in outcome.violations],
        "findings": [
            {
                "name": one.name,
                "segment": one.segment,
                "measure": one.measure,
                "value": one.value,
                "limit": one.limit,
                "baseline": one.baseline,
                "beyond": one.beyond,
                "severity": one.severity,
                "records": one.records,
                "text": one.text,
                "since": since(history, one.key) if one.beyond else None,
            }
            # What is beyond its limit first, and of each the worst first.
            for one in sorted(outcome.findings, key=lambda one: (not one.beyond, -one.severity))
        ],
        "history": history[-REMEMBERED:],
    }


def monitor(environment: Mapping[str, str]) -> None:
    """Judge one window and tell it: files for people, metrics for alarms.

    Without evidence there is no verdict: ``Unjudged`` is 1, ``Violations`` is not sent, and no violations
    file is written, so that nothing downstream can take silence for health.
    """
    settings = read_settings(environment)
    run = Run(settings, _contract(settings))
    report_folder = base_folder() / "processing" / "output" / "report"
    where = report_folder if isinstance(settings, OwnEngine) else pathlib.Path(settings.output_path)
    publish = environment.get("publish_cloudwatch_metrics", "Enabled") == "Enabled"
    about = _about(run)
    # A run that is repeated takes its own place.
    earlier = [one for one in read_history(settings.reports_uri) if one["end"] != about["window"]["end"]]
    try:
        outcome = _judge(settings.kind)(run)
    except UnjudgedError as reason:
        say(f"unjudged: {reason}")
        report = {
            **about,
            "judged": False,
            "reason": str(reason),
            "history": [*earlier, entry(about["window"], (), None)][-REMEMBERED:],
        }
        _write(where, {"report.json": report})
        _tell(where, page(run.contract, report, {}))
        if publish:
            _metrics(settings, {"Unjudged": 1, "RecordsJudged": 0}, {})
        leave_message(f"Unjudged: {reason}", base_folder() / "output" / "message")
        return
    report = _finite(_judged(outcome, about, earlier))
    _write(where, {**outcome.documents, "report.json": report})
    _tell(where, page(run.contract, report, outcome.figures))
    count = len(outcome.violations)
    if publish:
        _metrics(
            settings,
            {"Violations": count, "RecordsJudged": outcome.judged, "Unjudged": 0},
            outcome.drift,
        )
    for finding in report["findings"]:
        if finding["beyond"]:
            say(f"{finding['measure']} {finding['name']}: {finding['text']}")
    result = (
        f"CompletedWithViolations: {count} violations in {outcome.judged} records"
        if count
        else f"Completed: no violation in {outcome.judged} records"
    )
    say(result)
    leave_message(result, base_folder() / "output" / "message")


def _tell(folder: pathlib.Path, text: str) -> None:
    (folder / "report.html").write_text(text, encoding="utf-8")
