"""The batch sources of one workload: who brings files, and the one way they take from there."""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
from ml_contract.load import LoadedWorkload
from ml_contract.spec.sources import DmsSource, DropSource, JdbcSource, Source, ThirdPartySource, lands
from ml_lifecycle.data_lake import DataLake
from ml_lifecycle.sources import (
    BatchLanding,
    DataSyncTask,
    DmsReplication,
    DropFolder,
    JdbcTable,
    ThirdPartyReader,
    ThirdPartyWriter,
    landing_spec,
)

from constructs import Construct
from environments import Environment
from stacks.base import LifecycleStack
from stacks.data_lake import DESTROY_CONTEXT
from stacks.foundation import FoundationStack
from stacks.workload_data import WorkloadDataStack


class WorkloadSourcesStack(LifecycleStack):
    """Drop bucket, landing and sources of one workload."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        workload: LoadedWorkload,
        foundation: FoundationStack,
        lake: DataLake,
        data: WorkloadDataStack,
    ) -> None:
        spec, contract = workload.workload, workload.compiled
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            workload=workload,
            description=f"{spec.title}: batch sources ({environment.name})",
            termination_protection=environment.production,
        )
        self._topic, self._foundation, self._environment = foundation.notices.topic, foundation, environment
        destroy = self.node.try_get_context(DESTROY_CONTEXT) == environment.name and environment.destroy_data
        senders = {name: source for name, source in spec.sources.items() if lands(source)}
        outputs = {"Workload": spec.name}
        if senders:
            self.landing = BatchLanding(
                self,
                "Landing",
                contract=contract,
                environment_name=environment.name,
                sources=[landing_spec(name, source) for name, source in senders.items()],
                zone=lake.raw,
                access_logs=lake.access_logs,
                data_prefix=data.ingestion.data_prefix,
                quarantine_prefix=data.ingestion.quarantine_prefix,
                log_key=foundation.keys.logs,
                message_key=foundation.keys.messages,
                accelerate=any(getattr(source, "accelerate", False) for source in senders.values()),
                log_retention_days=environment.retention.log_days,
                removal_policy=cdk.RemovalPolicy.DESTROY if destroy else cdk.RemovalPolicy.RETAIN,
                alarm_topic=self._topic,
            )
            outputs |= {
                "DropUri": self.landing.drop.uri("drop/"),
                "BatchesUri": lake.raw.uri(self.landing.batches_prefix),
                "StateMachineArn": self.landing.state_machine_arn,
            }
        for name, source in spec.sources.items():
            construct_id = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
            outputs |= self._source(construct_id, name, source, lake, spec.slug)
        for output, value in outputs.items():
            cdk.CfnOutput(self, output, value=value)

    def _source(
        self, construct_id: str, name: str, source: Source, lake: DataLake, slug: str
    ) -> dict[str, str]:
        """One source; the outputs it adds."""
        if isinstance(source, ThirdPartySource) and source.access == "read":
            zone = {"raw": lake.raw, "curated": lake.curated, "features": lake.features}[source.zone]
            reader = ThirdPartyReader(
                self,
                construct_id,
                zone=zone,
                prefix=f"{slug}/data/",
                account=source.account,
                external_id=source.external_id,
            )
            return {f"{construct_id}RoleArn": reader.role.role_arn}
        given: dict[str, Any] = {
            "name": name,
            "landing": self.landing,
            "fresh_within_hours": source.fresh_within_hours,
            "alarm_topic": self._topic,
        }
        keys, days = self._foundation.keys, self._environment.retention.log_days
        if isinstance(source, DropSource):
            DropFolder(self, construct_id, **given)
            return {}
        if isinstance(source, ThirdPartySource):
            writer = ThirdPartyWriter(
                self, construct_id, account=source.account, external_id=source.external_id, **given
            )
            return {f"{construct_id}RoleArn": writer.role.role_arn}
        if isinstance(source, JdbcSource):
            table = JdbcTable(
                self,
                construct_id,
                name_prefix=f"{self._environment.name}-{slug}",
                engine=source.engine,
                host=source.host,
                port=source.endpoint_port,
                database=source.database,
                table=source.table,
                columns=() if source.columns is None else source.columns,
                bookmark=source.bookmark,
                schedule=source.schedule,
                secret_arn=source.secret_arn,
                vpc=self._foundation.vpc,
                subnet=self._foundation.subnets[0],
                key=keys.data_key,
                log_key=keys.logs,
                log_retention_days=days,
                **given,
            )
            return {f"{construct_id}JobName": table.job_name}
        if isinstance(source, DmsSource):
            engine = source.engine
            if engine == "redshift":
                raise ValueError(f"source {name}: DMS reads no redshift; the contract refuses it")
            replication = DmsReplication(
                self,
                construct_id,
                name_prefix=f"{self._environment.name}-{slug}",
                engine=engine,
                host=source.host,
                port=source.endpoint_port,
                database=source.database,
                tables=source.tables,
                mode=source.mode,
                maximum_capacity=source.maximum_capacity,
                certificate_arn=source.certificate_arn,
                secret_arn=source.secret_arn,
                vpc=self._foundation.vpc,
                subnets=self._foundation.subnets,
                key=keys.data_key,
                **given,
            )
            return {f"{construct_id}ReplicationArn": replication.replication.ref}
        task = DataSyncTask(
            self,
            construct_id,
            location=source.location,
            server=source.server,
            folder=source.folder,
            bucket=source.bucket,
            agent_arns=source.agents,
            user=source.user,
            secret_arn=source.secret_arn,
            schedule=source.schedule,
            key=keys.data_key,
            log_key=keys.logs,
            log_retention_days=days,
            **given,
        )
        return {f"{construct_id}TaskArn": task.task.ref}
