"""The request of a Ground Truth labelling job, and the state machine that makes it."""

from __future__ import annotations

from typing import Any

from ml_contract.spec.labelling import Labelling

from ml_lifecycle.foundation import RETRY_LAMBDA
from ml_lifecycle.pseudo import PARTITION

__all__ = ["ATTRIBUTE", "definition", "request"]

#: Name under which the label stands in the output manifest (``label_tasks.ground_truth.ATTRIBUTE``).
ATTRIBUTE = "people"
#: A person may take so long for one item.
_ITEM_SECONDS = 3_600
#: Ground Truth shows an item for at most 30 days to a private team (CreateLabelingJob,
#: TaskAvailabilityLifetimeInSeconds).
_LONGEST_SECONDS = 2_592_000
_LOOK_SECONDS = 600


def request(
    rules: Labelling,
    *,
    title: str,
    job_name: str,
    manifest_uri: str,
    output_uri: str,
    output_key: str,
    template_uri: str,
    role: str,
    prepare: str,
    consolidate: str,
) -> dict[str, Any]:
    """Return the request of ``CreateLabelingJob``."""
    return {
        "LabelingJobName": job_name,
        "LabelAttributeName": ATTRIBUTE,
        "InputConfig": {"DataSource": {"S3DataSource": {"ManifestS3Uri": manifest_uri}}},
        "OutputConfig": {"S3OutputPath": output_uri, "KmsKeyId": output_key},
        "RoleArn": role,
        "HumanTaskConfig": {
            "WorkteamArn": rules.workforce,
            "UiConfig": {"UiTemplateS3Uri": template_uri},
            "PreHumanTaskLambdaArn": prepare,
            "AnnotationConsolidationConfig": {"AnnotationConsolidationLambdaArn": consolidate},
            "TaskTitle": title[:128],
            "TaskDescription": " ".join(rules.instructions.split())[:255],
            "NumberOfHumanWorkersPerDataObject": rules.labellers_per_item,
            "TaskTimeLimitInSeconds": _ITEM_SECONDS,
            "TaskAvailabilityLifetimeInSeconds": min(rules.expires_hours * 3_600, _LONGEST_SECONDS),
        },
    }


def definition(parameters: dict[str, Any], *, function_arn: str) -> dict[str, Any]:
    """Return the state machine of one job: collect, create, look until it ends, harvest or release."""

    def call(payload: dict[str, Any], then: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {
            "Type": "Task",
            "Resource": f"arn:{PARTITION}:states:::lambda:invoke",
            "Parameters": {"FunctionName": function_arn, "Payload": payload},
            "TimeoutSeconds": 900,
            "Retry": RETRY_LAMBDA,
            **more,
            **then,
        }

    failed = [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.error", "Next": "Release"}]
    named = {"job.$": "$.collected.job"}
    output = "States.Format('{}/{}/manifests/output/output.manifest', $.collected.output, $.collected.job)"
    sagemaker = f"arn:{PARTITION}:states:::aws-sdk:sagemaker"
    return {
        "Comment": "Sends the items that wait to SageMaker Ground Truth and brings the labels back",
        "StartAt": "Collect",
        "States": {
            "Collect": call(
                # The same in every retry, of another execution another, and short enough for a job's name.
                {"step": "collect", "job.$": "States.Hash($$.Execution.Id, 'SHA-1')"},
                {"Next": "Any"},
                ResultSelector={
                    "items.$": "$.Payload.items",
                    "job.$": "$.Payload.job",
                    "manifest.$": "$.Payload.manifest",
                    "output.$": "$.Payload.output",
                },
                ResultPath="$.collected",
            ),
            "Any": {
                "Type": "Choice",
                "Choices": [{"Variable": "$.collected.items", "NumericGreaterThan": 0, "Next": "Create"}],
                "Default": "Nothing",
            },
            "Nothing": {"Type": "Succeed"},
            "Create": {
                "Type": "Task",
                "Resource": f"{sagemaker}:createLabelingJob",
                "Parameters": parameters,
                "ResultPath": None,
                "Catch": failed,
                "Next": "Wait",
            },
            "Wait": {"Type": "Wait", "Seconds": _LOOK_SECONDS, "Next": "Look"},
            "Look": {
                "Type": "Task",
                "Resource": f"{sagemaker}:describeLabelingJob",
                "Parameters": {"LabelingJobName.$": "$.collected.job"},
                "ResultSelector": {"status.$": "$.LabelingJobStatus"},
                "ResultPath": "$.found",
                "Next": "Ended",
            },
            "Ended": {
                "Type": "Choice",
                "Choices": [
                    {"Variable": "$.found.status", "StringEquals": "Completed", "Next": "Harvest"},
                    {"Variable": "$.found.status", "StringEquals": "Failed", "Next": "Release"},
                    {"Variable": "$.found.status", "StringEquals": "Stopped", "Next": "Release"},
                ],
                "Default": "Wait",
            },
            "Harvest": call({"step": "harvest", **named, "manifest.$": output}, {"End": True}),
            "Release": call(
                {"step": "release", **named, "manifest.$": "$.collected.manifest"}, {"Next": "Failed"}
            ),
            "Failed": {"Type": "Fail", "Error": "LabelingJobFailed", "Cause": "The items wait again"},
        },
    }
