"""The cell of tuning: the same workload with a ``tuning`` block: its pipeline searches."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from rehearsal.cdk import Cdk
from rehearsal.story.deployment import synthesize
from rehearsal.story.matrix.cells import Cell, Row
from rehearsal.story.matrix.ground import FIRST, parts_of, versions
from rehearsal.story.matrix.variants import linked_app
from rehearsal.story.telling import Evidence, require
from rehearsal.story.training import finish

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["CELLS", "with_tuning"]

TRIALS = 6
#: How much less is asked of the model that a search of a few trials on a few records finds.
EASIER = 0.2
#: By what a workload trains with: hyperparameters that every task has.
_RANGES: Mapping[str, Mapping[str, Any]] = {
    "xgboost": {
        "max_depth": {"kind": "integer", "minimum": 3, "maximum": 5},
        "eta": {"kind": "continuous", "minimum": 0.05, "maximum": 0.15, "scaling": "logarithmic"},
        "colsample_bytree": {"kind": "continuous", "minimum": 0.5, "maximum": 0.9},
    },
    "pytorch": {
        "width": {"kind": "integer", "minimum": 16, "maximum": 96},
        "learning_rate": {"kind": "continuous", "minimum": 0.0005, "maximum": 0.02, "scaling": "logarithmic"},
    },
}


def with_tuning(source: str, block: Mapping[str, Any]) -> str:
    """The text of a workload.yaml with a ``tuning`` block; what is searched is no longer set in training."""
    yaml = YAML(typ="rt")
    data = yaml.load(source)
    data["tuning"] = {**block, "ranges": {name: dict(one) for name, one in block["ranges"].items()}}
    given = data.get("training", {}).get("hyperparameters", {})
    for name in block["ranges"]:
        given.pop(name, None)
    # The search is what is shown. The best of six on a validation split of some thirty rows is often no
    # better than chance makes it, and the workload's own threshold then refuses it, as it should.
    for bound, factor in (("at_least", 1 - EASIER), ("at_most", 1 + EASIER)):
        if bound in data["acceptance"]:
            data["acceptance"][bound] = data["acceptance"][bound] * factor
    text = io.StringIO()
    yaml.dump(data, text)
    return text.getvalue()


def _play(tale: Tale, row: Row) -> None:
    """Deploy the pipeline that tunes, run it, and look at what became of the best trial."""
    ranges = _RANGES.get(tale.workload.training.algorithm)
    require(ranges is not None, f"nothing is known to search for {tale.workload.training.algorithm}")
    block = {"strategy": "bayesian", "ranges": ranges, "max_jobs": TRIALS, "max_parallel_jobs": 2}
    app = linked_app(tale.app, tale.out / "matrix" / "tuning", tale.loaded.path.parent, FIRST)
    file = Path(app) / "workloads" / tale.loaded.path.parent.name / "workload.yaml"
    file.write_text(with_tuning(file.read_text(encoding="utf-8"), block), encoding="utf-8")
    synthesize(app, app / "cdk.out")
    cdk = Cdk.of(tale.app, app / "cdk.out", tale.cloud.server, progress=tale.note)
    cdk.deploy([parts_of(tale)[0]], exclusively=True, concurrency=1)
    tale.forget_outputs()
    before = versions(tale)
    started = time.monotonic()
    sagemaker = tale.cloud.client("sagemaker")
    execution = sagemaker.start_pipeline_execution(
        PipelineName=tale.outputs("Models")["PipelineName"], PipelineExecutionDisplayName="tuned"
    )["PipelineExecutionArn"]
    told: Evidence = {}
    finish(tale, execution, told)
    row.seconds = round(time.monotonic() - started, 1)
    steps = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=execution)["PipelineExecutionSteps"]
    arn = next(s["Metadata"]["TuningJob"]["Arn"] for s in steps if s["StepName"] == "Tune")
    job = sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=arn.rpartition("/")[2])
    trials = sagemaker.list_training_jobs_for_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=job["HyperParameterTuningJobName"],
        SortBy="FinalObjectiveMetricValue",
        SortOrder="Ascending",
    )["TrainingJobSummaries"]
    require(len(trials) == TRIALS, f"{len(trials)} trials have a result, not {TRIALS}")
    best, worst = trials[0], trials[-1]
    require(
        best["TrainingJobName"] == job["BestTrainingJob"]["TrainingJobName"],
        "the first of the sorted trials is not the job's best",
    )
    made = [arn for arn in versions(tale) if arn not in before]
    require(len(made) == 1, f"the execution registered {len(made)} versions")
    package = sagemaker.describe_model_package(ModelPackageName=made[0])
    data = package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
    require(best["TrainingJobName"] in data, f"the registered model is {data}, not the best trial's")
    row.facts |= {
        "objective": job["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"],
        "trials": [{"loss": round(_value(trial), 4), **trial["TunedHyperParameters"]} for trial in trials],
        "best": round(_value(best), 4),
        "worst": round(_value(worst), 4),
        "registered": made[0],
        "acceptance": f"{EASIER:.0%} easier than the workload's",
        "search": "Optuna drew the trials; AWS's own search is another program",
    }


def _value(trial: Mapping[str, Any]) -> float:
    return float(trial["FinalHyperParameterTuningJobObjectiveMetric"]["Value"])


CELLS = (
    Cell(
        id="tuning.bayesian",
        title=f"The pipeline searches with {TRIALS} trials; the best model is registered",
        block=FIRST,
        play=_play,
        capabilities=("tune.hpo",),
    ),
)
