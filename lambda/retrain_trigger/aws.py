"""SageMaker, and which of its errors are worth another try."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

from retrain_trigger.errors import MisconfiguredError, TransientError
from retrain_trigger.logic import Champion, Execution

__all__ = ["SageMakerPipelines", "metadata_text"]

#: AWS's common throttling codes, StartPipelineExecution's own ConflictException, and the account's limit on
#: running executions, which passes.
TRANSIENT_CODES = frozenset(
    {
        "ConflictException",
        "InternalFailure",
        "RequestTimeout",
        "ResourceLimitExceeded",
        "ServiceUnavailable",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
#: More than may run or end within any sensible cooldown; one page.
LOOK_BACK = 20
#: What the approval parameter holds before the first approval.
NONE_APPROVED = "none"


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = error.response["Error"]["Code"]
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if code in TRANSIENT_CODES or status >= 500:
            raise TransientError(str(error)) from error
        raise MisconfiguredError(str(error)) from error
    except (ConnectionError, HTTPClientError) as error:
        raise TransientError(str(error)) from error


def metadata_text(text: str) -> str:
    """Return ``text`` as a model package's metadata takes it (CreateModelPackage, CustomerMetadataValue).

    That is 1 to 256 characters: letters, digits, spaces and ``_.:/=+-@``; any other becomes a hyphen.
    """
    return re.sub(r"[^\w .:/=+\-@]", "-", " ".join(text.split()))[:256] or "-"


class SageMakerPipelines:
    """``retrain_trigger.logic.Pipelines`` on SageMaker.

    Needs ``sagemaker:ListPipelineExecutions`` and ``sagemaker:StartPipelineExecution`` on the pipeline; to
    tell it of the approved model also ``ssm:GetParameter`` on the approval parameter and
    ``sagemaker:DescribeModelPackage`` on the group's versions.
    """

    def __init__(self, client: Any, ssm: Any = None) -> None:
        self._client = client
        self._ssm = ssm

    def latest(self, pipeline_name: str) -> Sequence[Execution]:
        """Latest executions of the pipeline, newest first."""
        with _translated():
            page = self._client.list_pipeline_executions(
                PipelineName=pipeline_name,
                SortBy="CreationTime",
                SortOrder="Descending",
                MaxResults=LOOK_BACK,
            )
        return [
            Execution(
                arn=item["PipelineExecutionArn"],
                status=item["PipelineExecutionStatus"],
                started=item["StartTime"],
            )
            for item in page["PipelineExecutionSummaries"]
        ]

    def champion(self, parameter_name: str) -> Champion | None:
        """The approved model; None when nobody has approved one, or its version is gone."""
        with _translated():
            value = self._ssm.get_parameter(Name=parameter_name)["Parameter"]["Value"]
            if value == NONE_APPROVED:
                return None
            try:
                package = self._client.describe_model_package(ModelPackageName=value)
            except ClientError as error:
                if "does not exist" in error.response["Error"]["Message"]:
                    return None
                raise
        [container] = package["InferenceSpecification"]["Containers"]
        return Champion(
            arn=value,
            model_uri=container["ModelDataUrl"],
            test_uri=package.get("CustomerMetadataProperties", {}).get("TestSet"),
        )

    def start(self, pipeline_name: str, *, token: str, reason: str, parameters: Mapping[str, str]) -> str:
        """Start the pipeline once per token and return the execution's ARN."""
        with _translated():
            answer = self._client.start_pipeline_execution(
                PipelineName=pipeline_name,
                ClientRequestToken=token,
                # 3,072 characters at most (StartPipelineExecution, PipelineExecutionDescription).
                PipelineExecutionDescription=reason[:3_072],
                # It ends in the model package's metadata, and Register would be refused for a text that does
                # not fit there.
                PipelineParameters=[
                    {"Name": "Reason", "Value": metadata_text(reason)},
                    *({"Name": name, "Value": value} for name, value in parameters.items()),
                ],
            )
        arn: str = answer["PipelineExecutionArn"]
        return arn
