"""One environment: every stack of the lifecycle, composed."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from ml_contract.load import LoadedWorkload
from ml_lifecycle.monitoring import ShownModel
from ml_lifecycle.security import OrganisationRules

from constructs import Construct
from environments import Environment
from environments.delivery import Delivery
from stacks.airflow import AirflowStack
from stacks.audit import AuditServicesStack
from stacks.catalog import CatalogStack
from stacks.data_lake import DataLakeStack
from stacks.foundation import FoundationStack
from stacks.governance import GovernanceStack
from stacks.gpu import GpuStack
from stacks.hyperpod import HyperPodStack
from stacks.platform import PlatformStack
from stacks.services import ServicesStack
from stacks.studio import StudioStack
from stacks.workload_alternatives import WorkloadAlternativesStack
from stacks.workload_cost import stop_when_idle
from stacks.workload_data import WorkloadDataStack
from stacks.workload_labels import WorkloadLabelsStack
from stacks.workload_models import WorkloadModelsStack
from stacks.workload_operations import WorkloadOperationsStack
from stacks.workload_serving import WorkloadServingStack
from stacks.workload_sources import WorkloadSourcesStack
from stacks.workload_windows import WorkloadWindowsStack


class LifecycleStage(cdk.Stage):
    """The lifecycle of all workloads in one environment."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        workloads: Sequence[LoadedWorkload],
        delivery: Delivery | None = None,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            env=cdk.Environment(account=environment.account, region=environment.region),
        )
        rules = environment.security.organisation
        if rules is not None:
            OrganisationRules(
                boundary_arn=rules.boundary_arn,
                names=rules.names,
                tags=rules.tags,
                required_tags=rules.required_tags,
            ).apply(self)
        self.foundation = FoundationStack(
            self,
            "Foundation",
            environment=environment,
            pollers=any(loaded.workload.stream.kafka_topic is not None for loaded in workloads),
            workloads=workloads,
            delivery=delivery,
        )
        self.data_lake = DataLakeStack(self, "DataLake", environment=environment, workloads=workloads)
        self.governance: GovernanceStack | None = None
        if environment.governance is not None:
            self.governance = GovernanceStack(
                self,
                "Governance",
                environment=environment,
                governance=environment.governance,
                foundation=self.foundation,
                lake=self.data_lake.lake,
                removal_policy=self.data_lake.removal_policy,
            )
        if environment.gpu is not None:
            GpuStack(
                self,
                "Gpu",
                environment=environment,
                gpu=environment.gpu,
                foundation=self.foundation,
                lake=self.data_lake.lake,
            )
        self.services: ServicesStack | None = None
        if environment.services.any:
            self.services = ServicesStack(
                self,
                "Services",
                environment=environment,
                foundation=self.foundation,
                lake=self.data_lake.lake,
                removal_policy=self.data_lake.removal_policy,
            )
        if environment.audit_services.any:
            AuditServicesStack(
                self,
                "AuditServices",
                environment=environment,
                foundation=self.foundation,
                lake=self.data_lake.lake,
                removal_policy=self.data_lake.removal_policy,
            )
        if environment.studio is not None and self.governance is not None:
            StudioStack(
                self,
                "Studio",
                environment=environment,
                studio=environment.studio,
                foundation=self.foundation,
                governance=self.governance,
                tracking=None if self.services is None else self.services.tracking,
            )
        if environment.hyperpod is not None:
            HyperPodStack(
                self,
                "HyperPod",
                environment=environment,
                hyperpod=environment.hyperpod,
                foundation=self.foundation,
                lake=self.data_lake.lake,
            )
        self._shown: list[ShownModel] = []
        models = [self._workload(environment, workload) for workload in workloads]
        if environment.catalog is not None and self.governance is not None:
            CatalogStack(
                self,
                "Catalog",
                environment=environment,
                catalog=environment.catalog,
                workloads=list(zip(workloads, models, strict=True)),
                foundation=self.foundation,
                governance=self.governance,
                lake=self.data_lake.lake,
            )
        if environment.observability.platform:
            PlatformStack(
                self,
                "Platform",
                environment=environment,
                foundation=self.foundation,
                lake=self.data_lake.lake,
                workloads=workloads,
                models=self._shown,
            )
        if environment.orchestration.airflow is not None:
            AirflowStack(self, "Airflow", environment=environment, foundation=self.foundation, models=models)

    def _workload(self, environment: Environment, workload: LoadedWorkload) -> WorkloadModelsStack:
        name, foundation, lake = workload.workload.id, self.foundation, self.data_lake.lake
        data = WorkloadDataStack(
            self,
            f"{name}Data",
            environment=environment,
            workload=workload,
            foundation=foundation,
            lake=lake,
            governance=self.governance,
        )
        if workload.workload.sources:
            WorkloadSourcesStack(
                self,
                f"{name}Sources",
                environment=environment,
                workload=workload,
                foundation=foundation,
                lake=lake,
                data=data,
            )
        windows: WorkloadWindowsStack | None = None
        if workload.workload.windows is not None and workload.workload.windows.engine == "flink":
            windows = WorkloadWindowsStack(
                self,
                f"{name}Windows",
                environment=environment,
                workload=workload,
                foundation=foundation,
                lake=lake,
                data=data,
            )
        models = WorkloadModelsStack(
            self,
            f"{name}Models",
            environment=environment,
            workload=workload,
            foundation=foundation,
            lake=lake,
            features_uri=data.features_uri,
            file_system=None if self.services is None else self.services.lustre,
            tracking=None if self.services is None else self.services.tracking,
        )
        if workload.workload.alternatives.any or environment.orchestration.step_functions:
            WorkloadAlternativesStack(
                self,
                f"{name}Alternatives",
                environment=environment,
                workload=workload,
                foundation=foundation,
                lake=lake,
                models=models,
            )
        serving = WorkloadServingStack(
            self,
            f"{name}Serving",
            environment=environment,
            workload=workload,
            foundation=foundation,
            lake=lake,
            models=models,
        )
        labels: WorkloadLabelsStack | None = None
        if workload.workload.labelling is not None:
            labels = WorkloadLabelsStack(
                self,
                f"{name}Labels",
                environment=environment,
                workload=workload,
                foundation=foundation,
                lake=lake,
                features_role=data.batch.features_role,
                governance=self.governance,
            )
        operations = WorkloadOperationsStack(
            self,
            f"{name}Operations",
            environment=environment,
            workload=workload,
            foundation=foundation,
            lake=lake,
            models=models,
            serving=serving,
            ingestion=data.ingestion,
            ingestion_logs=data.log_groups,
            new_data_event=data.batch.new_data_event,
            curated_table=data.batch.curated_table,
            labels_table=None if labels is None else labels.labels_table,
        )
        self._shown.append(operations.shown)
        stop_when_idle(
            environment=environment,
            workload=workload,
            foundation=foundation,
            data=data,
            models=models,
            serving=serving,
            operations=operations,
            windows=windows,
        )
        return models
