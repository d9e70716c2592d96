"""The training pipeline as a construct."""

from __future__ import annotations

import json
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
from ml_contract.load import LoadedWorkload

from constructs import Construct
from ml_lifecycle import code, instance_types
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.images import sagemaker_image
from ml_lifecycle.pseudo import arn, service_principal
from ml_lifecycle.training import definition
from ml_lifecycle.training.job_role import (
    JobNetwork,
    grant_asset,
    grant_key,
    grant_output_key,
    grant_pull,
    job_role,
)
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

    Steps: ``Prepare`` (split, fit what is learned, baseline), ``Train``, ``Evaluate`` on the held-out part,
    ``Accept`` (the workload's acceptance), then ``Register`` in the model package group or ``Reject``.
    Parameters of an execution: ``FeaturesUri``, ``ModelApprovalStatus`` (default ``PendingManualApproval``)
    and ``Reason``. Everything an execution makes stands below ``<artifacts>/<slug>/training/<execution
    id>/``.

    Jobs run without network access of their own (network isolation), in the VPC when ``network`` is given,
    with encrypted volumes where the instance type allows a key, and each kind as a role of its own. What AWS
    breaks is tried again. With ``training.spot`` training runs on spot capacity and waits for it at most as
    long as it may run; what the image writes to ``/opt/ml/checkpoints`` is kept for the next attempt, and an
    image that writes nothing there starts over. With ``training.cache_hours`` a step whose input did not
    change is not run again.

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
        ContractError: an instance type that SageMaker does not offer, with its line in ``workload.yaml``.
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
    ) -> None:
        super().__init__(scope, construct_id)
        instance_types.check_workload(workload)
        self._workload = workload
        self._artifacts = artifacts
        spec = workload.workload
        self.pipeline_name = pipeline_name
        self.model_package_group_name = model_package_group_name
        self.contract = s3_assets.Asset(self, "Contract", path=str(code.contract_file(workload.compiled)))
        self.images = dict(self._images() if images is None else images)
        self.artifacts_prefix = f"{spec.slug}/training/"

        self.processing_role = self._job_role(
            "ProcessingRole", "ProcessingJobs", network, volume_key, "processing"
        )
        self.training_role = self._job_role("TrainingRole", "TrainingJobs", network, volume_key, "training")
        features.grant_read(self.processing_role, f"{spec.slug}/data/")
        if spec.features.store.point_in_time:
            # Training sets that an execution may be given as its FeaturesUri.
            features.grant_read(self.processing_role, f"{spec.slug}/point-in-time/sets/")
        self.role = self._pipeline_role(volume_key)

        values = self._values(
            features_uri=features.uri(f"{spec.slug}/data/") if features_uri is None else features_uri,
            volume_key=volume_key,
            network=network,
        )
        self.pipeline = sagemaker.CfnPipeline(
            self,
            "Pipeline",
            pipeline_name=pipeline_name,
            pipeline_display_name=pipeline_name,
            pipeline_description=spec.title,
            pipeline_definition={
                "PipelineDefinitionBody": self._body(program, values, in_vpc=network is not None)
            },
            role_arn=self.role.role_arn,
            # The steps depend on each other; two executions at once are the caller's choice.
            parallelism_configuration={"MaxParallelExecutionSteps": 4},
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
        return {
            name: sagemaker_image(self, f"{name.title()}Image", image=name, platform=platform)
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
        grant_pull(self.images[image].repository, role)
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

    def _values(
        self, *, features_uri: str, volume_key: kms.IKey, network: JobNetwork | None
    ) -> dict[str, Any]:
        spec = self._workload.workload
        training, acceptance = spec.training, spec.acceptance
        threshold = acceptance.at_least if acceptance.at_most is None else acceptance.at_most
        seconds = training.max_runtime_minutes * 60
        hyperparameters: dict[str, Any] = {**training.hyperparameters, "rounds": training.rounds}
        if training.early_stopping_rounds is not None:
            hyperparameters["early_stopping_rounds"] = training.early_stopping_rounds

        def volume_key_of(instance_type: str) -> str | None:
            return None if instance_types.has_local_disk(instance_type) else volume_key.key_arn

        return {
            "cache_for": None if training.cache_hours is None else f"PT{training.cache_hours}H",
            "contract_uri": self.contract.s3_object_url,
            "endpoint_instance_type": spec.serving.instance_type,
            "features_uri": features_uri,
            "hyperparameters": {name: str(value) for name, value in hyperparameters.items()},
            "input_mode": training.input_mode,
            "max_runtime_seconds": seconds,
            # At least the run time (CreateTrainingJob, MaxWaitTimeInSeconds); as long again for spot capacity
            # to come.
            "max_wait_seconds": 2 * seconds,
            "metric_path": f"metrics.{acceptance.metric}.value",
            "model_package_group": self.model_package_group_name,
            "output_key": self._artifacts.key.key_arn,
            "pipeline_name": self.pipeline_name,
            "processing_image": self.images["processing"].image_uri,
            "processing_instance_type": training.processing_instance_type,
            "processing_max_runtime_seconds": min(seconds, _MAX_PROCESSING_SECONDS),
            "processing_role": self.processing_role.role_arn,
            "processing_volume_key": volume_key_of(training.processing_instance_type),
            "refusal": (
                f"{acceptance.metric} must be {'at least' if acceptance.at_most is None else 'at most'} "
                f"{threshold:g} on the held-out part, got"
            ),
            "security_groups": None if network is None else network.security_group_ids,
            "serving_image": self.images["serving"].image_uri,
            "subnets": None if network is None else network.subnet_ids,
            "threshold": threshold,
            "training_image": self.images["training"].image_uri,
            "training_instance_type": training.instance_type,
            "training_role": self.training_role.role_arn,
            "training_uri": self._artifacts.uri(self.artifacts_prefix).rstrip("/"),
            "training_volume_key": volume_key_of(training.instance_type),
            "transform_instance_type": _TRANSFORM_INSTANCE_TYPE,
            "volume_gb": training.volume_gb,
            "workload": spec.name,
        }

    def _body(self, program: Path, values: Mapping[str, Any], *, in_vpc: bool) -> str:
        spec = self._workload.workload
        rendered = definition.render(
            program,
            definition.shape(
                higher_is_better=spec.acceptance.at_most is None,
                spot=spec.training.spot,
                cached=spec.training.cache_hours is not None,
                in_vpc=in_vpc,
            ),
        )
        variables, plain = _split(values)
        # Tokens keep their stand-ins here: those have the form that SageMaker asks for.
        known = definition.fill(rendered, plain)
        found = definition.problems(known)
        if found:
            raise ValueError(
                f"{self._workload.path}: SageMaker would refuse the training pipeline:\n" + "\n".join(found)
            )
        # Fn::Sub reads ${!x} as the text ${x}.
        literal = json.loads(json.dumps(known).replace("${", "${!"))
        named = definition.fill(
            literal, {name: _placeholders(name, value) for name, value in variables.items()}
        )
        left = definition.left_over(named)
        if left:
            raise ValueError(
                f"{program} must pass on {', '.join(left)} as it is given; the definition holds a part of it"
            )
        body = json.dumps(named, sort_keys=True, separators=(",", ":"))
        return cdk.Fn.sub(body, dict(_pairs(variables)))


def _split(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part values that are known now from those that CloudFormation knows."""
    variables = {name: value for name, value in values.items() if _is_token(value)}
    return variables, {name: value for name, value in values.items() if name not in variables}


def _is_token(value: Any) -> bool:
    if isinstance(value, list):
        return any(_is_token(item) for item in value)
    # What Token.is_unresolved looks for in a text, without a call to the jsii kernel for each.
    return isinstance(value, str) and "${Token[" in value


def _variable(name: str) -> str:
    return "".join(part.title() for part in name.split("_"))


def _placeholders(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [f"${{{_variable(name)}{number}}}" for number in range(len(value))]
    return f"${{{_variable(name)}}}"


def _pairs(variables: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for name, value in variables.items():
        if isinstance(value, list):
            pairs += [(f"{_variable(name)}{number}", item) for number, item in enumerate(value)]
        else:
            pairs.append((_variable(name), value))
    return pairs
