"""Services of one environment that not everybody wants: warehouse, search, file systems, cameras."""

from __future__ import annotations

import aws_cdk as cdk
from ml_lifecycle.analysis import DocumentSearch, RedshiftWarehouse
from ml_lifecycle.data_lake import DataLake
from ml_lifecycle.ingestion import VideoSource
from ml_lifecycle.storage import LustreCache, SharedFiles
from ml_lifecycle.training import TrackingServer

from constructs import Construct
from environments import Environment
from stacks.base import LifecycleStack
from stacks.foundation import FoundationStack


class ServicesStack(LifecycleStack):
    """Each service that ``environment.services`` names; the others are None. Grant on them what you need."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        foundation: FoundationStack,
        lake: DataLake,
        removal_policy: cdk.RemovalPolicy,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            description=f"Warehouse, search, file systems and cameras of {environment.name}",
            termination_protection=environment.production,
        )
        self._environment = environment
        self._foundation = foundation
        self._lake = lake
        self._removal_policy = removal_policy
        self.warehouse: RedshiftWarehouse | None = None
        self.search: DocumentSearch | None = None
        self.lustre: LustreCache | None = None
        self.files: SharedFiles | None = None
        self.tracking: TrackingServer | None = None
        self.videos: dict[str, VideoSource] = {}
        self._warehouse()
        self._search()
        self._storage()
        self._tracking()
        self._videos()

    def _warehouse(self) -> None:
        wanted = self._environment.services.warehouse
        if wanted is None:
            return
        warehouse = RedshiftWarehouse(
            self,
            "Warehouse",
            name=f"{self._environment.name}-warehouse",
            key=self._foundation.keys.data_key,
            vpc=self._foundation.vpc,
            subnets=self._foundation.subnets,
            base_rpu=wanted.base_rpu,
            max_rpu=wanted.max_rpu,
            removal_policy=self._removal_policy,
        )
        for zone in (self._lake.curated, self._lake.features):
            warehouse.grant_zone(zone)
            cdk.CfnOutput(
                self,
                f"ExternalSchema{zone.node.id}",
                value=warehouse.external_schema(str(zone.database_name)),
            )
        cdk.CfnOutput(self, "WarehouseName", value=warehouse.name)
        self.warehouse = warehouse

    def _search(self) -> None:
        wanted = self._environment.services.search
        if wanted is None:
            return
        self.search = DocumentSearch(
            self,
            "Search",
            name=f"{self._environment.name}-documents",
            key=self._foundation.keys.data_key,
            vpc=self._foundation.vpc,
            subnets=self._foundation.subnets,
            security_group=self._foundation.job_security_group,
            standby=wanted.standby,
            removal_policy=self._removal_policy,
        )
        cdk.CfnOutput(self, "SearchEndpoint", value=self.search.collection.attr_collection_endpoint)

    def _storage(self) -> None:
        services, foundation = self._environment.services, self._foundation
        if services.lustre is not None:
            self.lustre = LustreCache(
                self,
                "Lustre",
                zone=self._lake.artifacts,
                prefix=services.lustre.prefix,
                key=foundation.keys.data_key,
                vpc=foundation.vpc,
                subnet=foundation.subnets[0],
                clients=foundation.job_security_group,
                capacity_gib=services.lustre.capacity_gib,
                throughput_mbps_per_tib=services.lustre.throughput_mbps_per_tib,
            )
            cdk.CfnOutput(self, "LustreFileSystem", value=self.lustre.file_system.ref)
        if services.shared_storage is not None:
            self.files = SharedFiles(
                self,
                "Files",
                key=foundation.keys.data_key,
                vpc=foundation.vpc,
                subnets=foundation.subnets,
                clients=foundation.job_security_group,
                backups=services.shared_storage.backups,
                removal_policy=self._removal_policy,
            )
            cdk.CfnOutput(self, "SharedFileSystem", value=self.files.file_system.ref)

    def _tracking(self) -> None:
        wanted = self._environment.services.tracking
        if wanted is None:
            return
        self.tracking = TrackingServer(
            self,
            "Tracking",
            name=f"{self._environment.name}-tracking",
            artifacts=self._lake.artifacts,
            vpc=self._foundation.vpc,
            subnets=self._foundation.subnets,
            clients=self._foundation.job_security_group,
            size=wanted.size,
        )
        cdk.CfnOutput(self, "TrackingServer", value=self.tracking.server_arn)

    def _videos(self) -> None:
        for video in self._environment.services.videos:
            self.videos[video.name] = VideoSource(
                self,
                f"Video{''.join(part.title() for part in video.name.split('-'))}",
                name=f"{self._environment.name}-{video.name}",
                zone=self._lake.raw,
                prefix="video/",
                key=self._foundation.keys.data_key,
                message_key=self._foundation.keys.messages,
                log_key=self._foundation.keys.logs,
                retention_hours=video.retention_hours,
                interval_seconds=video.interval_seconds,
                log_retention_days=self._environment.retention.log_days,
                removal_policy=self._removal_policy,
                alarm_topic=self._foundation.notices.topic,
            )
