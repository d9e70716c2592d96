"""Lambda functions that are container images: their program runs as a function of this machine's Python."""

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


def install(runtime: Runtime) -> None:
    """Run container-image functions through what their Dockerfile says."""

    def translate(config: Mapping[str, Any]) -> bridge.FunctionCode:
        return function_code(runtime, config)

    bridge.use_image_functions(translate)


def function_code(runtime: Runtime, config: Mapping[str, Any]) -> bridge.FunctionCode:
    """Make the code of a zip function from the image of a function.

    :raises ImageError: the image is not built on AWS's Python base image, or names no handler
    """
    uri = str(config["ImageUri"])
    program = runtime.images.program(uri)
    base = _BASE.search(program.base)
    if base is None:
        raise ImageError(
            f"{uri} is built from {program.base!r}; here a function's image is built from AWS's own base "
            "image, public.ecr.aws/lambda/python:3.x"
        )
    given = config.get("ImageConfigResponse", {}).get("ImageConfig", config.get("ImageConfig")) or {}
    command = given.get("Command") or program.command
    if program.entrypoint or given.get("EntryPoint"):
        raise ImageError(f"{uri} replaces the entry point of AWS's base image; leave it and set CMD")
    if len(command) != 1:
        raise ImageError(f"{uri} must name one handler as its CMD, got {command}")
    root = program.root / TASK_ROOT
    # A Dockerfile may also copy by the base image's working directory, which the reader takes for "/".
    code = archive(root if root.is_dir() else program.root)
    runtime.ledger.recorded(
        "image",
        uri,
        "RUN instructions are not executed; this machine's packages serve",
        skipped=program.skipped,
    )
    return bridge.FunctionCode(
        zip=code, handler=command[0], runtime=f"python{base.group(1)}", environment=dict(program.env)
    )


def archive(folder: Path) -> bytes:
    """Pack a folder as a deployment package."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                packed.write(path, path.relative_to(folder).as_posix())
    return sink.getvalue()
