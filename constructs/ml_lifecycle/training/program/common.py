"""What the steps of one definition share: where they write, how their jobs run, what is tried again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sagemaker.core.network import NetworkConfig
from sagemaker.core.processing import Processor
from sagemaker.core.shapes import ProcessingInput, ProcessingOutput, ProcessingS3Input, ProcessingS3Output
from sagemaker.core.workflow.execution_variables import ExecutionVariables
from sagemaker.core.workflow.functions import Join
from sagemaker.core.workflow.parameters import ParameterString
from sagemaker.core.workflow.pipeline_context import PipelineSession
from sagemaker.core.workflow.properties import PropertyFile
from sagemaker.mlops.workflow.retry import (
    SageMakerJobExceptionTypeEnum,
    SageMakerJobStepRetryPolicy,
    StepExceptionTypeEnum,
    StepRetryPolicy,
)
from sagemaker.mlops.workflow.steps import CacheConfig, ProcessingStep, Step

INPUT = "/opt/ml/processing/input"
OUTPUT = "/opt/ml/processing/output"


@dataclass(frozen=True)
class Run:
    """One definition while it is built.

    Args:
        session: captures requests in place of sending them.
        values: see ``TrainingPipeline``; strings, numbers, lists and mappings.
    """

    session: PipelineSession
    values: dict[str, Any]

    @cached_property
    def features_uri(self) -> ParameterString:
        """Where the features of this execution stand."""
        return ParameterString(name="FeaturesUri", default_value=self.values["features_uri"])

    @cached_property
    def approval(self) -> ParameterString:
        """Status that a registered version begins with."""
        return ParameterString(name="ModelApprovalStatus", default_value="PendingManualApproval")

    @cached_property
    def reason(self) -> ParameterString:
        """Why the execution was started."""
        return ParameterString(name="Reason", default_value="manual")

    @property
    def parameters(self) -> list[ParameterString]:
        """Parameters of an execution."""
        parameters = [self.features_uri, self.approval, self.reason]
        if self.values["tuning"] == "warm":
            parameters.append(self.parent_tuning_job)
        if self.values["parent"] or self.values["champion"]:
            parameters.append(self.champion)
        return [*parameters, self.champion_test] if self.values["champion"] else parameters

    @cached_property
    def parent_tuning_job(self) -> ParameterString:
        """The tuning job that a warm start goes on from."""
        return ParameterString(name="ParentTuningJob", default_value=self.values["parent_tuning_job"])

    @cached_property
    def champion(self) -> ParameterString:
        """``model.tar.gz`` of the approved model.

        Without one it is the contract: an object that is always there, and no model.
        """
        return ParameterString(name="ChampionModel", default_value=self.values["contract_uri"])

    @cached_property
    def champion_test(self) -> ParameterString:
        """Folder of the held-out rows that the approved model was judged by; without one, the contract."""
        return ParameterString(name="ChampionTest", default_value=self.values["contract_uri"])

    def uri(self, *path: str) -> Join:
        """S3 URI of this execution's own folder: two executions never write to the same place."""
        return Join(
            on="/", values=[self.values["training_uri"], ExecutionVariables.PIPELINE_EXECUTION_ID, *path]
        )

    @cached_property
    def cache(self) -> CacheConfig | None:
        """Reuse of steps whose input did not change."""
        expire_after = self.values["cache_for"]
        return CacheConfig(enable_caching=True, expire_after=expire_after) if expire_after else None

    @cached_property
    def retries(self) -> list[Any]:
        """A job that failed for AWS's reasons is tried again; one that failed for ours is not."""
        return [
            SageMakerJobStepRetryPolicy(
                exception_types=[
                    SageMakerJobExceptionTypeEnum.INTERNAL_ERROR,
                    SageMakerJobExceptionTypeEnum.CAPACITY_ERROR,
                ],
                interval_seconds=60,
                backoff_rate=2.0,
                max_attempts=3,
            ),
            StepRetryPolicy(
                exception_types=[StepExceptionTypeEnum.SERVICE_FAULT, StepExceptionTypeEnum.THROTTLING],
                interval_seconds=10,
                backoff_rate=2.0,
                max_attempts=5,
            ),
        ]

    def processing(
        self,
        name: str,
        *,
        display_name: str,
        command: str,
        inputs: dict[str, Any],
        outputs: dict[str, Any],
        image: str = "processing_image",
        property_files: list[PropertyFile] | None = None,
    ) -> ProcessingStep:
        """Define a step that runs ``command`` of the processing image, or of another.

        Args:
            name: name of the step.
            display_name: what people read.
            command: argument of the image's program.
            inputs: S3 URI by the name of the folder below ``/opt/ml/processing/input``.
            outputs: S3 URI by the name of the folder below ``/opt/ml/processing/output``.
            image: name of the value that holds the image.
            property_files: outputs that conditions read.
        """
        values = self.values
        processor = Processor(
            sagemaker_session=self.session,
            role=values["processing_role"],
            image_uri=values[image],
            instance_count=1,
            instance_type=values["processing_instance_type"],
            volume_size_in_gb=values["volume_gb"],
            volume_kms_key=values["processing_volume_key"],
            output_kms_key=values["output_key"],
            max_runtime_in_seconds=values["processing_max_runtime_seconds"],
            network_config=NetworkConfig(
                enable_network_isolation=True,
                encrypt_inter_container_traffic=True,
                security_group_ids=values["security_groups"],
                subnets=values["subnets"],
            ),
        )
        return ProcessingStep(
            name=name,
            display_name=display_name,
            step_args=processor.run(
                inputs=[_read(folder, uri) for folder, uri in inputs.items()],
                outputs=[_write(folder, uri) for folder, uri in outputs.items()],
                arguments=[command],
            ),
            property_files=property_files,
            cache_config=self.cache,
            retry_policies=self.retries,
        )


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What Prepare hands on."""

    step: ProcessingStep

    def uri(self, name: str) -> Any:
        """Where one of its outputs stands, e.g. ``train``."""
        return output_uri(self.step, name)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A model, and the steps that make it."""

    steps: tuple[Step, ...]
    #: ``model.tar.gz``.
    model_uri: Any


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What Evaluate hands on."""

    step: ProcessingStep
    #: ``evaluation.json``, for conditions.
    report: PropertyFile
    #: ``register.json``: what Register takes from it.
    registered: PropertyFile

    def uri(self, name: str) -> Any:
        """Where one of its outputs stands, e.g. ``evaluation``."""
        return output_uri(self.step, name)


def output_uri(step: ProcessingStep, name: str) -> Any:
    """Where an output of a processing step stands."""
    return step.properties.ProcessingOutputConfig.Outputs[name].S3Output.S3Uri


def _read(name: str, uri: Any) -> ProcessingInput:
    return ProcessingInput(
        input_name=name,
        s3_input=ProcessingS3Input(
            s3_uri=uri, local_path=f"{INPUT}/{name}", s3_data_type="S3Prefix", s3_input_mode="File"
        ),
    )


def _write(name: str, uri: Any) -> ProcessingOutput:
    return ProcessingOutput(
        output_name=name,
        s3_output=ProcessingS3Output(s3_uri=uri, local_path=f"{OUTPUT}/{name}", s3_upload_mode="EndOfJob"),
    )
