"""Training jobs: what SageMaker checks, the statuses a job goes through, how it ends."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from rehearsal.executors import containers, transfer
from rehearsal.executors.containers import JobFolder
from rehearsal.executors.training_jobs import channels, checkpoints, metrics, pools
from rehearsal.executors.training_jobs.hosts import Crew, Ended
from rehearsal.executors.training_jobs.spot import CAPACITY_SECONDS, INTERRUPTIONS, Interruption
from rehearsal.services.engine import ApiError, Call, Record, Service, instead

__all__ = ["algorithm_error", "create", "stop"]

_STOPS = containers.Stops()
_LOG_GROUP = "/aws/sagemaker/TrainingJobs"
_LAST = ("Completed", "Failed", "Stopped", "MaxRuntimeExceeded", "MaxWaitTimeExceeded")
#: Of what a container leaves as its reason; beyond it the middle goes.
_MOST_FAILURE = 800

#: The final status, the secondary one, and what else Describe tells.
_End = tuple[str, str, dict[str, Any]]


@instead("sagemaker", "CreateTrainingJob")
def create(service: Service, call: Call) -> dict[str, Any]:
    """Check the job as far as SageMaker does before it answers, then start it."""
    params = call.params
    image = params["AlgorithmSpecification"].get("TrainingImage")
    if (image is None) == (params["AlgorithmSpecification"].get("AlgorithmName") is None):
        raise ApiError(
            "ValidationException",
            "AlgorithmSpecification takes exactly one of TrainingImage and AlgorithmName",
        )
    names = [channel["ChannelName"] for channel in params.get("InputDataConfig", ())]
    if len(set(names)) != len(names):
        raise ApiError("ValidationException", f"Channel names must be unique, got {', '.join(names)}")
    limits = params["StoppingCondition"]
    if params.get("EnableManagedSpotTraining"):
        if limits.get("MaxWaitTimeInSeconds", 0) < limits.get("MaxRuntimeInSeconds", 86400):
            raise ApiError(
                "ValidationException",
                "With EnableManagedSpotTraining, MaxWaitTimeInSeconds must be at least MaxRuntimeInSeconds",
            )
    elif "MaxWaitTimeInSeconds" in limits:
        raise ApiError("ValidationException", "MaxWaitTimeInSeconds needs EnableManagedSpotTraining")
    pools.check(params)
    for definition in params["AlgorithmSpecification"].get("MetricDefinitions", ()):
        try:
            re.compile(definition["Regex"])
        except re.error as error:
            raise ApiError(
                "ValidationException", f"The regex of metric {definition['Name']} is invalid: {error}"
            ) from None
    output = service.generic(call)
    record = service.get("TrainingJob", params["TrainingJobName"])
    record.status = "InProgress"
    _enter(service, record, "Starting", "Preparing the instances for training")
    signal = _STOPS.begin(record.arn)
    containers.start_work(service.runtime, f"training job {record.name}", _run, service, record, signal)
    return output


@instead("sagemaker", "StopTrainingJob")
def stop(service: Service, call: Call) -> dict[str, Any]:
    """Ask a running job to stop; what it has in its model folder by then is kept."""
    record = service.get("TrainingJob", call.params["TrainingJobName"])
    if record.status != "InProgress" or not _STOPS.stop(record.arn):
        raise ApiError(
            "ValidationException",
            f"The job {record.name} is {record.status}; only one InProgress can be stopped",
        )
    record.status = "Stopping"
    _enter(service, record, "Stopping", "Stopping the training job")
    return {}


def _enter(
    service: Service,
    record: Record,
    secondary: str,
    message: str,
    *,
    status: str | None = None,
    **changes: Any,
) -> None:
    """Enter a secondary status, and with the last one the final status and what is known then."""
    now = service.runtime.clock.now()
    transitions: list[dict[str, Any]] = [dict(t) for t in record.data.get("SecondaryStatusTransitions", ())]
    if transitions:
        transitions[-1].setdefault("EndTime", now)
    transitions.append({"Status": secondary, "StartTime": now, "StatusMessage": message})
    if secondary in _LAST:
        transitions[-1]["EndTime"] = now
    changes |= {"SecondaryStatus": secondary, "SecondaryStatusTransitions": transitions}
    service.update(record, status=status, **changes)
    service.runtime.emit(
        "aws.sagemaker",
        "SageMaker Training Job State Change",
        containers.event_detail(service, "TrainingJob", record),
        [record.arn],
        region=service.region,
    )


def _run(service: Service, record: Record, stop_signal: threading.Event) -> None:
    runtime = service.runtime
    folder = JobFolder.of(runtime, "training-jobs", record.name)
    work = _Work(service, record, folder, stop_signal)
    status, secondary, changes = "Failed", "Failed", dict[str, Any]()
    try:
        status, secondary, changes = work.run()
    except transfer.TransferError as error:
        changes = {"FailureReason": str(error)}
    except Exception as error:
        changes = {"FailureReason": f"InternalServerError: {error}"}
        raise
    finally:
        now = runtime.clock.now()
        seconds = int((now - record.data.get("TrainingStartTime", now)).total_seconds())
        log = work.first_log
        definitions = record.data["AlgorithmSpecification"].get("MetricDefinitions", ())
        metrics.publish(service, record.name, log, definitions, now)
        changes = {
            "TrainingEndTime": now,
            "TrainingTimeInSeconds": max(seconds, 1),
            # On spot: without what passed while there was no capacity. What spot costs is not known here.
            "BillableTimeInSeconds": max(int(work.ran_seconds) if work.waited else seconds, 1),
            "FinalMetricDataList": metrics.final_metrics(log, definitions, now),
            **changes,
        }
        _STOPS.end(record.arn)
        detail: dict[str, Any] = {"folder": str(folder.root), "status": status, "attempts": work.attempt}
        if status == "Failed":
            runtime.ledger.failed("training-job", record.name, changes.get("FailureReason", ""), **detail)
        else:
            runtime.ledger.ran("training-job", record.name, **detail)
        message = changes.get("FailureReason", f"Training job {status.lower()}")
        _enter(service, record, secondary, message, status=status, **changes)
        pools.keep(service, record)


def algorithm_error(text: str, code: int) -> str:
    """The FailureReason of a container that failed: what it left, in its middle shortened, and how it ended.

    A pipeline puts its own words before it, within 1,024 characters again (PipelineExecutionStep,
    FailureReason).
    """
    if len(text) > _MOST_FAILURE:
        text = f"{text[: _MOST_FAILURE // 2]} ... {text[-_MOST_FAILURE // 2 :]}"
    return f"AlgorithmError: {text}, exit code: {code}"


class _Work:
    """One job on its way."""

    def __init__(
        self, service: Service, record: Record, folder: JobFolder, stop_signal: threading.Event
    ) -> None:
        self._service = service
        self._runtime = service.runtime
        self._record = record
        self._folder = folder
        self._stop = stop_signal
        self._role = record.data["RoleArn"]
        #: Of the current attempt.
        self.first_log: Path = folder.log
        self.attempt = 0
        self.ran_seconds = 0.0
        #: Whether there was a time without capacity, and why.
        self.waited = False
        self._planned: Interruption | None = None

    def run(self) -> _End:
        """Run until it is done, attempt by attempt where capacity is taken away.

        :raises TransferError: data cannot be moved, or there is no program
        """
        data = self._record.data
        containers.assume(self._role)
        _note_what_is_not_run(self._service, self._record)
        if "TrainingImage" not in data["AlgorithmSpecification"]:
            raise transfer.TransferError(
                "the rehearsal runs training images only, not algorithms or the built-in ones of AWS"
                " Marketplace"
            )
        pools.claim(self._service, self._record)
        while True:
            self.attempt += 1
            crew = Crew(self._runtime, self._record, self._folder.root, self.attempt)
            self.first_log = crew.folders[0].log
            try:
                ended = self._attempt(crew)
            finally:
                self._ship_logs(crew)
            self.ran_seconds += ended.seconds
            if ended.how != "interrupted":
                return self._finish(crew, ended)
            given_up = self._wait_for_capacity()
            if given_up is not None:
                return given_up

    def _attempt(self, crew: Crew) -> Ended:
        """Download, run, and keep the checkpoints."""
        data, runtime = self._record.data, self._runtime
        mode = data["AlgorithmSpecification"]["TrainingInputMode"]
        self._status("Downloading", "Downloading input data")
        for channel in data.get("InputDataConfig", ()):
            channels.bring(self._service, channel, mode, crew.bases, role=self._role)
        config: dict[str, Any] = data.get("CheckpointConfig", {})
        kept = config.get("LocalPath", "/opt/ml/checkpoints") if config else None
        folders = crew.configure(kept)
        for folder in folders:
            checkpoints.restore(
                runtime, config["S3Uri"], folder, role=self._role, region=self._service.region
            )
        self._status("Training", "Training image download completed. Training in progress.")
        if "TrainingStartTime" not in data:
            self._service.update(self._record, TrainingStartTime=runtime.clock.now())
        crew.start(role=self._role, region=self._service.region)
        limit = data["StoppingCondition"].get("MaxRuntimeInSeconds", 86400) - self.ran_seconds
        syncing: AbstractContextManager[checkpoints.Syncing | None] = nullcontext()
        if folders:
            syncing = checkpoints.Syncing(
                runtime, folders, config["S3Uri"], role=self._role, region=self._service.region
            )
        planned = INTERRUPTIONS.of(self._record.name) if data.get("EnableManagedSpotTraining") else None
        with syncing as copies:
            ended = crew.wait(limit_seconds=limit, stop=self._stop, taken=_taken(crew, planned))
            if copies is not None and ended.in_time:
                copies.finish()
        if ended.how == "interrupted" and planned is not None:
            self._planned = planned
            INTERRUPTIONS.happened(planned)
            runtime.ledger.ran(
                "spot-interruption",
                self._record.name,
                attempt=self.attempt,
                after=planned.after,
                in_time=ended.in_time,
            )
        return ended

    def _wait_for_capacity(self) -> _End | None:
        """Wait until the job can start again; how it ended when it could not."""
        self._status("Interrupted", "Spot capacity was taken away; waiting for capacity")
        self.waited = True
        limits = self._record.data["StoppingCondition"]
        capacity = self._planned is None or self._planned.capacity
        seconds = CAPACITY_SECONDS if capacity else limits["MaxWaitTimeInSeconds"]
        if self._runtime.clock.sleep(seconds, stop=self._stop):
            return "Stopped", "Stopped", {}
        if not capacity:
            return "Stopped", "MaxWaitTimeExceeded", {}
        self._status("Starting", "Preparing the instances for training")
        return None

    def _finish(self, crew: Crew, ended: Ended) -> _End:
        """Upload what there is, and say how the job ended."""
        if ended.how == "lost":
            return "Failed", "Failed", {"FailureReason": containers.INTERNAL_ERROR}
        self._status("Uploading", "Uploading generated training model")
        changes = self._upload(crew)
        if ended.how == "timed-out":
            return "Stopped", "MaxRuntimeExceeded", changes
        if ended.how == "stopped":
            return "Stopped", "Stopped", changes
        reason = None
        if ended.how == "failed":
            code = containers.said_status(ended.exit_code or 0)
            reason = algorithm_error(crew.failure(ended.host), code)
        elif "ModelArtifacts" not in changes:
            reason = "ClientError: the training wrote nothing into /opt/ml/model"
        if reason is not None:
            return "Failed", "Failed", {"FailureReason": reason}
        return "Completed", "Completed", changes

    def _upload(self, crew: Crew) -> dict[str, Any]:
        """Pack and upload the model and the other output of all hosts; what Describe tells about them."""
        config = self._record.data["OutputDataConfig"]
        changes: dict[str, Any] = {}
        for inside, archive, key in (
            ("model", "model.tar.gz", "ModelArtifacts"),
            ("output/data", "output.tar.gz", None),
        ):
            source = crew.bases[0] / inside
            for other in crew.bases[1:]:
                shutil.copytree(other / inside, source, dirs_exist_ok=True)
            if not any(path.is_file() for path in source.rglob("*")):
                continue
            packed = self._folder.root / archive
            transfer.pack(source, packed)
            uri = f"{config['S3OutputPath'].rstrip('/')}/{self._record.name}/output/{archive}"
            transfer.upload_file(
                self._runtime,
                packed,
                uri,
                role=self._role,
                region=self._service.region,
                kms_key=config.get("KmsKeyId") or None,
            )
            if key is not None:
                changes[key] = {"S3ModelArtifacts": uri}
        return changes

    def _ship_logs(self, crew: Crew) -> None:
        stamp = int(self._runtime.clock.now().timestamp())
        for name, folder in zip(crew.names, crew.folders, strict=True):
            containers.ship_log(
                self._runtime,
                folder,
                role=self._role,
                region=self._service.region,
                group=_LOG_GROUP,
                stream=f"{self._record.name}/{name}-{stamp}",
            )

    def _status(self, secondary: str, message: str) -> None:
        _enter(self._service, self._record, secondary, message)


def _taken(crew: Crew, planned: Interruption | None) -> Callable[[], float | None]:
    """Whether the capacity is taken away by now: the warning in seconds."""

    def taken() -> float | None:
        if planned is None or not crew.said(planned.after):
            return None
        return planned.warning_seconds

    return taken


def _note_what_is_not_run(service: Service, record: Record) -> None:
    """Say what of the request has no effect on one machine."""
    data, ledger = record.data, service.runtime.ledger
    for key in ("DebugHookConfig", "DebugRuleConfigurations", "ProfilerRuleConfigurations"):
        if data.get(key):
            ledger.recorded("training-job", record.name, f"{key} was kept, its rules were not run")
