"""The operations of CodePipeline that concern executions; definitions are the engine's."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from rehearsal.executors.code_pipeline.actions import source_is_here
from rehearsal.executors.code_pipeline.execution import ActionRun, Execution, StageRun
from rehearsal.executors.code_pipeline.runner import Executions, executions_of
from rehearsal.services.engine import ApiError, Call, Service, after, instead

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rehearsal.runtime import Runtime

__all__ = ["started_by_an_event"]


def _definition(service: Service, pipeline: str) -> dict[str, Any]:
    with service.lock:
        record = service.peek("Pipeline", pipeline)
        if record is None:
            raise ApiError(
                "PipelineNotFoundException",
                f"Account '{service.account}' does not have a pipeline with name '{pipeline}'",
            )
        return copy.deepcopy(record.data["pipeline"])


def _start(service: Service, pipeline: str, trigger: str, detail: str = "") -> Execution:
    definition = _definition(service, pipeline)
    return executions_of(service, pipeline).begin(
        Execution(pipeline=pipeline, definition=definition, trigger=trigger, detail=detail)
    )


def _of(service: Service, call: Call) -> Executions:
    name = str(call.params.get("pipelineName", call.params.get("name")))
    _definition(service, name)
    return executions_of(service, name)


def _execution(executions: Executions, execution: str) -> Execution:
    found = executions.by_id(execution)
    if found is None:
        raise ApiError("PipelineExecutionNotFoundException", f"no execution {execution}")
    return found


@after("codepipeline", "CreatePipeline")
def _created(service: Service, call: Call, output: dict[str, Any]) -> None:
    """A new pipeline runs at once, where its source can be had."""
    del output
    declared = call.params["pipeline"]
    _number(service, declared["name"], 1)
    why = source_is_here(service.runtime, declared, service.region)
    if why is None:
        _start(service, declared["name"], "CreatePipeline")
    else:
        service.runtime.ledger.recorded(
            "codepipeline",
            declared["name"],
            f"no stage is executed: {why}",
            stages=[stage["name"] for stage in declared["stages"]],
        )


@after("codepipeline", "UpdatePipeline")
def _updated(service: Service, call: Call, output: dict[str, Any]) -> None:
    """What is under way follows a definition that is the pipeline's no longer: it is cancelled."""
    del output
    # PipelineExecution, status Cancelled: "The pipeline's definition was updated before the pipeline
    # execution could be completed."
    executions = executions_of(service, call.params["pipeline"]["name"])
    executions.version += 1
    _number(service, executions.pipeline, executions.version)
    executions.cancel("the pipeline's definition was updated")


def _number(service: Service, pipeline: str, version: int) -> None:
    """CodePipeline counts the versions of a definition."""
    with service.lock:
        record = service.get("Pipeline", pipeline)
        record.data["pipeline"] = {**record.data["pipeline"], "version": version}


@instead("codepipeline", "StartPipelineExecution")
def _begin(service: Service, call: Call) -> dict[str, Any]:
    started = _start(service, call.params["name"], "StartPipelineExecution", call.principal or "operator")
    return {"pipelineExecutionId": started.id}


def started_by_an_event(runtime: Runtime, target: Mapping[str, Any], region: str) -> None:
    """Start the pipeline that a rule names, as the rule's role."""
    service = runtime.service("codepipeline", region)
    name = str(target["Arn"]).rsplit(":", 1)[-1]
    client = runtime.client("codepipeline", role=target["RoleArn"], region=region)
    client.start_pipeline_execution(name=name)
    latest = executions_of(service, name).latest
    if latest is not None:
        latest.trigger, latest.detail = "CloudWatchEvent", str(target["Arn"])


@instead("codepipeline", "StopPipelineExecution")
def _stop(service: Service, call: Call) -> dict[str, Any]:
    execution = _execution(_of(service, call), call.params["pipelineExecutionId"])
    if execution.status != "InProgress":
        raise ApiError(
            "PipelineExecutionNotStoppableException", f"execution {execution.id} is {execution.status}"
        )
    execution.stop.set()
    return {"pipelineExecutionId": execution.id}


@instead("codepipeline", "RollbackStage")
def _roll_back(service: Service, call: Call) -> dict[str, Any]:
    executions = _of(service, call)
    target = _execution(executions, call.params["targetPipelineExecutionId"])
    stage = call.params["stageName"]
    run = target.stage(stage)
    definition = _definition(service, executions.pipeline)
    if run is None or run.status != "Succeeded":
        raise ApiError("UnableToRollbackStageException", f"execution {target.id} did not succeed in {stage}")
    if target.definition["version"] != definition["version"]:
        raise ApiError(
            "UnableToRollbackStageException",
            f"execution {target.id} was started with version {target.definition['version']} of the pipeline, "
            f"which is at {definition['version']}",
        )
    started = executions.roll_back(stage, target)
    started.trigger = "ManualRollback"
    return {"pipelineExecutionId": started.id}


@instead("codepipeline", "PutApprovalResult")
def _answer(service: Service, call: Call) -> dict[str, Any]:
    wanted = call.params["stageName"], call.params["actionName"]
    for execution in reversed(_of(service, call).all):
        for action in (a for s in execution.stages for a in s.actions):
            if (action.stage, action.name) != wanted or action.token is None:
                continue
            if action.token != call.params["token"]:
                continue
            if action.answered.is_set():
                raise ApiError("ApprovalAlreadyCompletedException", f"{action.name} has its answer")
            result = call.params["result"]
            action.answer = result["status"], result["summary"]
            action.answered.set()
            return {"approvedAt": service.runtime.clock.now()}
    raise ApiError("InvalidApprovalTokenException", f"no approval of {'/'.join(wanted)} has this token")


# -- looking -------------------------------------------------------------------------------------------------


@instead("codepipeline", "GetPipelineExecution")
def _get(service: Service, call: Call) -> dict[str, Any]:
    execution = _execution(_of(service, call), call.params["pipelineExecutionId"])
    shown = {
        "pipelineName": execution.pipeline,
        "pipelineVersion": int(execution.definition.get("version", 1)),
        "pipelineExecutionId": execution.id,
        "status": execution.status,
        "statusSummary": execution.why,
        "artifactRevisions": execution.revisions,
        "executionType": execution.kind,
        "trigger": {"triggerType": execution.trigger, "triggerDetail": execution.detail},
    }
    if execution.target is not None:
        shown["rollbackMetadata"] = {"rollbackTargetPipelineExecutionId": execution.target.id}
    return {"pipelineExecution": shown}


@instead("codepipeline", "ListPipelineExecutions")
def _list(service: Service, call: Call) -> dict[str, Any]:
    return {
        "pipelineExecutionSummaries": [
            {
                "pipelineExecutionId": each.id,
                "status": each.status,
                "statusSummary": each.why,
                "startTime": each.began,
                "lastUpdateTime": each.changed,
                "executionType": each.kind,
                "trigger": {"triggerType": each.trigger, "triggerDetail": each.detail},
            }
            for each in reversed(_of(service, call).all)
        ][: call.params.get("maxResults", 100)]
    }


@instead("codepipeline", "GetPipelineState")
def _state(service: Service, call: Call) -> dict[str, Any]:
    executions = _of(service, call)
    definition = _definition(service, executions.pipeline)
    return {
        "pipelineName": executions.pipeline,
        "pipelineVersion": int(definition.get("version", 1)),
        "stageStates": [_stage_state(executions, stage) for stage in definition["stages"]],
    }


def _stage_state(executions: Executions, declared: Mapping[str, Any]) -> dict[str, Any]:
    latest: tuple[Execution, StageRun] | None = None
    for execution in executions.all:
        run = execution.stage(declared["name"])
        if run is not None:
            latest = execution, run
    shown: dict[str, Any] = {
        "stageName": declared["name"],
        "inboundTransitionState": {"enabled": True},
        "actionStates": [{"actionName": action["name"]} for action in declared["actions"]],
    }
    if latest is not None:
        execution, run = latest
        shown["latestExecution"] = {
            "pipelineExecutionId": execution.id,
            "status": run.status,
            "type": execution.kind,
        }
        by_name = {action.name: action for action in run.actions}
        for state in shown["actionStates"]:
            if state["actionName"] in by_name:
                state["latestExecution"] = _action_state(by_name[state["actionName"]])
    return shown


def _action_state(action: ActionRun) -> dict[str, Any]:
    return {
        "actionExecutionId": action.id,
        "status": action.status,
        "summary": action.summary,
        "lastStatusChange": action.changed,
        "externalExecutionId": action.external,
        **({"token": action.token} if action.token and not action.answered.is_set() else {}),
        **({"errorDetails": {"code": "JobFailed", "message": action.error}} if action.error else {}),
        **({"externalExecutionUrl": action.external} if action.external.startswith("https:") else {}),
    }


@instead("codepipeline", "ListActionExecutions")
def _actions(service: Service, call: Call) -> dict[str, Any]:
    wanted = call.params.get("filter", {}).get("pipelineExecutionId")
    return {
        "actionExecutionDetails": [
            {
                "pipelineExecutionId": execution.id,
                "actionExecutionId": action.id,
                "pipelineVersion": int(execution.definition.get("version", 1)),
                "stageName": action.stage,
                "actionName": action.name,
                "startTime": action.began,
                "lastUpdateTime": action.changed,
                "status": action.status,
                "input": {
                    "actionTypeId": dict(action.declared["actionTypeId"]),
                    "resolvedConfiguration": action.configuration,
                },
                "output": {
                    "executionResult": {
                        "externalExecutionId": action.external,
                        "externalExecutionSummary": action.summary,
                        **(
                            {"errorDetails": {"code": "JobFailed", "message": action.error}}
                            if action.error
                            else {}
                        ),
                    }
                },
            }
            for execution in reversed(_of(service, call).all)
            if wanted in (None, execution.id)
            for stage in reversed(execution.stages)
            for action in reversed(stage.actions)
        ]
    }
