"""Train: one training job on what was prepared."""

from __future__ import annotations

from typing import Any

from sagemaker.core.shapes import (
    Channel,
    CheckpointConfig,
    DataSource,
    FileSystemDataSource,
    MetricDefinition,
    OutputDataConfig,
    S3DataSource,
    StoppingCondition,
)
from sagemaker.core.training.configs import Compute, Networking
from sagemaker.core.workflow.execution_variables import ExecutionVariables
from sagemaker.core.workflow.functions import Join
from sagemaker.mlops.workflow.steps import TrainingStep
from sagemaker.train.model_trainer import ModelTrainer

from .common import Prepared, Run, Trained
from .prepare import reads_matrix

#: What SageMaker reads from the training log, a line a round: ``[12] train-logloss:0.51
#: validation-logloss:0.55``.
METRICS = [
    MetricDefinition(name=f"{part}:loss", regex=f"{part}-(?:logloss|mlogloss|rmse):([-+0-9.eE]+)")
    for part in ("train", "validation")
]


class ScriptStep(TrainingStep):  # type: ignore[misc]
    """A training step whose image is told what to start.

    The SDK's own way uploads the script while the pipeline is defined; ours is an asset, read from a channel.
    """

    def __init__(self, *, entrypoint: list[str], **options: Any) -> None:
        self._entrypoint = entrypoint
        super().__init__(**options)

    @property
    def arguments(self) -> Any:
        """The request."""
        request = super().arguments
        request["AlgorithmSpecification"]["ContainerEntrypoint"] = self._entrypoint
        return request


def channels(run: Run, prepared: Prepared) -> list[Channel]:
    """What a training job reads, by the names of the image's folders."""
    algorithm, values = run.values["algorithm"], run.values
    splits = ("train", "validation")
    if reads_matrix(run):
        # SageMaker's XGBoost takes the kind of file from the channel.
        kind = "application/x-parquet" if algorithm == "built_in" else None
        found = [_prepared(run, prepared, name, f"matrix_{name}", content_type=kind) for name in splits]
    else:
        found = [_prepared(run, prepared, name, name) for name in splits]
    if algorithm != "built_in":
        found += [
            _prepared(run, prepared, "transform", "transform"),
            _channel(run, "contract", values["contract_uri"]),
        ]
    if algorithm == "script":
        found.append(_channel(run, "code", values["script_uri"]))
    if values["parent"]:
        found.append(_channel(run, "parent", run.champion))
    return found


def _prepared(
    run: Run, prepared: Prepared, name: str, output: str, *, content_type: str | None = None
) -> Channel:
    """A channel of what Prepare wrote, from S3 or from the file system that shows it."""
    if not run.values["file_system"]:
        return _channel(run, name, prepared.uri(output), content_type=content_type)
    return Channel(
        channel_name=name,
        content_type=content_type,
        data_source=DataSource(
            file_system_data_source=FileSystemDataSource(
                file_system_id=run.values["file_system_id"],
                file_system_access_mode="ro",
                file_system_type="FSxLustre",
                directory_path=Join(
                    on="/",
                    values=[
                        run.values["file_system_path"],
                        ExecutionVariables.PIPELINE_EXECUTION_ID,
                        "prepare",
                        output,
                    ],
                ),
            )
        ),
        input_mode=run.values["input_mode"],
    )


def _channel(run: Run, name: str, uri: Any, *, content_type: str | None = None) -> Channel:
    # Not InputData: the SDK makes File of it, whatever the trainer says.
    return Channel(
        channel_name=name,
        content_type=content_type,
        data_source=DataSource(
            s3_data_source=S3DataSource(
                s3_data_type="S3Prefix", s3_uri=uri, s3_data_distribution_type="FullyReplicated"
            )
        ),
        input_mode=run.values["input_mode"],
    )


def trainer(run: Run) -> ModelTrainer:
    """What a training job is, without its input."""
    values = run.values
    found = ModelTrainer(
        sagemaker_session=run.session,
        role=values["training_role"],
        training_image=values["training_image"],
        hyperparameters=values["hyperparameters"],
        training_input_mode=values["input_mode"],
        environment=values["environment"],
        compute=Compute(
            instance_type=values["training_instance_type"],
            instance_count=values["instance_count"],
            volume_size_in_gb=values["volume_gb"],
            volume_kms_key_id=values["training_volume_key"],
            enable_managed_spot_training=values["spot"],
            keep_alive_period_in_seconds=values["keep_alive_seconds"],
        ),
        stopping_condition=StoppingCondition(
            max_runtime_in_seconds=values["max_runtime_seconds"],
            **({"max_wait_time_in_seconds": values["max_wait_seconds"]} if values["spot"] else {}),
        ),
        networking=Networking(
            enable_network_isolation=not values["tracked"],
            enable_inter_container_traffic_encryption=True,
            security_group_ids=values["training_groups" if values["workers"] else "security_groups"],
            subnets=values["subnets"],
        ),
        output_data_config=OutputDataConfig(
            s3_output_path=run.uri("train"), kms_key_id=values["output_key"], compression_type="GZIP"
        ),
        checkpoint_config=CheckpointConfig(s3_uri=run.uri("checkpoints")) if values["spot"] else None,
    )
    # SageMaker refuses metric definitions for its own algorithms, which bring theirs.
    return found if values["algorithm"] == "built_in" else found.with_metric_definitions(METRICS)


def train(run: Run, prepared: Prepared) -> Trained:
    """Define the step."""
    options: dict[str, Any] = {
        "name": "Train",
        "display_name": "Train the model",
        "step_args": trainer(run).train(input_data_config=channels(run, prepared)),
        "cache_config": run.cache,
        "retry_policies": run.retries,
    }
    step = (
        ScriptStep(entrypoint=run.values["entrypoint"], **options)
        if run.values["algorithm"] == "script"
        else TrainingStep(**options)
    )
    return Trained(steps=(step,), model_uri=step.properties.ModelArtifacts.S3ModelArtifacts)
