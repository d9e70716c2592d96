"""The training pipeline, written with the SageMaker Python SDK.

``ml_lifecycle.training.definition`` runs this package in a process of its own, with the network off; nothing
else imports it. It is a plain SDK program, a module per step: to change the pipeline, copy the folder, edit
what you like and give the copy to ``TrainingPipeline(program=...)`` (that is why its modules name each other
relatively). Everything that differs between workloads, accounts and regions arrives in ``values``; what it
holds are stand-ins that the construct replaces in the finished definition.
"""

from __future__ import annotations

from typing import Any

from sagemaker.core.workflow.pipeline_context import PipelineSession
from sagemaker.mlops.workflow.pipeline import Pipeline

from .common import Run
from .export import export
from .judge import accept, judge
from .prepare import prepare
from .register import register
from .train import train
from .tune import tune


def build(session: PipelineSession, values: dict[str, Any]) -> Pipeline:
    """Define Prepare, Train or Tune, perhaps Export, Evaluate, Accept and Register (or Reject).

    Args:
        session: captures requests in place of sending them.
        values: see ``TrainingPipeline``; strings, numbers, lists and mappings.
    """
    run = Run(session, values)
    prepared = prepare(run)
    make = tune if values["tuning"] else train
    trained = export(run, prepared, make(run, prepared))
    judged = judge(run, prepared, trained)
    registered = register(run, prepared, trained, judged)
    return Pipeline(
        name=values["pipeline_name"],
        parameters=run.parameters,
        # Experiments are Studio Classic only (closed); runs are tracked by the pipeline's own executions.
        pipeline_experiment_config=None,
        steps=[prepared.step, *trained.steps, judged.step, accept(run, judged, registered)],
        sagemaker_session=session,
    )
