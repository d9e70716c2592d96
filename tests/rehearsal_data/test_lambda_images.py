"""Functions that are container images, as zip functions."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rehearsal.executors.lambda_images import function_code
from rehearsal.images import ImageError, Images

URI = "123456789012.dkr.ecr.us-east-1.amazonaws.com/functions:one"
BASE = "FROM public.ecr.aws/lambda/python:3.13\n"


class Ledger:
    """Remembers what was only recorded."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, Mapping[str, Any]]] = []

    def recorded(self, kind: str, name: str, why: str, **detail: Any) -> None:
        del name, why
        self.entries.append((kind, detail))


def runtime(tmp_path: Path, dockerfile: str) -> Any:
    """A runtime that knows one image."""
    context = tmp_path / "context"
    (context / "claims").mkdir(parents=True)
    (context / "claims" / "handler.py").write_text("def handler(event, context): return event\n")
    (context / "Dockerfile").write_text(dockerfile)
    state = tmp_path / "state"
    state.mkdir()
    entry = {"context": str(context), "dockerfile": "Dockerfile", "arguments": "{}"}
    (state / "images.json").write_text(json.dumps({URI: entry}))
    return SimpleNamespace(images=Images(state), ledger=Ledger())


@pytest.mark.parametrize(
    "copy",
    ["COPY claims ${LAMBDA_TASK_ROOT}/claims", "COPY claims claims", "COPY claims /var/task/claims"],
)
def test_should_pack_the_task_root_of_an_image(tmp_path: Path, copy: str) -> None:
    dockerfile = f'{BASE}ENV LEVEL=debug\nRUN pip install x\n{copy}\nCMD ["claims.handler.handler"]\n'
    machine = runtime(tmp_path, dockerfile)
    code = function_code(machine, {"ImageUri": URI})
    assert (code.handler, code.runtime) == ("claims.handler.handler", "python3.13")
    assert code.environment["LEVEL"] == "debug"
    with zipfile.ZipFile(io.BytesIO(code.zip)) as packed:
        assert packed.namelist() == ["claims/handler.py"]
    ((kind, detail),) = machine.ledger.entries
    assert kind == "image"
    assert detail["skipped"] == ("pip install x",)


def test_should_prefer_the_functions_own_command(tmp_path: Path) -> None:
    machine = runtime(tmp_path, f'{BASE}COPY claims claims\nCMD ["claims.handler.other"]\n')
    given = {"ImageUri": URI, "ImageConfig": {"Command": ["claims.handler.handler"]}}
    assert function_code(machine, given).handler == "claims.handler.handler"


@pytest.mark.parametrize(
    ("dockerfile", "message"),
    [
        ('FROM python:3.13\nCOPY claims claims\nCMD ["a.b"]\n', "built from AWS's own base image"),
        (f"{BASE}COPY claims claims\n", "must name one handler"),
        (f'{BASE}COPY claims claims\nENTRYPOINT ["x"]\nCMD ["a.b"]\n', "replaces the entry point"),
    ],
    ids=["base", "handler", "entrypoint"],
)
def test_should_refuse_an_image_that_is_no_function(tmp_path: Path, dockerfile: str, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        function_code(runtime(tmp_path, dockerfile), {"ImageUri": URI})


def test_should_pack_the_working_directory_of_an_image_that_brings_lambdas_client(tmp_path: Path) -> None:
    dockerfile = (
        "FROM public.ecr.aws/docker/library/python:3.12-slim\nENV PYTHONPATH=/opt/program LEVEL=info\n"
        'COPY claims /opt/program/claims\nWORKDIR /opt/program\nENTRYPOINT ["python", "-m", "server"]\n'
    )
    machine = runtime(tmp_path, dockerfile)
    given = {"EntryPoint": ["python", "-m", "awslambdaric"], "Command": ["claims.handler.handler"]}
    code = function_code(machine, {"ImageUri": URI, "ImageConfigResponse": {"ImageConfig": given}})
    assert (code.handler, code.runtime) == ("claims.handler.handler", "python3.12")
    assert code.environment == {"LEVEL": "info"}
    with zipfile.ZipFile(io.BytesIO(code.zip)) as packed:
        assert packed.namelist() == ["claims/handler.py"]
