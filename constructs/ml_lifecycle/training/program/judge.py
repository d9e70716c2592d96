"""Evaluate and Accept: the model is judged on the held-out part, then registered or refused."""

from __future__ import annotations

from sagemaker.core.workflow.conditions import ConditionGreaterThanOrEqualTo, ConditionLessThanOrEqualTo
from sagemaker.core.workflow.functions import Join, JsonGet
from sagemaker.core.workflow.properties import PropertyFile
from sagemaker.mlops.workflow.condition_step import ConditionStep
from sagemaker.mlops.workflow.fail_step import FailStep
from sagemaker.mlops.workflow.steps import Step

from .common import Judged, Prepared, Run, Trained


def judge(run: Run, prepared: Prepared, trained: Trained) -> Judged:
    """Define Evaluate."""
    report = PropertyFile(name="Evaluation", output_name="evaluation", path="evaluation.json")
    step = run.processing(
        "Evaluate",
        display_name="Judge the model on the held-out part",
        command="evaluate",
        inputs={
            "contract": run.values["contract_uri"],
            "model": trained.model_uri,
            "test": prepared.uri("test"),
        },
        outputs={"evaluation": run.uri("evaluate", "evaluation")},
        property_files=[report],
    )
    return Judged(step=step, report=report)


def accept(run: Run, judged: Judged, register: Step) -> ConditionStep:
    """Define Accept, which goes on to ``register`` or to Reject."""
    values = run.values
    metric = JsonGet(step_name="Evaluate", property_file=judged.report, json_path=values["metric_path"])
    condition = ConditionGreaterThanOrEqualTo if values["higher_is_better"] else ConditionLessThanOrEqualTo
    reject = FailStep(
        name="Reject",
        display_name="Refuse the model",
        error_message=Join(on=" ", values=[values["refusal"], metric]),
    )
    return ConditionStep(
        name="Accept",
        display_name="Good enough?",
        conditions=[condition(left=metric, right=values["threshold"])],
        if_steps=[register],
        else_steps=[reject],
    )
