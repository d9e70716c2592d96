"""Engine ``model_monitor``: SageMaker Model Monitor with our image.

It is closed to accounts that did not use it before 2026-07-30.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_s3_assets as s3_assets
from aws_cdk import aws_sagemaker as sagemaker
from ml_contract.compiled import CompiledContract

from constructs import Construct
from ml_lifecycle import code
from ml_lifecycle.isolation import open_job
from ml_lifecycle.monitoring.job import INPUT, OUTPUT, WHY_OPEN, MonitorJob
from ml_lifecycle.monitoring.kinds import Kind, short_name
from ml_lifecycle.training.job_role import grant_asset

__all__ = ["ManagedSchedule"]

#: SageMaker API reference, Create...JobDefinition and CreateMonitoringSchedule: lengths of the names.
_NAME_LENGTH = 63
_DEFINITIONS: Mapping[Kind, Any] = {
    "data": sagemaker.CfnDataQualityJobDefinition,
    "quality": sagemaker.CfnModelQualityJobDefinition,
    "bias": sagemaker.CfnModelBiasJobDefinition,
    "attribution": sagemaker.CfnModelExplainabilityJobDefinition,
}
#: SageMaker API reference, ModelQualityAppSpecification: ProblemType.
_PROBLEMS = {
    "binary": "BinaryClassification",
    "multiclass": "MulticlassClassification",
    "regression": "Regression",
}


class ManagedSchedule:
    """A kind's job definition and its schedule, as children of ``scope``.

    A job definition is immutable, and a schedule names it; so its name ends in a hash of its content.
    CloudFormation cannot know the approved package's baseline, so the definition names none: the image finds
    it through ``APPROVED_MODEL_PARAMETER``. Kinds that need labels run after Model Monitor's own job has
    merged them with the capture; ``delay_hours`` is how long the labels are waited for.
    """

    def __init__(
        self,
        scope: Construct,
        job: MonitorJob,
        *,
        condition: cdk.CfnCondition | None,
        delay_hours: int = 0,
    ) -> None:
        self._scope, self._job, self._delay = scope, job, delay_hours
        kind = _DEFINITIONS[job.kind]
        name = job.facts.managed
        self._kind, self._name = kind, name
        application = self._application()
        self.definition_name = self._definition_name(application)
        snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
        self.definition = kind(
            scope,
            "JobDefinition",
            job_definition_name=self.definition_name,
            role_arn=job.role.role_arn,
            **{
                f"{snake}_app_specification": self._property("AppSpecification")(**application),
                f"{snake}_job_input": self._property("JobInput")(**self._input()),
                f"{snake}_job_output_config": self._output(),
            },
            job_resources=kind.MonitoringResourcesProperty(
                cluster_config=kind.ClusterConfigProperty(
                    instance_count=1,
                    instance_type=job.workload.workload.monitoring.instance_type,
                    volume_size_in_gb=job.volume_gb,
                    volume_kms_key_id=job.volume_key_arn,
                )
            ),
            network_config=kind.NetworkConfigProperty(
                enable_network_isolation=False,
                enable_inter_container_traffic_encryption=True,
                vpc_config=None
                if job.network is None
                else kind.VpcConfigProperty(
                    subnets=job.network.subnet_ids, security_group_ids=job.network.security_group_ids
                ),
            ),
            stopping_condition=kind.StoppingConditionProperty(max_runtime_in_seconds=job.seconds),
        )
        open_job(self.definition, self.definition.cfn_resource_type.rsplit("::", 1)[-1], WHY_OPEN)
        self.definition.node.add_dependency(job.role)
        spec = job.workload.workload
        suffix = "" if job.kind == "data" else f"-{job.kind}"
        self.name = short_name(f"{job.environment_name}-{spec.slug}{suffix}", _NAME_LENGTH)
        self.schedule = sagemaker.CfnMonitoringSchedule(
            scope,
            "ManagedSchedule",
            monitoring_schedule_name=self.name,
            monitoring_schedule_config=sagemaker.CfnMonitoringSchedule.MonitoringScheduleConfigProperty(
                monitoring_job_definition_name=self.definition_name,
                monitoring_type=name,
                schedule_config=sagemaker.CfnMonitoringSchedule.ScheduleConfigProperty(
                    schedule_expression=_cron(job.every_hours), **_analysed(job.every_hours)
                ),
            ),
        )
        # The reference is by name: CloudFormation does not see it.
        self.schedule.node.add_dependency(self.definition)
        if condition is not None:
            for resource in (self.definition, self.schedule):
                resource.cfn_options.condition = condition

    def _property(self, suffix: str) -> Any:
        return getattr(self._kind, f"{self._name}{suffix}Property")

    def _application(self) -> dict[str, Any]:
        job = self._job
        given: dict[str, Any] = {
            "image_uri": job.image.image_uri,
            "environment": {
                **job.environment(job.artifacts.uri()),
                "CONTRACT_URI": job.contract.s3_object_url,
            },
        }
        contract = job.workload.compiled
        if job.kind == "quality":
            given["problem_type"] = _PROBLEMS[contract.label.task]
        if job.kind in ("bias", "attribution"):
            # These two take no image of ours without a file in SageMaker Clarify's words (ConfigUri).
            self.analysis = s3_assets.Asset(
                self._scope, "Analysis", path=str(_analysis_file(contract, job.kind))
            )
            grant_asset(self.analysis, job.role)
            given["config_uri"] = self.analysis.s3_object_url
        return given

    def _input(self) -> dict[str, Any]:
        job = self._job
        offsets = {}
        if job.facts.labelled and self._delay:
            # Both ends move (SageMaker Developer Guide, "Schedule model quality monitoring jobs").
            offsets = {
                "start_time_offset": f"-PT{self._delay}H",
                "end_time_offset": f"-PT{self._delay}H",
            }
        given: dict[str, Any] = {
            "endpoint_input": self._kind.EndpointInputProperty(
                endpoint_name=job.endpoint_name, local_path=f"{INPUT}/endpoint", **offsets
            )
        }
        if job.facts.labelled:
            given["ground_truth_s3_input"] = self._kind.MonitoringGroundTruthS3InputProperty(
                s3_uri=job.artifacts.uri(job.ground_truth_prefix)
            )
        return given

    def _output(self) -> Any:
        job, kind = self._job, self._kind
        return kind.MonitoringOutputConfigProperty(
            kms_key_id=job.artifacts.key.key_arn,
            monitoring_outputs=[
                kind.MonitoringOutputProperty(
                    s3_output=kind.S3OutputProperty(
                        s3_uri=job.artifacts.uri(job.reports_prefix),
                        local_path=f"{OUTPUT}/report",
                        s3_upload_mode="EndOfJob",
                    )
                )
            ],
        )

    def _definition_name(self, application: Mapping[str, Any]) -> str:
        job = self._job
        content = cdk.Stack.of(self._scope).resolve(
            [
                dict(application),
                job.artifacts.uri(job.reports_prefix),
                job.workload.workload.monitoring.instance_type,
                job.volume_gb,
                job.volume_key_arn,
                job.artifacts.key.key_arn,
                job.seconds,
                job.role.role_arn,
                self._delay,
                "encrypted between containers",
                None if job.network is None else [*job.network.subnet_ids, *job.network.security_group_ids],
            ]
        )
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return f"{job.name_prefix}-{digest[:8]}"


def _analysis_file(contract: CompiledContract, kind: Kind) -> Path:
    """Stage what is analysed, as SageMaker Clarify writes it down.

    Our image goes by the contract; the file says the same to a reader who knows Clarify.
    """
    text = json.dumps(analysis(contract, kind), indent=1, sort_keys=True)
    return code.staged(f"analysis-{kind}-{contract.name}", {"analysis_config.json": text}) / (
        "analysis_config.json"
    )


def analysis(contract: CompiledContract, kind: Kind) -> dict[str, Any]:
    """Return the analysis of a kind (SageMaker Developer Guide, "Analysis Configuration Files")."""
    found: dict[str, Any] = {
        "dataset_type": "application/jsonlines",
        "headers": [feature.name for feature in contract.features],
        "label": contract.label.field,
    }
    if kind == "attribution":
        return {**found, "methods": {"shap": {"agg_method": "mean_abs"}}}
    bias = contract.evaluation["bias"]
    favourable = bias["favourable"] if bias["favourable_above"] is None else [bias["favourable_above"]]
    if favourable is not None:
        found["label_values_or_threshold"] = list(favourable)
    return {
        **found,
        "facet": [
            {
                "name_or_index": name,
                "value_or_threshold": list(facet["disadvantaged"])
                if facet["above"] is None
                else [facet["above"]],
            }
            for name, facet in bias["facets"].items()
        ],
        "methods": {"post_training_bias": {"methods": "all"}},
    }


def _analysed(every_hours: int) -> dict[str, str]:
    """The window of an execution, where it is not the hour before."""
    if every_hours == 1:
        return {}
    return {"data_analysis_start_time": f"-PT{every_hours}H", "data_analysis_end_time": "-PT0H"}


def _cron(every_hours: int) -> str:
    """Model Monitor knows full hours only (``ScheduleConfig``): hourly, every n hours from midnight, or
    daily.
    """
    if every_hours == 1:
        return "cron(0 * ? * * *)"
    return "cron(0 0 ? * * *)" if every_hours == 24 else f"cron(0 0/{every_hours} ? * * *)"
