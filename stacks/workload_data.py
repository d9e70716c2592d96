"""The data of one workload: how it arrives, how it becomes features."""

from __future__ import annotations

import aws_cdk as cdk
from ml_contract.load import LoadedWorkload
from ml_lifecycle.data_lake import DataLake
from ml_lifecycle.ingestion import StreamIngestion
from ml_lifecycle.processing import BatchTransform

from constructs import Construct
from environments import Environment
from stacks.base import LifecycleStack
from stacks.feature_groups import feature_groups
from stacks.foundation import FoundationStack


class WorkloadDataStack(LifecycleStack):
    """Stream, delivery, jobs and feature group of one workload."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        workload: LoadedWorkload,
        foundation: FoundationStack,
        lake: DataLake,
    ) -> None:
        spec, contract = workload.workload, workload.compiled
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            workload=workload,
            description=f"{spec.title}: data ({environment.name})",
            termination_protection=environment.production,
        )
        name_prefix = f"{environment.name}-{spec.slug}"
        topic = foundation.notices.topic
        self.ingestion = StreamIngestion(
            self,
            "Ingestion",
            contract=contract,
            zone=lake.raw,
            stream_key=foundation.keys.data_key,
            log_key=foundation.keys.logs,
            mode=spec.stream.mode,
            shards=spec.stream.shards,
            retention_hours=spec.stream.retention_hours,
            buffer_seconds=spec.stream.buffer_seconds,
            buffer_mib=spec.stream.buffer_mib,
            log_retention_days=environment.retention.log_days,
            alarm_topic=topic,
        )
        groups = feature_groups(
            self,
            workload,
            name_prefix=name_prefix,
            zone=lake.features,
            online_key=foundation.keys.data_key,
        )
        self.feature_group = groups.newest
        self.batch = BatchTransform(
            self,
            "Batch",
            contract=contract,
            name_prefix=name_prefix,
            lake=lake,
            raw_table=self.ingestion.table,
            raw_prefix=self.ingestion.data_prefix,
            feature_group=self.feature_group,
            log_key=foundation.keys.logs,
            worker_type=spec.batch.worker_type,
            workers=spec.batch.workers,
            schedule=spec.batch.schedule,
            on_landing=spec.batch.on_landing,
            log_retention_days=environment.retention.log_days,
            failure_topic=topic,
        )
        self.features_uri = self.batch.features_uri
        outputs = {
            "Workload": spec.name,
            "StreamName": self.ingestion.stream_name,
            "DeliveryStreamName": self.ingestion.delivery_stream_name,
            "RawDataUri": lake.raw.uri(self.ingestion.data_prefix),
            "QuarantineUri": lake.raw.uri(self.ingestion.quarantine_prefix),
            "DeliveryErrorsUri": lake.raw.uri(self.ingestion.error_prefix),
            "CuratedDataUri": lake.curated.uri(self.batch.data_prefix),
            "FeaturesDataUri": self.features_uri,
            "QualityUri": lake.artifacts.uri(self.batch.quality_prefix),
            "WorkflowName": self.batch.workflow_name,
            "CrawlerName": self.batch.crawler_name,
            "RulesetName": self.batch.ruleset_name,
            "FeatureGroupName": self.feature_group.name,
            "ActiveFeatureGroupName": groups.active.name,
        }
        for name, value in outputs.items():
            cdk.CfnOutput(self, name, value=value)
