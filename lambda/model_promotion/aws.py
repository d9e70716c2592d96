"""SageMaker, Parameter Store, S3 and CloudFormation, and which of their errors are worth another try."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

from model_promotion.cloud import NONE, Package, ParameterVersion, Stack
from model_promotion.errors import MisconfiguredError, TransientError
from model_promotion.settings import ChallengerTest

__all__ = ["AwsCloud"]

#: AWS's common throttling codes and the conflicts that pass.
TRANSIENT_CODES = frozenset(
    {
        "ConflictException",
        # Of the function's own credentials: Lambda gives it others.
        "ExpiredToken",
        "ExpiredTokenException",
        "InternalFailure",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TooManyUpdates",
    }
)
#: More versions than are approved before one of them is acted on; one page.
LOOK_BACK = 20
#: CloudFormation's reason at resources that did nothing wrong.
CANCELLED = "Resource update cancelled"
CAPABILITIES = ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"]


def _code(error: ClientError) -> str:
    code: str = error.response["Error"]["Code"]
    return code


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if _code(error) in TRANSIENT_CODES or status >= 500:
            raise TransientError(str(error)) from error
        raise MisconfiguredError(str(error)) from error
    except (ConnectionError, HTTPClientError) as error:
        raise TransientError(str(error)) from error


class AwsCloud:
    """``model_promotion.cloud.Cloud`` on AWS.

    Needs ``sagemaker:DescribeModelPackage`` and ``sagemaker:UpdateModelPackage`` on the group's packages,
    ``sagemaker:ListModelPackages``,
    ``s3:GetObject`` and ``s3:ListBucket`` (and ``kms:Decrypt``) on the evaluations,
    ``ssm:GetParameterHistory`` and ``ssm:PutParameter`` on the parameter,
    ``cloudformation:DescribeStacks``, ``cloudformation:DescribeStackEvents`` and
    ``cloudformation:UpdateStack`` on the serving stack, and ``ssm:GetParameters`` on the parameter, which
    CloudFormation reads for the caller.

    Trying challengers (``test``) needs the same on their parameter, ``cloudformation:ListStackResources`` on
    the stack, ``cloudwatch:DescribeAlarms`` on its alarms, ``cloudwatch:GetMetricStatistics``,
    ``scheduler:CreateSchedule`` in the group and
    ``iam:PassRole`` on the schedule's role.
    """

    def __init__(
        self,
        *,
        sagemaker: Any,
        ssm: Any,
        s3: Any,
        cloudformation: Any,
        cloudwatch: Any = None,
        scheduler: Any = None,
        stack_name: str = "",
        test: ChallengerTest | None = None,
    ) -> None:
        self._sagemaker = sagemaker
        self._ssm = ssm
        self._s3 = s3
        self._cloudformation = cloudformation
        self._cloudwatch = cloudwatch
        self._scheduler = scheduler
        self._stack_name = stack_name
        self._test = test

    def package(self, arn: str) -> Package | None:
        """The package, or ``None`` when it no longer exists."""
        if ":model-package/" not in arn:
            return None  # "none", the parameter's first value
        with _translated():
            try:
                found = self._sagemaker.describe_model_package(ModelPackageName=arn)
            except ClientError as error:
                # SageMaker answers a missing package with a ValidationException that says so.
                if "does not exist" in str(error) or _code(error) == "ResourceNotFound":
                    return None
                raise
        quality = found.get("ModelMetrics", {}).get("ModelQuality", {}).get("Statistics", {})
        return Package(
            arn=found["ModelPackageArn"],
            approval_status=found.get("ModelApprovalStatus", "PendingManualApproval"),
            evaluation_uri=quality.get("S3Uri"),
            approved_by=_who(found.get("LastModifiedBy", {})),
            reason=found.get("ApprovalDescription", ""),
            modified=found.get("LastModifiedTime", found["CreationTime"]),
        )

    def approved(self, group_name: str) -> Sequence[str]:
        """ARNs of the group's newest approved versions, newest first; as many as one page holds."""
        with _translated():
            page = self._sagemaker.list_model_packages(
                ModelPackageGroupName=group_name,
                ModelApprovalStatus="Approved",
                SortBy="CreationTime",
                SortOrder="Descending",
                MaxResults=LOOK_BACK,
            )
        return [item["ModelPackageArn"] for item in page["ModelPackageSummaryList"]]

    def reject(self, arn: str, reason: str) -> None:
        """Set the package's approval status to Rejected and say why."""
        with _translated():
            self._sagemaker.update_model_package(
                ModelPackageArn=arn,
                ModelApprovalStatus="Rejected",
                # One line of 1,024 characters at most (UpdateModelPackage, ApprovalDescription).
                ApprovalDescription=" ".join(reason.split())[:1_024],
            )

    def evaluation(self, uri: str) -> object | None:
        """The evaluation report as parsed JSON, or ``None`` when there is no such object or no JSON in it."""
        parts = urlsplit(uri)
        with _translated():
            try:
                body = self._s3.get_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"))["Body"].read()
            except ClientError as error:
                # To who may list a part of the bucket only, S3 says 403 of what does not exist (GetObject,
                # "Permissions"); the listing of that part tells which it is.
                if _code(error) == "NoSuchKey" or (
                    _code(error) == "AccessDenied" and not self._listed(parts.netloc, parts.path.lstrip("/"))
                ):
                    return None
                raise
        try:
            report: object = json.loads(body)
        except ValueError:
            return None
        return report

    def _listed(self, bucket: str, key: str) -> bool:
        page = self._s3.list_objects_v2(Bucket=bucket, Prefix=key)
        return any(item["Key"] == key for item in page.get("Contents", ()))

    def history(self, parameter_name: str) -> Sequence[ParameterVersion]:
        """Versions of the parameter, oldest first; never empty."""
        with _translated():
            pages = self._ssm.get_paginator("get_parameter_history").paginate(Name=parameter_name)
            found = [item for page in pages for item in page["Parameters"]]
        return [
            ParameterVersion(
                value=item["Value"],
                modified=item["LastModifiedDate"],
                description=item.get("Description", ""),
            )
            for item in sorted(found, key=lambda item: item["Version"])
        ]

    def put(self, parameter_name: str, value: str, description: str) -> None:
        """Write a new version of the parameter."""
        with _translated():
            # 1,024 characters of description at most (PutParameter).
            self._ssm.put_parameter(
                Name=parameter_name,
                Value=value,
                Type="String",
                Overwrite=True,
                Description=description[:1_024],
            )

    def stack(self, name: str, parameter_name: str, challenger_name: str | None = None) -> Stack:
        """The stack and which values of the parameters it runs."""
        with _translated():
            found = self._cloudformation.describe_stacks(StackName=name)["Stacks"][0]
        parameters: Sequence[Mapping[str, str]] = found.get("Parameters", [])
        # Of a parameter read from Parameter Store, ParameterValue is the name and ResolvedValue the value.
        runs = {p["ParameterValue"]: p["ResolvedValue"] for p in parameters if "ResolvedValue" in p}
        for wanted in (parameter_name, challenger_name):
            if wanted is not None and wanted not in runs:
                raise MisconfiguredError(f"stack {name} has no parameter that is read from {wanted}")
        return Stack(
            status=found["StackStatus"],
            status_reason=found.get("StackStatusReason", ""),
            updated=found.get("LastUpdatedTime"),
            parameters=tuple(p["ParameterKey"] for p in parameters),
            serves=runs[parameter_name],
            challenger=NONE if challenger_name is None else runs[challenger_name],
        )

    def failures(self, stack_name: str, since: datetime | None) -> Sequence[str]:
        """What failed in the stack's last update, the first failure first; ``since`` is when that began."""
        found: list[str] = []
        with _translated():
            pages = self._cloudformation.get_paginator("describe_stack_events").paginate(StackName=stack_name)
            for event in (event for page in pages for event in page["StackEvents"]):
                # Newest first: what is older belongs to an earlier update.
                if since is not None and event["Timestamp"] < since:
                    break
                reason = event.get("ResourceStatusReason", "")
                if event["ResourceStatus"].endswith("_FAILED") and not reason.startswith(CANCELLED):
                    found.append(f"{event['LogicalResourceId']}: {reason}")
        return found[::-1]

    def update(self, stack_name: str, parameters: Sequence[str]) -> bool:
        """Update the stack with its previous template and values; ``False``: nothing to update."""
        with _translated():
            try:
                self._cloudformation.update_stack(
                    StackName=stack_name,
                    UsePreviousTemplate=True,
                    # The previous value of a Parameter Store parameter is its name: its value is read anew.
                    Parameters=[{"ParameterKey": key, "UsePreviousValue": True} for key in parameters],
                    Capabilities=CAPABILITIES,
                )
            except ClientError as error:
                text = str(error)
                if "No updates are to be performed" in text:
                    return False
                if "_IN_PROGRESS" in text:
                    raise TransientError(text) from error
                raise
        return True

    def now(self) -> datetime:
        """The time, aware."""
        return datetime.now(UTC)

    def schedule(self, name: str, when: datetime, body: Mapping[str, object]) -> None:
        """Have ``body`` sent to this function's queue once; nothing when that is planned already."""
        test = self._tried()
        with _translated():
            try:
                self._scheduler.create_schedule(
                    # 64 characters at most (CreateSchedule, Name).
                    Name=name[-64:],
                    GroupName=test.schedule_group,
                    ScheduleExpression=f"at({when.astimezone(UTC):%Y-%m-%dT%H:%M:%S})",
                    ScheduleExpressionTimezone="UTC",
                    FlexibleTimeWindow={"Mode": "OFF"},
                    ActionAfterCompletion="DELETE",
                    Target={
                        "Arn": test.queue_arn,
                        "RoleArn": test.schedule_role_arn,
                        "Input": json.dumps(body),
                    },
                )
            except self._scheduler.exceptions.ConflictException:
                return

    def alarms(self) -> Mapping[str, bool]:
        """The challenger's alarms by name, and whether each is in ALARM."""
        test = self._tried()
        wanted = {"Name": "VariantName", "Value": test.variant}
        with _translated():
            resources = self._cloudformation.get_paginator("list_stack_resources").paginate(
                StackName=self._stack_name
            )
            names = [
                resource["PhysicalResourceId"]
                for page in resources
                for resource in page["StackResourceSummaries"]
                if resource["ResourceType"] == "AWS::CloudWatch::Alarm" and "PhysicalResourceId" in resource
            ]
            if not names:
                return {}
            # By name: without one CloudWatch asks for the right to see every alarm of the account. A stack
            # of ours has fewer than the 100 that one call takes.
            found = self._cloudwatch.describe_alarms(AlarmNames=names[:100], AlarmTypes=["MetricAlarm"])
            return {
                alarm["AlarmName"]: alarm["StateValue"] == "ALARM"
                for alarm in found["MetricAlarms"]
                if wanted in alarm.get("Dimensions", ())
            }

    def requests(self, since: datetime, until: datetime) -> int:
        """How many requests the challenger had."""
        test = self._tried()
        # A request answers 1,440 points at most (GetMetricStatistics): the minutes of a day, or the hours of
        # a test of a week.
        minutes = (until - since).total_seconds() / 60
        with _translated():
            points = self._cloudwatch.get_metric_statistics(
                Namespace="AWS/SageMaker",
                MetricName="Invocations",
                Dimensions=[
                    {"Name": "EndpointName", "Value": test.endpoint_name},
                    {"Name": "VariantName", "Value": test.variant},
                ],
                StartTime=since,
                EndTime=until,
                Period=60 if minutes <= 1_440 else 3_600,
                Statistics=["Sum"],
            )["Datapoints"]
        return int(sum(point["Sum"] for point in points))

    def _tried(self) -> ChallengerTest:
        if self._test is None:
            raise MisconfiguredError("the function is not set up to try challengers")
        return self._test


def _who(context: Mapping[str, Any]) -> str:
    """Who SageMaker says it was: the principal, or the user of Studio (UserContext)."""
    identity = context.get("IamIdentity", {})
    return str(identity.get("Arn") or context.get("UserProfileArn") or context.get("UserProfileName") or "")
