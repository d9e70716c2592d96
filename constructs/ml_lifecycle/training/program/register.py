"""Register: an accepted model becomes a version of the model package group."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from sagemaker.core.drift_check_baselines import DriftCheckBaselines
from sagemaker.core.model_metrics import MetricsSource, ModelMetrics
from sagemaker.core.model_registry import create_model_package_from_containers
from sagemaker.core.workflow.execution_variables import ExecutionVariables
from sagemaker.core.workflow.functions import Join, JsonGet
from sagemaker.core.workflow.pipeline_context import _ModelStepArguments
from sagemaker.mlops.workflow.model_step import ModelStep

from .common import Judged, Prepared, Run, Trained


def register(run: Run, prepared: Prepared, trained: Trained, judged: Judged) -> ModelStep:
    """Define the step."""
    values = run.values

    def found(name: str) -> JsonGet:
        return JsonGet(step_name=judged.step.name, property_file=judged.registered, json_path=name)

    evaluation = judged.uri("evaluation")
    bias = _json_file(evaluation, "bias.json") if values["bias"] else None
    explained = _json_file(evaluation, "explainability.json") if values["explain"] else None
    run.session.context = _ModelStepArguments(None)
    create_model_package_from_containers(
        run.session,
        containers=[
            {
                "Image": values["serving_image"],
                "ModelDataUrl": trained.model_uri,
                "Environment": {"DECISION_THRESHOLD": found("decision_threshold")},
            }
        ],
        content_types=["text/csv", "application/json"],
        response_types=["text/csv", "application/json"],
        inference_instances=[values["endpoint_instance_type"]],
        transform_instances=[values["transform_instance_type"]],
        model_package_group_name=values["model_package_group"],
        approval_status=run.approval,
        model_metrics=ModelMetrics(
            model_statistics=_json_file(evaluation, "evaluation.json"),
            bias=bias,
            bias_pre_training=bias,
            bias_post_training=bias,
            explainability=explained,
        )._to_request_dict(),
        drift_check_baselines=DriftCheckBaselines(
            model_data_statistics=_json_file(prepared.uri("baseline"), "statistics.json"),
            model_data_constraints=_json_file(prepared.uri("baseline"), "constraints.json"),
            model_statistics=_json_file(evaluation, "model_quality_statistics.json"),
            model_constraints=_json_file(evaluation, "model_quality_constraints.json"),
            bias_pre_training_constraints=bias,
            bias_post_training_constraints=bias,
            explainability_constraints=explained,
        )._to_request_dict(),
        customer_metadata_properties={
            "Workload": values["workload"],
            "PipelineExecution": ExecutionVariables.PIPELINE_EXECUTION_ARN,
            "Reason": run.reason,
            "Lineage": Join(on="/", values=[prepared.uri("lineage"), "lineage.json"]),
            # A later model is also judged by these rows: they show whether it forgot something.
            "TestSet": prepared.uri("test"),
        },
        model_card={"ModelCardContent": found("model_card"), "ModelCardStatus": "PendingReview"},
    )
    arguments = run.session.context
    # ModelStep asks only for the session of the model that was registered; there is no SDK model object here.
    arguments.model = SimpleNamespace(sagemaker_session=run.session)
    return ModelStep(name="Register", display_name="Register the model", step_args=arguments)


def _json_file(folder: Any, name: str) -> MetricsSource:
    return MetricsSource(s3_uri=Join(on="/", values=[folder, name]), content_type="application/json")
