"""AWS Glue: jobs that run as local PySpark processes, and the data quality rulesets they are judged by.

Databases, tables and partitions are ministack's. Crawlers stand in `glue_crawlers`, triggers and workflows in
`glue_workflows`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from ml_contract.quality import dqdl

from rehearsal import ministack_bridge as bridge
from rehearsal.deaths import DEATHS
from rehearsal.executors.containers import said_status
from rehearsal.executors.spark import SparkError, gateway, spark_environment
from rehearsal.executors.transfer import TransferError, fetch
from rehearsal.services.engine import ApiError, instead

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime
    from rehearsal.services.engine import Call, Record, Service

__all__ = ["SHIM", "assumed_role", "finished", "on_finish", "start_job"]

#: The stand-in for Glue's own Python packages.
SHIM = Path(__file__).resolve().parent.parent / "glue_shim"

#: Arguments that Glue reads itself and that no script gets (AWS Glue, "Using job parameters in Glue jobs").
_GLUES_OWN = frozenset(
    {
        "--additional-python-modules",
        "--conf",
        "--custom-logGroup-prefix",
        "--custom-logStream-prefix",
        "--enable-continuous-cloudwatch-log",
        "--enable-glue-datacatalog",
        "--enable-job-insights",
        "--enable-metrics",
        "--enable-observability-metrics",
        "--enable-spark-ui",
        "--extra-files",
        "--extra-jars",
        "--extra-py-files",
        "--job-language",
        "--python-modules-installer-option",
        "--spark-event-logs-path",
        "--user-jars-first",
    }
)
_ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED", "TIMEOUT", "ERROR"})
#: A log event of CloudWatch Logs is at most 256 KiB, a call at most 10,000 events.
_LOG_LINES = 5_000
_LOG_LINE = 8_000
#: Glue's default, in minutes (CreateJob, Timeout, Glue 5.0).
_TIMEOUT_MINUTES = 480

_LISTENERS: list[Callable[[Service, str, Record], None]] = []
_CHILDREN: dict[str, subprocess.Popen[bytes]] = {}
_STOPPED: set[str] = set()
_START = threading.Lock()


# -- definitions --------------------------------------------------------------------------------------------

for _operation in (
    "ListJobs",
    "GetJobs",
    "GetJob",
    "ListDataQualityRulesets",
    "GetDataQualityRuleset",
    "DeleteDataQualityRuleset",
):
    instead("glue", _operation)(lambda service, call: service.generic(call))


@instead("glue", "CreateJob")
def _create_job(service: Service, call: Call) -> dict[str, Any]:
    command = call.params["Command"].get("Name")
    if command not in ("glueetl", "gluestreaming", "pythonshell"):
        raise ApiError(
            "InvalidInputException",
            f"Command.Name {command!r} is not emulated; here: glueetl, gluestreaming, pythonshell",
        )
    _existing_security_configuration(service, call.params.get("SecurityConfiguration"))
    out = service.generic(call)
    _stamp(service.get("Job", call.params["Name"]))
    return out


@instead("glue", "UpdateJob")
def _update_job(service: Service, call: Call) -> dict[str, Any]:
    record = service.get("Job", call.params["JobName"])
    changes = call.params["JobUpdate"]
    _existing_security_configuration(service, changes.get("SecurityConfiguration"))
    with service.lock:
        created = record.data["CreatedOn"]
        # The whole definition is replaced (UpdateJob).
        record.data = {"Name": record.name, **changes}
        _stamp(record)
        record.data["CreatedOn"] = created
    return {"JobName": record.name}


@instead("glue", "DeleteJob")
def _delete_job(service: Service, call: Call) -> dict[str, Any]:
    # Glue does not mind a job that is not there.
    if service.peek("Job", call.params["JobName"]) is not None:
        service.remove("Job", call.params["JobName"])
    return {"JobName": call.params["JobName"]}


@instead("glue", "CreateDataQualityRuleset")
def _create_ruleset(service: Service, call: Call) -> dict[str, Any]:
    _check_rules(call.params["Ruleset"])
    out = service.generic(call)
    _stamp(service.get("DataQualityRuleset", call.params["Name"]))
    return out


@instead("glue", "UpdateDataQualityRuleset")
def _update_ruleset(service: Service, call: Call) -> dict[str, Any]:
    if "Ruleset" in call.params:
        _check_rules(call.params["Ruleset"])
    out = service.generic(call)
    record = service.get("DataQualityRuleset", call.params["Name"])
    service.update(record, LastModifiedOn=service.runtime.clock.now())
    return out


def _check_rules(ruleset: str) -> None:
    """Refuse what is no DQDL as Glue does, when the ruleset is made."""
    try:
        dqdl.parse(ruleset)
    except dqdl.DqdlError as error:
        raise ApiError("InvalidInputException", f"Invalid DQDL: {error}") from None


def _stamp(record: Record) -> None:
    record.data["CreatedOn"] = record.created
    record.data["LastModifiedOn"] = record.updated


def _existing_security_configuration(service: Service, name: str | None) -> None:
    if name is None:
        return
    client = service.runtime.client("glue", region=service.region)
    try:
        client.get_security_configuration(Name=name)
    except ClientError as error:
        raise ApiError("InvalidInputException", str(error.response["Error"]["Message"])) from None


def assumed_role(service: Service, role: str) -> str:
    """Return the ARN of a role given by name or ARN.

    :raises ApiError: Glue may not assume it
    """
    arn = role if role.startswith("arn:") else f"arn:aws:iam::{service.account}:role/{role}"
    if not bridge.trusts(arn, "glue.amazonaws.com"):
        raise ApiError("InvalidInputException", f"Service is unable to assume provided role {arn}")
    return arn


# -- runs ---------------------------------------------------------------------------------------------------


def on_finish(listener: Callable[[Service, str, Record], None]) -> None:
    """Call ``listener(service, "Job" or "Crawler", run)`` when a job run or a crawl ends."""
    _LISTENERS.append(listener)


def finished(service: Service, kind: str, run: Record) -> None:
    """Tell every listener that a job run or a crawl ended."""
    for listener in _LISTENERS:
        listener(service, kind, run)


@instead("glue", "StartJobRun")
def _start_job_run(service: Service, call: Call) -> dict[str, Any]:
    extra = {
        key: call.params[key]
        for key in ("Timeout", "WorkerType", "NumberOfWorkers", "SecurityConfiguration")
        if key in call.params
    }
    run = start_job(service, call.params["JobName"], call.params.get("Arguments", {}), **extra)
    return {"JobRunId": run.name}


def start_job(
    service: Service,
    job_name: str,
    arguments: Mapping[str, str],
    *,
    workflow: str | None = None,
    **extra: Any,
) -> Record:
    """Start a run of a job; ``workflow`` is the run of a workflow that asks for it.

    :raises ApiError: the job does not exist, its role cannot be assumed, or too many runs are under way
    """
    job = service.get("Job", job_name)
    if job.data["Command"]["Name"] == "gluestreaming":
        raise ApiError(
            "InvalidInputException",
            f"{job_name} is a streaming job, recorded and not run: its Kinesis source is a part of AWS Glue",
        )
    role = assumed_role(service, str(job.data["Role"]))
    limit = int(job.data.get("ExecutionProperty", {}).get("MaxConcurrentRuns", 1))
    with _START:
        active = [run for run in _runs(service, job_name) if run.data["JobRunState"] not in _ENDED]
        if len(active) >= limit:
            raise ApiError(
                "ConcurrentRunsExceededException", f"Concurrent runs exceeded for {job_name}: {limit} at most"
            )
        run = _new_run(service, job, f"jr_{uuid.uuid4().hex}", arguments, workflow=workflow, **extra)
    service.runtime.background(f"glue job {job_name}", _attempts, service, job, run, role)
    return run


def _new_run(
    service: Service,
    job: Record,
    run_id: str,
    arguments: Mapping[str, str],
    *,
    workflow: str | None,
    attempt: int = 0,
    **extra: Any,
) -> Record:
    now = service.runtime.clock.now()
    kept = ("Timeout", "WorkerType", "NumberOfWorkers", "MaxCapacity", "GlueVersion", "SecurityConfiguration")
    data = {key: job.data[key] for key in kept if key in job.data}
    data |= {
        "Id": run_id,
        "JobName": job.name,
        "Attempt": attempt,
        "Arguments": dict(arguments),
        "StartedOn": now,
        "LastModifiedOn": now,
        "JobRunState": "STARTING",
        "LogGroupName": _log_prefix(job),
        **extra,
    }
    run = service.put("JobRun", run_id, data)
    run.status = workflow
    return run


def _attempts(service: Service, job: Record, run: Record, role: str) -> None:
    """Run a job, and again as often as ``MaxRetries`` says while it fails."""
    retries = int(job.data.get("MaxRetries", 0))
    first = run.name
    while True:
        _run(service, job, run, role)
        attempt = int(run.data["Attempt"])
        if run.data["JobRunState"] != "FAILED" or attempt >= retries:
            finished(service, "Job", run)
            return
        run = _new_run(
            service,
            job,
            f"{first}_attempt_{attempt + 1}",
            run.data["Arguments"],
            workflow=run.status,
            attempt=attempt + 1,
        )


def _run(service: Service, job: Record, run: Record, role: str) -> None:
    runtime = service.runtime
    folder = runtime.state / "glue" / job.name / run.name
    log = folder / "job.log"
    folder.mkdir(parents=True, exist_ok=True)
    log.touch()
    service.update(run, JobRunState="RUNNING", LastModifiedOn=runtime.clock.now())
    began = time.monotonic()
    try:
        state, message = _execute(service, job, run, role, folder)
    except (TransferError, SparkError, ClientError, BotoCoreError, OSError, RuntimeError) as error:
        state, message = "FAILED", str(error)
    seconds = time.monotonic() - began
    _write_log(service, job, run, role, log)
    now = runtime.clock.now()
    changes: dict[str, Any] = {"CompletedOn": now, "LastModifiedOn": now, "ExecutionTime": round(seconds)}
    if message is not None:
        changes["ErrorMessage"] = message[:4_000]
    service.update(run, **changes)
    service.update(run, JobRunState=state)
    detail = {"run": run.name, "seconds": round(seconds, 2), "log": str(log)}
    if state == "SUCCEEDED":
        runtime.ledger.ran("glue-job", job.name, **detail)
    else:
        runtime.ledger.failed("glue-job", job.name, f"{state}: {message}", **detail)
    runtime.emit(
        "aws.glue",
        "Glue Job State Change",
        {
            "jobName": job.name,
            "severity": "INFO" if state == "SUCCEEDED" else "ERROR",
            "state": state,
            "jobRunId": run.name,
            "message": "Job run succeeded" if message is None else message[:1_000],
        },
        region=service.region,
    )
    # What Spark leaves is big and of no use once the run is over.
    shutil.rmtree(folder / "scratch", ignore_errors=True)


def _execute(service: Service, job: Record, run: Record, role: str, folder: Path) -> tuple[str, str | None]:
    """Run the script in a process of its own; returns the run's state and error message."""
    runtime, log = service.runtime, folder / "job.log"
    command = job.data["Command"]
    settings = {**job.data.get("DefaultArguments", {}), **run.data["Arguments"]}
    settings |= job.data.get("NonOverridableArguments", {})
    # In a folder of its own: beside the working folder it could be taken for a module.
    script = folder / "script" / Path(command["ScriptLocation"]).name
    script.parent.mkdir()
    script.write_bytes(fetch(runtime, command["ScriptLocation"], role=role, region=service.region))
    libraries = _libraries(service, settings, role, folder)
    modules = settings.get("--additional-python-modules")
    if modules:
        runtime.ledger.recorded("glue-job", job.name, "modules are not installed", modules=modules)
    arguments = _script_arguments(job, run, settings)
    scratch = folder / "scratch"
    scratch.mkdir()
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
        **runtime.role_environment(role, service.region),
        **spark_environment(scratch),
        "PYTHONPATH": os.pathsep.join([str(SHIM), *libraries]),
        "PYTHONUNBUFFERED": "1",
        "GLUE_LOCAL_ROOT": str(scratch),
        "TMPDIR": str(scratch),
        "GLUE_DATABASES": str(runtime.state / "databases"),
    }
    if settings.get("--job-bookmark-option") == "job-bookmark-enable":
        environment["GLUE_BOOKMARK"] = str(folder.parent / "bookmark.json")
    failure, clean = folder / "failure.txt", folder / "clean"
    argv = [sys.executable, str(SHIM / "run_job.py"), str(folder), str(script), *arguments]
    limit = 60 * int(run.data.get("Timeout", _TIMEOUT_MINUTES))
    if command["Name"] == "glueetl":
        with gateway(runtime, clean) as java:
            before = java.log.stat().st_size
            environment |= java.environment()
            child = runtime.popen(argv, env=environment, cwd=scratch, log=log)
            status = _wait(runtime, run, child, limit)
            _append(java.log, before, log)
    else:
        child = runtime.popen(argv, env=environment, cwd=scratch, log=log)
        status = _wait(runtime, run, child, limit)
    if status is None:
        return "TIMEOUT", f"Job run exceeded its timeout of {limit // 60} minutes"
    if run.name in _STOPPED:
        return "STOPPED", "Execution was stopped"
    if status == 0:
        return "SUCCEEDED", None
    if failure.exists():
        return "FAILED", failure.read_text(encoding="utf-8")
    if DEATHS.how(child) is not None:
        return "FAILED", f"Command failed with exit code {said_status(status)}"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return "FAILED", f"exit status {status}: {lines[-1] if lines else 'no output'}"


def _wait(runtime: Runtime, run: Record, child: subprocess.Popen[bytes], limit_seconds: float) -> int | None:
    """Wait for a script's process; returns its exit status, None when it took too long and was ended."""
    _CHILDREN[run.name] = child
    folder = runtime.state / "glue" / run.data["JobName"] / run.name
    DEATHS.watch(
        runtime, "glue-job", run.data["JobName"], child, log=folder / "job.log", folder=folder / "scratch"
    )
    try:
        return child.wait(limit_seconds)
    except subprocess.TimeoutExpired:
        runtime.end_child(child)
        return None
    finally:
        del _CHILDREN[run.name]


def _append(java: Path, start: int, log: Path) -> None:
    """Add what the Java process and the workers said during a job to the job's log."""
    with java.open("rb") as source, log.open("ab") as target:
        source.seek(start)
        shutil.copyfileobj(source, target)


def _libraries(service: Service, settings: Mapping[str, str], role: str, folder: Path) -> list[str]:
    """Fetch ``--extra-py-files``; returns what goes on the import path, in order."""
    paths = []
    for number, uri in enumerate(filter(None, settings.get("--extra-py-files", "").split(","))):
        place = folder / "python" / str(number)
        place.mkdir(parents=True)
        target = place / Path(uri.strip()).name
        target.write_bytes(fetch(service.runtime, uri.strip(), role=role, region=service.region))
        # A module lies on the path by its folder, an archive by itself.
        paths.append(str(place if target.suffix == ".py" else target))
    return paths


def _script_arguments(job: Record, run: Record, settings: Mapping[str, str]) -> list[str]:
    given = {name: value for name, value in settings.items() if name not in _GLUES_OWN}
    given |= {"--JOB_NAME": job.name, "--JOB_RUN_ID": run.name, "--JOB_ID": f"j_{job.name}"}
    return [part for name, value in sorted(given.items()) for part in (name, str(value))]


def _log_prefix(job: Record) -> str:
    arguments: Mapping[str, str] = job.data.get("DefaultArguments", {})
    return arguments.get("--custom-logGroup-prefix", "/aws-glue/jobs")


def _write_log(service: Service, job: Record, run: Record, role: str, log: Path) -> None:
    """Put the log where Glue puts it, as the job's role; a role that may not write it is reported."""
    runtime = service.runtime
    client = runtime.client("logs", role=role, region=service.region)
    prefix = _log_prefix(job)
    group = f"{prefix}/output"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
    now = int(time.time() * 1000)
    events = [{"timestamp": now, "message": line[:_LOG_LINE]} for line in lines if line]
    try:
        client.create_log_stream(logGroupName=group, logStreamName=run.name)
        if events:
            client.put_log_events(logGroupName=group, logStreamName=run.name, logEvents=events)
    except ClientError as error:
        runtime.ledger.failed("glue-job", job.name, f"its log was not written to {group}: {error}")
    for kind in ("output", "error"):
        arn = (
            f"arn:aws:logs:{service.region}:{service.account}:log-group:{prefix}/{kind}:log-stream:{run.name}"
        )
        actions = ("logs:CreateLogStream", "logs:PutLogEvents", "logs:AssociateKmsKey")
        runtime.authorizer.note_service_use(role, actions, arn, service.region)
    runtime.authorizer.note_service_use(role, ("cloudwatch:PutMetricData",), "*", service.region)


def _runs(service: Service, job_name: str) -> list[Record]:
    with service.lock:
        runs = list(service.records.get("JobRun", {}).values())
    return [run for run in runs if run.data["JobName"] == job_name]


def _run_of(service: Service, job_name: str, run_id: str) -> Record:
    found = next((run for run in _runs(service, job_name) if run.name == run_id), None)
    if found is None:
        raise ApiError("EntityNotFoundException", f"Job Run not found: {run_id} of job {job_name}")
    return found


def shown_run(run: Record) -> dict[str, Any]:
    """Return a run as the API shows it."""
    return dict(run.data)


@instead("glue", "GetJobRun")
def _get_job_run(service: Service, call: Call) -> dict[str, Any]:
    return {"JobRun": shown_run(_run_of(service, call.params["JobName"], call.params["RunId"]))}


@instead("glue", "GetJobRuns")
def _get_job_runs(service: Service, call: Call) -> dict[str, Any]:
    service.get("Job", call.params["JobName"])
    runs = _runs(service, call.params["JobName"])[::-1]
    limit = int(call.params.get("MaxResults", 200))
    start = int(call.params.get("NextToken", 0))
    end = start + limit
    shown = [shown_run(run) for run in runs[start:end]]
    return {"JobRuns": shown, "NextToken": str(end) if end < len(runs) else None}


@instead("glue", "BatchStopJobRun")
def _batch_stop_job_run(service: Service, call: Call) -> dict[str, Any]:
    job_name = call.params["JobName"]
    done, errors = [], []
    for run_id in call.params["JobRunIds"]:
        shown = {"JobName": job_name, "JobRunId": run_id}
        found = next((run for run in _runs(service, job_name) if run.name == run_id), None)
        child = None if found is None else _CHILDREN.get(run_id)
        if found is None or child is None:
            code = "EntityNotFoundException" if found is None else "InvalidInputException"
            text = "no such run" if found is None else f"the run is {found.data['JobRunState']}"
            errors.append({**shown, "ErrorDetail": {"ErrorCode": code, "ErrorMessage": text}})
            continue
        _STOPPED.add(run_id)
        service.runtime.end_child(child)
        done.append(shown)
    return {"SuccessfulSubmissions": done, "Errors": errors}
