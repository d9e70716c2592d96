"""Every line of a log is JSON with an id by which it is followed."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from function_log import log
from ml_runtime.job import BadInputError, job_name, run_job

ROOT = Path(__file__).resolve().parents[2]


def line(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_should_follow_by_the_id_given_or_else_by_the_request(capsys: pytest.CaptureFixture[str]) -> None:
    log("INFO", "decided", correlation_id="run-1", request="r")
    assert line(capsys)["correlation_id"] == "run-1"
    log("INFO", "decided", request="r", correlation_id=None)
    assert line(capsys)["correlation_id"] == "r"


def test_should_name_the_trace_that_lambda_tells_of(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "Root=1-5759e988-bd862e3fe1be46a994272793")
    log("INFO", "decided")
    assert line(capsys)["trace"] == "Root=1-5759e988-bd862e3fe1be46a994272793"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "lambda").glob("*/*.py")), ids=lambda p: f"{p.parent.name}.{p.stem}"
)
def test_should_give_every_line_of_a_function_an_id(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "log":
            names = {keyword.arg for keyword in node.keywords}
            # None is a dictionary of fields, which holds the request where it is made.
            assert names & {"correlation_id", "request", None}, f"{path}:{node.lineno}"


def test_should_end_a_job_with_its_name_and_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRAINING_JOB_NAME", "pipelines-abc-Train-1")
    assert run_job(lambda: None, tmp_path / "message") == 0
    found = line(capsys)
    assert found["message"] == "job ended"
    assert found["correlation_id"] == found["job"] == "pipelines-abc-Train-1"
    assert isinstance(found["seconds"], float)


def test_should_end_a_job_that_failed_with_its_reason(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def work() -> None:
        raise BadInputError("no row")

    monkeypatch.setenv("RUN_ID", "run-7")
    assert run_job(work, tmp_path / "message") == 1
    found = line(capsys)
    assert (found["level"], found["why"], found["job"]) == ("ERROR", "no row", "run-7")


def test_should_know_a_processing_job_by_sagemakers_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("TRAINING_JOB_NAME", "RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    assert job_name() is None
    (tmp_path / "config").mkdir()
    arn = "arn:aws:sagemaker:us-east-1:123456789012:processing-job/pipelines-abc-Evaluate-2"
    (tmp_path / "config" / "processingjobconfig.json").write_text(json.dumps({"ProcessingJobArn": arn}))
    assert job_name() == "pipelines-abc-Evaluate-2"
