"""Lambda functions that are container images: their program runs as a function of this machine's Python.

Requests through an alias are measured under its name, as Lambda does beside the function's own metrics.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rehearsal import ministack_bridge as bridge
from rehearsal.images import ImageError

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["install"]

#: Where AWS's base images keep a function's code (LAMBDA_TASK_ROOT, also their working directory).
TASK_ROOT = "var/task"
_BASE = re.compile(r"(?:^|/)lambda/python:(\d+\.\d+)")
_PYTHON = re.compile(r"(?:^|/)python:(\d+\.\d+)")
#: AWS's open client of Lambda, with which any image is a function ("Using a non-AWS base image").
_CLIENT = "awslambdaric"


def install(runtime: Runtime) -> None:
    """Run container-image functions through what their Dockerfile says."""

    def translate(config: Mapping[str, Any]) -> bridge.FunctionCode:
        return function_code(runtime, config)

    def measure(name: str, alias: str, seconds: float, failed: bool) -> None:
        values = {"Invocations": 1.0, "Errors": float(failed), "Duration": seconds * 1000}
        for metric, value in values.items():
            bridge.put_metric(
                account=runtime.account,
                region=runtime.region,
                namespace="AWS/Lambda",
                name=metric,
                dimensions={"FunctionName": name, "Resource": f"{name}:{alias}"},
                timestamp=runtime.clock.timestamp(),
                unit="Milliseconds" if metric == "Duration" else "Count",
                values=[value],
            )

    bridge.use_image_functions(translate)
    bridge.measure_aliases(measure)


def function_code(runtime: Runtime, config: Mapping[str, Any]) -> bridge.FunctionCode:
    """Make the code of a zip function from the image of a function.

    :raises ImageError: the image is no function here, or names no handler
    """
    uri = str(config["ImageUri"])
    program = runtime.images.program(uri)
    given = config.get("ImageConfigResponse", {}).get("ImageConfig", config.get("ImageConfig")) or {}
    entrypoint = given.get("EntryPoint") or program.entrypoint
    command = given.get("Command") or program.command
    base = _BASE.search(program.base)
    if entrypoint[-1:] == [_CLIENT]:
        # The client imports the handler from the working directory.
        folder, base = program.cwd, _PYTHON.search(program.base)
    elif base is None:
        raise ImageError(
            f"{uri} is built from {program.base!r}; here a function's image is built from AWS's own base "
            f"image, public.ecr.aws/lambda/python:3.x, or its entry point is python -m {_CLIENT}"
        )
    elif entrypoint:
        raise ImageError(f"{uri} replaces the entry point of AWS's base image; leave it and set CMD")
    else:
        root = program.root / TASK_ROOT
        # A Dockerfile may also copy by the base image's working directory, which the reader takes for "/".
        folder = root if root.is_dir() else program.root
    if len(command) != 1:
        raise ImageError(f"{uri} must name one handler as its CMD, got {command}")
    runtime.ledger.recorded(
        "image",
        uri,
        "RUN instructions are not executed; this machine's packages serve",
        skipped=program.skipped,
    )
    return bridge.FunctionCode(
        zip=archive(folder),
        handler=command[0],
        runtime="python3.13" if base is None else f"python{base.group(1)}",
        # The archive is what the function imports from.
        environment={key: value for key, value in program.env.items() if key != "PYTHONPATH"},
    )


def archive(folder: Path) -> bytes:
    """Pack a folder as a deployment package."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                packed.write(path, path.relative_to(folder).as_posix())
    return sink.getvalue()
