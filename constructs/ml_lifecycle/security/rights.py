"""What each persona may do beside reading tables, and what none ever may: written down once, as data.

The roles' policies are made of it, the template carries it (``Metadata``), and the rehearsal makes the calls
that it names: who is listed is let, everybody else is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ml_lifecycle.governance.personas import PERSONAS, PersonaName
from ml_lifecycle.pseudo import ACCOUNT, PARTITION, arn

__all__ = [
    "BOUNDARY_ACTIONS",
    "FORBIDDEN",
    "FORBIDDEN_ACTIONS",
    "METADATA",
    "NOT_THERE",
    "Call",
    "Right",
    "as_data",
    "call_data",
    "rights",
]

#: SageMaker says the one or the other of what is not there.
NOT_THERE: Final = ("ResourceNotFound", "ValidationException")
#: Key of the template's Metadata under which the calls stand.
METADATA: Final = "MLLifecycle::Rights"
#: A key that is not there.
_KEY: Final = "arn:aws:kms:${Region}:${Account}:key/00000000-0000-0000-0000-000000000000"
_ALL_SETTINGS: Final = "An auditor looks at each of them in the account: at settings, at no content."
_READ_LOGS: Final = (
    "logs:DescribeLogStreams",
    "logs:FilterLogEvents",
    "logs:GetLogEvents",
    "logs:StartQuery",
)


@dataclass(frozen=True, kw_only=True)
class Call:
    """An API call that shows a right.

    ``${Name}`` in a parameter stands for an output of the workload's stacks, or for ``Account``, ``Region``,
    ``Environment`` (``dev``), ``Stage`` (``Dev``) and ``Slug``. ``answers`` are the errors that may follow
    once the call is let: what it names is not there, so that showing a right changes nothing. None: it
    succeeds.
    """

    service: str
    operation: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    answers: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Right:
    """Actions on resources of one environment, who has them, and a call that shows it."""

    id: str
    title: str
    personas: tuple[PersonaName, ...]
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    call: Call
    conditions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    #: Why a resource has a wildcard that its environment's name does not bound.
    why_all: str | None = None


def rights(environment_name: str, stack_prefix: str) -> tuple[Right, ...]:
    """Return what the personas of an environment may do.

    Args:
        environment_name: what the names of its pipelines, model groups, endpoints and dashboards begin with.
        stack_prefix: what the names of its stacks begin with, and so the names that CloudFormation makes.
    """
    named, made = f"{environment_name}-*", f"{stack_prefix}-*"
    executions = [f"log-group:/aws/sagemaker/{kind}*" for kind in ("TrainingJobs", "ProcessingJobs")]
    return (
        Right(
            id="ReadModels",
            title="read pipelines, versions of models and endpoints",
            personas=("data_scientist", "mlops_engineer", "auditor"),
            actions=(
                "sagemaker:DescribeEndpoint",
                "sagemaker:DescribeEndpointConfig",
                "sagemaker:DescribeModel",
                "sagemaker:DescribeModelPackage",
                "sagemaker:DescribeModelPackageGroup",
                "sagemaker:DescribePipeline",
                "sagemaker:DescribePipelineDefinitionForExecution",
                "sagemaker:DescribePipelineExecution",
                "sagemaker:ListPipelineExecutionSteps",
                "sagemaker:ListPipelineExecutions",
                "sagemaker:ListPipelineParametersForExecution",
                "sagemaker:ListTags",
            ),
            resources=tuple(
                arn("sagemaker", f"{kind}/{named}")
                for kind in (
                    "endpoint",
                    "endpoint-config",
                    "model",
                    "model-package",
                    "model-package-group",
                    "pipeline",
                )
            ),
            call=Call(
                service="sagemaker",
                operation="DescribePipeline",
                parameters={"PipelineName": "${PipelineName}"},
            ),
        ),
        Right(
            id="ReadJobs",
            title="read the jobs of a training and what they measured",
            personas=("data_scientist", "mlops_engineer", "auditor"),
            actions=(
                "sagemaker:DescribeHyperParameterTuningJob",
                "sagemaker:DescribeProcessingJob",
                "sagemaker:DescribeTrainingJob",
                "sagemaker:DescribeTransformJob",
                "sagemaker:DescribeTrialComponent",
                "sagemaker:ListTrainingJobsForHyperParameterTuningJob",
            ),
            resources=tuple(
                arn("sagemaker", f"{kind}/*")
                for kind in (
                    "experiment-trial-component",
                    "hyper-parameter-tuning-job",
                    "processing-job",
                    "training-job",
                    "transform-job",
                )
            ),
            call=Call(
                service="sagemaker",
                operation="DescribeTrainingJob",
                parameters={"TrainingJobName": "no-such-job"},
                answers=NOT_THERE,
            ),
            why_all="SageMaker names the jobs of an execution; a description holds settings, no record.",
        ),
        Right(
            id="FindModels",
            title="find models, jobs and experiments",
            personas=("data_scientist", "mlops_engineer", "auditor"),
            actions=(
                "sagemaker:ListEndpoints",
                "sagemaker:ListExperiments",
                "sagemaker:ListModelPackageGroups",
                "sagemaker:ListModelPackages",
                "sagemaker:ListPipelines",
                "sagemaker:ListProcessingJobs",
                "sagemaker:ListTrainingJobs",
                "sagemaker:ListTrialComponents",
                "sagemaker:ListTrials",
                "sagemaker:Search",
            ),
            resources=("*",),
            call=Call(service="sagemaker", operation="ListModelPackageGroups"),
            why_all="SageMaker's lists and search take no resource; they give names, settings and measures.",
        ),
        Right(
            id="Train",
            title="start, stop and retry a training",
            personas=("data_scientist", "mlops_engineer"),
            actions=(
                "sagemaker:RetryPipelineExecution",
                "sagemaker:StartPipelineExecution",
                "sagemaker:StopPipelineExecution",
            ),
            resources=(arn("sagemaker", f"pipeline/{named}"),),
            call=Call(
                service="sagemaker",
                operation="StartPipelineExecution",
                parameters={
                    "PipelineName": "${PipelineName}",
                    # Refused after the permission has been looked at: nothing is trained.
                    "PipelineParameters": [{"Name": "NoSuchParameter", "Value": "x"}],
                },
                answers=NOT_THERE,
            ),
        ),
        Right(
            id="Register",
            title="register a version that waits for approval",
            personas=("data_scientist",),
            actions=("sagemaker:CreateModelPackage",),
            resources=tuple(
                arn("sagemaker", f"{kind}/{named}") for kind in ("model-package", "model-package-group")
            ),
            # "Filters access by the model approval status with the model-package in the request" (Service
            # Authorization Reference, "Amazon SageMaker"). Left out, the key is missing and the call refused.
            conditions={"StringEquals": {"sagemaker:ModelApprovalStatus": "PendingManualApproval"}},
            call=Call(
                service="sagemaker",
                operation="CreateModelPackage",
                parameters={
                    "ModelPackageGroupName": "${Environment}-no-such-group",
                    "ModelApprovalStatus": "PendingManualApproval",
                },
                answers=NOT_THERE,
            ),
        ),
        Right(
            id="Approve",
            title="approve or reject a version; roll back by approving an older one",
            personas=("mlops_engineer",),
            actions=("sagemaker:UpdateModelPackage",),
            resources=(arn("sagemaker", f"model-package/{named}"),),
            call=Call(
                service="sagemaker",
                operation="UpdateModelPackage",
                parameters={
                    "ModelPackageArn": (
                        "arn:aws:sagemaker:${Region}:${Account}:model-package/${ModelPackageGroupName}/9999"
                    ),
                    "ModelApprovalStatus": "Approved",
                },
                answers=NOT_THERE,
            ),
        ),
        Right(
            id="Predict",
            title="ask an endpoint",
            personas=("mlops_engineer",),
            actions=("sagemaker:InvokeEndpoint",),
            resources=(arn("sagemaker", f"endpoint/{named}"),),
            call=Call(
                service="sagemaker-runtime",
                operation="InvokeEndpoint",
                parameters={"EndpointName": "${Environment}-no-such-endpoint", "Body": "0"},
                answers=("ValidationError",),
            ),
        ),
        Right(
            id="Watch",
            title="see alarms and dashboards",
            personas=PERSONAS,
            actions=(
                "cloudwatch:DescribeAlarmHistory",
                "cloudwatch:DescribeAlarms",
                "cloudwatch:GetDashboard",
            ),
            resources=(
                arn("cloudwatch", "alarm:*"),
                f"arn:{PARTITION}:cloudwatch::{ACCOUNT}:dashboard/{named}",
            ),
            call=Call(service="cloudwatch", operation="DescribeAlarms"),
            why_all="Without a name DescribeAlarms is about every alarm; one holds a limit, no record.",
        ),
        Right(
            id="Measure",
            title="see metrics",
            personas=PERSONAS,
            actions=(
                "cloudwatch:GetMetricData",
                "cloudwatch:GetMetricStatistics",
                "cloudwatch:ListDashboards",
                "cloudwatch:ListMetrics",
            ),
            resources=("*",),
            call=Call(service="cloudwatch", operation="ListMetrics"),
            why_all="CloudWatch's metrics know no resource; they hold counts and measures, no record.",
        ),
        Right(
            id="Silence",
            title="silence an alarm, and switch it on again",
            personas=("mlops_engineer",),
            actions=("cloudwatch:DisableAlarmActions", "cloudwatch:EnableAlarmActions"),
            resources=(arn("cloudwatch", f"alarm:{made}"),),
            call=Call(
                service="cloudwatch",
                operation="DisableAlarmActions",
                parameters={"AlarmNames": ["${Stage}-no-such-alarm"]},
            ),
        ),
        Right(
            id="ReadJobLogs",
            title="read the logs of trainings and monitors",
            personas=("data_scientist", "mlops_engineer"),
            actions=_READ_LOGS,
            resources=tuple(arn("logs", group) for group in executions),
            call=Call(
                service="logs",
                operation="FilterLogEvents",
                parameters={"logGroupName": "/aws/sagemaker/TrainingJobs-none"},
                answers=("ResourceNotFoundException",),
            ),
            why_all="SageMaker names the groups of its jobs' logs and a stream after each job.",
        ),
        Right(
            id="ReadLogs",
            title="read the logs of functions, deliveries and data jobs",
            personas=("data_engineer", "mlops_engineer"),
            actions=_READ_LOGS,
            resources=tuple(
                arn("logs", f"log-group:{name}")
                for name in (made, f"/aws/lambda/{made}", f"/aws-glue/jobs/{named}")
            ),
            call=Call(
                service="logs",
                operation="FilterLogEvents",
                parameters={"logGroupName": "${Stage}-no-such-group"},
                answers=("ResourceNotFoundException",),
            ),
        ),
        Right(
            id="ReadReports",
            title="read the reports of the monitors",
            personas=("data_scientist", "mlops_engineer"),
            # Granted by the zone, with its key.
            actions=(),
            resources=(),
            call=Call(
                service="s3",
                operation="ListObjectsV2",
                parameters={"Bucket": "${ArtifactsBucket}", "Prefix": "${Slug}/monitoring/"},
            ),
        ),
        Right(
            id="SeeStreams",
            title="see the state of streams and their delivery",
            personas=("data_engineer", "mlops_engineer"),
            actions=(
                "firehose:DescribeDeliveryStream",
                "kinesis:DescribeStreamSummary",
                "kinesis:ListShards",
            ),
            resources=(arn("firehose", f"deliverystream/{made}"), arn("kinesis", f"stream/{made}")),
            call=Call(
                service="kinesis",
                operation="DescribeStreamSummary",
                parameters={"StreamName": "${Stage}-no-such-stream"},
                answers=("ResourceNotFoundException",),
            ),
        ),
        Right(
            id="ReadRoles",
            title="read roles and their policies",
            personas=("auditor",),
            actions=(
                "iam:GetPolicy",
                "iam:GetPolicyVersion",
                "iam:GetRole",
                "iam:GetRolePolicy",
                "iam:ListAttachedRolePolicies",
                "iam:ListRolePolicies",
            ),
            resources=tuple(f"arn:{PARTITION}:iam::{ACCOUNT}:{kind}/*" for kind in ("policy", "role")),
            call=Call(service="iam", operation="GetRole", parameters={"RoleName": "${OwnRole}"}),
            why_all=_ALL_SETTINGS,
        ),
        Right(
            id="ReadKeys",
            title="read the policies of keys",
            personas=("auditor",),
            actions=("kms:DescribeKey", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus"),
            resources=(arn("kms", "key/*"),),
            call=Call(
                service="kms",
                operation="DescribeKey",
                parameters={"KeyId": _KEY},
                answers=("NotFoundException",),
            ),
            why_all=_ALL_SETTINGS,
        ),
        Right(
            id="ReadBuckets",
            title="read the settings of buckets",
            personas=("auditor",),
            actions=(
                "s3:GetBucketLogging",
                "s3:GetBucketPolicy",
                "s3:GetBucketPublicAccessBlock",
                "s3:GetEncryptionConfiguration",
            ),
            resources=(f"arn:{PARTITION}:s3:::*",),
            call=Call(service="s3", operation="GetBucketEncryption", parameters={"Bucket": "${LakeBucket}"}),
            why_all=_ALL_SETTINGS,
        ),
        Right(
            id="ReadFindings",
            title="read trails, rules and findings of security services",
            personas=("auditor",),
            actions=(
                "cloudtrail:GetEventSelectors",
                "cloudtrail:GetTrailStatus",
                "config:DescribeComplianceByConfigRule",
                "config:GetComplianceDetailsByConfigRule",
                "guardduty:GetFindings",
                "guardduty:ListFindings",
                "securityhub:GetFindings",
            ),
            resources=(
                arn("cloudtrail", "trail/*"),
                arn("config", "config-rule/*"),
                arn("guardduty", "detector/*"),
                arn("securityhub", "hub/default"),
            ),
            call=Call(
                service="cloudtrail", operation="GetTrailStatus", parameters={"Name": "${Environment}-audit"}
            ),
            why_all=_ALL_SETTINGS,
        ),
        Right(
            id="ListSettings",
            title="list roles, keys, buckets, trails and detectors",
            personas=("auditor",),
            actions=(
                "cloudtrail:DescribeTrails",
                "cloudtrail:LookupEvents",
                "guardduty:ListDetectors",
                "iam:ListRoles",
                "inspector2:ListFindings",
                "kms:ListKeys",
                "s3:ListAllMyBuckets",
            ),
            resources=("*",),
            call=Call(service="iam", operation="ListRoles"),
            why_all="These lists take no resource; they give names and settings of the account, no content.",
        ),
    )


#: What lies within the boundary: the services that personas work with, and of the others what only reads.
BOUNDARY_ACTIONS: Final[tuple[str, ...]] = (
    "athena:*",
    "cloudtrail:Describe*",
    "cloudtrail:Get*",
    "cloudtrail:List*",
    "cloudtrail:LookupEvents",
    "cloudwatch:*",
    "config:Describe*",
    "config:Get*",
    "config:List*",
    "firehose:Describe*",
    "firehose:List*",
    "glue:*",
    "guardduty:Get*",
    "guardduty:List*",
    "iam:Get*",
    "iam:List*",
    "inspector2:Get*",
    "inspector2:List*",
    "kinesis:Describe*",
    "kinesis:Get*",
    "kinesis:List*",
    "kms:Decrypt",
    "kms:DescribeKey",
    "kms:GenerateDataKey",
    "kms:Get*",
    "kms:List*",
    "lakeformation:GetDataAccess",
    "logs:*",
    "s3:AbortMultipartUpload",
    "s3:Get*",
    "s3:List*",
    "s3:PutObject",
    "sagemaker:*",
    "securityhub:Get*",
    "servicecatalog:*",
)
#: What no persona may whatever it is granted. Said outright, although most of it lies beyond the boundary
#: anyway: an organisation may put its own boundary in our place, and then these are a policy of the role.
FORBIDDEN_ACTIONS: Final[tuple[str, ...]] = (
    "athena:DeleteWorkGroup",
    "athena:UpdateWorkGroup",
    "cloudtrail:Delete*",
    "cloudtrail:Put*",
    "cloudtrail:Stop*",
    "cloudtrail:Update*",
    "cloudwatch:DeleteAlarms",
    "firehose:Delete*",
    "glue:BatchDeleteTable",
    "glue:DeleteDatabase",
    "glue:DeleteResourcePolicy",
    "glue:DeleteTable",
    "glue:PutResourcePolicy",
    "iam:Add*",
    "iam:Attach*",
    "iam:Create*",
    "iam:Delete*",
    "iam:Detach*",
    "iam:PassRole",
    "iam:Put*",
    "iam:Remove*",
    "iam:Set*",
    "iam:Update*",
    "kinesis:Delete*",
    "kms:CreateGrant",
    "kms:Disable*",
    "kms:PutKeyPolicy",
    "kms:ScheduleKeyDeletion",
    "lakeformation:GrantPermissions",
    "lakeformation:PutDataLakeSettings",
    "logs:DeleteLogGroup",
    "logs:DeleteLogStream",
    "logs:DisassociateKmsKey",
    "logs:PutRetentionPolicy",
    "s3:BypassGovernanceRetention",
    "s3:Delete*",
    "s3:PutBucket*",
    "s3:PutEncryptionConfiguration",
    "s3:PutLifecycleConfiguration",
    "sagemaker:DeleteEndpoint",
    "sagemaker:DeleteFeatureGroup",
    "sagemaker:DeleteModelPackage",
    "sagemaker:DeleteModelPackageGroup",
    "sagemaker:DeletePipeline",
    "sagemaker:DeleteRecord",
    "sts:AssumeRole",
)
#: Calls that no persona may make, whatever policy somebody attaches to its role.
FORBIDDEN: Final[Mapping[str, Call]] = {
    "MakeUsers": Call(service="iam", operation="CreateUser", parameters={"UserName": "nobody"}),
    "WidenItself": Call(
        service="iam",
        operation="PutRolePolicy",
        parameters={"RoleName": "${OwnRole}", "PolicyName": "more", "PolicyDocument": "{}"},
    ),
    "LeaveTheBoundary": Call(
        service="iam", operation="DeleteRolePermissionsBoundary", parameters={"RoleName": "${OwnRole}"}
    ),
    "TakeAnotherRole": Call(
        service="sts",
        operation="AssumeRole",
        parameters={"RoleArn": "${OtherRoleArn}", "RoleSessionName": "another"},
    ),
    "DestroyKeys": Call(service="kms", operation="ScheduleKeyDeletion", parameters={"KeyId": _KEY}),
    "RewriteKeyPolicies": Call(
        service="kms",
        operation="PutKeyPolicy",
        parameters={"KeyId": _KEY, "PolicyName": "default", "Policy": "{}"},
    ),
    "StopTheTrail": Call(
        service="cloudtrail", operation="StopLogging", parameters={"Name": "${Environment}-audit"}
    ),
    "DeleteRecords": Call(
        service="s3", operation="DeleteObject", parameters={"Bucket": "${LakeBucket}", "Key": "nothing"}
    ),
    "DeleteTheLake": Call(service="s3", operation="DeleteBucket", parameters={"Bucket": "${LakeBucket}"}),
    "DeleteTables": Call(
        service="glue",
        operation="DeleteTable",
        parameters={"DatabaseName": "${Environment}_curated", "Name": "no_such_table"},
    ),
    "DeleteModels": Call(
        service="sagemaker",
        operation="DeleteModelPackageGroup",
        parameters={"ModelPackageGroupName": "${ModelPackageGroupName}"},
    ),
    "DeleteEndpoints": Call(
        service="sagemaker",
        operation="DeleteEndpoint",
        parameters={"EndpointName": "${Environment}-no-such-endpoint"},
    ),
    "DeleteLogs": Call(
        service="logs", operation="DeleteLogGroup", parameters={"logGroupName": "${Stage}-no-such-group"}
    ),
    "GrantTheLake": Call(
        service="lakeformation", operation="PutDataLakeSettings", parameters={"DataLakeSettings": {}}
    ),
}


def as_data(given: Sequence[Right]) -> dict[str, Any]:
    """Return the calls as the template carries them."""
    return {
        "allowed": [
            {"id": right.id, "title": right.title, "personas": list(right.personas), **call_data(right.call)}
            for right in given
        ],
        "forbidden": [{"id": name, **call_data(call)} for name, call in FORBIDDEN.items()],
    }


def call_data(call: Call) -> dict[str, Any]:
    """Return a call as the template carries it."""
    data = {
        "service": call.service,
        "operation": call.operation,
        "parameters": dict(call.parameters),
    }
    return {**data, "answers": list(call.answers)} if call.answers else data
