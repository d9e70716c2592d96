"""Events that SageMaker Pipelines sends to EventBridge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rehearsal.executors.pipelines.execution import iso
from rehearsal.executors.service_metrics import count

if TYPE_CHECKING:
    from rehearsal.executors.pipelines.definition import Step
    from rehearsal.executors.pipelines.execution import Execution

__all__ = ["tell", "tell_step"]


def tell(execution: Execution, status: str, before: str | None) -> None:
    record = execution.record
    detail: dict[str, Any] = {
        "pipelineExecutionDisplayName": record.data["PipelineExecutionDisplayName"],
        "pipelineExecutionDescription": record.data["PipelineExecutionDescription"],
        "previousPipelineExecutionStatus": before,
        "currentPipelineExecutionStatus": status,
        "executionStartTime": iso(record.created),
        "pipelineArn": execution.pipeline.arn,
        "pipelineExecutionArn": record.arn,
    }
    if status in ("Succeeded", "Failed", "Stopped"):
        detail["executionEndTime"] = iso(record.updated)
        count(
            execution.runtime,
            "AWS/Sagemaker/ModelBuildingPipeline",
            f"Execution{status}",
            {"PipelineName": str(execution.pipeline.arn).rsplit("/", 1)[-1]},
        )
    execution.runtime.emit(
        "aws.sagemaker",
        "SageMaker Model Building Pipeline Execution Status Change",
        {key: value for key, value in detail.items() if value is not None},
        [execution.pipeline.arn, record.arn],
        region=execution.service.region,
    )


def tell_step(execution: Execution, step: Step, entry: Mapping[str, Any], before: str) -> None:
    detail: dict[str, Any] = {
        "stepName": step.name,
        "stepType": step.type,
        "previousStepStatus": before,
        "currentStepStatus": entry["StepStatus"],
        "stepStartTime": iso(entry["StartTime"]),
        "metadata": entry.get("Metadata", {}),
        "pipelineArn": execution.pipeline.arn,
        "pipelineExecutionArn": execution.record.arn,
    }
    if "EndTime" in entry:
        detail["stepEndTime"] = iso(entry["EndTime"])
    if "FailureReason" in entry:
        detail["failureReason"] = entry["FailureReason"]
    execution.runtime.emit(
        "aws.sagemaker",
        "SageMaker Model Building Pipeline Execution Step Status Change",
        detail,
        [execution.pipeline.arn, execution.record.arn],
        region=execution.service.region,
    )
