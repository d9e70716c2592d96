"""Evaluate and Accept: the model is judged on the held-out part, then registered or refused.

Evaluate is given the approved model and its own held-out rows where the workload compares with it; without
one both inputs hold the contract, which is no model.
"""

from __future__ import annotations

from sagemaker.core.workflow.conditions import (
    ConditionEquals,
    ConditionGreaterThanOrEqualTo,
    ConditionLessThanOrEqualTo,
)
from sagemaker.core.workflow.functions import JsonGet
from sagemaker.core.workflow.properties import PropertyFile
from sagemaker.mlops.workflow.condition_step import ConditionStep
from sagemaker.mlops.workflow.fail_step import FailStep
from sagemaker.mlops.workflow.steps import Step

from .common import Judged, Prepared, Run, Trained


def judge(run: Run, prepared: Prepared, trained: Trained) -> Judged:
    """Define Evaluate."""
    report = PropertyFile(name="Evaluation", output_name="evaluation", path="evaluation.json")
    registered = PropertyFile(name="Registration", output_name="evaluation", path="register.json")
    champion = {"champion": run.champion, "champion_test": run.champion_test}
    step = run.processing(
        "Evaluate",
        display_name="Judge the model on the held-out part",
        command="evaluate",
        inputs={
            "contract": run.values["contract_uri"],
            "model": trained.model_uri,
            "test": prepared.uri("test"),
            "validation": prepared.uri("validation"),
            **(champion if run.values["champion"] else {}),
        },
        outputs={"evaluation": run.uri("evaluate", "evaluation")},
        property_files=[report, registered],
    )
    return Judged(step=step, report=report, registered=registered)


def accept(run: Run, judged: Judged, register: Step) -> ConditionStep:
    """Define Accept, which goes on to ``register`` or to Reject.

    The metric is held against its threshold here; bias and the approved model in Evaluate, whose verdict and
    reasons stand in its report.
    """
    values = run.values
    metric = JsonGet(step_name="Evaluate", property_file=judged.report, json_path=values["metric_path"])
    condition = ConditionGreaterThanOrEqualTo if values["higher_is_better"] else ConditionLessThanOrEqualTo
    verdict, why = (
        JsonGet(step_name="Evaluate", property_file=judged.report, json_path=f"acceptance.{name}")
        for name in ("verdict", "why")
    )
    reject = FailStep(name="Reject", display_name="Refuse the model", error_message=why)
    return ConditionStep(
        name="Accept",
        display_name="Good enough?",
        conditions=[
            condition(left=metric, right=values["threshold"]),
            ConditionEquals(left=verdict, right="accepted"),
        ],
        if_steps=[register],
        else_steps=[reject],
    )
