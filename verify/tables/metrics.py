"""Metrics that AWS's services publish, as far as an app of this kind alarms on them or draws them.

Checked on 2026-11-21 against each service's "Monitoring with CloudWatch" page, named beside the namespace.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

__all__ = ["CHECKED", "METRICS", "Namespace"]

CHECKED = "2026-11-21"

#: Sets of dimensions -> metrics published with exactly those; ``*`` where a service publishes what it likes.
Namespace: TypeAlias = Mapping[tuple[str, ...], frozenset[str]]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LAMBDA = _names(
    "Invocations Errors Throttles Duration ConcurrentExecutions DeadLetterErrors "
    "DestinationDeliveryFailures IteratorAge AsyncEventsReceived AsyncEventAge AsyncEventsDropped "
    "ProvisionedConcurrentExecutions ProvisionedConcurrencyInvocations "
    "ProvisionedConcurrencySpilloverInvocations ProvisionedConcurrencyUtilization "
    "RecursiveInvocationsDropped OffsetLag PostRuntimeExtensionsDuration OversizedRecordCount "
    "UnreservedConcurrentExecutions ClaimedAccountConcurrency"
)
_ENDPOINT = _names(
    "Invocations InvocationsPerInstance InvocationsPerCopy Invocation4XXErrors Invocation5XXErrors "
    "InvocationModelErrors ModelLatency OverheadLatency ModelSetupTime MidStreamErrors FirstChunkLatency "
    "FirstChunkModelLatency FirstChunkOverheadLatency ConcurrentRequestsPerModel ConcurrentRequestsPerCopy "
    "ModelCacheHit ModelLoadingTime ModelLoadingWaitTime ModelUnloadingTime ModelDownloadingTime "
    "ServerlessConcurrentExecutionsUtilization"
)
_SQS = _names(
    "ApproximateAgeOfOldestMessage ApproximateNumberOfMessagesDelayed "
    "ApproximateNumberOfMessagesNotVisible ApproximateNumberOfMessagesVisible NumberOfEmptyReceives "
    "NumberOfMessagesDeleted NumberOfMessagesReceived NumberOfMessagesSent SentMessageSize"
)
METRICS: Mapping[str, Namespace] = {
    # "Types of metrics for Lambda functions", "... for event source mappings".
    "AWS/Lambda": {
        (): _LAMBDA,
        ("FunctionName",): _LAMBDA,
        ("FunctionName", "Resource"): _LAMBDA,
        ("ExecutedVersion", "FunctionName", "Resource"): _LAMBDA,
        ("EventSourceMappingUUID",): _names(
            "PolledEventCount FilteredOutEventCount InvokedEventCount FailedInvokeEventCount "
            "DroppedEventCount OnFailureDestinationDeliveredEventCount DeletedEventCount "
            "ProvisionedPollers"
        ),
    },
    # "Amazon SageMaker AI metrics in Amazon CloudWatch".
    "AWS/SageMaker": {
        ("EndpointName", "VariantName"): _ENDPOINT,
        ("EndpointName",): _names(
            "ApproximateBacklogSize ApproximateBacklogSizePerInstance ApproximateAgeOfOldestRequest "
            "HasBacklogWithoutCapacity InvocationsProcessed InvocationFailures RequestDownloadFailures "
            "ResponseUploadFailures NotificationFailures RequestDownloadLatency ResponseUploadLatency "
            "ExpiredRequests TimeInBacklog TotalProcessingTime"
        ),
        ("InferenceComponentName",): _ENDPOINT,
        ("EndpointName", "InferenceComponentName", "VariantName"): _ENDPOINT,
    },
    "/aws/sagemaker/Endpoints": {
        ("EndpointName", "VariantName"): _names(
            "CPUUtilization CPUUtilizationNormalized MemoryUtilization DiskUtilization GPUUtilization "
            "GPUMemoryUtilization LoadedModelCount CPUReservation MemoryReservation GPUReservation"
        ),
    },
    "/aws/sagemaker/InferenceComponents": {
        ("InferenceComponentName",): _names(
            "CPUUtilizationNormalized MemoryUtilizationNormalized GPUUtilizationNormalized"
        ),
    },
    "/aws/sagemaker/TrainingJobs": {
        ("Host",): _names("CPUUtilization MemoryUtilization DiskUtilization GPUUtilization"),
    },
    "AWS/Sagemaker/ModelBuildingPipeline": {
        ("PipelineName",): _names(
            "ExecutionStarted ExecutionFailed ExecutionSucceeded ExecutionStopped ExecutionDuration"
        ),
        ("PipelineName", "StepName"): _names("StepStarted StepFailed StepSucceeded StepStopped StepDuration"),
    },
    "AWS/SQS": {("QueueName",): _SQS},
    # "Monitoring Amazon Data Firehose using CloudWatch metrics".
    "AWS/Firehose": {
        ("DeliveryStreamName",): _names(
            "IncomingBytes IncomingRecords DeliveryToS3.Bytes DeliveryToS3.DataFreshness "
            "DeliveryToS3.Records DeliveryToS3.Success DeliveryToIceberg.Bytes "
            "DeliveryToIceberg.IncomingRows DeliveryToIceberg.SuccessfulRowCount "
            "DeliveryToIceberg.FailedRowCount DeliveryToIceberg.CreatedFileCount "
            "ExecuteProcessing.Duration ExecuteProcessing.Success SucceedProcessing.Records "
            "SucceedProcessing.Bytes SucceedConversion.Records SucceedConversion.Bytes "
            "FailedConversion.Records FailedConversion.Bytes DataReadFromKinesisStream.Bytes "
            "DataReadFromKinesisStream.Records KinesisMillisBehindLatest ThrottledGetRecords "
            "ThrottledGetShardIterator ThrottledDescribeStream ThrottledRecords KMSKeyAccessDenied "
            "KMSKeyDisabled KMSKeyInvalidState KMSKeyNotFound BackupToS3.Bytes BackupToS3.Records "
            "BackupToS3.Success BackupToS3.DataFreshness PartitionCount PartitionCountExceeded "
            "JQProcessing.Duration PerPartitionThroughput BytesPerSecondLimit RecordsPerSecondLimit "
            "PutRequestsPerSecondLimit"
        ),
    },
    # "Monitor Kinesis data streams with CloudWatch".
    "AWS/Kinesis": {
        ("StreamName",): _names(
            "GetRecords.Bytes GetRecords.IteratorAgeMilliseconds GetRecords.Latency "
            "GetRecords.Records GetRecords.Success IncomingBytes IncomingRecords PutRecord.Bytes "
            "PutRecord.Latency PutRecord.Success PutRecords.Bytes PutRecords.Latency "
            "PutRecords.TotalRecords PutRecords.SuccessfulRecords PutRecords.FailedRecords "
            "PutRecords.ThrottledRecords ReadProvisionedThroughputExceeded "
            "WriteProvisionedThroughputExceeded"
        ),
        ("ConsumerName", "StreamName"): _names(
            "SubscribeToShard.RateExceeded SubscribeToShard.Success SubscribeToShardEvent.Bytes "
            "SubscribeToShardEvent.MillisBehindLatest SubscribeToShardEvent.Records "
            "SubscribeToShardEvent.Success"
        ),
    },
    # "Metrics and dimensions in Managed Service for Apache Flink".
    "AWS/KinesisAnalytics": {
        ("Application",): _names(
            "downtime uptime fullRestarts numberOfFailedCheckpoints lastCheckpointDuration "
            "lastCheckpointSize KPUs cpuUtilization heapMemoryUtilization oldGenerationGCTime "
            "oldGenerationGCCount threadCount containerCPUUtilization containerMemoryUtilization "
            "containerDiskUtilization managedMemoryUsed managedMemoryTotal numRecordsIn numRecordsOut "
            "numLateRecordsDropped currentInputWatermark currentOutputWatermark idleTimeMsPerSecond "
            "backPressuredTimeMsPerSecond busyTimeMsPerSecond"
        ),
        ("Application", "Flow", "Id"): _names("millisBehindLatest bytesRequested"),
    },
    # "Monitoring Step Functions metrics".
    "AWS/States": {
        ("StateMachineArn",): _names(
            "ExecutionsStarted ExecutionsSucceeded ExecutionsFailed ExecutionsTimedOut ExecutionsAborted "
            "ExecutionThrottled ExecutionTime ExecutionsRedriven RedrivenExecutionsSucceeded "
            "RedrivenExecutionsFailed OpenExecutionCount"
        ),
    },
    # "Monitoring Amazon EventBridge"; "... EventBridge Scheduler".
    "AWS/Events": {
        ("RuleName",): _names(
            "Invocations FailedInvocations TriggeredRules MatchedEvents ThrottledRules "
            "InvocationsSentToDlq InvocationsFailedToBeSentToDlq DeadLetterInvocations "
            "SuccessfulInvocationAttempts RetryInvocationAttempts InvocationAttempts"
        ),
        ("EventBusName", "RuleName"): _names(
            "Invocations FailedInvocations TriggeredRules MatchedEvents InvocationsSentToDlq "
            "InvocationsFailedToBeSentToDlq"
        ),
    },
    "AWS/Scheduler": {
        ("ScheduleGroup",): _names(
            "InvocationAttemptCount TargetErrorCount TargetErrorThrottledCount InvocationDroppedCount "
            "InvocationThrottleCount InvocationsSentToDeadLetterCount "
            "InvocationsFailedToBeSentToDeadLetterCount InvocationsSentToDeadLetterCount_Truncated"
        ),
    },
    # "DynamoDB metrics and dimensions".
    "AWS/DynamoDB": {
        ("TableName",): _names(
            "ConsumedReadCapacityUnits ConsumedWriteCapacityUnits ReadThrottleEvents "
            "WriteThrottleEvents ThrottledRequests ConditionalCheckFailedRequests "
            "TimeToLiveDeletedItemCount OnlineIndexPercentageProgress"
        ),
        ("Operation", "TableName"): _names(
            "SuccessfulRequestLatency ThrottledRequests SystemErrors ReturnedItemCount"
        ),
    },
    # "Metrics for API Gateway: HTTP APIs".
    "AWS/ApiGateway": {
        ("ApiId",): _names("4xx 5xx Count Latency IntegrationLatency DataProcessed"),
        ("ApiId", "Stage"): _names("4xx 5xx Count Latency IntegrationLatency DataProcessed"),
    },
    # "Application Load Balancer metrics".
    "AWS/ApplicationELB": {
        ("LoadBalancer",): _names(
            "RequestCount HTTPCode_ELB_4XX_Count HTTPCode_ELB_5XX_Count HTTPCode_Target_2XX_Count "
            "HTTPCode_Target_4XX_Count HTTPCode_Target_5XX_Count TargetResponseTime "
            "RejectedConnectionCount ActiveConnectionCount NewConnectionCount ProcessedBytes "
            "TargetConnectionErrorCount"
        ),
        ("LoadBalancer", "TargetGroup"): _names(
            "HealthyHostCount UnHealthyHostCount RequestCount RequestCountPerTarget TargetResponseTime "
            "HTTPCode_Target_2XX_Count HTTPCode_Target_4XX_Count HTTPCode_Target_5XX_Count "
            "TargetConnectionErrorCount"
        ),
        ("TargetGroup",): _names(
            "HealthyHostCount UnHealthyHostCount RequestCountPerTarget TargetResponseTime "
            "HTTPCode_Target_5XX_Count"
        ),
    },
    "AWS/ECS": {
        ("ClusterName",): _names("CPUUtilization MemoryUtilization CPUReservation MemoryReservation"),
        ("ClusterName", "ServiceName"): _names("CPUUtilization MemoryUtilization"),
    },
    "AWS/SNS": {
        ("TopicName",): _names(
            "NumberOfMessagesPublished NumberOfNotificationsDelivered NumberOfNotificationsFailed "
            "PublishSize NumberOfNotificationsFilteredOut NumberOfNotificationsRedrivenToDlq"
        ),
    },
    "AWS/S3": {
        ("BucketName", "StorageType"): _names("BucketSizeBytes NumberOfObjects"),
        ("BucketName", "FilterId"): _names(
            "AllRequests GetRequests PutRequests DeleteRequests 4xxErrors 5xxErrors BytesDownloaded "
            "BytesUploaded FirstByteLatency TotalRequestLatency"
        ),
    },
    # "Monitoring with AWS Glue Observability metrics"; jobs publish them by job, run and type.
    "Glue": {
        ("JobName", "JobRunId", "Type"): frozenset({"*"}),
        ("JobName", "JobRunId", "ObservabilityGroup", "Type"): frozenset({"*"}),
    },
    # "Monitoring builds with CloudWatch"; "Monitoring CodePipeline".
    "AWS/CodeBuild": {
        (): _names("Builds SucceededBuilds FailedBuilds Duration QueuedDuration"),
        ("ProjectName",): _names("Builds SucceededBuilds FailedBuilds Duration QueuedDuration"),
    },
    "AWS/CodePipeline": {
        ("PipelineName",): _names("PipelineDuration FailedPipelineExecutions SucceededPipelineExecutions"),
    },
    "AWS/Logs": {
        ("LogGroupName",): _names(
            "IncomingLogEvents IncomingBytes ForwardedBytes DeliveryErrors DeliveryThrottling "
            "EMFParsingErrors EMFValidationErrors LogEventsWithFindings"
        ),
    },
    "AWS/Athena": {
        ("WorkGroup",): _names("ProcessedBytes TotalExecutionTime EngineExecutionTime QueryQueueTime"),
        ("QueryState", "QueryType", "WorkGroup"): _names(
            "ProcessedBytes TotalExecutionTime EngineExecutionTime QueryQueueTime QueryPlanningTime"
        ),
    },
    "AWS/EFS": {
        ("FileSystemId",): _names(
            "ClientConnections BurstCreditBalance PercentIOLimit StorageBytes TotalIOBytes"
        )
    },
    "AWS/FSx": {("FileSystemId",): _names("FreeDataStorageCapacity DataReadBytes DataWriteBytes")},
    "AWS/Usage": {("Class", "Resource", "Service", "Type"): _names("CallCount ResourceCount")},
    "AWS/Billing": {
        ("Currency",): _names("EstimatedCharges"),
        ("Currency", "ServiceName"): _names("EstimatedCharges"),
    },
    "AWS/GuardDuty": {(): frozenset({"*"})},
    "AWS/KMS": {("KeyId",): _names("SecondsUntilKeyMaterialExpiration")},
    "AWS/MWAA": {("Environment", "Function"): frozenset({"*"})},
    "AmazonMWAA": {("Environment", "Function"): frozenset({"*"})},
}
