"""The batch engine that a workload's ``batch.scale`` asks for."""

from __future__ import annotations

from typing import Any

from aws_cdk import aws_glue as glue
from ml_contract.load import LoadedWorkload
from ml_lifecycle import instance_types
from ml_lifecycle.data_lake import DataLake, IcebergTable
from ml_lifecycle.features import FeatureGroup
from ml_lifecycle.processing import BatchTransform, EmrServerlessTransform, SingleNodeTransform, Transform

from constructs import Construct
from environments import Environment
from stacks.foundation import FoundationStack
from stacks.workload_models import job_network

__all__ = ["batch_engine"]


def batch_engine(
    scope: Construct,
    *,
    environment: Environment,
    workload: LoadedWorkload,
    foundation: FoundationStack,
    lake: DataLake,
    raw_table: glue.CfnTable | IcebergTable,
    raw_prefix: str,
    feature_group: FeatureGroup,
) -> Transform:
    """Define the engine; the tables and prefixes are the same for all, so that a scale can be changed."""
    spec = workload.workload
    batch = spec.batch
    common: dict[str, Any] = {
        "contract": workload.compiled,
        "name_prefix": f"{environment.name}-{spec.slug}",
        "lake": lake,
        "raw_table": raw_table,
        "raw_prefix": raw_prefix,
        "feature_group": feature_group,
        "log_key": foundation.keys.logs,
        "schedule": batch.schedule,
        "on_landing": batch.on_landing,
        "labels": spec.labelling is not None,
        "log_retention_days": environment.retention.log_days,
        "failure_topic": foundation.notices.topic,
    }
    if batch.scale == "medium":
        if isinstance(raw_table, IcebergTable):
            raise ValueError(
                f"{spec.name}: batch.scale must be small or large with stream.format: iceberg, got medium; "
                "Glue's workflow begins with a crawl of folders"
            )
        return BatchTransform(
            scope,
            "Batch",
            worker_type=batch.worker_type,
            workers=batch.workers,
            execution_class=batch.execution_class,
            wheels=environment.glue_wheels,
            **common,
        )
    # Without interface endpoints a job in the isolated subnets reaches no API.
    network = job_network(foundation) if environment.network.interface_endpoints else None
    if batch.scale == "large":
        return EmrServerlessTransform(
            scope,
            "Batch",
            max_vcpu=batch.max_vcpu,
            max_memory_gb=batch.max_memory_gb,
            idle_minutes=batch.idle_minutes,
            network=network,
            **common,
        )
    instance_types.check_workload(workload)
    return SingleNodeTransform(
        scope,
        "Batch",
        instance_type=batch.instance_type,
        volume_gb=batch.volume_gb,
        volume_key=foundation.data_key(workload),
        network=network,
        **common,
    )
