"""What is read of SageMaker and S3 for a notice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from retraining_notices.logic import FailedStep

__all__ = ["AwsSources"]

#: The report that a monitor writes for programs.
_REPORT = "/report.json"
#: What S3 answers of an object that is not there, without the right to list and with it.
_ABSENT = frozenset({"NoSuchKey", "AccessDenied"})


class AwsSources:
    """``retraining_notices.logic.Sources`` on SageMaker and S3.

    Needs ``sagemaker:ListPipelineExecutionSteps``, and reading the workload's evaluations and reports.
    """

    def __init__(self, *, sagemaker: Any, s3: Any) -> None:
        self._sagemaker = sagemaker
        self._s3 = s3

    def newest_report(self, uri: str) -> tuple[str, Mapping[str, Any]] | None:
        """URI and content of the newest ``report.json`` below a URI; None when there is none."""
        parts = urlsplit(uri)
        prefix = parts.path.lstrip("/").rstrip("/") + "/"
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=parts.netloc, Prefix=prefix)
        found = [
            (item["LastModified"], item["Key"])
            for page in pages
            for item in page.get("Contents", ())
            if item["Key"].endswith(_REPORT)
        ]
        if not found:
            return None
        newest = f"s3://{parts.netloc}/{max(found)[1]}"
        report = self.document(newest)
        return None if report is None else (newest, report)

    def document(self, uri: str) -> Mapping[str, Any] | None:
        """A JSON object in S3; None when there is none."""
        parts = urlsplit(uri)
        try:
            body = self._s3.get_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"))["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] in _ABSENT:
                return None
            raise
        try:
            found: object = json.loads(body)
        except ValueError:
            return None
        return found if isinstance(found, Mapping) else None

    def failure(self, execution_arn: str) -> FailedStep | None:
        """The first step of an execution that failed."""
        pages = self._sagemaker.get_paginator("list_pipeline_execution_steps").paginate(
            PipelineExecutionArn=execution_arn, SortOrder="Ascending"
        )
        for step in (step for page in pages for step in page["PipelineExecutionSteps"]):
            if step["StepStatus"] == "Failed":
                return FailedStep(name=step["StepName"], why=step.get("FailureReason", "no reason given"))
        return None
