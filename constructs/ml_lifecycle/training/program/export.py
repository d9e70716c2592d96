"""Export: what SageMaker's own images leave becomes the model folder that everything after it reads."""

from __future__ import annotations

from sagemaker.core.workflow.functions import Join

from .common import Prepared, Run, Trained, output_uri


def export(run: Run, prepared: Prepared, trained: Trained) -> Trained:
    """Define the step, for algorithms whose artifact is not the model folder yet."""
    if run.values["algorithm"] not in ("built_in", "script"):
        return trained
    step = run.processing(
        "Export",
        display_name="Make the model folder, and prove that it says the same",
        command="export",
        image="export_image",
        inputs={
            "contract": run.values["contract_uri"],
            "model": trained.model_uri,
            "transform": prepared.uri("transform"),
            "validation": prepared.uri("matrix_validation"),
        },
        # Another name than the input's: SageMaker wants the names of both to be unique.
        outputs={"exported": run.uri("export", "exported")},
    )
    return Trained(
        steps=(*trained.steps, step),
        model_uri=Join(on="/", values=[output_uri(step, "exported"), "model.tar.gz"]),
    )
