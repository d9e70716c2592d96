"""The data of one workload: how it arrives, how it becomes features."""

from __future__ import annotations

import aws_cdk as cdk
from ml_contract.load import LoadedWorkload
from ml_lifecycle.analysis import TableDashboard
from ml_lifecycle.data_lake import DataLake, IcebergTable
from ml_lifecycle.ingestion import KafkaSource, StreamConsumer, StreamIngestion
from ml_lifecycle.processing import BatchTransform, DataBrewProfile, PointInTime, StreamingTransform

from constructs import Construct
from environments import Environment
from stacks.base import LifecycleStack
from stacks.batch_engine import batch_engine
from stacks.feature_groups import feature_groups
from stacks.foundation import FoundationStack
from stacks.governance import GovernanceStack
from stacks.table_upkeep import table_upkeep
from stacks.text_enrichment import text_enrichment
from stacks.workload_governance import WorkloadGovernance, govern_table


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
        governance: GovernanceStack | None = None,
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
            stream_key=foundation.data_key(workload),
            log_key=foundation.keys.logs,
            mode="provisioned" if environment.cost.small_streams else spec.stream.mode,
            shards=1 if environment.cost.small_streams else spec.stream.shards,
            retention_hours=spec.stream.retention_hours,
            max_record_kib=spec.stream.max_record_kib,
            format=spec.stream.format,
            partition_by=spec.stream.partition_by,
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
        self.consumer = None
        if spec.stream.consumer is not None:
            self.consumer = StreamConsumer(
                self,
                "Consumer",
                contract=contract,
                ingestion=self.ingestion,
                feature_group=self.feature_group,
                log_key=foundation.keys.logs,
                fan_out=spec.stream.consumer.fan_out and not environment.cost.small_streams,
                batch_size=spec.stream.consumer.batch_size,
                attempts=spec.stream.consumer.attempts,
                maximum_age_minutes=spec.stream.consumer.maximum_age_minutes,
                parallelization=spec.stream.consumer.parallelization,
                log_retention_days=environment.retention.log_days,
                alarm_topic=topic,
            )
        functions = [self.ingestion.function]
        if self.consumer is not None:
            functions.append(self.consumer.function)
        #: Where ingestion writes its lines.
        self.log_groups = [function.log_group.log_group_name for function in functions]
        self.batch = batch_engine(
            self,
            environment=environment,
            workload=workload,
            foundation=foundation,
            lake=lake,
            raw_table=self.ingestion.table,
            raw_prefix=self.ingestion.data_prefix,
            feature_group=self.feature_group,
        )
        self.features_uri = self.batch.features_uri
        profile, raw_table = spec.batch.profile, self.ingestion.table
        # The contract lets a profile and an Iceberg raw table not meet.
        if profile is not None and not isinstance(raw_table, IcebergTable):
            DataBrewProfile(
                self,
                "Profile",
                contract=contract,
                name_prefix=name_prefix,
                lake=lake,
                raw_table=raw_table,
                raw_prefix=self.ingestion.data_prefix,
                schedule=profile.schedule,
                sample_rows=profile.sample_rows,
            )
        table_upkeep(self, "CuratedUpkeep", environment, self.batch.curated_table)
        if isinstance(self.ingestion.table, IcebergTable):
            table_upkeep(self, "RawUpkeep", environment, self.ingestion.table)
        if governance is not None:
            self.governance = WorkloadGovernance(
                self,
                "Governance",
                workload=workload,
                governance=governance,
                lake=lake,
                quarantine_prefix=self.ingestion.quarantine_prefix,
                depends_on=[self.ingestion.table, self.batch],
            )
        self.texts = text_enrichment(
            self,
            environment=environment,
            workload=workload,
            foundation=foundation,
            lake=lake,
            batch=self.batch,
            governance=governance,
        )
        self._kafka(environment, workload, foundation)
        dashboards = environment.services.dashboards
        if dashboards is not None:
            if governance is None:
                raise ValueError(
                    f"environment {environment.name!r}: services.dashboards asks through a workgroup of "
                    "governance, got governance=None; give the environment governance=Governance()"
                )
            TableDashboard(
                self,
                "Dashboard",
                contract=contract,
                name=name_prefix,
                title=spec.title,
                workgroup=governance.workgroups["data_scientist"],
                database=str(lake.curated.database_name),
                table=spec.name,
                readers=dashboards.readers,
            )
        outputs = {
            "Workload": spec.name,
            "StreamName": self.ingestion.stream_name,
            "DeliveryStreamName": self.ingestion.delivery_stream_name,
            "RawDataUri": lake.raw.uri(self.ingestion.data_prefix),
            "RawDatabase": str(lake.raw.database_name),
            "RawTable": contract.name,
            "QuarantineUri": lake.raw.uri(self.ingestion.quarantine_prefix),
            "DeliveryErrorsUri": lake.raw.uri(self.ingestion.error_prefix),
            "CuratedDataUri": lake.curated.uri(self.batch.data_prefix),
            "CuratedDatabase": self.batch.curated_table.database_name,
            "CuratedTable": self.batch.curated_table.name,
            "FeaturesDataUri": self.features_uri,
            "QualityUri": lake.artifacts.uri(self.batch.quality_prefix),
            "FeatureGroupName": self.feature_group.name,
            "ActiveFeatureGroupName": groups.active.name,
            **self.batch.outputs,
            **self._live(environment, workload, foundation, lake, governance),
        }
        if spec.features.store.point_in_time and isinstance(self.batch, BatchTransform):
            self.point_in_time = PointInTime(
                self, "PointInTime", batch=self.batch, feature_group=self.feature_group
            )
            outputs["PointInTimeJobName"] = self.point_in_time.job.ref
            outputs["LabelsUri"] = self.point_in_time.labels_uri
            outputs["PointInTimeUri"] = self.point_in_time.target_uri
        if self.texts is not None:
            outputs |= self.texts.outputs
        if self.consumer is not None:
            outputs["StreamConsumerName"] = self.consumer.function.function_name
            outputs["ConsumerQuarantineUri"] = lake.raw.uri(self.consumer.quarantine_prefix)
            outputs["ConsumerFailuresUri"] = lake.raw.uri(self.consumer.failures_prefix)
        for name, value in outputs.items():
            cdk.CfnOutput(self, name, value=value)

    def _kafka(self, environment: Environment, workload: LoadedWorkload, foundation: FoundationStack) -> None:
        """Define the reader of a Kafka topic, for a workload that names one."""
        spec = workload.workload
        if spec.stream.kafka_topic is None:
            return
        if not environment.network.interface_endpoints:
            raise ValueError(
                f"workload {spec.name!r}: stream.kafka_topic needs endpoints in the VPC for Lambda's "
                f"pollers, environment {environment.name!r} has network.interface_endpoints=False; set it"
            )
        self.kafka = KafkaSource(
            self,
            "Kafka",
            name=f"{environment.name}-{spec.slug}",
            topic=spec.stream.kafka_topic,
            ingestion=self.ingestion,
            vpc=foundation.vpc,
            subnets=foundation.subnets,
            clients=foundation.job_security_group,
            message_key=foundation.keys.messages,
            log_key=foundation.keys.logs,
            longest_record_kib=spec.stream.max_record_kib,
            log_retention_days=environment.retention.log_days,
            alarm_topic=foundation.notices.topic,
        )

    def _live(
        self,
        environment: Environment,
        workload: LoadedWorkload,
        foundation: FoundationStack,
        lake: DataLake,
        governance: GovernanceStack | None,
    ) -> dict[str, str]:
        """Define the streaming job of a workload that has one; its outputs."""
        options, contract = workload.workload.stream.micro_batches, workload.compiled
        self.live: StreamingTransform | None = None
        if options is None:
            return {}
        self.live = StreamingTransform(
            self,
            "Live",
            contract=contract,
            name_prefix=f"{environment.name}-{workload.workload.slug}",
            ingestion=self.ingestion,
            zone=lake.raw,
            checkpoints=lake.artifacts,
            log_key=foundation.keys.logs,
            window_seconds=options.window_seconds,
            worker_type=options.worker_type,
            workers=options.workers,
            log_retention_days=environment.retention.log_days,
            failure_topic=foundation.notices.topic,
        )
        if governance is not None:
            govern_table(
                self,
                "LiveGovernance",
                workload=workload,
                governance=governance,
                zone=lake.raw,
                table_name=self.live.table.ref,
                columns=[column for column, _ in contract.glue_columns()],
                depends_on=[self.live.table],
            )
        return {"LiveJobName": self.live.job_name, "LiveDataUri": lake.raw.uri(self.live.data_prefix)}
