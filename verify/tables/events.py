"""Events that AWS's services send to EventBridge, as far as an app of this kind builds on them.

Checked on 2026-11-21. Sources: "Amazon EventBridge Events Reference" and the page that an entry names; enums
are botocore's where a service's event carries the status of its API.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

__all__ = ["CHECKED", "EVENTS", "TRAIL_EVENTS", "Fields"]

CHECKED = "2026-11-21"

#: Path in ``detail`` -> values it can have; None where any text may stand.
Fields: TypeAlias = Mapping[str, frozenset[str] | None]


def _one_of(*values: str) -> frozenset[str]:
    return frozenset(values)


_JOB = _one_of("InProgress", "Completed", "Failed", "Stopping", "Stopped")
_PIPELINE = _one_of("Executing", "Succeeded", "Failed", "Stopping", "Stopped")
_ENDPOINT = _one_of("CREATING", "IN_SERVICE", "UPDATING", "ROLLING_BACK", "FAILED", "DELETING")
_ALARM = _one_of("ALARM", "OK", "INSUFFICIENT_DATA")
_CODE_PIPELINE = _one_of(
    "STARTED", "STOPPING", "STOPPED", "RESUMED", "SUCCEEDED", "FAILED", "CANCELED", "SUPERSEDED"
)
_STEP_FUNCTIONS = _one_of("RUNNING", "SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED", "PENDING_REDRIVE")
_S3_OBJECT: Fields = {
    "version": None,
    "bucket.name": None,
    "object.key": None,
    "object.size": None,
    "object.etag": None,
    "object.version-id": None,
    "object.sequencer": None,
    "request-id": None,
    "requester": None,
    "source-ip-address": None,
    "reason": _one_of(
        "PutObject",
        "POST Object",
        "CopyObject",
        "CompleteMultipartUpload",
        "DeleteObject",
        "Lifecycle Expiration",
    ),
    "deletion-type": _one_of("Permanently Deleted", "Delete Marker Created"),
}
#: CloudFormation, "Stack status codes".
_STACK_STATUS = frozenset(
    f"{verb}_{state}"
    for verb in ("CREATE", "UPDATE", "DELETE", "ROLLBACK", "UPDATE_ROLLBACK", "IMPORT", "IMPORT_ROLLBACK")
    for state in ("IN_PROGRESS", "COMPLETE", "FAILED", "COMPLETE_CLEANUP_IN_PROGRESS")
) | {"REVIEW_IN_PROGRESS"}
_TRAIL: Fields = {
    "eventVersion": None,
    "eventSource": None,
    "eventName": None,
    "eventTime": None,
    "awsRegion": None,
    "sourceIPAddress": None,
    "userAgent": None,
    "errorCode": None,
    "errorMessage": None,
    "readOnly": None,
    "recipientAccountId": None,
    # What a call was given and answered is the API's own.
    "userIdentity.*": None,
    "requestParameters.*": None,
    "responseElements.*": None,
    "resources.*": None,
    "additionalEventData.*": None,
}
EVENTS: Mapping[tuple[str, str], Fields] = {
    # "Events that SageMaker AI sends to EventBridge".
    ("aws.sagemaker", "SageMaker Model Package State Change"): {
        "ModelPackageGroupName": None,
        "ModelPackageName": None,
        "ModelPackageArn": None,
        "ModelPackageVersion": None,
        "ModelPackageStatus": _one_of("Pending", "InProgress", "Completed", "Failed", "Deleting"),
        "ModelApprovalStatus": _one_of("Approved", "Rejected", "PendingManualApproval"),
        "SourceAlgorithmSpecification.*": None,
        "InferenceSpecification.*": None,
    },
    ("aws.sagemaker", "SageMaker Processing Job State Change"): {
        "ProcessingJobName": None,
        "ProcessingJobArn": None,
        "ProcessingJobStatus": _JOB,
        "FailureReason": None,
        "ExitMessage": None,
    },
    ("aws.sagemaker", "SageMaker Training Job State Change"): {
        "TrainingJobName": None,
        "TrainingJobArn": None,
        "TrainingJobStatus": _JOB,
        "SecondaryStatus": None,
        "FailureReason": None,
    },
    ("aws.sagemaker", "SageMaker Transform Job State Change"): {
        "TransformJobName": None,
        "TransformJobArn": None,
        "TransformJobStatus": _JOB,
    },
    ("aws.sagemaker", "SageMaker HyperParameter Tuning Job State Change"): {
        "HyperParameterTuningJobName": None,
        "HyperParameterTuningJobArn": None,
        "HyperParameterTuningJobStatus": _JOB,
    },
    ("aws.sagemaker", "SageMaker Ground Truth Labeling Job State Change"): {"LabelingJobStatus": _JOB},
    ("aws.sagemaker", "SageMaker Feature Group State Change"): {
        "FeatureGroupName": None,
        "FeatureGroupArn": None,
        "FeatureGroupStatus": _one_of("Creating", "Created", "CreateFailed", "Deleting", "DeleteFailed"),
    },
    ("aws.sagemaker", "SageMaker Model Building Pipeline Execution Status Change"): {
        "pipelineArn": None,
        "pipelineExecutionArn": None,
        "pipelineExecutionDisplayName": None,
        "currentPipelineExecutionStatus": _PIPELINE,
        "previousPipelineExecutionStatus": _PIPELINE,
    },
    ("aws.sagemaker", "SageMaker Model Building Pipeline Execution Step Status Change"): {
        "pipelineArn": None,
        "pipelineExecutionArn": None,
        "stepName": None,
        "stepType": None,
        "currentStepStatus": _one_of("Starting", "Executing", "Succeeded", "Failed", "Stopping", "Stopped"),
    },
    ("aws.sagemaker", "SageMaker Endpoint State Change"): {
        "EndpointName": None,
        "EndpointArn": None,
        "EndpointConfigName": None,
        "EndpointStatus": _ENDPOINT,
    },
    ("aws.sagemaker", "SageMaker Endpoint Deployment State Change"): {
        "EndpointName": None,
        "EndpointArn": None,
        "DeploymentStatus": None,
    },
    ("aws.sagemaker", "SageMaker Endpoint Config State Change"): {"EndpointConfigName": None},
    # "Alarm events and EventBridge".
    ("aws.cloudwatch", "CloudWatch Alarm State Change"): {
        "alarmName": None,
        "state.value": _ALARM,
        "state.reason": None,
        "previousState.value": _ALARM,
        "configuration.*": None,
    },
    # "Managing CloudFormation events using EventBridge".
    ("aws.cloudformation", "CloudFormation Stack Status Change"): {
        "stack-id": None,
        "status-details.status": _STACK_STATUS,
        "status-details.status-reason": None,
        "client-request-token": None,
    },
    ("aws.cloudformation", "CloudFormation Drift Detection Status Change"): {
        "stack-id": None,
        "status-details.detection-status": None,
        "status-details.stack-drift-status": _one_of("DRIFTED", "IN_SYNC", "UNKNOWN", "NOT_CHECKED"),
    },
    # "Automating Glue with EventBridge".
    ("aws.glue", "Glue Job State Change"): {
        "jobName": None,
        "jobRunId": None,
        "severity": None,
        "message": None,
        "state": _one_of("SUCCEEDED", "FAILED", "TIMEOUT", "STOPPED"),
    },
    ("aws.glue", "Glue Crawler State Change"): {
        "crawlerName": None,
        "state": _one_of("Started", "Succeeded", "Failed"),
    },
    ("aws.glue", "Glue Data Catalog Table State Change"): {"databaseName": None, "tableName": None},
    ("aws.glue-dataquality", "Data Quality Evaluation Results Available"): {
        "context.*": None,
        "rulesetNames": None,
        "resultId": None,
        "state": _one_of("SUCCEEDED", "FAILED"),
        "score": None,
    },
    ("aws.databrew", "DataBrew Job State Change"): {
        "jobName": None,
        "jobRunId": None,
        "severity": None,
        "message": None,
        "state": _one_of("SUCCEEDED", "FAILED", "TIMEOUT", "STOPPED"),
    },
    # "Using EventBridge with Amazon S3", "EventBridge event message structure".
    ("aws.s3", "Object Created"): _S3_OBJECT,
    ("aws.s3", "Object Deleted"): _S3_OBJECT,
    # "Monitoring CodeCommit events".
    ("aws.codecommit", "CodeCommit Repository State Change"): {
        "event": _one_of("referenceCreated", "referenceUpdated", "referenceDeleted"),
        "repositoryName": None,
        "repositoryId": None,
        "referenceName": None,
        "referenceFullName": None,
        "referenceType": _one_of("branch", "tag"),
        "commitId": None,
    },
    # "Monitoring CodePipeline events"; "CodeBuild: build notifications".
    ("aws.codepipeline", "CodePipeline Pipeline Execution State Change"): {
        "pipeline": None,
        "version": None,
        "execution-id": None,
        "state": _CODE_PIPELINE,
    },
    ("aws.codepipeline", "CodePipeline Stage Execution State Change"): {
        "pipeline": None,
        "stage": None,
        "execution-id": None,
        "state": _CODE_PIPELINE,
    },
    ("aws.codepipeline", "CodePipeline Action Execution State Change"): {
        "pipeline": None,
        "stage": None,
        "action": None,
        "execution-id": None,
        "state": _one_of("STARTED", "SUCCEEDED", "FAILED", "CANCELED", "ABANDONED"),
        "type.*": None,
    },
    ("aws.codebuild", "CodeBuild Build State Change"): {
        "project-name": None,
        "build-id": None,
        "build-status": _one_of("IN_PROGRESS", "SUCCEEDED", "FAILED", "STOPPED", "TIMED_OUT", "FAULT"),
        "additional-information.*": None,
    },
    # "Step Functions: automating with EventBridge"; "AWS Batch: events"; "EMR Serverless: EventBridge".
    ("aws.states", "Step Functions Execution Status Change"): {
        "stateMachineArn": None,
        "executionArn": None,
        "name": None,
        "status": _STEP_FUNCTIONS,
    },
    ("aws.batch", "Batch Job State Change"): {
        "jobName": None,
        "jobId": None,
        "jobQueue": None,
        "jobDefinition": None,
        "status": _one_of("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING", "SUCCEEDED", "FAILED"),
    },
    ("aws.emr-serverless", "EMR Serverless Job Run State Change"): {
        "jobRunId": None,
        "applicationId": None,
        "arn": None,
        "jobRunName": None,
        "releaseLabel": None,
        "state": _one_of(
            "SUBMITTED",
            "PENDING",
            "SCHEDULED",
            "RUNNING",
            "QUEUED",
            "SUCCESS",
            "FAILED",
            "CANCELLING",
            "CANCELLED",
        ),
        "previousState": None,
    },
    # "GuardDuty: EventBridge"; "Security Hub: EventBridge"; "Inspector: EventBridge event schema";
    # "Config: EventBridge"; "ECR events and EventBridge"; "AWS Health: EventBridge"; "Macie: EventBridge".
    ("aws.guardduty", "GuardDuty Finding"): {
        "id": None,
        "type": None,
        "severity": None,
        "accountId": None,
        "region": None,
        "title": None,
        "resource.*": None,
        "service.*": None,
    },
    ("aws.securityhub", "Security Hub Findings - Imported"): {"findings.*": None},
    ("aws.inspector2", "Inspector2 Finding"): {
        "awsAccountId": None,
        "findingArn": None,
        "severity": _one_of("INFORMATIONAL", "LOW", "MEDIUM", "HIGH", "CRITICAL", "UNTRIAGED"),
        "status": _one_of("ACTIVE", "SUPPRESSED", "CLOSED"),
        "type": _one_of("NETWORK_REACHABILITY", "PACKAGE_VULNERABILITY", "CODE_VULNERABILITY"),
        "title": None,
        "resources.*": None,
        "inspectorScore": None,
    },
    ("aws.inspector2", "Inspector2 Scan"): {"scan-status": None, "repository-name": None},
    ("aws.config", "Config Rules Compliance Change"): {
        "configRuleName": None,
        "configRuleARN": None,
        "resourceType": None,
        "resourceId": None,
        "messageType": _one_of("ComplianceChangeNotification"),
        "newEvaluationResult.complianceType": _one_of(
            "COMPLIANT", "NON_COMPLIANT", "NOT_APPLICABLE", "INSUFFICIENT_DATA"
        ),
        "oldEvaluationResult.complianceType": None,
    },
    ("aws.ecr", "ECR Image Scan"): {
        "scan-status": _one_of("COMPLETE", "FAILED"),
        "repository-name": None,
        "image-digest": None,
        "image-tags": None,
        "finding-severity-counts.*": None,
    },
    ("aws.ecr", "ECR Image Action"): {
        "action-type": _one_of("PUSH", "DELETE", "PULL"),
        "result": _one_of("SUCCESS", "FAILURE"),
        "repository-name": None,
        "image-digest": None,
        "image-tag": None,
    },
    ("aws.health", "AWS Health Event"): {
        "service": None,
        "eventTypeCode": None,
        "eventTypeCategory": _one_of("issue", "accountNotification", "scheduledChange", "investigation"),
    },
    ("aws.macie", "Macie Finding"): {"type": None, "severity.description": None, "category": None},
    ("aws.ssm", "Parameter Store Change"): {
        "name": None,
        "type": _one_of("String", "StringList", "SecureString"),
        "operation": _one_of("Create", "Update", "Delete", "LabelParameterVersion"),
        "description": None,
    },
    ("aws.events", "Scheduled Event"): {},
    ("aws.budgets", "Budgets Threshold Exceeded"): {"budgetName": None},
    ("aws.ce", "Anomaly Detected"): {"accountName": None, "anomalyId": None, "impact.*": None},
    ("aws.servicequotas", "Service Quotas Utilization Notification"): {"quota-code": None},
    ("aws.dms", "DMS Replication Task State Change"): {"eventType": None, "category": None, "type": None},
    ("aws.datasync", "DataSync Task Execution State Change"): {
        "State": _one_of("QUEUED", "LAUNCHING", "PREPARING", "TRANSFERRING", "VERIFYING", "SUCCESS", "ERROR")
    },
}
#: Events of CloudTrail have the source of the service that was called.
TRAIL_EVENTS: Mapping[str, Fields] = {
    "AWS API Call via CloudTrail": _TRAIL,
    "AWS Service Event via CloudTrail": _TRAIL,
    "AWS Console Sign In via CloudTrail": _TRAIL,
}
