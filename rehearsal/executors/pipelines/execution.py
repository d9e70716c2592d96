"""One execution of a pipeline while it runs: what its steps are given and what they answered."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rehearsal.executors import transfer
from rehearsal.executors.pipelines.definition import Definition
from rehearsal.executors.pipelines.values import Values, ValueUnknownError

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime
    from rehearsal.services.engine import Record, Service

__all__ = ["RUNNING", "Execution", "StepFailedError", "iso"]


class StepFailedError(Exception):
    """A step that failed; the text is its failure reason.

    ``exception`` is what retry policies know it by; None for what no retry would mend.
    """

    def __init__(self, reason: str, *, exception: str | None = None) -> None:
        super().__init__(reason)
        self.exception = exception


@dataclass(kw_only=True)
class Execution:
    """One execution while it runs."""

    service: Service
    record: Record
    pipeline: Record
    definition: Definition
    parameters: dict[str, Any]
    stop: threading.Event = field(default_factory=threading.Event)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    outcomes: dict[str, bool] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def runtime(self) -> Runtime:
        return self.service.runtime

    @property
    def parallel(self) -> int:
        """Steps that may run at once, as the pipeline or the execution says; 50 unless it does."""
        own = self.record.data.get("ParallelismConfiguration")
        config = self.pipeline.data.get("ParallelismConfiguration", {}) if own is None else own
        return int(config.get("MaxParallelExecutionSteps", 50))

    @property
    def role(self) -> str:
        return str(self.pipeline.data["RoleArn"])

    def values(self) -> Values:
        now = self.runtime.clock.now()
        return Values(
            parameters=self.parameters,
            execution={
                "StartDateTime": iso(self.record.created),
                "CurrentDateTime": iso(now),
                "PipelineName": self.pipeline.name,
                "PipelineArn": self.pipeline.arn,
                "PipelineExecutionId": self.record.name,
                "PipelineExecutionArn": self.record.arn,
            },
            steps=self.answers,
            property_file=self.property_file,
        )

    def property_file(self, step: str, name: str) -> Any:
        """Read a property file from S3 under the pipeline's role."""
        output, path = self.definition.steps[step].property_files[name]
        if step not in self.answers:
            raise ValueUnknownError(f"the property file {name}: step {step} has not run")
        outputs = self.answers[step]["ProcessingOutputConfig"]["Outputs"]
        uri = next(item["S3Output"]["S3Uri"] for item in outputs if item["OutputName"] == output)
        content = transfer.fetch(
            self.runtime, f"{uri.rstrip('/')}/{path}", role=self.role, region=self.service.region
        )
        return json.loads(content)


#: Executions under way by ARN.
RUNNING: dict[str, Execution] = {}


def iso(moment: datetime) -> str:
    """Return a moment as SageMaker's events and variables write it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
