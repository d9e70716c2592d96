"""Cells of training: the same workload, trained by SageMaker's own images instead of this project's."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import time
from collections.abc import Mapping
from functools import partial
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

__all__ = ["CELLS", "with_training"]

_SCRIPT = Path(__file__).parent / "script"
#: What is set in ``training``; everything else of the block that such an algorithm takes stays.
_BLOCKS: Mapping[str, Mapping[str, Any]] = {
    "built_in": {
        "algorithm": "built_in",
        "built_in": {"name": "xgboost", "version": "3.2-0"},
        "hyperparameters": {"eta": 0.1, "max_depth": 4},
    },
    "script": {
        "algorithm": "script",
        "script": {"framework": "xgboost", "version": "3.2-0"},
        "hyperparameters": {"eta": 0.1, "max_depth": 4},
        "warm_pool_minutes": 30,
    },
}


def with_training(source: str, block: Mapping[str, Any]) -> str:
    """The text of a workload.yaml with keys of its ``training`` block replaced."""
    yaml = YAML(typ="rt")
    data = yaml.load(source)
    data["training"] = {**data.get("training", {}), **json.loads(json.dumps(block))}
    text = io.StringIO()
    yaml.dump(data, text)
    return text.getvalue()


def _play(name: str, tale: Tale, row: Row) -> None:
    """Deploy the pipeline that trains so, run it, and look into the model that it registered."""
    require(
        tale.workload.label.task == "binary" or name != "script", "the script of this cell learns two classes"
    )
    app = linked_app(tale.app, tale.out / "matrix" / name, tale.loaded.path.parent, FIRST)
    own = Path(app) / "workloads" / tale.loaded.path.parent.name
    file = own / "workload.yaml"
    file.write_text(with_training(file.read_text(encoding="utf-8"), _BLOCKS[name]), encoding="utf-8")
    if name == "script":
        shutil.copytree(_SCRIPT, own / "training", ignore=shutil.ignore_patterns("__pycache__"))
    synthesize(app, app / "cdk.out")
    cdk = Cdk.of(tale.app, app / "cdk.out", tale.cloud.server, progress=tale.note)
    cdk.deploy([parts_of(tale)[0]], exclusively=True, concurrency=1)
    tale.forget_outputs()
    before = versions(tale)
    started = time.monotonic()
    sagemaker = tale.cloud.client("sagemaker")
    execution = sagemaker.start_pipeline_execution(
        PipelineName=tale.outputs("Models")["PipelineName"],
        PipelineExecutionDisplayName=name.replace("_", "-"),
    )["PipelineExecutionArn"]
    told: Evidence = {}
    finish(tale, execution, told)
    row.seconds = round(time.monotonic() - started, 1)
    steps = {
        step["StepName"]: step
        for step in sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=execution)[
            "PipelineExecutionSteps"
        ]
    }
    require("Export" in steps, f"the pipeline ran {', '.join(steps)}, no Export")
    made = [arn for arn in versions(tale) if arn not in before]
    require(len(made) == 1, f"the execution registered {len(made)} versions")
    package = sagemaker.describe_model_package(ModelPackageName=made[0])
    uri = package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    data = tale.cloud.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        held = {member.name: member for member in tar.getmembers()}
        metadata = json.load(tar.extractfile(held["metadata.json"]))  # type: ignore[arg-type]
    require("model.onnx" in held, f"the registered model holds {', '.join(held)}, no model.onnx")
    require(metadata["algorithm"] == name, f"the model says that {metadata['algorithm']} trained it")
    training = sagemaker.describe_training_job(
        TrainingJobName=steps["Train"]["Metadata"]["TrainingJob"]["Arn"].rpartition("/")[2]
    )
    pool = training.get("WarmPoolStatus", {}).get("Status")
    kept = "warm_pool_minutes" in _BLOCKS[name]
    require(pool == ("Available" if kept else None), f"the instances' warm pool is {pool}")
    row.facts |= {
        "warm pool": pool,
        "image": training["AlgorithmSpecification"]["TrainingImage"],
        "rounds": metadata.get("rounds"),
        "rows proven equal": metadata["onnx"]["rows"],
        "largest difference": metadata["onnx"]["largest_difference"],
        "registered": made[0],
        "stand-in": "the image is AWS's; here the open XGBoost trained, by the same files and names",
    }


CELLS = (
    Cell(
        id="training.built_in",
        title="SageMaker's XGBoost trains; its booster becomes a model folder, proven equal",
        block=FIRST,
        play=partial(_play, "built_in"),
        capabilities=("train.builtin",),
    ),
    Cell(
        id="training.script",
        title="A script of the workload trains in SageMaker's framework image, on instances that stay",
        block=FIRST,
        play=partial(_play, "script"),
        capabilities=("train.script", "train.warm"),
    ),
)
