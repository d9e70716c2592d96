"""One run: capture and baseline in, verdict out, as files and as CloudWatch metrics."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import boto3
import botocore.exceptions
from ml_contract.compiled import CompiledContract
from ml_runtime.job import BadInputError, base_folder, leave_message, only_file, say
from ml_statistics.baseline import baseline, rules
from ml_statistics.checks import Judgement, judge

from ml_monitoring.capture import Capture, hour_prefixes, read_bucket, read_capture, read_folder
from ml_monitoring.settings import Common, ModelMonitorEngine, OwnEngine, read_settings

NAMESPACE = "MLLifecycle"
#: PutMetricData takes this many at once.
METRICS_PER_CALL = 1000
#: The value of the approval parameter before a first model is approved.
NO_MODEL = "none"


class UnjudgedError(Exception):
    """There is no evidence to judge: no verdict, which is something else than "no drift"."""


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Take an S3 URI apart."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket:
        raise BadInputError(f"expected s3://bucket/key, got {uri!r}")
    return bucket, key


@contextlib.contextmanager
def _absent(*codes: str, because: str) -> Iterator[None]:
    """Turn AWS's ways to say "there is none" into no verdict; anything else stays an error."""
    try:
        yield
    except botocore.exceptions.ClientError as error:
        code = error.response["Error"]["Code"]
        message = error.response["Error"].get("Message", "")
        # SageMaker says ValidationException both for what does not exist and for what is malformed.
        if code in codes and (
            code != "ValidationException" or "not exist" in message or "not found" in message
        ):
            raise UnjudgedError(f"{because} ({code}: {message})") from error
        raise


def read_object(s3: Any, uri: str) -> bytes:
    """Return an object's content; what is not there is no verdict."""
    bucket, key = bucket_and_key(uri)
    with _absent("NoSuchKey", "NoSuchBucket", because=f"{uri} does not exist"):
        try:
            content: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except botocore.exceptions.ClientError as error:
            # To who may list a part of the bucket only, S3 says 403 of what does not exist (GetObject,
            # "Permissions"); the listing of that part tells which it is.
            if error.response["Error"]["Code"] != "AccessDenied":
                raise
            page = s3.list_objects_v2(Bucket=bucket, Prefix=key)
            if any(item["Key"] == key for item in page.get("Contents", ())):
                raise
            raise UnjudgedError(f"{uri} does not exist") from error
    return content


def _document(text: bytes, source: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UnjudgedError(f"the baseline {source} is no JSON: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("features"), list):
        raise UnjudgedError(f"the baseline {source} has no list of features")
    return found


def _contract(settings: Common) -> CompiledContract:
    folder = base_folder() / "processing" / "input" / "contract"
    if folder.is_dir():
        return CompiledContract.from_json(only_file(folder, ".json").read_bytes())
    if settings.contract_uri is None:
        raise BadInputError(f"no contract: mount it at {folder} or set CONTRACT_URI")
    bucket, key = bucket_and_key(settings.contract_uri)
    return CompiledContract.from_json(boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())


def approved_baseline(parameter: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return statistics and constraints that the approved model package carries, and the package's ARN."""
    with _absent("ParameterNotFound", because=f"the approval parameter {parameter} does not exist"):
        value = boto3.client("ssm").get_parameter(Name=parameter)["Parameter"]["Value"]
    if value == NO_MODEL:
        raise UnjudgedError("no model is approved yet")
    with _absent(
        "ValidationException", "ResourceNotFound", because=f"the model package {value} does not exist"
    ):
        package = boto3.client("sagemaker").describe_model_package(ModelPackageName=value)
    data_quality = package.get("DriftCheckBaselines", {}).get("ModelDataQuality", {})
    uris = [data_quality.get(name, {}).get("S3Uri") for name in ("Statistics", "Constraints")]
    if None in uris:
        raise UnjudgedError(f"the model package {value} carries no data quality baseline")
    s3 = boto3.client("s3")
    statistics, constraints = (_document(read_object(s3, uri), uri) for uri in uris)
    return statistics, constraints, value


def _mounted(path: str) -> dict[str, Any]:
    file = pathlib.Path(path)
    if not file.is_file():
        raise UnjudgedError(f"the baseline {file} is not mounted")
    return _document(file.read_bytes(), path)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a run found."""

    capture: Capture
    judgement: Judgement
    baseline: str


def _baseline(settings: OwnEngine | ModelMonitorEngine) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return statistics, constraints and where they come from."""
    if isinstance(settings, ModelMonitorEngine) and settings.mounted_baseline is not None:
        statistics, constraints = settings.mounted_baseline
        return _mounted(statistics), _mounted(constraints), statistics
    if settings.approved_model_parameter is None:
        raise BadInputError("no baseline: mount one or set APPROVED_MODEL_PARAMETER")
    return approved_baseline(settings.approved_model_parameter)


def _captured(settings: OwnEngine | ModelMonitorEngine, contract: CompiledContract) -> tuple[Capture, str]:
    """Return what was captured in the window and where it was looked for."""
    if isinstance(settings, ModelMonitorEngine):
        source = settings.dataset_source
        return read_capture(read_folder(pathlib.Path(source)), contract), source
    client = boto3.client("s3")
    bucket, key = bucket_and_key(settings.capture_uri)
    prefix = f"{key.rstrip('/')}/{settings.endpoint}/".lstrip("/")
    folders = hour_prefixes(client, bucket, prefix, settings.window.hours())
    capture = read_capture(read_bucket(client, bucket, folders), contract)
    return capture, f"{settings.capture_uri} from {settings.window}"


def _judge(settings: OwnEngine | ModelMonitorEngine, contract: CompiledContract) -> Verdict:
    statistics, constraints, source = _baseline(settings)
    capture, where = _captured(settings, contract)
    if not capture.files:
        raise UnjudgedError(f"nothing was captured in {where}")
    minimum = contract.monitoring["minimum_records"]
    if capture.records < minimum:
        damaged = (
            f"; {sum(capture.damaged.values())} invocations could not be read" if capture.damaged else ""
        )
        raise UnjudgedError(
            f"{capture.records} records were captured, at least {minimum} are needed to judge{damaged}"
        )
    judgement = judge(
        capture.observed,
        statistics,
        constraints,
        rule_of=rules(contract),
        minimum_completeness=contract.monitoring["minimum_completeness"],
        ignored=frozenset(contract.monitoring["ignore"]),
    )
    return Verdict(capture, judgement, source)


def _metrics(settings: Common, values: Mapping[str, float], drift: Mapping[str, float]) -> None:
    common = [
        {"Name": "Environment", "Value": settings.environment},
        {"Name": "Workload", "Value": settings.workload},
    ]
    data: list[dict[str, Any]] = [
        {"MetricName": name, "Dimensions": [*common], "Value": value, "Unit": "Count"}
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


def monitor(environment: Mapping[str, str]) -> None:
    """Judge one window and tell it: files for people, metrics for alarms.

    Without evidence there is no verdict: ``Unjudged`` is 1, ``Violations`` is not sent, and no violations
    file is written, so that nothing downstream can take silence for health.
    """
    settings = read_settings(environment)
    contract = _contract(settings)
    start: str | None
    end: str | None
    if isinstance(settings, OwnEngine):
        where = base_folder() / "processing" / "output" / "report"
        start, end = settings.window.start.isoformat(), settings.window.end.isoformat()
    else:
        where, start, end = pathlib.Path(settings.output_path), settings.start, settings.end
    about = {
        "workload": settings.workload,
        "environment": settings.environment,
        "window": {"start": start, "end": end},
    }
    publish = environment.get("publish_cloudwatch_metrics", "Enabled") == "Enabled"
    try:
        verdict = _judge(settings, contract)
    except UnjudgedError as reason:
        say(f"unjudged: {reason}")
        _write(where, {"report.json": {**about, "judged": False, "reason": str(reason)}})
        if publish:
            _metrics(settings, {"Unjudged": 1, "RecordsJudged": 0}, {})
        leave_message(f"Unjudged: {reason}", base_folder() / "output" / "message")
        return
    capture, judgement = verdict.capture, verdict.judgement
    statistics, constraints = baseline(capture.observed.frame, contract)
    report = {
        **about,
        "judged": True,
        "baseline": verdict.baseline,
        "files": capture.files,
        "invocations": capture.invocations,
        "records": capture.records,
        "records_judged": capture.observed.total,
        "records_accepted": capture.observed.frame.height,
        "damaged": capture.damaged,
        "violations": judgement.document()["violations"],
        "drift": [{**dataclasses.asdict(drift), "drifted": drift.drifted} for drift in judgement.drift],
    }
    _write(
        where,
        {
            "statistics.json": statistics,
            "constraints.json": constraints,
            "constraint_violations.json": judgement.document(),
            "report.json": report,
        },
    )
    count = len(judgement.violations)
    if publish:
        _metrics(
            settings,
            {"Violations": count, "RecordsJudged": capture.observed.total, "Unjudged": 0},
            {drift.feature: drift.value for drift in judgement.drift},
        )
    for violation in judgement.violations:
        say(f"{violation.constraint_check_type} {violation.feature_name}: {violation.description}")
    outcome = (
        f"CompletedWithViolations: {count} violations in {capture.observed.total} records"
        if count
        else f"Completed: no violation in {capture.observed.total} records"
    )
    say(outcome)
    leave_message(outcome, base_folder() / "output" / "message")
