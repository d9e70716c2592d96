"""The training pipeline, written with the SageMaker Python SDK.

``ml_lifecycle.training.definition`` runs this file in a process of its own, with the network off; nothing
else imports it. It is a plain SDK program: to change the pipeline, copy it, edit ``build`` and give the copy
to ``TrainingPipeline(program=...)``. Everything that differs between workloads, accounts and regions arrives
in ``values``; what it holds are stand-ins that the construct replaces in the finished definition.
"""

from __future__ import annotations

from typing import Any

from sagemaker.core.drift_check_baselines import DriftCheckBaselines
from sagemaker.core.model_metrics import MetricsSource, ModelMetrics
from sagemaker.core.model_registry import create_model_package_from_containers
from sagemaker.core.network import NetworkConfig
from sagemaker.core.processing import Processor
from sagemaker.core.shapes import (
    Channel,
    CheckpointConfig,
    DataSource,
    MetricDefinition,
    OutputDataConfig,
    ProcessingInput,
    ProcessingOutput,
    ProcessingS3Input,
    ProcessingS3Output,
    S3DataSource,
    StoppingCondition,
)
from sagemaker.core.training.configs import Compute, Networking
from sagemaker.core.workflow.conditions import ConditionGreaterThanOrEqualTo, ConditionLessThanOrEqualTo
from sagemaker.core.workflow.execution_variables import ExecutionVariables
from sagemaker.core.workflow.functions import Join, JsonGet
from sagemaker.core.workflow.parameters import ParameterString
from sagemaker.core.workflow.pipeline_context import PipelineSession, _ModelStepArguments
from sagemaker.core.workflow.properties import PropertyFile
from sagemaker.mlops.workflow.condition_step import ConditionStep
from sagemaker.mlops.workflow.fail_step import FailStep
from sagemaker.mlops.workflow.model_step import ModelStep
from sagemaker.mlops.workflow.pipeline import Pipeline
from sagemaker.mlops.workflow.retry import (
    SageMakerJobExceptionTypeEnum,
    SageMakerJobStepRetryPolicy,
    StepExceptionTypeEnum,
    StepRetryPolicy,
)
from sagemaker.mlops.workflow.steps import CacheConfig, ProcessingStep, TrainingStep
from sagemaker.train.model_trainer import ModelTrainer

INPUT = "/opt/ml/processing/input"
OUTPUT = "/opt/ml/processing/output"
#: What SageMaker reads from the training log, a line a round: ``[12] train-logloss:0.51
#: validation-logloss:0.55``.
METRICS = [
    MetricDefinition(name=f"{part}:loss", regex=f"{part}-(?:logloss|mlogloss|rmse):([-+0-9.eE]+)")
    for part in ("train", "validation")
]


def build(session: PipelineSession, values: dict[str, Any]) -> Pipeline:
    """Define Prepare, Train, Evaluate, Accept and Register (or Reject).

    Args:
        session: captures requests in place of sending them.
        values: see ``TrainingPipeline``; strings, numbers and lists.
    """
    features_uri = ParameterString(name="FeaturesUri", default_value=values["features_uri"])
    approval = ParameterString(name="ModelApprovalStatus", default_value="PendingManualApproval")
    reason = ParameterString(name="Reason", default_value="manual")

    def in_run(*path: str) -> Join:
        """S3 URI of this execution's own folder: two executions never write to the same place."""
        return Join(on="/", values=[values["training_uri"], ExecutionVariables.PIPELINE_EXECUTION_ID, *path])

    cache = (
        CacheConfig(enable_caching=True, expire_after=values["cache_for"]) if values["cache_for"] else None
    )
    #: A job that failed for AWS's reasons is tried again; one that failed for ours is not.
    retries = [
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

    def processor() -> Processor:
        return Processor(
            sagemaker_session=session,
            role=values["processing_role"],
            image_uri=values["processing_image"],
            instance_count=1,
            instance_type=values["processing_instance_type"],
            volume_size_in_gb=values["volume_gb"],
            volume_kms_key=values["processing_volume_key"],
            output_kms_key=values["output_key"],
            max_runtime_in_seconds=values["processing_max_runtime_seconds"],
            network_config=NetworkConfig(
                enable_network_isolation=True,
                security_group_ids=values["security_groups"],
                subnets=values["subnets"],
            ),
        )

    def read(name: str, uri: Any) -> ProcessingInput:
        return ProcessingInput(
            input_name=name,
            s3_input=ProcessingS3Input(
                s3_uri=uri, local_path=f"{INPUT}/{name}", s3_data_type="S3Prefix", s3_input_mode="File"
            ),
        )

    def write(name: str, uri: Any) -> ProcessingOutput:
        return ProcessingOutput(
            output_name=name,
            s3_output=ProcessingS3Output(
                s3_uri=uri, local_path=f"{OUTPUT}/{name}", s3_upload_mode="EndOfJob"
            ),
        )

    prepare = ProcessingStep(
        name="Prepare",
        display_name="Split the features and fit what is learned from the training part",
        step_args=processor().run(
            inputs=[read("contract", values["contract_uri"]), read("features", features_uri)],
            outputs=[
                write(name, in_run("prepare", name))
                for name in ("train", "validation", "test", "transform", "baseline", "lineage")
            ],
            arguments=["prepare"],
        ),
        cache_config=cache,
        retry_policies=retries,
    )

    def prepared(name: str) -> Any:
        return prepare.properties.ProcessingOutputConfig.Outputs[name].S3Output.S3Uri

    def channel(name: str, uri: Any) -> Channel:
        # Not InputData: the SDK makes File of it, whatever the trainer says.
        return Channel(
            channel_name=name,
            data_source=DataSource(
                s3_data_source=S3DataSource(
                    s3_data_type="S3Prefix", s3_uri=uri, s3_data_distribution_type="FullyReplicated"
                )
            ),
            input_mode=values["input_mode"],
        )

    trainer = ModelTrainer(
        sagemaker_session=session,
        role=values["training_role"],
        training_image=values["training_image"],
        hyperparameters=values["hyperparameters"],
        training_input_mode=values["input_mode"],
        compute=Compute(
            instance_type=values["training_instance_type"],
            instance_count=1,
            volume_size_in_gb=values["volume_gb"],
            volume_kms_key_id=values["training_volume_key"],
            enable_managed_spot_training=values["spot"],
        ),
        stopping_condition=StoppingCondition(
            max_runtime_in_seconds=values["max_runtime_seconds"],
            **({"max_wait_time_in_seconds": values["max_wait_seconds"]} if values["spot"] else {}),
        ),
        networking=Networking(
            enable_network_isolation=True,
            enable_inter_container_traffic_encryption=True,
            security_group_ids=values["security_groups"],
            subnets=values["subnets"],
        ),
        output_data_config=OutputDataConfig(
            s3_output_path=in_run("train"), kms_key_id=values["output_key"], compression_type="GZIP"
        ),
        checkpoint_config=CheckpointConfig(s3_uri=in_run("checkpoints")) if values["spot"] else None,
    ).with_metric_definitions(METRICS)
    train = TrainingStep(
        name="Train",
        display_name="Train the model",
        step_args=trainer.train(
            input_data_config=[
                channel("train", prepared("train")),
                channel("validation", prepared("validation")),
                channel("transform", prepared("transform")),
                channel("contract", values["contract_uri"]),
            ]
        ),
        cache_config=cache,
        retry_policies=retries,
    )

    report = PropertyFile(name="Evaluation", output_name="evaluation", path="evaluation.json")
    evaluate = ProcessingStep(
        name="Evaluate",
        display_name="Judge the model on the held-out part",
        step_args=processor().run(
            inputs=[
                read("contract", values["contract_uri"]),
                read("model", train.properties.ModelArtifacts.S3ModelArtifacts),
                read("test", prepared("test")),
            ],
            outputs=[write("evaluation", in_run("evaluate", "evaluation"))],
            arguments=["evaluate"],
        ),
        property_files=[report],
        cache_config=cache,
        retry_policies=retries,
    )
    evaluation = evaluate.properties.ProcessingOutputConfig.Outputs["evaluation"].S3Output.S3Uri

    def json_file(folder: Any, name: str) -> MetricsSource:
        return MetricsSource(s3_uri=Join(on="/", values=[folder, name]), content_type="application/json")

    session.context = _ModelStepArguments(None)
    create_model_package_from_containers(
        session,
        containers=[
            {
                "Image": values["serving_image"],
                "ModelDataUrl": train.properties.ModelArtifacts.S3ModelArtifacts,
            }
        ],
        content_types=["text/csv", "application/json"],
        response_types=["text/csv", "application/json"],
        inference_instances=[values["endpoint_instance_type"]],
        transform_instances=[values["transform_instance_type"]],
        model_package_group_name=values["model_package_group"],
        approval_status=approval,
        model_metrics=ModelMetrics(
            model_statistics=json_file(evaluation, "evaluation.json")
        )._to_request_dict(),
        drift_check_baselines=DriftCheckBaselines(
            model_data_statistics=json_file(prepared("baseline"), "statistics.json"),
            model_data_constraints=json_file(prepared("baseline"), "constraints.json"),
        )._to_request_dict(),
        customer_metadata_properties={
            "Workload": values["workload"],
            "PipelineExecution": ExecutionVariables.PIPELINE_EXECUTION_ARN,
            "Reason": reason,
            "Lineage": Join(on="/", values=[prepared("lineage"), "lineage.json"]),
        },
    )
    arguments = session.context
    # ModelStep asks only for the session of the model that was registered; there is no SDK model object here.
    arguments.model = trainer
    register = ModelStep(name="Register", display_name="Register the model", step_args=arguments)

    metric = JsonGet(step_name="Evaluate", property_file=report, json_path=values["metric_path"])
    condition = ConditionGreaterThanOrEqualTo if values["higher_is_better"] else ConditionLessThanOrEqualTo
    reject = FailStep(
        name="Reject",
        display_name="Refuse the model",
        error_message=Join(on=" ", values=[values["refusal"], metric]),
    )
    accept = ConditionStep(
        name="Accept",
        display_name="Good enough?",
        conditions=[condition(left=metric, right=values["threshold"])],
        if_steps=[register],
        else_steps=[reject],
    )
    return Pipeline(
        name=values["pipeline_name"],
        parameters=[features_uri, approval, reason],
        # Experiments are Studio Classic only (closed); runs are tracked by the pipeline's own executions.
        pipeline_experiment_config=None,
        steps=[prepare, train, evaluate, accept],
        sagemaker_session=session,
    )
