"""Cells of training: the same workload, trained by SageMaker's own images, or by several instances."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
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

__all__ = ["CELLS", "Trained", "train_with", "with_training"]

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
    "pytorch": {
        "algorithm": "pytorch",
        "hyperparameters": {"width": 32, "blocks": 1, "batch_size": 64, "threads": 1},
        "rounds": 15,
        "instance_type": "ml.g5.xlarge",
        "instance_count": 2,
        "distribution": {"kind": "data_parallel"},
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


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What one execution of the pipeline made: its steps by name, its model's files, its training job."""

    steps: Mapping[str, Any]
    files: tuple[str, ...]
    metadata: Mapping[str, Any]
    job: Mapping[str, Any]
    package: str
    seconds: float


def train_with(tale: Tale, name: str, block: Mapping[str, Any], program: Path | None = None) -> Trained:
    """Deploy the pipeline that trains as ``block`` says, run it, and look into what it registered."""
    app = linked_app(tale.app, tale.out / "matrix" / name, tale.loaded.path.parent, FIRST)
    own = Path(app) / "workloads" / tale.loaded.path.parent.name
    file = own / "workload.yaml"
    file.write_text(with_training(file.read_text(encoding="utf-8"), block), encoding="utf-8")
    if program is not None:
        shutil.copytree(program, own / "training", ignore=shutil.ignore_patterns("__pycache__"))
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
    seconds = round(time.monotonic() - started, 1)
    steps = {
        step["StepName"]: step
        for step in sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=execution)[
            "PipelineExecutionSteps"
        ]
    }
    made = [arn for arn in versions(tale) if arn not in before]
    require(len(made) == 1, f"the execution registered {len(made)} versions")
    package = sagemaker.describe_model_package(ModelPackageName=made[0])
    uri = package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    data = tale.cloud.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        held = {member.name.removeprefix("./"): member for member in tar.getmembers()}
        metadata = json.load(tar.extractfile(held["metadata.json"]))  # type: ignore[arg-type]
    require("model.onnx" in held, f"the registered model holds {', '.join(held)}, no model.onnx")
    require(metadata.get("algorithm") == block["algorithm"], f"{metadata.get('algorithm')} trained the model")
    job = sagemaker.describe_training_job(
        TrainingJobName=steps["Train"]["Metadata"]["TrainingJob"]["Arn"].rpartition("/")[2]
    )
    return Trained(
        steps=steps, files=tuple(held), metadata=metadata, job=job, package=made[0], seconds=seconds
    )


def _play(name: str, tale: Tale, row: Row) -> None:
    """Train with SageMaker's image or a script in it; what it leaves is exported."""
    require(
        tale.workload.label.task == "binary" or name != "script", "the script of this cell learns two classes"
    )
    block = _BLOCKS[name]
    done = train_with(tale, name, block, _SCRIPT if name == "script" else None)
    row.seconds = done.seconds
    require("Export" in done.steps, f"the pipeline ran {', '.join(done.steps)}, no Export")
    pool = done.job.get("WarmPoolStatus", {}).get("Status")
    kept = "warm_pool_minutes" in block
    require(pool == ("Available" if kept else None), f"the instances' warm pool is {pool}")
    row.facts |= {
        "warm pool": pool,
        "image": done.job["AlgorithmSpecification"]["TrainingImage"],
        "rounds": done.metadata.get("rounds"),
        "rows proven equal": done.metadata["onnx"]["rows"],
        "largest difference": done.metadata["onnx"]["largest_difference"],
        "registered": done.package,
        "stand-in": "the image is AWS's; here the open XGBoost trained, by the same files and names",
    }


def _together(tale: Tale, row: Row) -> None:
    """Train one network on two instances: two processes, which torchrun brings together."""
    done = train_with(tale, "pytorch", _BLOCKS["pytorch"])
    row.seconds = done.seconds
    found = {key: done.metadata[key] for key in ("hosts", "processes", "device", "precision")}
    require((found["hosts"], found["processes"]) == (2, 2), f"the model was trained by {found}")
    require("model.safetensors" in done.files, f"the model holds {', '.join(done.files)}")
    row.facts |= {
        **found,
        "rounds": done.metadata["rounds"],
        "parameters": done.metadata["parameters"],
        "rows proven equal": done.metadata["onnx"]["rows"],
        "largest difference": done.metadata["onnx"]["largest_difference"],
        "registered": done.package,
        "stand-in": "instances are processes of this machine without a GPU: Gloo took the place of NCCL",
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
    Cell(
        id="training.distributed",
        title="Two instances train one network with PyTorch, data parallel",
        block=FIRST,
        play=_together,
        capabilities=("train.distributed",),
    ),
)
