"""Run a pipeline program and print the definitions it builds. Started by ``definition.render`` as ``python
-I``.

Reads ``{"program": path, "shapes": [values, ...]}`` from standard input. The network is refused, not merely
unused: a program that asks AWS something while it is rendered would give another definition on another day.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

#: The SDK that this project's renderings are made with; part of the content that names a cached rendering.
SDK_VERSION = "3.27"


def _refuse(*_args: object, **_kwargs: object) -> NoReturn:
    raise OSError("a pipeline program must not use the network while its definition is rendered")


def main() -> None:
    """Render; anything but the definition goes to standard error."""
    request = json.load(sys.stdin)
    socket.socket.connect = _refuse  # type: ignore[method-assign]
    socket.socket.connect_ex = _refuse  # type: ignore[method-assign]
    socket.getaddrinfo = _refuse
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    with contextlib.redirect_stdout(sys.stderr):
        definitions = _definitions(request["program"], request["shapes"])
    json.dump(definitions, sys.stdout)


def _definitions(program: str, shapes: list[dict[str, Any]]) -> list[Any]:
    import boto3
    from sagemaker.core.workflow.pipeline_context import PipelineSession

    session = PipelineSession(
        # Stand-ins: nothing is ever signed or sent.
        boto_session=boto3.Session(
            region_name="us-east-1",
            aws_access_key_id="none",
            aws_secret_access_key="none",  # noqa: S106
        ),
        default_bucket="none",
        sagemaker_config={
            "SchemaVersion": "1.0",
            "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}},
        },
    )
    path = Path(program)
    spec = importlib.util.spec_from_file_location(
        "pipeline_program", path / "__init__.py" if path.is_dir() else path
    )
    if spec is None or spec.loader is None:
        raise ValueError(f"{program} is no Python file or package")
    module = importlib.util.module_from_spec(spec)
    # A package's modules find each other by its name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return [json.loads(module.build(session, values).definition()) for values in shapes]


if __name__ == "__main__":
    main()
