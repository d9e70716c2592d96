"""SageMaker tuning jobs: trials that are training jobs of their own, chosen by a search.

What a trial learns is real; which trials there are is Optuna's word, not AWS's. ``POST
/_rehearsal/tuning {"max_trials": 6}`` bounds the trials of every job that starts from then on.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from rehearsal.control import ControlError, control
from rehearsal.executors import containers
from rehearsal.executors.tuning import request, trials
from rehearsal.services.engine import ApiError, Call, Record, Service, instead

if TYPE_CHECKING:
    from collections.abc import Callable

    from rehearsal.runtime import Runtime

__all__ = ["create", "list_trials", "stop"]

_NOUN = "HyperParameterTuningJob"


@control("POST", "/tuning")
def bound(runtime: Runtime, body: dict[str, Any]) -> dict[str, Any]:
    """Set how many trials a tuning job is run with at most."""
    del runtime
    wanted = body.get("max_trials")
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1:
        raise ControlError(f"max_trials must be an integer of at least 1, got {wanted!r}")
    trials.bound.max_trials = wanted
    return {"max_trials": wanted}


@instead("sagemaker", "CreateHyperParameterTuningJob")
def create(service: Service, call: Call) -> dict[str, Any]:
    """Check the job as far as SageMaker does before it answers, then start its search."""
    for member in ("TrainingJobDefinitions", "Autotune"):
        if member in call.params:
            raise ApiError("NotImplemented", f"the rehearsal runs no tuning job with {member}", 501)
    wrong = request.problems(call.params)
    parents = _parents(service, call.params)
    if wrong:
        raise ApiError("ValidationException", "; ".join(wrong))
    output = service.generic(call)
    record = service.get(_NOUN, call.params["HyperParameterTuningJobName"])
    service.update(
        record,
        status="InProgress",
        TrainingJobStatusCounters=trials.training_counters(()),
        ObjectiveStatusCounters=trials.objective_counters(()),
    )
    tell(service, record)
    signal = trials.STOPS.begin(record.arn)
    containers.start_work(
        service.runtime, f"tuning job {record.name}", _run, service, record, parents, signal
    )
    return output


def _parents(service: Service, params: dict[str, Any]) -> list[Record]:
    """The tuning jobs that a warm start begins with."""
    config = params.get("WarmStartConfig", {})
    found = [
        service.get(_NOUN, item["HyperParameterTuningJobName"])
        for item in config.get("ParentHyperParameterTuningJobs", ())
    ]
    for parent in found:
        # "Types of Warm Start Tuning Jobs": a parent has ended, and what is searched is the same set.
        if parent.status not in ("Completed", "Stopped"):
            raise ApiError(
                "ValidationException",
                f"The parent {parent.name} is {parent.status}; it must be Completed or Stopped",
            )
        mine, theirs = trials.names(params), trials.names(parent.data)
        if mine != theirs:
            raise ApiError(
                "ValidationException",
                f"The hyperparameters differ from those of the parent {parent.name}: "
                f"{', '.join(sorted(mine ^ theirs))}",
            )
    return found


def _run(service: Service, record: Record, parents: list[Record], signal: threading.Event) -> None:
    status, changes = "Failed", dict[str, Any]()
    try:
        status, changes = trials.run(service, record, parents, signal)
    except ApiError as error:
        # A trial that SageMaker would refuse to begin.
        changes = {"FailureReason": f"ClientError: {error}"[:1024]}
    except Exception as error:
        changes = {"FailureReason": f"InternalServerError: {error}"}
        raise
    finally:
        trials.STOPS.end(record.arn)
        end = service.runtime.clock.now()
        service.update(record, status=status, HyperParameterTuningEndTime=end, **changes)
        detail = {"status": status, **record.data["TrainingJobStatusCounters"]}
        if status == "Failed":
            service.runtime.ledger.failed("tuning-job", record.name, changes["FailureReason"], **detail)
        else:
            service.runtime.ledger.ran("tuning-job", record.name, **detail)
        tell(service, record)


def tell(service: Service, record: Record) -> None:
    """Send the event of a changed status."""
    service.runtime.emit(
        "aws.sagemaker",
        "SageMaker HyperParameter Tuning Job State Change",
        containers.event_detail(service, _NOUN, record),
        [record.arn],
        region=service.region,
    )


@instead("sagemaker", "StopHyperParameterTuningJob")
def stop(service: Service, call: Call) -> dict[str, Any]:
    """Ask a running search to stop: its running trials are stopped, no new one begins."""
    record = service.get(_NOUN, call.params["HyperParameterTuningJobName"])
    if record.status != "InProgress" or not trials.STOPS.stop(record.arn):
        raise ApiError(
            "ValidationException",
            f"The tuning job {record.name} is {record.status}; only one InProgress can be stopped",
        )
    service.update(record, status="Stopping")
    return {}


@instead("sagemaker", "ListTrainingJobsForHyperParameterTuningJob")
def list_trials(service: Service, call: Call) -> dict[str, Any]:
    """List the trials of a job, by name unless asked otherwise."""
    params = call.params
    record = service.get(_NOUN, params["HyperParameterTuningJobName"])
    wanted = params.get("StatusEquals")
    found = [
        summary
        for summary in trials.summaries(service, record)
        if wanted is None or summary["TrainingJobStatus"] == wanted
    ]
    by = params.get("SortBy", "Name")
    if by == "FinalObjectiveMetricValue":
        # "If no objective metric value is known, the job is not listed."
        found = [summary for summary in found if trials.value_of(summary) is not None]
    key: dict[str, Callable[[dict[str, Any]], Any]] = {
        "Name": lambda summary: summary["TrainingJobName"],
        "CreationTime": lambda summary: summary["CreationTime"],
        "Status": lambda summary: summary["TrainingJobStatus"],
        "FinalObjectiveMetricValue": trials.value_of,
    }
    found.sort(key=key[by], reverse=params.get("SortOrder", "Ascending") == "Descending")
    begin = int(params.get("NextToken", 0))
    end = begin + params.get("MaxResults", 100)
    token = {"NextToken": str(end)} if end < len(found) else {}
    return {"TrainingJobSummaries": found[begin:end], **token}
