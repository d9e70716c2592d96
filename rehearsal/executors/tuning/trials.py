"""The trials of a tuning job: started as training jobs, watched, judged by the last value in their log."""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rehearsal.executors import containers
from rehearsal.executors.tuning.request import hyperband_resource, objective
from rehearsal.executors.tuning.search import Known, Search, Trial, combinations, ranges_in
from rehearsal.services.engine import ApiError

if TYPE_CHECKING:
    from rehearsal.services.engine import Record, Service

__all__ = [
    "STOPS",
    "Bound",
    "bound",
    "names",
    "objective_counters",
    "run",
    "summaries",
    "training_counters",
    "value_of",
]

STOPS = containers.Stops()
#: Two trials at once: more would not be quicker on the two cores that the rehearsal is made for.
_PARALLEL = 2
_ENDED = frozenset({"Completed", "Failed", "Stopped"})
_LOOK_SECONDS = 0.1
#: Members that the definition of a trial and a training job have in common.
_SHARED = (
    "RoleArn",
    "InputDataConfig",
    "VpcConfig",
    "OutputDataConfig",
    "StoppingCondition",
    "EnableNetworkIsolation",
    "EnableInterContainerTrafficEncryption",
    "EnableManagedSpotTraining",
    "RetryStrategy",
    "Environment",
    "ResourceConfig",
)


@dataclass(kw_only=True)
class Bound:
    """How many trials a job is run with at most."""

    max_trials: int = 8


bound = Bound()


@dataclass(kw_only=True)
class _Study:
    """One tuning job while it runs."""

    service: Service
    record: Record
    search: Search
    stop: threading.Event
    maximize: bool
    metric: str
    regex: str | None
    lock: threading.RLock = field(default_factory=threading.RLock)
    #: Trials, the first started first: the name of the training job, what was tuned.
    started: list[tuple[str, Trial]] = field(default_factory=list)

    def better(self, one: float, other: float) -> bool:
        return one > other if self.maximize else one < other


def names(params: Mapping[str, Any]) -> frozenset[str]:
    """Return the hyperparameters of a request, searched or not."""
    ranges = params["HyperParameterTuningJobConfig"].get("ParameterRanges", {})
    static = params["TrainingJobDefinition"].get("StaticHyperParameters", {})
    return frozenset({name for _, name, _ in ranges_in(ranges)} | static.keys())


def value_of(summary: Mapping[str, Any]) -> float | None:
    """Return the objective that a trial ended with."""
    found = summary.get("FinalHyperParameterTuningJobObjectiveMetric")
    return None if found is None else float(found["Value"])


def run(
    service: Service, record: Record, parents: Sequence[Record], stop: threading.Event
) -> tuple[str, dict[str, Any]]:
    """Run the search; return the job's last status and what is known then."""
    study, config = _begin(service, record, parents, stop), record.data["HyperParameterTuningJobConfig"]
    limits = config["ResourceLimits"]
    asked = limits.get("MaxNumberOfTrainingJobs")
    if asked is None:
        # Only a grid may leave it open.
        asked = combinations(config["ParameterRanges"])
    count, parallel = min(asked, bound.max_trials), min(limits["MaxParallelTrainingJobs"], _PARALLEL)
    _note(service, record, asked=asked, count=count)
    limit = limits.get("MaxRuntimeInSeconds")
    began, running, left = time.monotonic(), set[Future[None]](), count
    with ThreadPoolExecutor(parallel, thread_name_prefix=record.name) as pool:
        while left or running:
            if stop.is_set() or service.runtime.stopping.is_set() or _enough(study):
                left = 0
            if limit is not None and time.monotonic() - began > limit:
                left = 0
                stop.set()
            while left and len(running) < parallel:
                running.add(pool.submit(_trial, study, study.search.ask()))
                left -= 1
            if running:
                done, running = wait(running, timeout=_LOOK_SECONDS, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                _refresh(study)
    return _end(study, parents)


def _begin(service: Service, record: Record, parents: Sequence[Record], stop: threading.Event) -> _Study:
    data = record.data
    config, wanted = data["HyperParameterTuningJobConfig"], objective(data)
    known = [
        Known(parameters=summary["TunedHyperParameters"], value=value)
        for parent in parents
        for summary in summaries(service, parent)
        if (value := value_of(summary)) is not None
    ]
    search = Search(
        config,
        ranges=config["ParameterRanges"],
        maximize=wanted["Type"] == "Maximize",
        hyperband=hyperband_resource(data),
        known=known,
    )
    definitions = data["TrainingJobDefinition"]["AlgorithmSpecification"].get("MetricDefinitions", ())
    return _Study(
        service=service,
        record=record,
        search=search,
        stop=stop,
        maximize=wanted["Type"] == "Maximize",
        metric=wanted["MetricName"],
        regex=next((item["Regex"] for item in definitions if item["Name"] == wanted["MetricName"]), None),
    )


def _note(service: Service, record: Record, *, asked: int, count: int) -> None:
    """Say what is another than in an account."""
    ledger, config = service.runtime.ledger, record.data["HyperParameterTuningJobConfig"]
    if count < asked:
        ledger.recorded(
            "tuning-job", record.name, f"{count} trials were run of {asked} asked for: the rehearsal's bound"
        )
    if config["Strategy"] != "Grid":
        ledger.recorded(
            "tuning-job",
            record.name,
            f"Optuna drew the trials of the strategy {config['Strategy']}; AWS's search is another program",
        )
    if "ConvergenceDetected" in config.get("TuningJobCompletionCriteria", {}):
        ledger.recorded("tuning-job", record.name, "convergence is not looked for")


# ---------------------------------------------------------------------- one trial


def _trial(study: _Study, trial: Trial) -> None:
    """Run a trial to its end and tell the search what came of it."""
    service = study.service
    with study.lock:
        name = f"{study.record.name}-{len(study.started) + 1:03d}-{secrets.token_hex(4)}"
        service.call("CreateTrainingJob", **_request(study, name, trial))
        job = service.get("TrainingJob", name)
        service.update(job, TuningJobArn=study.record.arn)
        study.started.append((name, trial))
        _keep(study)
    stopping = False
    values: list[float] = []
    while job.status not in _ENDED:
        if not stopping and job.data.get("SecondaryStatus") == "Training":
            values = _progress(study, name)
            if study.stop.is_set() or study.search.hopeless(trial.number, values):
                stopping = True
                _stop(service, name)
        time.sleep(_LOOK_SECONDS)
    value = _final(study, job)
    # What was stopped early has a value too, and the search learns from it.
    study.search.tell(trial.number, value if job.status != "Failed" else None)


def _stop(service: Service, name: str) -> None:
    try:
        service.call("StopTrainingJob", TrainingJobName=name)
    except ApiError:
        # It ended while we looked.
        if service.get("TrainingJob", name).status == "InProgress":
            raise


def _request(study: _Study, name: str, trial: Trial) -> dict[str, Any]:
    definition = study.record.data["TrainingJobDefinition"]
    given = {key: definition[key] for key in _SHARED if key in definition}
    given["AlgorithmSpecification"] = definition["AlgorithmSpecification"]
    own = definition.get("HyperParameterTuningResourceConfig")
    if own is not None:
        known = ("InstanceType", "InstanceCount", "VolumeSizeInGB", "VolumeKmsKeyId")
        first = own.get("InstanceConfigs", [{}])[0]
        given["ResourceConfig"] = {key: v for key, v in {**own, **first}.items() if key in known}
    if "CheckpointConfig" in definition:
        config = definition["CheckpointConfig"]
        given["CheckpointConfig"] = {**config, "S3Uri": f"{config['S3Uri'].rstrip('/')}/{name}"}
    return {
        **given,
        "TrainingJobName": name,
        "HyperParameters": {
            **definition.get("StaticHyperParameters", {}),
            **trial.parameters,
            # SageMaker adds it; programs must bear it.
            "_tuning_objective_metric": study.metric,
        },
        "Tags": [{"Key": key, "Value": v} for key, v in study.service.tags.get(study.record.arn, {}).items()],
    }


def _progress(study: _Study, name: str) -> list[float]:
    """The objective after each round so far, from the trial's log."""
    if study.regex is None:
        return []
    folder = study.service.runtime.state / "sagemaker" / "training-jobs" / name
    found: list[float] = []
    for log in sorted(folder.rglob("*.log"))[:1]:
        for match in re.finditer(study.regex, log.read_text("utf-8", "replace")):
            found.append(float(match.group(1)))
    return found


def _final(study: _Study, job: Record) -> float | None:
    return next(
        (m["Value"] for m in job.data.get("FinalMetricDataList", ()) if m["MetricName"] == study.metric), None
    )


# ---------------------------------------------------------------------- what is known of the job


def _keep(study: _Study) -> None:
    """Keep which trials there are where every call finds them."""
    study.service.update(
        study.record,
        Trials=[{"name": name, "parameters": dict(trial.parameters)} for name, trial in study.started],
    )


def _refresh(study: _Study) -> None:
    known = summaries(study.service, study.record)
    changes: dict[str, Any] = {
        "TrainingJobStatusCounters": training_counters(known),
        "ObjectiveStatusCounters": objective_counters(known),
    }
    best = _best(study, known)
    changes |= {} if best is None else {"BestTrainingJob": best}
    study.service.update(study.record, **changes)


def _best(study: _Study, known: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The trial with the best objective among those that ended by themselves or were stopped early."""
    best: Mapping[str, Any] | None = None
    for summary in known:
        value = value_of(summary)
        if value is None or summary["TrainingJobStatus"] not in ("Completed", "Stopped"):
            continue
        held = None if best is None else value_of(best)
        if held is None or study.better(value, held):
            best = summary
    return best


def _enough(study: _Study) -> bool:
    """Whether a completion criterion is met."""
    criteria = study.record.data["HyperParameterTuningJobConfig"].get("TuningJobCompletionCriteria", {})
    known = [s for s in summaries(study.service, study.record) if value_of(s) is not None]
    values = [value for s in known if (value := value_of(s)) is not None]
    target = criteria.get("TargetObjectiveMetricValue")
    if target is not None and any(value == target or study.better(value, target) for value in values):
        return True
    patience = criteria.get("BestObjectiveNotImproving", {}).get("MaxNumberOfTrainingJobsNotImproving")
    if patience is None or not values:
        return False
    best = 0
    for number, value in enumerate(values):
        if study.better(value, values[best]):
            best = number
    return len(values) - 1 - best >= int(patience)


def _end(study: _Study, parents: Sequence[Record]) -> tuple[str, dict[str, Any]]:
    _refresh(study)
    service, record = study.service, study.record
    known = summaries(service, record)
    changes: dict[str, Any] = {
        "ConsumedResources": {
            "RuntimeInSeconds": sum(
                int(service.get("TrainingJob", name).data.get("TrainingTimeInSeconds", 0))
                for name, _ in study.started
            )
        }
    }
    if record.data.get("WarmStartConfig", {}).get("WarmStartType") == "IdenticalDataAndAlgorithm":
        theirs = [summary for parent in parents for summary in summaries(service, parent)]
        overall = _best(study, [*known, *theirs])
        changes |= {} if overall is None else {"OverallBestTrainingJob": overall}
    if study.stop.is_set():
        return "Stopped", changes
    if not any(value_of(summary) is not None for summary in known):
        reasons = sorted({summary.get("FailureReason", "it logged no objective") for summary in known})
        return "Failed", {
            **changes,
            "FailureReason": f"All training jobs failed. {'; '.join(reasons)}"[:1024],
        }
    return "Completed", changes


def summaries(service: Service, record: Record) -> list[dict[str, Any]]:
    """Describe the trials of a tuning job, the first started first."""
    wanted = objective(record.data)
    found = []
    for trial in record.data.get("Trials", ()):
        job = service.peek("TrainingJob", trial["name"])
        if job is not None:
            found.append(_summary(record, trial, job, wanted))
    return found


def _summary(
    record: Record, trial: Mapping[str, Any], job: Record, wanted: Mapping[str, str]
) -> dict[str, Any]:
    data = job.data
    value = next(
        (m["Value"] for m in data.get("FinalMetricDataList", ()) if m["MetricName"] == wanted["MetricName"]),
        None,
    )
    summary: dict[str, Any] = {
        "TrainingJobName": job.name,
        "TrainingJobArn": job.arn,
        "TuningJobName": record.name,
        "CreationTime": job.created,
        "TrainingStartTime": data.get("TrainingStartTime"),
        "TrainingEndTime": data.get("TrainingEndTime"),
        "TrainingJobStatus": job.status,
        "TunedHyperParameters": trial["parameters"],
        "FailureReason": data.get("FailureReason"),
        "ObjectiveStatus": "Pending"
        if job.status not in _ENDED
        else "Failed"
        if value is None or job.status == "Failed"
        else "Succeeded",
    }
    if summary["ObjectiveStatus"] == "Succeeded":
        summary["FinalHyperParameterTuningJobObjectiveMetric"] = {
            "Type": wanted["Type"],
            "MetricName": wanted["MetricName"],
            "Value": value,
        }
    return {key: item for key, item in summary.items() if item is not None}


def training_counters(known: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Count trials by what became of them."""
    status = [summary["TrainingJobStatus"] for summary in known]
    return {
        "Completed": status.count("Completed"),
        "InProgress": status.count("InProgress") + status.count("Stopping"),
        "RetryableError": 0,
        "NonRetryableError": status.count("Failed"),
        "Stopped": status.count("Stopped"),
    }


def objective_counters(known: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Count trials by what is known of their objective."""
    status = [summary["ObjectiveStatus"] for summary in known]
    return {name: status.count(name) for name in ("Succeeded", "Pending", "Failed")}
