"""SageMaker, and which of its errors are worth another try."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

from retrain_trigger.budget import Job
from retrain_trigger.errors import MisconfiguredError, TransientError
from retrain_trigger.logic import Champion, Execution
from retrain_trigger.told import Told

__all__ = ["SageMakerPipelines", "metadata_text"]

#: AWS's common throttling codes, StartPipelineExecution's own ConflictException, and the account's limit on
#: running executions, which passes.
TRANSIENT_CODES = frozenset(
    {
        "ConflictException",
        # Of the function's own credentials: Lambda gives it others.
        "ExpiredToken",
        "ExpiredTokenException",
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
#: Of an execution's folder: what its first step says of the rows that it read.
LINEAGE = "prepare/lineage/lineage.json"
#: What S3 answers of an object that is not there, without the right to list and with it.
ABSENT = frozenset({"NoSuchKey", "AccessDenied"})
#: By the kind of a step's job (ListPipelineExecutionSteps, Metadata): how it is described, which field names
#: it, where its instances stand, and when it began and ended.
JOBS: Final[Mapping[str, tuple[str, str, tuple[str, ...], str, str]]] = {
    "TrainingJob": (
        "describe_training_job",
        "TrainingJobName",
        ("ResourceConfig",),
        "TrainingStartTime",
        "TrainingEndTime",
    ),
    "ProcessingJob": (
        "describe_processing_job",
        "ProcessingJobName",
        ("ProcessingResources", "ClusterConfig"),
        "ProcessingStartTime",
        "ProcessingEndTime",
    ),
}


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


def _execution(item: Mapping[str, Any]) -> Execution:
    return Execution(
        arn=item["PipelineExecutionArn"],
        status=item["PipelineExecutionStatus"],
        started=item["StartTime"],
    )


class SageMakerPipelines:
    """``retrain_trigger.logic.Pipelines`` on SageMaker.

    Needs ``sagemaker:ListPipelineExecutions`` and ``sagemaker:StartPipelineExecution`` on the pipeline; to
    tell it of the approved model also ``ssm:GetParameter`` on the approval parameter and
    ``sagemaker:DescribeModelPackage`` on the group's versions; for a budget in USD what ``jobs`` calls, for
    new data reading the note and the lineage in S3, for alarms ``cloudwatch:DescribeAlarms`` on them.
    """

    def __init__(self, client: Any, ssm: Any = None, s3: Any = None, cloudwatch: Any = None) -> None:
        self._client = client
        self._ssm = ssm
        self._s3 = s3
        self._cloudwatch = cloudwatch

    def latest(self, pipeline_name: str) -> Sequence[Execution]:
        """Latest executions of the pipeline, newest first."""
        with _translated():
            page = self._client.list_pipeline_executions(
                PipelineName=pipeline_name,
                SortBy="CreationTime",
                SortOrder="Descending",
                MaxResults=LOOK_BACK,
            )
        return [_execution(item) for item in page["PipelineExecutionSummaries"]]

    def alarms_on(self, names: Sequence[str]) -> Mapping[str, datetime]:
        """Those of the alarms that are in ALARM, and since when."""
        with _translated():
            # By name: without one CloudWatch asks for the right to see every alarm of the account.
            found = self._cloudwatch.describe_alarms(AlarmNames=list(names), AlarmTypes=["MetricAlarm"])
        return {
            alarm["AlarmName"]: alarm.get("StateTransitionedTimestamp", alarm["StateUpdatedTimestamp"])
            for alarm in found["MetricAlarms"]
            if alarm["StateValue"] == "ALARM"
        }

    def since(self, pipeline_name: str, moment: datetime) -> Sequence[Execution]:
        """Every execution that was started at ``moment`` or later."""
        with _translated():
            pages = self._client.get_paginator("list_pipeline_executions").paginate(
                PipelineName=pipeline_name, CreatedAfter=moment
            )
            return [_execution(item) for page in pages for item in page["PipelineExecutionSummaries"]]

    def jobs(self, execution_arn: str) -> Sequence[Job]:
        """Jobs of an execution that have run, those of a search each by itself."""
        found: list[Job] = []
        with _translated():
            pages = self._client.get_paginator("list_pipeline_execution_steps").paginate(
                PipelineExecutionArn=execution_arn
            )
            for step in (step for page in pages for step in page["PipelineExecutionSteps"]):
                # A step that was taken from the cache names the job of an earlier execution.
                if "CacheHitResult" in step:
                    continue
                for kind, said in step.get("Metadata", {}).items():
                    name = said.get("Arn", "").rpartition("/")[2]
                    if kind == "TuningJob":
                        found += self._trials(name)
                    elif kind in JOBS and name:
                        found += self._job(kind, name)
        return found

    def _job(self, kind: str, name: str) -> list[Job]:
        describe, parameter, path, start, end = JOBS[kind]
        job = getattr(self._client, describe)(**{parameter: name})
        if start not in job or end not in job:
            return []
        resources = job
        for key in path:
            resources = resources[key]
        seconds = job.get("BillableTimeInSeconds", (job[end] - job[start]).total_seconds())
        groups = resources.get("InstanceGroups") or [resources]
        return [
            Job(instance_type=group["InstanceType"], instances=group["InstanceCount"], seconds=seconds)
            for group in groups
        ]

    def _trials(self, name: str) -> list[Job]:
        pages = self._client.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job").paginate(
            HyperParameterTuningJobName=name
        )
        names = [trial["TrainingJobName"] for page in pages for trial in page["TrainingJobSummaries"]]
        return [job for trial in names for job in self._job("TrainingJob", trial)]

    def rows(self, note_uri: str) -> int | None:
        """Rows of features by the note of the job that builds them; None when there is no such note."""
        note = self._document(note_uri)
        rows = None if note is None else note.get("rows")
        return rows if isinstance(rows, int) else None

    def learned_rows(self, training_uri: str, execution_arn: str) -> int | None:
        """Rows of the features that an execution read, by its lineage; None when it says nothing of them."""
        found = self._document(f"{training_uri}/{execution_arn.rpartition('/')[2]}/{LINEAGE}")
        snapshot = (None if found is None else found.get("features", {}).get("snapshot")) or {}
        rows = snapshot.get("rows")
        return rows if isinstance(rows, int) else None

    def _document(self, uri: str) -> dict[str, Any] | None:
        parts = urlsplit(uri)
        with _translated():
            try:
                body = self._s3.get_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"))["Body"].read()
            except ClientError as error:
                if error.response["Error"]["Code"] in ABSENT:
                    return None
                raise
        try:
            found = json.loads(body)
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    def is_to_say(self, parameter_name: str, text: str, request: str, *, now: datetime) -> bool:
        """Whether this request is to tell people ``text``; of requests at once, one is (``told``)."""
        with _translated():
            return Told(self._ssm, parameter_name).is_mine(text, request, now=now)

    def said(self, parameter_name: str, text: str) -> None:
        """Note that people were told ``text``."""
        with _translated():
            Told(self._ssm, parameter_name).said(text)

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
