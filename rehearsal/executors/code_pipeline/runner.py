"""Runs executions: stage by stage, within a stage by run order, one execution of a pipeline at a time."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from rehearsal.executors.code_pipeline.actions import ActionError, perform
from rehearsal.executors.code_pipeline.execution import ActionRun, Execution, StageRun
from rehearsal.iam import AccessDeniedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rehearsal.services.engine import Service

__all__ = ["Executions", "executions_of"]

_EVERY: dict[tuple[str, str], Executions] = {}
_LOCK = threading.Lock()


def executions_of(service: Service, pipeline: str) -> Executions:
    """The executions of one pipeline."""
    with _LOCK:
        return _EVERY.setdefault((service.region, pipeline), Executions(service, pipeline))


class Executions:
    """Every execution of one pipeline, oldest first. A queued pipeline runs one at a time."""

    def __init__(self, service: Service, pipeline: str) -> None:
        self._service = service
        self.pipeline = pipeline
        self.all: list[Execution] = []
        self.version = 1
        self._turn = threading.Lock()

    @property
    def latest(self) -> Execution | None:
        """The one that began last."""
        return self.all[-1] if self.all else None

    def by_id(self, execution: str) -> Execution | None:
        """One of them."""
        return next((each for each in self.all if each.id == execution), None)

    def begin(self, execution: Execution) -> Execution:
        """Begin an execution; it waits for the ones before it."""
        self.all.append(execution)
        self._tell(execution, "STARTED")
        # A thread of its own and no "background work": an approval waits for a person, however long.
        threading.Thread(
            target=self._run, args=(execution,), name=f"pipeline {self.pipeline}", daemon=True
        ).start()
        return execution

    def cancel(self, why: str) -> list[Execution]:
        """Cancel what is under way: the definition that it follows is no longer the pipeline's."""
        cancelled = [each for each in self.all if each.status == "InProgress"]
        for each in cancelled:
            each.end("Cancelled", why)
        return cancelled

    def roll_back(self, stage: str, target: Execution) -> Execution:
        """Run one stage again with what another execution deployed."""
        execution = Execution(
            pipeline=self.pipeline,
            definition=target.definition,
            trigger="AutomatedRollback",
            detail=target.id,
            kind="ROLLBACK",
            target=target,
            only_stage=stage,
            artifacts=dict(target.artifacts),
            variables=dict(target.variables),
            revisions=list(target.revisions),
        )
        return self.begin(execution)

    def last_good(self, stage: str, before: Execution) -> Execution | None:
        """The last execution that succeeded in a stage, before another one.

        CodePipeline, "Configure stage rollback": it must have been started with the present version of the
        pipeline's structure.
        """
        for each in reversed(self.all[: self.all.index(before)]):
            run = each.stage(stage)
            present = each.definition["version"] == before.definition["version"]
            if run is not None and run.status == "Succeeded" and present:
                return each
        return None

    # -- one execution -----------------------------------------------------------------------------------

    def _run(self, execution: Execution) -> None:
        rolled: tuple[str, Execution] | None = None
        try:
            with self._turn:
                for declared in execution.declared_stages():
                    if execution.status != "InProgress" or execution.stop.is_set():
                        break
                    if not self._stage(execution, declared):
                        execution.end("Failed", f"stage {declared['name']} failed")
                        target = self.last_good(declared["name"], execution)
                        wanted = declared.get("onFailure", {}).get("result") == "ROLLBACK"
                        if wanted and target is not None and execution.kind != "ROLLBACK":
                            rolled = declared["name"], target
                        break
                execution.end("Stopped" if execution.stop.is_set() else "Succeeded")
        except Exception as error:
            execution.end("Failed", f"{type(error).__name__}: {error}")
            self._service.runtime.ledger.failed("codepipeline", self.pipeline, execution.why)
            raise
        finally:
            self._finish(execution)
        if rolled is not None:
            self.roll_back(*rolled)

    def _finish(self, execution: Execution) -> None:
        self._tell(execution, "CANCELED" if execution.status == "Cancelled" else execution.status.upper())
        self._service.runtime.ledger.ran(
            "codepipeline",
            f"{self.pipeline} {execution.id}",
            status=execution.status,
            why=execution.why,
            execution=execution.kind,
            actions=[
                {
                    "stage": action.stage,
                    "action": action.name,
                    "status": action.status,
                    "seconds": round((action.changed - action.began).total_seconds(), 1),
                    "why": action.error,
                }
                for stage in execution.stages
                for action in stage.actions
            ],
        )
        execution.done.set()

    def _stage(self, execution: Execution, declared: Mapping[str, Any]) -> bool:
        stage = StageRun(name=declared["name"])
        execution.stages.append(stage)
        by_order = sorted(declared["actions"], key=lambda action: int(action.get("runOrder", 1)))
        for _, group in itertools.groupby(by_order, key=lambda action: int(action.get("runOrder", 1))):
            if not self._group(execution, stage, group):
                stage.status = "Failed"
                return False
            if execution.stop.is_set() or execution.status != "InProgress":
                stage.status = "Stopped" if execution.stop.is_set() else "Cancelled"
                return True
        stage.status = "Succeeded"
        return True

    def _group(self, execution: Execution, stage: StageRun, declared: Iterable[Mapping[str, Any]]) -> bool:
        actions = [ActionRun(stage=stage.name, declared=each) for each in declared]
        stage.actions += actions
        # Whatever their number: CodePipeline waits for all of a run order.
        with ThreadPoolExecutor(max_workers=min(len(actions), 4)) as threads:
            list(threads.map(lambda action: self._action(execution, action), actions))
        return all(action.status == "Succeeded" for action in actions)

    def _action(self, execution: Execution, action: ActionRun) -> None:
        runtime, region = self._service.runtime, self._service.region
        try:
            perform(runtime, execution, action, region)
        except (ActionError, AccessDeniedError) as error:
            action.end("Abandoned" if execution.stop.is_set() else "Failed", error=str(error))
        except Exception as error:
            action.end("Failed", error=f"defect in the rehearsal: {type(error).__name__}: {error}")
            runtime.ledger.failed("codepipeline", f"{self.pipeline} {action.name}", action.error)
            raise
        else:
            action.end("Succeeded")

    def _tell(self, execution: Execution, state: str) -> None:
        service = self._service
        arn = service.arn("Pipeline", self.pipeline)
        service.runtime.emit(
            "aws.codepipeline",
            "CodePipeline Pipeline Execution State Change",
            {
                "pipeline": self.pipeline,
                "execution-id": execution.id,
                "state": state,
                "version": float(execution.definition.get("version", 1)),
            },
            [arn],
            region=service.region,
        )
