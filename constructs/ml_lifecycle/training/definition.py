"""The JSON definition of a pipeline: rendered once by the SageMaker SDK, filled in for each synthesis.

Importing the SDK costs seconds and about a gigabyte, so no synthesis does. A pipeline program
(``ml_lifecycle.training.program``) is rendered in a process of its own with *stand-ins* for whatever differs
between workloads, accounts and regions; the result is kept under the hash of everything that went in:
program, renderer, stand-ins, and the few choices that change its shape. What the workloads of this project
need is checked in, so that a clean clone renders nothing; another definition is kept under
``build/pipeline-definitions``. ``fill`` then puts real values and CDK tokens in the place of the
stand-ins.

``python -m ml_lifecycle.training.definition`` renders what is checked in anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_lifecycle.training import service_model

__all__ = [
    "CHOICES",
    "PROGRAM",
    "STAND_INS",
    "Shape",
    "fill",
    "left_over",
    "problems",
    "render",
    "shape",
    "warm",
]

PROGRAM = Path(__file__).with_name("program")
_RENDERER = Path(__file__).with_name("_render.py")
_SHIPPED = Path(__file__).with_name("rendered")
_CHECKOUT = Path(__file__).resolve().parents[3]

#: What a program sees in place of a value; each is valid for SageMaker, and none occurs for another reason.
STAND_INS: dict[str, Any] = {
    "contract_uri": "s3://stand-in/contract.json",
    "endpoint_instance_type": "ml.stand-in.endpoint",
    "entrypoint": ["stand-in-entrypoint"],
    "environment": {"STAND_IN": "environment"},
    "export_image": "000000000000.dkr.ecr.us-east-1.amazonaws.com/stand-in:export",
    "features_uri": "s3://stand-in/features/",
    "hyperparameters": {"stand-in": "hyperparameters"},
    "file_system_id": "fs-0123456789abcdef0",
    "file_system_path": "/stand-in/lake",
    "input_mode": "stand-in-input-mode",
    "instance_count": 77_005,
    "keep_alive_seconds": 77_004,
    "max_runtime_seconds": 77_001,
    "max_wait_seconds": 77_002,
    "metric_path": "stand-in.metric",
    "model_package_group": "stand-in-group",
    "output_key": "arn:aws:kms:us-east-1:000000000000:key/stand-in-output",
    "parent_tuning_job": "stand-in-parent-tuning-job",
    "pipeline_name": "stand-in-pipeline",
    "processing_image": "000000000000.dkr.ecr.us-east-1.amazonaws.com/stand-in:processing",
    "processing_instance_type": "ml.stand-in.processing",
    "processing_max_runtime_seconds": 77_003,
    "processing_role": "arn:aws:iam::000000000000:role/stand-in-processing",
    "processing_volume_key": "arn:aws:kms:us-east-1:000000000000:key/stand-in-processing",
    "security_groups": ["sg-stand-in"],
    "script_uri": "s3://stand-in/script.zip",
    "serving_image": "000000000000.dkr.ecr.us-east-1.amazonaws.com/stand-in:serving",
    "subnets": ["subnet-stand-in"],
    "threshold": 0.770_001,
    "training_image": "000000000000.dkr.ecr.us-east-1.amazonaws.com/stand-in:training",
    "training_groups": ["sg-stand-in-training"],
    "training_instance_type": "ml.stand-in.training",
    "training_role": "arn:aws:iam::000000000000:role/stand-in-training",
    "training_uri": "s3://stand-in/training",
    "training_volume_key": "arn:aws:kms:us-east-1:000000000000:key/stand-in-training",
    "transform_instance_type": "ml.stand-in.transform",
    "tuning_config": {
        "Strategy": "Random",
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 77_006, "MaxParallelTrainingJobs": 77_007},
    },
    "tuning_metrics": [{"Name": "stand-in:metric", "Regex": "stand-in-regex:(.*)"}],
    "volume_gb": 7_001,
    "warm_start_type": "stand-in-warm-start",
    "workload": "stand-in-workload",
}
#: What decides which members and steps a definition has, and what most workloads choose.
CHOICES: dict[str, Any] = {
    # ours: an image that reads the contract; built_in and script read a matrix, image is on its own.
    "algorithm": "ours",
    # Bias of named facets; explanations; the approved model as a rival.
    "bias": False,
    "cached": False,
    "champion": False,
    "explain": False,
    "file_system": False,
    "higher_is_better": True,
    "in_vpc": True,
    "parent": False,
    "spot": False,
    # The job reaches a tracking server in the VPC, so it is not in network isolation.
    "tracked": False,
    # None; cold, or warm: it goes on from another tuning job.
    "tuning": None,
    # Several instances, whose security groups let them talk to each other.
    "workers": False,
}
#: CacheConfig's ExpireAfter is an ISO 8601 duration; the SDK passes it on unread.
_CACHE_STAND_IN = "PT77001H"

Shape = Mapping[str, Any]
_API = {
    "Processing": "CreateProcessingJob",
    "Training": "CreateTrainingJob",
    "Tuning": "CreateHyperParameterTuningJob",
    "RegisterModel": "CreateModelPackage",
}
#: Pipelines names the jobs and creates the version itself.
_GIVEN = frozenset({"HyperParameterTuningJobName", "ProcessingJobName", "TrainingJobName"})


def shape(**choices: Any) -> dict[str, Any]:
    """Return what a program is given: stand-ins, and the choices (``CHOICES``) that decide its members.

    Raises:
        ValueError: a choice that there is not.
    """
    unknown = sorted(set(choices) - set(CHOICES))
    if unknown:
        raise ValueError(f"choices are {', '.join(CHOICES)}, got {', '.join(unknown)}")
    chosen = CHOICES | choices
    values = STAND_INS | chosen | {"cache_for": _CACHE_STAND_IN if chosen["cached"] else None}
    if not chosen["in_vpc"]:
        values |= {"security_groups": None, "subnets": None}
    return values


def render(program: Path, values: Shape) -> dict[str, Any]:
    """Return the definition that ``program`` builds from ``values``, from the cache when nothing that goes in
    changed.

    Raises:
        ValueError: the program is missing, needs the network, or fails; the message ends with its last lines.
    """
    if not (program.is_file() or (program / "__init__.py").is_file()):
        raise ValueError(
            f"program must be a Python file or package with build(session, values), got {program}"
        )
    name = f"{_digest(program, values)}.json"
    for folder in (_SHIPPED, _cache()):
        if (folder / name).is_file():
            found: dict[str, Any] = json.loads((folder / name).read_text())
            return found
    [definition] = _run(program, [values])
    _write(_cache() / name, definition)
    return definition


def warm(program: Path, shapes: Iterable[Shape]) -> None:
    """Render what of these shapes is not in the cache yet, all in one process: the SDK is imported once."""
    missing = {f"{_digest(program, values)}.json": values for values in shapes}
    for folder in (_SHIPPED, _cache()):
        missing = {name: values for name, values in missing.items() if not (folder / name).is_file()}
    if missing:
        for name, definition in zip(missing, _run(program, list(missing.values())), strict=True):
            _write(_cache() / name, definition)


def fill(definition: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Put ``values`` (by the names of ``STAND_INS``) in the place of their stand-ins.

    A value of ``None`` removes the member that it stands for, so does a ``null`` of the SDK. A stand-in that
    has no value stays. Values may be CDK tokens.
    """
    table: list[tuple[Any, Any]] = [
        (STAND_INS[name], value) for name, value in values.items() if name in STAND_INS
    ]
    if "cache_for" in values:
        table.append((_CACHE_STAND_IN, values["cache_for"]))
    filled = _fill(dict(definition), table)
    return dict(filled)


def _fill(node: Any, table: list[tuple[Any, Any]]) -> Any:
    for stand_in, value in table:
        if type(stand_in) is type(node) and stand_in == node:
            return value
    if isinstance(node, dict):
        items = ((key, _fill(item, table)) for key, item in node.items())
        return {key: item for key, item in items if item is not None}
    if isinstance(node, list):
        return [_fill(item, table) for item in node]
    return node


def left_over(definition: Mapping[str, Any]) -> list[str]:
    """Names of stand-ins that a filled definition still holds: the program used a part of one."""
    text = json.dumps(definition)
    marks = {
        name: json.dumps(value).strip('"{}[]') for name, value in STAND_INS.items() if not _is_number(value)
    }
    return sorted(name for name, mark in marks.items() if mark in text)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def problems(definition: Mapping[str, Any]) -> list[str]:
    """Return what SageMaker would refuse in the steps of a definition, one line each: ``Train:
    CreateTrainingJob...``.
    """
    found: list[str] = []
    for step in _steps(definition["Steps"]):
        operation = _API.get(step["Type"])
        if operation is not None:
            lines = service_model.problems(operation, step["Arguments"], given=_GIVEN)
            found += [f"{step['Name']}: {line}" for line in [*lines, *_twice(step)]]
    return found


def _twice(step: Mapping[str, Any]) -> Iterable[str]:
    """Names of a processing job that stand for two things: CreateProcessingJob wants them unique together."""
    arguments = step["Arguments"]
    names = [each["InputName"] for each in arguments.get("ProcessingInputs", ())]
    names += [each["OutputName"] for each in arguments.get("ProcessingOutputConfig", {}).get("Outputs", ())]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"CreateProcessingJob: names of inputs and outputs must be unique, got {name} twice"


def _steps(steps: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    for step in steps:
        yield step
        if step["Type"] == "Condition":
            yield from _steps([*step["Arguments"]["IfSteps"], *step["Arguments"]["ElseSteps"]])


def _digest(program: Path, values: Shape) -> str:
    digest = hashlib.sha256()
    for content in (
        *_sources(program),
        _RENDERER.read_bytes(),
        json.dumps(values, sort_keys=True).encode(),
    ):
        digest.update(len(content).to_bytes(8, "big"))
        digest.update(content)
    return digest.hexdigest()[:24]


def _sources(program: Path) -> Iterable[bytes]:
    """What a program consists of: a file, or a package's modules with their names."""
    if program.is_file():
        yield program.read_bytes()
        return
    for path in sorted(program.rglob("*.py")):
        yield path.relative_to(program).as_posix().encode()
        yield path.read_bytes()


def _run(program: Path, shapes: list[Shape]) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as home:
        # No configuration, credentials or telemetry of whoever synthesises: the same definition everywhere.
        environment = {
            "HOME": home,
            "PATH": os.environ.get("PATH", ""),
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "SAGEMAKER_VALIDATE_ROLE": "false",
        }
        done = subprocess.run(
            [sys.executable, "-I", str(_RENDERER)],
            input=json.dumps({"program": str(program), "shapes": shapes}),
            capture_output=True,
            text=True,
            env=environment,
            cwd=home,
            check=False,
        )
    if done.returncode != 0:
        tail = "\n".join(done.stderr.strip().splitlines()[-8:])
        raise ValueError(
            f"{program} could not be rendered; it needs the SageMaker SDK of this Python ({sys.executable}) "
            f"and no network:\n{tail}"
        )
    rendered: list[dict[str, Any]] = json.loads(done.stdout)
    return rendered


def _cache() -> Path:
    if (_CHECKOUT / "pyproject.toml").is_file():
        return _CHECKOUT / "build" / "pipeline-definitions"
    return Path(tempfile.gettempdir()) / f"ml-lifecycle-{os.getuid()}" / "pipeline-definitions"


def _write(path: Path, definition: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(definition, sort_keys=True, indent=1) + "\n")
    part.replace(path)


def main() -> None:
    """Render what most workloads ask for and the workloads that ship here, inside a VPC."""
    from ml_contract.load import discover_workloads

    from ml_lifecycle.training.shapes import shape_of

    folders = [_CHECKOUT / "workloads", *sorted((_CHECKOUT / "examples").glob("*/workloads"))]
    loaded = [workload for folder in folders for workload in discover_workloads(folder)]
    wanted = [shape(), shape(higher_is_better=False), *(shape_of(w.workload) for w in loaded)]
    shapes = {_digest(PROGRAM, values): values for values in wanted}
    for name, definition in zip(shapes, _run(PROGRAM, list(shapes.values())), strict=True):
        _write(_SHIPPED / f"{name}.json", definition)
    for path in _SHIPPED.glob("*.json"):
        if path.stem not in shapes:
            path.unlink()


if __name__ == "__main__":
    main()
