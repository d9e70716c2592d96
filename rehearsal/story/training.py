"""Chapter: the pipeline trains, judges and registers a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rehearsal.story.tale import Tale
from rehearsal.story.telling import Evidence, Step, StoryError, require, wait_until

__all__ = ["STEPS", "add_version", "finish", "invoke_trigger", "latest_package"]

CHAPTER = "Train"
PIPELINE_SECONDS = 900
#: Triggers at once: the function must start one training.
CROWD = 3


def invoke_trigger(tale: Tale, payload: dict[str, Any]) -> dict[str, Any]:
    """Ask the retraining function, as a person may; return its answer."""
    name = tale.outputs("Operations")["RetrainFunctionName"]
    answer = tale.cloud.client("lambda").invoke(FunctionName=name, Payload=json.dumps(payload).encode())
    body = json.loads(answer["Payload"].read())
    require("FunctionError" not in answer, f"function {name} failed: {body}")
    result: dict[str, Any] = body
    return result


def executions(tale: Tale) -> list[dict[str, Any]]:
    """Executions of the training pipeline, newest first."""
    found: list[dict[str, Any]] = tale.cloud.client("sagemaker").list_pipeline_executions(
        PipelineName=tale.outputs("Models")["PipelineName"], SortBy="CreationTime", SortOrder="Descending"
    )["PipelineExecutionSummaries"]
    return found


def finish(tale: Tale, arn: str, evidence: Evidence) -> None:
    """Wait for the end of a pipeline execution; it must have succeeded."""
    sagemaker = tale.cloud.client("sagemaker")
    told: set[str] = set()

    def ended() -> dict[str, Any] | None:
        steps = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn, SortOrder="Ascending")
        for step in steps["PipelineExecutionSteps"]:
            line = f"{step['StepName']}: {step['StepStatus']}"
            if line not in told:
                told.add(line)
                tale.note(line)
        found: dict[str, Any] = sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
        return found if found["PipelineExecutionStatus"] not in ("Executing", "Stopping") else None

    execution = wait_until(f"the end of {arn}", ended, seconds=PIPELINE_SECONDS, every=0.5)
    steps = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn, SortOrder="Ascending")
    evidence["execution"] = arn
    evidence["steps"] = [
        {
            "step": step["StepName"],
            "status": step["StepStatus"],
            "seconds": round((step["EndTime"] - step["StartTime"]).total_seconds(), 1)
            if "EndTime" in step and "StartTime" in step
            else None,
            "why": step.get("FailureReason"),
        }
        for step in steps["PipelineExecutionSteps"]
    ]
    failed = [f"{s['step']}: {s['why']}" for s in evidence["steps"] if s["status"] == "Failed"]
    status = execution["PipelineExecutionStatus"]
    why = "; ".join(failed) or execution.get("FailureReason", "")
    require(status == "Succeeded", f"the pipeline is {status}: {why}")


def latest_package(tale: Tale) -> dict[str, Any]:
    """The newest version in the workload's group, described."""
    sagemaker = tale.cloud.client("sagemaker")
    group = tale.outputs("Models")["ModelPackageGroupName"]
    found = sagemaker.list_model_packages(
        ModelPackageGroupName=group, SortBy="CreationTime", SortOrder="Descending", MaxResults=1
    )["ModelPackageSummaryList"]
    require(found, f"model package group {group} holds no version")
    package: dict[str, Any] = sagemaker.describe_model_package(ModelPackageName=found[0]["ModelPackageArn"])
    return package


def add_version(tale: Tale, package: dict[str, Any], reason: str) -> dict[str, Any]:
    """Read a version's evaluation and enter it into the report's history; return the evaluation."""
    uri = package["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]
    evaluation: dict[str, Any] = tale.cloud.objects.read_json(uri)
    values = tale.contract.label.values
    tale.report.model["history"].append(
        {
            "version": package["ModelPackageVersion"],
            "arn": package["ModelPackageArn"],
            "reason": reason,
            "status": _readable(package["ModelApprovalStatus"]),
            "metrics": {name: metric["value"] for name, metric in evaluation["metrics"].items()},
            "rows": evaluation["rows"],
            "roc": evaluation.get("roc") or [],
            "confusion": evaluation.get("confusion") or [],
            "labels": list(values) if values is not None else [],
        }
    )
    return evaluation


def set_status(tale: Tale, package_arn: str) -> str:
    """Bring a version's status in the report up to date, and return it."""
    described = tale.cloud.client("sagemaker").describe_model_package(ModelPackageName=package_arn)
    status = _readable(described["ModelApprovalStatus"])
    for entry in tale.report.model["history"]:
        if entry.get("arn") == package_arn:
            entry["status"] = status
    return status


def _readable(status: str) -> str:
    return "Pending approval" if status == "PendingManualApproval" else status


def _train(tale: Tale, evidence: Evidence) -> None:
    before = executions(tale)
    if not before:
        with ThreadPoolExecutor(CROWD) as pool:
            answers = list(
                pool.map(lambda _: invoke_trigger(tale, {"reason": "the first model"}), range(CROWD))
            )
        evidence["triggers_at_once"] = CROWD
        evidence["answers"] = answers
    found = executions(tale)
    require(len(found) == 1, f"{CROWD} triggers at once must start one execution, there are {len(found)}")
    evidence["executions_started"] = len(found)
    finish(tale, found[0]["PipelineExecutionArn"], evidence)
    again = invoke_trigger(tale, {"reason": "asked again too early"})
    evidence["asked_again_within_the_cooldown"] = again
    if tale.workload.retraining.cooldown_hours > 0:
        require(not again["started"], "a trigger within the cooldown started another training")


def _training_job(tale: Tale, steps: Sequence[Any]) -> dict[str, Any]:
    """The job that made the model: that of the step, or the best trial of a search."""
    sagemaker = tale.cloud.client("sagemaker")
    metadata = {step["StepName"]: step.get("Metadata", {}) for step in steps}
    if "Tune" in metadata:
        tuning = metadata["Tune"]["TuningJob"]["Arn"].rpartition("/")[2]
        found = sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=tuning)
        name = found["BestTrainingJob"]["TrainingJobName"]
    else:
        name = metadata["Train"]["TrainingJob"]["Arn"].rpartition("/")[2]
    job: dict[str, Any] = sagemaker.describe_training_job(TrainingJobName=name)
    return job


def _input_mode(tale: Tale, steps: Sequence[Any], evidence: Evidence) -> None:
    """How the training job that ran was told to read its channels."""
    job = _training_job(tale, steps)
    modes = {channel["ChannelName"]: channel.get("InputMode") for channel in job["InputDataConfig"]}
    wanted = tale.workload.training.input_mode
    evidence["input_mode"] = wanted
    require(set(modes.values()) == {wanted}, f"training must read by {wanted}, its channels say {modes}")


def _prepared(tale: Tale, evidence: Evidence) -> None:
    """What the first step of the pipeline did to the rows, by its own report and by its files."""
    sagemaker = tale.cloud.client("sagemaker")
    steps = sagemaker.list_pipeline_execution_steps(
        PipelineExecutionArn=executions(tale)[0]["PipelineExecutionArn"], SortOrder="Ascending"
    )["PipelineExecutionSteps"]
    _input_mode(tale, steps, evidence)
    (arn,) = (s["Metadata"]["ProcessingJob"]["Arn"] for s in steps if s["StepName"] == "Prepare")
    job = sagemaker.describe_processing_job(ProcessingJobName=arn.rsplit("/", 1)[-1])
    outputs = {o["OutputName"]: o["S3Output"]["S3Uri"] for o in job["ProcessingOutputConfig"]["Outputs"]}
    report = tale.cloud.objects.read_json(f"{outputs['transform'].rstrip('/')}/preparation.json")
    features: dict[str, dict[str, Any]] = report["features"]
    evidence |= {
        "rows": report["rows"],
        "split": report["split"]["strategy"],
        "balance": report["balance"],
        "columns": report["columns"],
        "filled": {
            name: {"with": one["filled_with"], "rows": _touched(one, "filled"), "why": _reason(one, "impute")}
            for name, one in features.items()
            if one["filled_with"] is not None
        },
        "limited": {
            name: {
                **one["limits"],
                "rows": _touched(one, "below") + _touched(one, "above"),
                "why": _reason(one, "outliers"),
            }
            for name, one in features.items()
            if "limits" in one
        },
        "encoded": {
            name: one["encoding"]
            for name, one in features.items()
            if one.get("encoding", "one_hot") != "one_hot"
        },
        "missing_left_to_the_algorithm": {
            name: _touched(one, "missing")
            for name, one in features.items()
            if one["filled_with"] is None and _touched(one, "missing")
        },
    }
    wanted = tale.workload.features
    require(
        set(wanted.impute) - {n for n, block in wanted.impute.items() if block.kind == "none"}
        <= set(evidence["filled"])
        and set(wanted.outliers) <= set(evidence["limited"]),
        "the report does not tell of every feature that the workload fills or limits",
    )


def _touched(feature: dict[str, Any], how: str) -> int:
    return sum(rows.get(how, 0) for rows in feature["rows"].values())


def _reason(feature: dict[str, Any], block: str) -> str | None:
    found: str | None = feature.get("reasons", {}).get(block)
    return found


def _evaluate(tale: Tale, evidence: Evidence) -> None:
    package = latest_package(tale)
    evaluation = add_version(tale, package, "the first model")
    acceptance = tale.workload.acceptance
    value = evaluation["metrics"][acceptance.metric]["value"]
    evidence |= {
        "test_rows": evaluation["rows"],
        "metrics": {name: metric["value"] for name, metric in evaluation["metrics"].items()},
        "acceptance": acceptance.model_dump(exclude_none=True),
    }
    enough = (
        value >= acceptance.at_least
        if acceptance.at_least is not None
        else value <= (acceptance.at_most or 0)
    )
    require(enough, f"{acceptance.metric} {value} was registered although it is not acceptable")


def _register(tale: Tale, evidence: Evidence) -> None:
    package = latest_package(tale)
    evidence |= {
        "model_package": package["ModelPackageArn"],
        "version": package["ModelPackageVersion"],
        "status": package["ModelApprovalStatus"],
        "image": package["InferenceSpecification"]["Containers"][0]["Image"],
        "artifact": package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"],
        "drift_baselines": sorted(package.get("DriftCheckBaselines", {}).get("ModelDataQuality", {})),
    }
    require(
        package["ModelApprovalStatus"] == "PendingManualApproval",
        f"a new version waits for approval, this one is {package['ModelApprovalStatus']}",
    )
    require(
        evidence["drift_baselines"] == ["Constraints", "Statistics"], "the version has no drift baselines"
    )
    parameter = tale.outputs("Models")["ApprovedModelParameter"]
    value = tale.cloud.client("ssm").get_parameter(Name=parameter)["Parameter"]["Value"]
    if value != "none":
        raise StoryError(f"nobody has approved a model, yet parameter {parameter} is {value}")
    evidence["approved_model"] = value
    tale.known["package"] = package


STEPS = (
    Step(
        id="train",
        title="Three triggers at once start one training; it prepares, trains, judges and registers",
        chapter=CHAPTER,
        run=_train,
        capabilities=lambda w: (
            "pipeline.sagemaker",
            "train.processing",
            "train.byoc",
            "train.instances",
            *(("train.earlystop",) if w.training.early_stopping_rounds is not None else ()),
            "retrain.ondemand",
            "retrain.guard",
        ),
    ),
    Step(
        id="prepared",
        title="Splits, gaps, outliers and encodings: what was fitted, why, and on how many rows",
        chapter=CHAPTER,
        run=_prepared,
        capabilities=lambda w: (
            "train.processing",
            *(("storage.modes",) if w.training.input_mode != "File" else ()),
        ),
    ),
    Step(
        id="evaluate",
        title="The model is judged on records that it has not seen",
        chapter=CHAPTER,
        run=_evaluate,
        capabilities=lambda _: ("judge.metrics",),
    ),
    Step(
        id="register",
        title="The version waits in the registry; nothing is served yet",
        chapter=CHAPTER,
        run=_register,
        capabilities=lambda _: ("registry.versions",),
    ),
)
