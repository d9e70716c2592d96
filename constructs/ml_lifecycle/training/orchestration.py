"""Step Functions in front of the training pipeline."""

from __future__ import annotations

from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms

from constructs import Construct
from ml_lifecycle.pseudo import arn
from ml_lifecycle.training.job_machine import Job, JobMachine
from ml_lifecycle.training.pipeline import TrainingPipeline
from ml_lifecycle.training.wildcards import acknowledge_wildcards

__all__ = ["PipelineStateMachine"]


class PipelineStateMachine(JobMachine):
    """Define a state machine that starts a training pipeline, waits for its end and fails when it fails.

    Step Functions has no ``.sync`` integration of pipelines; it looks each ``every_seconds`` (default 30).
    The input may hold ``parameters``: a list of ``{"Name", "Value"}``, as StartPipelineExecution takes them.
    One execution of the machine starts one of the pipeline, however often the call is repeated.

    Example::

        PipelineStateMachine(
            self, "Train", name="dev-claims-fraud-train", pipeline=training, log_key=keys.logs,
        )
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        pipeline: TrainingPipeline,
        log_key: kms.IKey,
        log_retention_days: int = 90,
        every_seconds: int = 30,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            name=name,
            description=f"Trains: runs {pipeline.pipeline_name} to its end",
            log_key=log_key,
            log_retention_days=log_retention_days,
            every_seconds=every_seconds,
            job=Job(
                before={
                    "Given": {
                        "Type": "Choice",
                        "Choices": [{"Variable": "$.parameters", "IsPresent": True, "Next": "Start"}],
                        "Default": "Nothing",
                    },
                    "Nothing": {"Type": "Pass", "Result": [], "ResultPath": "$.parameters", "Next": "Start"},
                },
                start="sagemaker:startPipelineExecution",
                given={
                    "PipelineName": pipeline.pipeline_name,
                    "PipelineParameters.$": "$.parameters",
                    # A token has 32 to 128 characters.
                    "ClientRequestToken.$": "States.Hash($$.Execution.Id, 'SHA-256')",
                },
                look="sagemaker:describePipelineExecution",
                by={"PipelineExecutionArn.$": "$.started.PipelineExecutionArn"},
                status="PipelineExecutionStatus",
                good="Succeeded",
                bad=("Failed", "Stopped"),
                reason="FailureReason",
            ),
        )
        pipeline.grant_start(self.role)
        executions = arn("sagemaker", f"pipeline/{pipeline.pipeline_name}/execution/*")
        iam.Grant.add_to_principal(
            grantee=self.role,
            actions=["sagemaker:DescribePipelineExecution"],
            resource_arns=[executions],
        )
        acknowledge_wildcards(
            self.role, "An execution is named when it starts; the pipeline is one.", resources=[executions]
        )
