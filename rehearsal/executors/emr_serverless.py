"""EMR Serverless: job runs as local PySpark processes, by ``spark-submit``'s arguments.

The application is a record. A run takes an idle Java process and the stand-in for ``s3://``, as a Glue job
does; it gets neither Glue's arguments nor its context.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from rehearsal import ministack_bridge as bridge
from rehearsal.executors.glue import SHIM
from rehearsal.executors.spark import SparkError, gateway, spark_environment
from rehearsal.executors.state_tasks import called, state_task, wait_for
from rehearsal.executors.transfer import TransferError, fetch
from rehearsal.ministack_bridge import Task, TaskError
from rehearsal.services.engine import ApiError, instead

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime
    from rehearsal.services.engine import Call, Record, Service

__all__: list[str] = []

_ENDED = frozenset({"SUCCESS", "FAILED", "CANCELLED"})
#: EMR Serverless's default (StartJobRun, executionTimeoutMinutes).
_TIMEOUT_MINUTES = 720
_LOG_LINES = 5_000
_LOG_LINE = 8_000
#: Settings that name places of the service's image; here the interpreter is this one.
_OF_THE_IMAGE = ("spark.emr-serverless.driverEnv.PYSPARK", "spark.executorEnv.PYSPARK")
_CHILDREN: dict[str, subprocess.Popen[bytes]] = {}


def _arn(service: Service, application: str, run: str | None = None) -> str:
    tail = "" if run is None else f"/jobruns/{run}"
    return f"arn:aws:emr-serverless:{service.region}:{service.account}:/applications/{application}{tail}"


@instead("emr-serverless", "CreateApplication")
def _create(service: Service, call: Call) -> dict[str, Any]:
    identifier = f"00f{uuid.uuid4().hex[:13]}"
    now = service.runtime.clock.now()
    data = {key: value for key, value in call.params.items() if key not in ("clientToken", "tags")}
    data |= {"applicationId": identifier, "state": "CREATED", "createdAt": now, "updatedAt": now}
    record = service.put("Application", identifier, data)
    record.arn = data["arn"] = _arn(service, identifier)
    return {"applicationId": identifier, "name": data.get("name", ""), "arn": record.arn}


def _application(service: Service, call: Call) -> Record:
    return service.get("Application", call.params["applicationId"])


@instead("emr-serverless", "GetApplication")
def _get(service: Service, call: Call) -> dict[str, Any]:
    return {"application": dict(_application(service, call).data)}


@instead("emr-serverless", "UpdateApplication")
def _update(service: Service, call: Call) -> dict[str, Any]:
    record = _application(service, call)
    changes = {k: v for k, v in call.params.items() if k not in ("applicationId", "clientToken")}
    service.update(record, **changes, updatedAt=service.runtime.clock.now())
    return {"application": dict(record.data)}


@instead("emr-serverless", "DeleteApplication")
def _delete(service: Service, call: Call) -> dict[str, Any]:
    record = _application(service, call)
    if any(run.data["state"] not in _ENDED for run in _runs(service, record.name)):
        raise ApiError("ValidationException", f"application {record.name} has runs under way")
    service.remove("Application", record.name)
    return {}


def _runs(service: Service, application: str) -> list[Record]:
    with service.lock:
        runs = list(service.records.get("JobRun", {}).values())
    return [run for run in runs if run.data["applicationId"] == application]


@instead("emr-serverless", "StartJobRun")
def _start(service: Service, call: Call) -> dict[str, Any]:
    application = _application(service, call)
    role = str(call.params["executionRoleArn"])
    if not bridge.trusts(role, "emr-serverless.amazonaws.com"):
        raise ApiError("ValidationException", f"EMR Serverless may not assume {role}")
    identifier = f"00f{uuid.uuid4().hex[:13]}"
    now = service.runtime.clock.now()
    data = {
        "applicationId": application.name,
        "jobRunId": identifier,
        "name": call.params.get("name", ""),
        "arn": _arn(service, application.name, identifier),
        "createdBy": call.principal or f"arn:aws:iam::{service.account}:root",
        "createdAt": now,
        "updatedAt": now,
        "executionRole": role,
        "state": "SUBMITTED",
        "stateDetails": "",
        "releaseLabel": application.data["releaseLabel"],
        "jobDriver": call.params["jobDriver"],
        "configurationOverrides": call.params.get("configurationOverrides", {}),
        "executionTimeoutMinutes": int(call.params.get("executionTimeoutMinutes", _TIMEOUT_MINUTES)),
    }
    run = service.put("JobRun", identifier, data)
    run.arn = data["arn"]
    service.update(application, state="STARTED")
    service.runtime.background(f"EMR Serverless run {data['name'] or identifier}", _run, service, run)
    return {"applicationId": application.name, "jobRunId": identifier, "arn": run.arn}


@instead("emr-serverless", "GetJobRun")
def _get_run(service: Service, call: Call) -> dict[str, Any]:
    return {"jobRun": dict(service.get("JobRun", call.params["jobRunId"]).data)}


@instead("emr-serverless", "ListJobRuns")
def _list_runs(service: Service, call: Call) -> dict[str, Any]:
    shown = ("applicationId", "arn", "createdAt", "createdBy", "executionRole", "name", "state")
    runs = _runs(service, call.params["applicationId"])[::-1]
    summaries = [
        {
            **{key: run.data[key] for key in (*shown, "stateDetails", "releaseLabel", "updatedAt")},
            "id": run.name,
        }
        for run in runs
    ]
    return {"jobRuns": summaries}


@instead("emr-serverless", "CancelJobRun")
def _cancel(service: Service, call: Call) -> dict[str, Any]:
    run = service.get("JobRun", call.params["jobRunId"])
    child = _CHILDREN.get(run.name)
    if run.data["state"] not in _ENDED:
        service.update(run, state="CANCELLING")
        if child is not None:
            service.runtime.end_child(child)
    return {"applicationId": run.data["applicationId"], "jobRunId": run.name}


def _run(service: Service, run: Record) -> None:
    runtime = service.runtime
    folder = runtime.state / "emr-serverless" / run.name
    folder.mkdir(parents=True)
    log = folder / "job.log"
    log.touch()
    service.update(run, state="RUNNING", startedAt=runtime.clock.now())
    began = time.monotonic()
    try:
        state, details = _execute(service, run, folder)
    except (TransferError, SparkError, ClientError, BotoCoreError, OSError, RuntimeError) as error:
        state, details = "FAILED", str(error)
    seconds = round(time.monotonic() - began, 2)
    _write_log(service, run, log)
    now = runtime.clock.now()
    service.update(run, stateDetails=details[:4_000], endedAt=now, updatedAt=now)
    service.update(run, totalExecutionDurationSeconds=round(seconds), state=state)
    title = str(run.data["name"] or run.name)
    if state == "SUCCESS":
        runtime.ledger.ran("emr-job", title, run=run.name, seconds=seconds, log=str(log))
    else:
        runtime.ledger.failed("emr-job", title, f"{state}: {details}", run=run.name, log=str(log))
    runtime.emit(
        "aws.emr-serverless",
        "EMR Serverless Job Run State Change",
        {
            "jobRunId": run.name,
            "jobRunName": run.data["name"],
            "applicationId": run.data["applicationId"],
            "releaseLabel": run.data["releaseLabel"],
            "state": state,
            "previousState": "RUNNING",
        },
        [run.arn],
        region=service.region,
    )
    shutil.rmtree(folder / "scratch", ignore_errors=True)


def _settings(submit: Mapping[str, Any]) -> dict[str, str]:
    """``--conf`` pairs of spark-submit's parameters; anything else is refused, not ignored."""
    words = shlex.split(submit.get("sparkSubmitParameters", ""))
    found: dict[str, str] = {}
    while words:
        option = words.pop(0)
        if option != "--conf" or not words:
            raise RuntimeError(f"spark-submit's {option!r} is not emulated; here: --conf name=value")
        name, _, value = words.pop(0).partition("=")
        found[name] = value
    return found


def _execute(service: Service, run: Record, folder: Path) -> tuple[str, str]:
    runtime, role = service.runtime, str(run.data["executionRole"])
    submit = run.data["jobDriver"].get("sparkSubmit")
    if submit is None:
        raise RuntimeError("only sparkSubmit drivers are emulated")
    settings = _settings(submit)
    script = folder / "script" / Path(submit["entryPoint"]).name
    script.parent.mkdir()
    script.write_bytes(fetch(runtime, submit["entryPoint"], role=role, region=service.region))
    libraries = []
    for number, uri in enumerate(filter(None, settings.pop("spark.submit.pyFiles", "").split(","))):
        target = folder / "python" / str(number) / Path(uri).name
        target.parent.mkdir(parents=True)
        target.write_bytes(fetch(runtime, uri, role=role, region=service.region))
        # A module lies on the path by its folder, an archive by itself.
        libraries.append(str(target.parent if target.suffix == ".py" else target))
    left = [name for name in settings if not name.startswith(_OF_THE_IMAGE)]
    if left:
        runtime.ledger.recorded("emr-job", run.name, f"settings of the cluster: {', '.join(sorted(left))}")
    scratch = folder / "scratch"
    scratch.mkdir()
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
        **runtime.role_environment(role, service.region),
        **spark_environment(scratch),
        "PYTHONPATH": os.pathsep.join(libraries),
        "PYTHONUNBUFFERED": "1",
        "GLUE_LOCAL_ROOT": str(scratch),
        "TMPDIR": str(scratch),
    }
    log, failure, clean = folder / "job.log", folder / "failure.txt", folder / "clean"
    argv = [sys.executable, str(SHIM / "run_job.py"), str(folder), str(script)]
    argv += submit.get("entryPointArguments", [])
    limit = 60 * int(run.data["executionTimeoutMinutes"])
    with gateway(runtime, clean) as java:
        before = java.log.stat().st_size
        environment |= java.environment()
        child = runtime.popen(argv, env=environment, cwd=scratch, log=log)
        _CHILDREN[run.name] = child
        try:
            status: int | None = child.wait(limit)
        except subprocess.TimeoutExpired:
            runtime.end_child(child)
            status = None
        finally:
            del _CHILDREN[run.name]
        with java.log.open("rb") as said, log.open("ab") as whole:
            said.seek(before)
            shutil.copyfileobj(said, whole)
    if run.data["state"] == "CANCELLING":
        return "CANCELLED", "the run was cancelled"
    if status is None:
        return "FAILED", f"the run exceeded its limit of {limit // 60} minutes"
    if status == 0:
        return "SUCCESS", ""
    if failure.exists():
        return "FAILED", failure.read_text(encoding="utf-8")
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return "FAILED", f"exit status {status}: {lines[-1] if lines else 'no output'}"


def _write_log(service: Service, run: Record, log: Path) -> None:
    """Put the log where the run says, as its role."""
    monitoring = run.data["configurationOverrides"].get("monitoringConfiguration", {})
    wanted = monitoring.get("cloudWatchLoggingConfiguration", {})
    if not wanted.get("enabled"):
        return
    runtime, role = service.runtime, str(run.data["executionRole"])
    client = runtime.client("logs", role=role, region=service.region)
    group = wanted.get("logGroupName", "/aws/emr-serverless")
    stream = f"applications/{run.data['applicationId']}/jobs/{run.name}/SPARK_DRIVER/stdout"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
    now = int(time.time() * 1000)
    events = [{"timestamp": now, "message": line[:_LOG_LINE]} for line in lines if line]
    try:
        client.create_log_stream(logGroupName=group, logStreamName=stream)
        if events:
            client.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)
    except ClientError as error:
        runtime.ledger.failed("emr-job", run.name, f"its log was not written to {group}: {error}")


@state_task("emr-serverless:startJobRun.sync")
def _job_run(runtime: Runtime, task: Task) -> Any:
    """Run a job to its end; one that does not succeed fails the task with its description."""
    client = runtime.client("emr-serverless", role=task.role, region=task.region)
    given = _lower(task.input)
    started = called("EMRServerless", lambda: client.start_job_run(**given))
    which = {"applicationId": started["applicationId"], "jobRunId": started["jobRunId"]}

    def ended() -> Mapping[str, Any] | None:
        found: Mapping[str, Any] = called("EMRServerless", lambda: client.get_job_run(**which))["jobRun"]
        return found if found["state"] in _ENDED else None

    found = wait_for(runtime, ended)
    if found["state"] != "SUCCESS":
        raise TaskError("States.TaskFailed", f"{found['state']}: {found['stateDetails']}")
    return {"ApplicationId": which["applicationId"], "JobRunId": which["jobRunId"], "State": found["state"]}


def _lower(value: Any) -> Any:
    """Step Functions writes members with a capital, the service without."""
    if isinstance(value, Mapping):
        return {name[:1].lower() + name[1:]: _lower(item) for name, item in value.items()}
    return [_lower(item) for item in value] if isinstance(value, list) else value
