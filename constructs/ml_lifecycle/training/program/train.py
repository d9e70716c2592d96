"""Train: one training job on what was prepared."""

from __future__ import annotations

from typing import Any

from sagemaker.core.shapes import (
    Channel,
    CheckpointConfig,
    DataSource,
    MetricDefinition,
    OutputDataConfig,
    S3DataSource,
    StoppingCondition,
)
from sagemaker.core.training.configs import Compute, Networking
from sagemaker.mlops.workflow.steps import TrainingStep
from sagemaker.train.model_trainer import ModelTrainer

from .common import Prepared, Run, Trained

#: What SageMaker reads from the training log, a line a round: ``[12] train-logloss:0.51
#: validation-logloss:0.55``.
METRICS = [
    MetricDefinition(name=f"{part}:loss", regex=f"{part}-(?:logloss|mlogloss|rmse):([-+0-9.eE]+)")
    for part in ("train", "validation")
]


def channels(run: Run, prepared: Prepared) -> list[Channel]:
    """What a training job reads, by the names of the image's folders."""
    uris = {name: prepared.uri(name) for name in ("train", "validation", "transform")}
    uris["contract"] = run.values["contract_uri"]
    return [_channel(run, name, uri) for name, uri in uris.items()]


def _channel(run: Run, name: str, uri: Any) -> Channel:
    # Not InputData: the SDK makes File of it, whatever the trainer says.
    return Channel(
        channel_name=name,
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
    return ModelTrainer(
        sagemaker_session=run.session,
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
            s3_output_path=run.uri("train"), kms_key_id=values["output_key"], compression_type="GZIP"
        ),
        checkpoint_config=CheckpointConfig(s3_uri=run.uri("checkpoints")) if values["spot"] else None,
    ).with_metric_definitions(METRICS)


def train(run: Run, prepared: Prepared) -> Trained:
    """Define the step."""
    step = TrainingStep(
        name="Train",
        display_name="Train the model",
        step_args=trainer(run).train(input_data_config=channels(run, prepared)),
        cache_config=run.cache,
        retry_policies=run.retries,
    )
    return Trained(steps=(step,), model_uri=step.properties.ModelArtifacts.S3ModelArtifacts)
