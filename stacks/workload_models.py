"""The models of one workload: how they are made, judged, registered and approved."""

from __future__ import annotations

from dataclasses import replace

import aws_cdk as cdk
from ml_contract.load import LoadedWorkload
from ml_lifecycle.data_lake import DataLake
from ml_lifecycle.registry import ModelRegistry
from ml_lifecycle.security import show_role
from ml_lifecycle.storage import LustreCache
from ml_lifecycle.training import JobNetwork, TrackingServer, TrainingPipeline, WorkersSecurityGroup

from constructs import Construct
from environments import Environment
from stacks.base import LifecycleStack
from stacks.data_lake import DESTROY_CONTEXT
from stacks.foundation import FoundationStack


def job_network(foundation: FoundationStack) -> JobNetwork:
    """Where jobs and endpoints of an environment run."""
    return JobNetwork(subnets=tuple(foundation.subnets), security_groups=(foundation.job_security_group,))


class WorkloadModelsStack(LifecycleStack):
    """Training pipeline, model package group, approval parameter and promotion of one workload.

    ``serving_stack_name`` is the stack that a promotion updates; the default is the CDK's name for
    ``{W}Serving`` in the same stage. ``file_system`` and ``tracking`` are the environment's, for workloads
    that train from it, or are tracked on it.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        workload: LoadedWorkload,
        foundation: FoundationStack,
        lake: DataLake,
        features_uri: str | None = None,
        serving_stack_name: str | None = None,
        file_system: LustreCache | None = None,
        tracking: TrackingServer | None = None,
    ) -> None:
        spec = workload.workload
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            workload=workload,
            description=f"{spec.title}: models ({environment.name})",
            termination_protection=environment.production,
        )
        name = f"{environment.name}-{spec.slug}"
        parameters = f"/ml-lifecycle/{environment.name}/{spec.slug}"
        destroy = environment.destroy_data and self.node.try_get_context(DESTROY_CONTEXT) == environment.name
        self.training_pipeline = TrainingPipeline(
            self,
            "Training",
            workload=workload,
            pipeline_name=name,
            model_package_group_name=name,
            features=lake.features,
            features_uri=features_uri,
            artifacts=lake.artifacts,
            volume_key=foundation.data_key(workload),
            network=job_network(foundation),
            training_network=self._training_network(workload, foundation),
            file_system=file_system,
            tracking=tracking,
        )
        tried = spec.serving.rollout.strategy in ("ab", "shadow")
        challenger = f"{parameters}/challenger-model-package" if tried else None
        self.registry = ModelRegistry(
            self,
            "Registry",
            workload=workload,
            group_name=name,
            approval_parameter_name=f"{parameters}/approved-model-package",
            serving_stack_name=serving_stack_name or _serving_stack_name(self, spec.id),
            artifacts=lake.artifacts,
            message_key=foundation.keys.messages,
            log_key=foundation.keys.logs,
            log_retention_days=environment.retention.log_days,
            removal_policy=cdk.RemovalPolicy.DESTROY if destroy else cdk.RemovalPolicy.RETAIN,
            readers=environment.share_models_with,
            challenger_parameter_name=challenger,
            endpoint_name=None if challenger is None else name,
        )
        if spec.retraining.notify:
            self.registry.tell(
                foundation.stakeholders.topic, workload=workload, environment_name=environment.name
            )
        show_role(self.training_pipeline.role, "pipeline")
        show_role(self.training_pipeline.processing_role, "processing")
        show_role(self.training_pipeline.training_role, "training")
        # The pipeline names the group; its first execution must find it.
        self.training_pipeline.pipeline.add_resource_dependency(self.registry.group)
        outputs = {
            "Workload": spec.name,
            "PipelineName": self.training_pipeline.pipeline_name,
            "ModelPackageGroupName": self.registry.group_name,
            "ApprovedModelParameter": self.registry.approval_parameter_name,
            "ArtifactsUri": lake.artifacts.uri(f"{spec.slug}/"),
        }
        if self.registry.archive is not None:
            outputs["ModelArchiveFunctionName"] = self.registry.archive.function.function_name
        for output, value in outputs.items():
            cdk.CfnOutput(self, output, value=value)

    def _training_network(self, workload: LoadedWorkload, foundation: FoundationStack) -> JobNetwork:
        """Where training runs: several instances have a group that lets them talk to each other."""
        network = job_network(foundation)
        if workload.workload.training.instance_count == 1:
            return network
        workers = WorkersSecurityGroup(self, "Workers", vpc=foundation.vpc)
        return replace(network, security_groups=(*network.security_groups, workers.group))


def _serving_stack_name(stack: cdk.Stack, workload_id: str) -> str:
    stage = cdk.Stage.of(stack)
    prefix = f"{stage.stage_name}-" if stage is not None and stage.stage_name else ""
    return f"{prefix}{workload_id}Serving"
