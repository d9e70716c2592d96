"""A processing and training program that does what its first argument says, under the real contract."""

import json
import os
import signal
import sys
import time
from pathlib import Path

BASE = Path(os.environ["SAGEMAKER_BASE_DIR"])


def prepare() -> None:
    """Copy the numbers of the input, sorted, to the output."""
    config = json.loads((BASE / "config/processingjobconfig.json").read_text())
    assert config["ProcessingJobName"] == os.environ["PROCESSING_JOB_NAME"]
    assert json.loads((BASE / "config/resourceconfig.json").read_text())["hosts"] == ["algo-1"]
    files = sorted((BASE / "processing/input/numbers").rglob("*.txt"))
    numbers = sorted(int(line) for file in files for line in file.read_text().split())
    target = BASE / "processing/output/train"
    (target / "numbers.json").write_text(json.dumps(numbers))
    print(f"read {len(numbers)} numbers from {len(files)} files")


def train() -> None:
    """The model is the mean of the numbers."""
    parameters = json.loads((BASE / "input/config/hyperparameters.json").read_text())
    channels = json.loads((BASE / "input/config/inputdataconfig.json").read_text())
    numbers = json.loads((BASE / "input/data/train/numbers.json").read_text())
    assert list(channels) == ["train"]
    if parameters.get("fail"):
        (BASE / "output/failure").write_text("the numbers do not converge")
        sys.exit(3)
    mean = sum(numbers) / len(numbers) + float(parameters.get("shift", "0"))
    print(f"mean={mean}; loss=0.5;")
    print(f"mean={mean}; loss=0.25;")
    (BASE / "model/model.json").write_text(json.dumps({"mean": mean, "job": os.environ["TRAINING_JOB_NAME"]}))
    (BASE / "output/data/note.txt").write_text("kept")


def descend() -> None:
    """Walk down a bowl, a line a step: its lowest point is at x = 3."""
    parameters = json.loads((BASE / "input/config/hyperparameters.json").read_text())
    assert parameters["_tuning_objective_metric"] == "loss"
    if parameters.get("mood") == "bad":
        sys.exit(4)
    loss = (float(parameters["x"]) - 3) ** 2
    for step in range(int(parameters.get("steps", "1"))):
        print(f"[{step}] loss={loss + 1 / (step + 1)};")
        time.sleep(float(parameters.get("pause", "0")))
    print(f"loss={loss};")
    (BASE / "model/model.json").write_text(json.dumps({"x": parameters["x"]}))


def laps() -> None:
    """Count to a number of laps, and go on counting where an earlier run was interrupted."""
    parameters = json.loads((BASE / "input/config/hyperparameters.json").read_text())
    resources = json.loads((BASE / "input/config/resourceconfig.json").read_text())
    kept = BASE / "checkpoints/lap.txt"
    first = int(kept.read_text()) if kept.exists() else 0
    others = os.environ.get("MASTER_ADDR", "nobody")
    print(f"{resources['current_host']} of {len(resources['hosts'])}, with {others}, from lap {first}")
    if parameters.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for lap in range(first, int(parameters["laps"])):
        print(f"lap={lap};", flush=True)
        if kept.parent.is_dir():
            # It may be copied, or the program ended, at any moment: the file is there whole or not at all.
            kept.with_suffix(".part").write_text(str(lap + 1))
            kept.with_suffix(".part").replace(kept)
        time.sleep(float(parameters.get("pause", "0.05")))
    if parameters.get("fails_on") == resources["current_host"]:
        (BASE / "output/failure").write_text("rule overfit after round 7: too far")
        sys.exit(1)
    (BASE / f"model/{resources['current_host']}.json").write_text(json.dumps({"from": first}))


def evaluate() -> None:
    """How far is the mean from ten?"""
    import tarfile

    with tarfile.open(BASE / "processing/input/model/model.tar.gz") as tar:
        content = tar.extractfile("model.json")
        assert content is not None
        mean = json.loads(content.read())["mean"]
    report = {"metrics": {"distance": {"value": abs(mean - 10)}}}
    (BASE / "processing/output/evaluation/evaluation.json").write_text(json.dumps(report))


def identity() -> None:
    """Try what the role may not do."""
    import boto3

    print(boto3.client("sts").get_caller_identity()["Arn"])
    boto3.client("s3").list_buckets()


def say() -> None:
    """End with a message."""
    (BASE / "output").mkdir(exist_ok=True)
    (BASE / "output/message").write_text("nothing to do")


def judge() -> None:
    """A monitor: a violation as soon as any captured request says so."""
    # Model Monitor spells its variables in small letters.
    source = Path(os.environ["dataset_source"])  # noqa: SIM112
    target = Path(os.environ["output_path"])  # noqa: SIM112
    lines = [json.loads(line) for file in source.rglob("*.jsonl") for line in file.read_text().splitlines()]
    bad = [line for line in lines if "drift" in line["captureData"]["endpointInput"]["data"]]
    violations = [{"feature_name": "x", "constraint_check_type": "baseline_drift_check"}] if bad else []
    (target / "constraint_violations.json").write_text(json.dumps({"violations": violations}))
    (target / "report.json").write_text(json.dumps({"records": len(lines)}))


def hang() -> None:
    """Run until stopped."""
    time.sleep(600)


if __name__ == "__main__":
    {f.__name__: f for f in (prepare, train, laps, descend, evaluate, identity, say, judge, hang)}[
        sys.argv[1]
    ]()
