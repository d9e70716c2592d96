"""The training pipeline as a construct."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3_assets as s3_assets
from aws_cdk import aws_sagemaker as sagemaker
from ml_contract.load import ContractError, LoadedWorkload

from constructs import Construct
from ml_lifecycle import code, instance_types
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.images import sagemaker_image
from ml_lifecycle.isolation import open_job
from ml_lifecycle.pseudo import arn, service_principal
from ml_lifecycle.storage import LustreCache
from ml_lifecycle.training import definition
from ml_lifecycle.training.algorithm import Algorithm
from ml_lifecycle.training.body import definition_body
from ml_lifecycle.training.job_role import (
    JobNetwork,
    grant_asset,
    grant_key,
    grant_output_key,
    grant_pull,
    job_role,
)
from ml_lifecycle.training.shapes import shape_of
from ml_lifecycle.training.tracking import TrackingServer
from ml_lifecycle.training.tuning import tuning_values
from ml_lifecycle.training.wildcards import acknowledge_wildcards

__all__ = ["ImageName", "TrainingPipeline"]

ImageName = Literal["processing", "training", "serving"]

#: A processing job may run nine days (CreateProcessingJob, MaxRuntimeInSeconds); a training job 28.
_MAX_PROCESSING_SECONDS = 777_600
#: Prefix of every job that SageMaker Pipelines starts: ``pipelines-<execution>-<step>-<random>``.
_JOB_PREFIX = "pipelines-"
#: Batch transform and endpoints offer other types; this one every account may use for transform.
_TRANSFORM_INSTANCE_TYPE = "ml.m5.large"


class TrainingPipeline(Construct):
    """Define the SageMaker pipeline that makes a model of a workload's features and registers it when it is
    good enough.

    Steps: ``Prepare`` (split, fit what is learned, baseline), ``Train`` or ``Tune``, ``Export`` where the
    image that trained is SageMaker's own, ``Evaluate`` on the held-out part, ``Accept`` (the workload's
    acceptance), then ``Register`` in the model package group or ``Reject``.
    Parameters of an execution: ``FeaturesUri``, ``ModelApprovalStatus`` (default ``PendingManualApproval``)
    and ``Reason``. Everything an execution makes stands below ``<artifacts>/<slug>/training/<execution
    id>/``.

    Jobs run without network access of their own (network isolation), in the VPC when ``network`` is given,
    with encrypted volumes where the instance type allows a key, and each kind as a role of its own.
    ``training_network`` is where training runs instead, e.g. with a group that lets several instances talk to
    each other (``WorkersSecurityGroup``); ``file_system`` is what a workload with ``training.file_system``
    reads. What AWS breaks is tried again. With ``training.spot`` training runs on spot capacity; what the
    image writes to ``/opt/ml/checkpoints`` is kept for the next attempt, and an image that writes nothing
    there starts over. With ``training.cache_hours`` a step whose input did not change is not run again.

    The definition is made by the SageMaker SDK (see ``ml_lifecycle.training.definition``) and every step's
    request is checked against SageMaker's service model before anything is deployed.

    Example::

        TrainingPipeline(
            self, "Training",
            workload=load_workload(Path("workloads/claims_fraud")),
            pipeline_name="dev-claims-fraud",
            model_package_group_name="dev-claims-fraud",
            features=lake.features, artifacts=lake.artifacts, volume_key=keys.data_key,
        )

    Raises:
        ContractError: an instance type or a version of an image that SageMaker does not offer, a file system
            that is not there, each with its line in ``workload.yaml``.
        ValueError: a step that SageMaker would refuse, or a ``program`` that cannot be rendered.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        workload: LoadedWorkload,
        pipeline_name: str,
        model_package_group_name: str,
        features: Zone,
        artifacts: Zone,
        volume_key: kms.IKey,
        features_uri: str | None = None,
        network: JobNetwork | None = None,
        program: Path = definition.PROGRAM,
        images: Mapping[ImageName, ecr_assets.DockerImageAsset] | None = None,
        training_network: JobNetwork | None = None,
        file_system: LustreCache | None = None,
        tracking: TrackingServer | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        if training_network is None:
            training_network = network
        instance_types.check_workload(workload)
        if workload.workload.training.file_system is not None and file_system is None:
            raise ContractError(
                [
                    workload.problem(
                        "training.file_system",
                        "this environment has no file system; name services.lustre in it or remove the key",
                    )
                ]
            )
        tracked = workload.workload.training.track == "mlflow"
        if tracked and (tracking is None or training_network is None):
            missing = "tracking server; name services.tracking in it" if tracking is None else "VPC"
            raise ContractError(
                [
                    workload.problem(
                        "training.track", f"this environment has no {missing}, or set track to none"
                    )
                ]
            )
        self._tracking = tracking if tracked else None
        self._workload = workload
        self._artifacts = artifacts
        spec = workload.workload
        self.pipeline_name = pipeline_name
        self.model_package_group_name = model_package_group_name
        self.contract = s3_assets.Asset(self, "Contract", path=str(code.contract_file(workload.compiled)))
        self.images = dict(self._images() if images is None else images)
        self.algorithm = Algorithm(self, "Algorithm", workload=workload, ours=self.images.get("training"))
        self.artifacts_prefix = f"{spec.slug}/training/"

        self.processing_role = self._job_role(
            "ProcessingRole", "ProcessingJobs", network, volume_key, "processing"
        )
        self.training_role = self._job_role(
            "TrainingRole", "TrainingJobs", training_network, volume_key, "training"
        )
        if file_system is not None and spec.training.file_system is not None:
            file_system.grant_describe(self.training_role)
        if self._tracking is not None:
            self._tracking.grant_log(self.training_role)
        features.grant_read(self.processing_role, f"{spec.slug}/data/")
        if spec.features.store.point_in_time:
            # Training sets that an execution may be given as its FeaturesUri.
            features.grant_read(self.processing_role, f"{spec.slug}/point-in-time/sets/")
        self.role = self._pipeline_role(volume_key)

        values = self._values(
            features_uri=features.uri(f"{spec.slug}/data/") if features_uri is None else features_uri,
            volume_key=volume_key,
            network=network,
            training_network=training_network,
            file_system=file_system if spec.training.file_system is not None else None,
        )
        self.pipeline = sagemaker.CfnPipeline(
            self,
            "Pipeline",
            pipeline_name=pipeline_name,
            pipeline_display_name=pipeline_name,
            pipeline_description=spec.title,
            pipeline_definition={
                "PipelineDefinitionBody": definition_body(
                    program,
                    shape_of(spec, in_vpc=network is not None),
                    values,
                    where=str(workload.path),
                )
            },
            role_arn=self.role.role_arn,
            # The steps depend on each other; two executions at once are the caller's choice.
            parallelism_configuration={"MaxParallelExecutionSteps": 4},
        )
        if self._tracking is not None:
            open_job(
                self.pipeline,
                "TrainingJob",
                "A tracked training reaches its tracking server; it runs in the VPC, which has no way out.",
            )
        for role in (self.role, self.processing_role, self.training_role):
            # CreatePipeline takes a role whose policy does not stand yet, and the first execution then fails.
            self.pipeline.node.add_dependency(role)

    @property
    def pipeline_arn(self) -> str:
        """ARN of the pipeline."""
        return arn("sagemaker", f"pipeline/{self.pipeline_name}")

    def grant_start(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant starting the pipeline and seeing which executions there are."""
        return iam.Grant.add_to_principal(
            grantee=grantee,
            actions=["sagemaker:ListPipelineExecutions", "sagemaker:StartPipelineExecution"],
            resource_arns=[self.pipeline_arn],
        )

    def metric_executions_failed(
        self, *, period: cdk.Duration | None = None, statistic: str = "Sum"
    ) -> cloudwatch.Metric:
        """Count of failed executions, refused models among them; five minutes unless ``period`` says
        otherwise.
        """
        return self._metric("ExecutionFailed", period, statistic)

    def metric_executions_succeeded(
        self, *, period: cdk.Duration | None = None, statistic: str = "Sum"
    ) -> cloudwatch.Metric:
        """Count of executions that ended well; five minutes unless ``period`` says otherwise."""
        return self._metric("ExecutionSucceeded", period, statistic)

    def on_execution_failed(self, rule_id: str, *, target: events.IRuleTarget) -> events.Rule:
        """Send an event to ``target`` whenever an execution fails, a refused model among them."""
        rule = events.Rule(
            self,
            rule_id,
            description=f"An execution of {self.pipeline_name} failed",
            event_pattern=events.EventPattern(
                source=["aws.sagemaker"],
                detail_type=["SageMaker Model Building Pipeline Execution Status Change"],
                detail={
                    "pipelineArn": [self.pipeline_arn],
                    "currentPipelineExecutionStatus": ["Failed"],
                },
            ),
        )
        rule.add_target(target)
        return rule

    def _metric(self, name: str, period: cdk.Duration | None, statistic: str) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace="AWS/Sagemaker/ModelBuildingPipeline",
            metric_name=name,
            dimensions_map={"PipelineName": self.pipeline_name},
            period=cdk.Duration.minutes(5) if period is None else period,
            statistic=statistic,
        )

    def _images(self) -> dict[ImageName, ecr_assets.DockerImageAsset]:
        serving = instance_types.architecture(self._workload.workload.serving.instance_type)
        platforms: dict[ImageName, ecr_assets.Platform] = {
            "processing": ecr_assets.Platform.LINUX_AMD64,
            "training": ecr_assets.Platform.LINUX_AMD64,
            "serving": ecr_assets.Platform.LINUX_ARM64
            if serving == "arm64"
            else ecr_assets.Platform.LINUX_AMD64,
        }
        training = self._workload.workload.training
        if training.algorithm == "image":
            del platforms["training"]
        gpu = instance_types.accelerator(training.instance_type) == "gpu"
        torch = training.algorithm == "pytorch"
        return {
            name: sagemaker_image(
                self,
                f"{name.title()}Image",
                image="training_torch" if torch and name == "training" else name,
                platform=platform,
                build_args={"ACCELERATOR": "cuda"} if torch and gpu and name == "training" else None,
            )
            for name, platform in platforms.items()
        }

    def _job_role(
        self, role_id: str, log_group: str, network: JobNetwork | None, volume_key: kms.IKey, image: ImageName
    ) -> iam.Role:
        role = job_role(
            self,
            role_id,
            log_groups=[f"/aws/sagemaker/{log_group}"],
            network=network,
            description=f"{image.title()} jobs of {self.pipeline_name}",
        )
        if image == "training":
            self.algorithm.grant_fetch(role)
        else:
            grant_pull(self.images[image].repository, role)
            if self.algorithm.exports:
                # Export runs our training image, which knows both forms of a model.
                grant_pull(self.images["training"].repository, role)
        grant_asset(self.contract, role)
        grant_key(volume_key, role)
        self._artifacts.grant_read(role, self.artifacts_prefix)
        self._artifacts.grant_write(role, self.artifacts_prefix)
        grant_output_key(self._artifacts.key, role)
        return role

    def _pipeline_role(self, volume_key: kms.IKey) -> iam.Role:
        role = iam.Role(
            self,
            "Role",
            description=f"Steps of {self.pipeline_name}",
            assumed_by=service_principal("sagemaker", own_account=True),
        )
        for job, kind in (("processing-job", "ProcessingJob"), ("training-job", "TrainingJob")):
            jobs = arn("sagemaker", f"{job}/{_JOB_PREFIX}*")
            iam.Grant.add_to_principal(
                grantee=role,
                actions=[
                    "sagemaker:AddTags",
                    f"sagemaker:Create{kind}",
                    f"sagemaker:Describe{kind}",
                    f"sagemaker:Stop{kind}",
                ],
                resource_arns=[jobs],
            )
            acknowledge_wildcards(
                role,
                "Pipelines makes up each job's name; the wildcard ends at its own prefix.",
                resources=[jobs],
            )
        if self._workload.workload.tuning is not None:
            self._grant_tuning(role)
        versions = [
            arn("sagemaker", f"model-package-group/{self.model_package_group_name}"),
            arn("sagemaker", f"model-package/{self.model_package_group_name}/*"),
        ]
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["sagemaker:AddTags", "sagemaker:CreateModelPackage"],
            resource_arns=versions,
        )
        acknowledge_wildcards(
            role, "A version's number is known when it is registered; the group is one.", resources=versions
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["iam:PassRole"],
            resource_arns=[self.processing_role.role_arn, self.training_role.role_arn],
            conditions={"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
        )
        # Accept reads the evaluation, Register looks at the model and its image, as this role.
        self._artifacts.grant_read(role, self.artifacts_prefix)
        grant_pull(self.images["serving"].repository, role)
        grant_key(volume_key, role)
        return role

    def _grant_tuning(self, role: iam.Role) -> None:
        """Tuning jobs are named ``<execution>-<step>-<random>``: 32 characters hold no prefix."""
        jobs = arn("sagemaker", "hyper-parameter-tuning-job/*-Tune-*")
        iam.Grant.add_to_principal(
            grantee=role,
            actions=[
                "sagemaker:AddTags",
                "sagemaker:CreateHyperParameterTuningJob",
                "sagemaker:DescribeHyperParameterTuningJob",
                "sagemaker:ListTrainingJobsForHyperParameterTuningJob",
                "sagemaker:StopHyperParameterTuningJob",
            ],
            resource_arns=[jobs],
        )
        acknowledge_wildcards(
            role, "Pipelines makes up the tuning job's name around that of the step.", resources=[jobs]
        )

    def _environment(self) -> dict[str, str] | None:
        """Variables of the training job; the tracking server's name is one."""
        found = self.algorithm.environment
        if self._tracking is None:
            return found
        return {**(found or {}), "MLFLOW_TRACKING_URI": self._tracking.server_arn}

    def _lustre_path(self, file_system: LustreCache) -> str:
        """Where the file system shows what executions make."""
        prefix = self.artifacts_prefix
        if not prefix.startswith(file_system.prefix):
            raise ContractError(
                [
                    self._workload.problem(
                        "training.file_system",
                        f"the file system shows {file_system.prefix!r} of the artifacts; Prepare writes "
                        f"below {prefix!r}, set services.lustre.prefix of the environment to that or above",
                    )
                ]
            )
        inside = prefix.removeprefix(file_system.prefix).rstrip("/")
        return f"/{file_system.mount_name}/lake/{inside}".rstrip("/")

    def _values(
        self,
        *,
        features_uri: str,
        volume_key: kms.IKey,
        network: JobNetwork | None,
        training_network: JobNetwork | None,
        file_system: LustreCache | None,
    ) -> dict[str, Any]:
        spec = self._workload.workload
        training, acceptance, algorithm = spec.training, spec.acceptance, self.algorithm
        threshold = acceptance.at_least if acceptance.at_most is None else acceptance.at_most
        seconds = training.max_runtime_minutes * 60

        def volume_key_of(instance_type: str) -> str | None:
            return None if instance_types.has_local_disk(instance_type) else volume_key.key_arn

        return {
            "cache_for": None if training.cache_hours is None else f"PT{training.cache_hours}H",
            "contract_uri": self.contract.s3_object_url,
            "endpoint_instance_type": spec.serving.instance_type,
            "entrypoint": algorithm.entrypoint,
            "environment": self._environment(),
            "export_image": self.images["training"].image_uri if algorithm.exports else None,
            "features_uri": features_uri,
            "file_system_id": None if file_system is None else file_system.file_system.ref,
            "file_system_path": None if file_system is None else self._lustre_path(file_system),
            **tuning_values(spec, algorithm.hyperparameters),
            "input_mode": training.input_mode,
            "max_runtime_seconds": seconds,
            "instance_count": training.instance_count,
            "keep_alive_seconds": None
            if training.warm_pool_minutes is None
            else training.warm_pool_minutes * 60,
            # At least the run time (CreateTrainingJob, MaxWaitTimeInSeconds); as long again for spot capacity
            # to come.
            "max_wait_seconds": 2 * seconds
            if training.max_wait_minutes is None
            else training.max_wait_minutes * 60,
            "metric_path": f"metrics.{acceptance.metric}.value",
            "model_package_group": self.model_package_group_name,
            "output_key": self._artifacts.key.key_arn,
            "pipeline_name": self.pipeline_name,
            "processing_image": self.images["processing"].image_uri,
            "processing_instance_type": training.processing_instance_type,
            "processing_max_runtime_seconds": min(seconds, _MAX_PROCESSING_SECONDS),
            "processing_role": self.processing_role.role_arn,
            "processing_volume_key": volume_key_of(training.processing_instance_type),
            "script_uri": None if algorithm.script is None else algorithm.script.s3_object_url,
            "security_groups": None if network is None else network.security_group_ids,
            "serving_image": self.images["serving"].image_uri,
            "subnets": None if network is None else network.subnet_ids,
            "threshold": threshold,
            "training_groups": None
            if training_network is None or training.instance_count == 1
            else training_network.security_group_ids,
            "training_image": algorithm.image_uri,
            "training_instance_type": training.instance_type,
            "training_role": self.training_role.role_arn,
            "training_uri": self._artifacts.uri(self.artifacts_prefix).rstrip("/"),
            "training_volume_key": volume_key_of(training.instance_type),
            "transform_instance_type": (
                _TRANSFORM_INSTANCE_TYPE if spec.serving.batch is None else spec.serving.batch.instance_type
            ),
            "volume_gb": training.volume_gb,
            "workload": spec.name,
        }
