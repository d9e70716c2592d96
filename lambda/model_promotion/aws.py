"""SageMaker, Parameter Store, S3 and CloudFormation, and which of their errors are worth another try."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

from model_promotion.errors import MisconfiguredError, TransientError
from model_promotion.logic import Package, ParameterVersion, Stack

__all__ = ["AwsCloud"]

#: AWS's common throttling codes and the conflicts that pass.
TRANSIENT_CODES = frozenset(
    {
        "ConflictException",
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
    """``model_promotion.logic.Cloud`` on AWS.

    Needs ``sagemaker:DescribeModelPackage`` and ``sagemaker:UpdateModelPackage`` on the group's packages,
    ``s3:GetObject`` and ``s3:ListBucket`` (and ``kms:Decrypt``) on the evaluations,
    ``ssm:GetParameterHistory`` and ``ssm:PutParameter`` on the parameter,
    ``cloudformation:DescribeStacks`` and ``cloudformation:UpdateStack`` on the serving stack, and
    ``ssm:GetParameters`` on the parameter, which CloudFormation reads for the caller.
    """

    def __init__(self, *, sagemaker: Any, ssm: Any, s3: Any, cloudformation: Any) -> None:
        self._sagemaker = sagemaker
        self._ssm = ssm
        self._s3 = s3
        self._cloudformation = cloudformation

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
        )

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

    def stack(self, name: str, parameter_name: str) -> Stack:
        """The stack and which value of the approval parameter it runs."""
        with _translated():
            found = self._cloudformation.describe_stacks(StackName=name)["Stacks"][0]
        parameters: Sequence[Mapping[str, str]] = found.get("Parameters", [])
        # Of a parameter read from Parameter Store, ParameterValue is the name and ResolvedValue the value.
        serves = [p["ResolvedValue"] for p in parameters if p.get("ParameterValue") == parameter_name]
        if not serves:
            raise MisconfiguredError(f"stack {name} has no parameter that is read from {parameter_name}")
        return Stack(
            status=found["StackStatus"],
            status_reason=found.get("StackStatusReason", ""),
            updated=found.get("LastUpdatedTime"),
            parameters=tuple(p["ParameterKey"] for p in parameters),
            serves=serves[0],
        )

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
