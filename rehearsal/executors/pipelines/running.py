"""An execution from its first step to its last: order of dependency, branches, the cache of steps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rehearsal.executors import transfer
from rehearsal.executors.pipelines import steps
from rehearsal.executors.pipelines.definition import DefinitionError, Step
from rehearsal.executors.pipelines.execution import RUNNING, Execution, StepFailedError
from rehearsal.executors.pipelines.retries import RetryPolicy, policy_for
from rehearsal.executors.pipelines.telling import tell, tell_step
from rehearsal.executors.pipelines.values import ValueUnknownError, evaluate_condition, resolve

__all__ = ["run"]

# Two steps at once: more would not be quicker on the two cores that the rehearsal is made for.
PARALLEL_STEPS = 2


@dataclass(frozen=True, kw_only=True)
class _Cached:
    at: datetime
    answer: dict[str, Any]
    metadata: dict[str, Any]
    execution_arn: str


_CACHE: dict[tuple[str, str, str], _Cached] = {}


def run(execution: Execution) -> None:
    record, service = execution.record, execution.service
    pending = dict(execution.definition.steps)
    skipped: set[str] = set()
    succeeded: set[str] = set()
    failed: list[str] = []
    running: dict[Future[None], str] = {}
    parallel = min(PARALLEL_STEPS, execution.parallel)
    with ThreadPoolExecutor(parallel, thread_name_prefix=f"pipeline-{record.name}") as pool:
        while pending or running:
            _drop_untaken(execution, pending, skipped)
            if failed or execution.stop.is_set():
                pending.clear()
            for step in [s for s in pending.values() if s.after <= succeeded][: parallel - len(running)]:
                running[pool.submit(_run_step, execution, step)] = step.name
                del pending[step.name]
            if not running:
                break
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                name = running.pop(future)
                future.result()
                status = record.data["Steps"][name]["StepStatus"]
                if status == "Succeeded":
                    succeeded.add(name)
                elif status == "Failed":
                    failed.append(name)
    changes: dict[str, Any] = {}
    status = "Succeeded"
    if failed:
        status = "Failed"
        changes["FailureReason"] = "Step failure: One or multiple steps failed: " + "; ".join(
            f"{name}: {record.data['Steps'][name]['FailureReason']}" for name in failed
        )
    elif execution.stop.is_set():
        status = "Stopped"
    before = str(record.status)
    service.update(record, status=status, PipelineExecutionStatus=status, **changes)
    RUNNING.pop(record.arn, None)
    detail = {"pipeline": execution.pipeline.name, "status": status, "steps": sorted(record.data["Steps"])}
    if status == "Failed":
        execution.runtime.ledger.failed("pipeline-execution", record.name, changes["FailureReason"], **detail)
    else:
        execution.runtime.ledger.ran("pipeline-execution", record.name, **detail)
    tell(execution, status, before)


def _drop_untaken(execution: Execution, pending: dict[str, Step], skipped: set[str]) -> None:
    """Drop the steps of branches that were not taken, and what depends on them."""
    while True:
        gone = [
            step.name
            for step in pending.values()
            if step.after & skipped
            or (
                step.branch is not None
                and execution.outcomes.get(step.branch[0], step.branch[1]) is not step.branch[1]
            )
        ]
        if not gone:
            return
        for name in gone:
            del pending[name]
            skipped.add(name)


def _run_step(execution: Execution, step: Step) -> None:
    entry: dict[str, Any] = {
        "StepName": step.name,
        "StepStatus": "Executing",
        "StartTime": execution.runtime.clock.now(),
        "AttemptCount": 1,
    }
    entry |= {} if step.display_name is None else {"StepDisplayName": step.display_name}
    entry |= {} if step.description is None else {"StepDescription": step.description}
    with execution.service.lock:
        execution.record.data["Steps"][step.name] = entry
    tell_step(execution, step, entry, "Starting")
    changes: dict[str, Any] = {}
    try:
        status = _tried(execution, step, entry)
    except (
        StepFailedError,
        DefinitionError,
        ValueUnknownError,
        transfer.TransferError,
    ) as error:
        status, changes = "Failed", {"FailureReason": str(error)[:1024]}
    except Exception as error:
        changes = {"FailureReason": f"InternalServerError: {error}"[:1024]}
        status = "Failed"
        raise
    finally:
        with execution.service.lock:
            entry.update(StepStatus=status, EndTime=execution.runtime.clock.now(), **changes)
        tell_step(execution, step, entry, "Executing")


def _tried(execution: Execution, step: Step, entry: dict[str, Any]) -> str:
    """Perform a step, again and again while its retry policies say so."""
    clock, retries = execution.runtime.clock, dict[RetryPolicy, int]()
    first: datetime | None = None
    while True:
        try:
            return _perform(execution, step, entry)
        except StepFailedError as error:
            first = first or clock.now()
            policy = policy_for(step.retries, step.type, error.exception)
            if policy is None or execution.stop.is_set():
                raise
            retries[policy] = retry = retries.get(policy, 0) + 1
            wait_seconds = policy.wait_seconds(retry)
            if not policy.allows(retry, (clock.now() - first).total_seconds() + wait_seconds):
                raise
            execution.runtime.ledger.ran(
                "pipeline-step",
                step.name,
                retry=retry,
                exception=error.exception,
                after_seconds=wait_seconds,
                why=str(error)[:400],
            )
            if clock.sleep(wait_seconds, stop=execution.stop):
                raise
            with execution.service.lock:
                entry["AttemptCount"] += 1


def _perform(execution: Execution, step: Step, entry: dict[str, Any]) -> str:
    values = execution.values()
    if step.type == "Condition":
        try:
            outcome = all(evaluate_condition(item, values) for item in step.arguments["Conditions"])
        except TypeError as error:
            raise StepFailedError(str(error)) from error
        execution.outcomes[step.name] = outcome
        entry["Metadata"] = {"Condition": {"Outcome": str(outcome)}}
        return "Succeeded"
    arguments = resolve(dict(step.arguments), values)
    if step.type == "Fail":
        entry["Metadata"] = {"Fail": {"ErrorMessage": str(arguments["ErrorMessage"])}}
        raise StepFailedError(str(arguments["ErrorMessage"]))
    key = (execution.pipeline.arn, step.name, _digest(step.type, {**step.members, **arguments}))
    if step.cache_seconds is not None and _use_cache(execution, step, key, entry):
        return "Succeeded"
    status = steps.perform(execution, step, arguments, entry)
    if status == "Succeeded" and step.cache_seconds is not None:
        _CACHE[key] = _Cached(
            at=execution.runtime.clock.now(),
            answer=execution.answers[step.name],
            metadata=entry["Metadata"],
            execution_arn=execution.record.arn,
        )
    return status


def _digest(type_name: str, arguments: Mapping[str, Any]) -> str:
    text = json.dumps([type_name, arguments], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _use_cache(execution: Execution, step: Step, key: tuple[str, str, str], entry: dict[str, Any]) -> bool:
    cached = _CACHE.get(key)
    if cached is None or step.cache_seconds is None:
        return False
    if (execution.runtime.clock.now() - cached.at).total_seconds() > step.cache_seconds:
        return False
    execution.answers[step.name] = cached.answer
    entry["Metadata"] = cached.metadata
    entry["CacheHitResult"] = {"SourcePipelineExecutionArn": cached.execution_arn}
    return True
