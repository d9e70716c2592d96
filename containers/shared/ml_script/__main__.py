"""The launcher of a training script: the zip that holds it and ``program/`` is what the job runs.

SageMaker's toolkits fetch a script from S3 themselves, which a job without network cannot. This file stands
as ``__main__.py`` in a zip that comes as the channel ``code``; Python runs such a zip. It unpacks the
program, says where everything is by the names that SageMaker's toolkits use (``SM_MODEL_DIR``,
``SM_CHANNEL_TRAIN``, ``SM_HOSTS``, ...), passes each hyperparameter as ``--name value``, and starts the entry
point, by torchrun when the workload asks for several processes. Why a program failed goes to
``/opt/ml/output/failure``.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from typing import Any

#: Port on which the first host gathers the others.
RENDEZVOUS_PORT = 29_500
#: SageMaker shows the first 1,024 characters of a failure.
MESSAGE_LIMIT = 1_024


def read(path: pathlib.Path) -> dict[str, Any]:
    """Return a JSON file's object, an empty one when there is no such file."""
    if not path.is_file():
        return {}
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def variables(
    base: pathlib.Path, hyperparameters: Mapping[str, str], hosts: Mapping[str, Any]
) -> dict[str, str]:
    """Return the environment of the program.

    Source: SageMaker Training Toolkit, "Script mode environment variables".
    """
    data = base / "input" / "data"
    channels = sorted(path.name for path in data.iterdir() if path.is_dir()) if data.is_dir() else []
    names = hosts.get("hosts", ["algo-1"])
    return {
        "SM_MODEL_DIR": str(base / "model"),
        "SM_OUTPUT_DATA_DIR": str(base / "output" / "data"),
        "SM_INPUT_DIR": str(base / "input"),
        "SM_CHECKPOINT_DIR": str(base / "checkpoints"),
        "SM_CHANNELS": json.dumps(channels),
        "SM_HPS": json.dumps(dict(hyperparameters)),
        "SM_HOSTS": json.dumps(names),
        "SM_CURRENT_HOST": hosts.get("current_host", names[0]),
        "SM_NETWORK_INTERFACE_NAME": hosts.get("network_interface_name", "eth0"),
        **{f"SM_CHANNEL_{name.upper()}": str(data / name) for name in channels},
    }


def command(
    launch: Mapping[str, Any],
    program: pathlib.Path,
    hyperparameters: Mapping[str, str],
    hosts: Mapping[str, Any],
) -> list[str]:
    """Return what starts the entry point."""
    entry = [str(program / launch["entry_point"])]
    for name, value in sorted(hyperparameters.items()):
        entry += [f"--{name}", value]
    if not launch["torchrun"]:
        return [sys.executable, *entry]
    names = hosts.get("hosts", ["algo-1"])
    processes = launch["processes_per_instance"]
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nnodes={len(names)}",
        f"--node_rank={names.index(hosts.get('current_host', names[0]))}",
        # torchrun's own word for one per GPU; the construct names a number where there is none.
        f"--nproc_per_node={'gpu' if processes is None else processes}",
        # Hosts of a job resolve each other's names; whoever says otherwise knows where the first one is.
        f"--master_addr={os.environ.get('MASTER_ADDR', names[0])}",
        f"--master_port={os.environ.get('MASTER_PORT', RENDEZVOUS_PORT)}",
        *entry,
    ]


def main() -> int:
    """Unpack, start, and hand on how it ended."""
    base = pathlib.Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
    archive = pathlib.Path(sys.argv[0])
    target = base / "code"
    with zipfile.ZipFile(archive) as packed:
        launch = json.loads(packed.read("launch.json"))
        # Our own zip, made when the stack was synthesised; extractall keeps names inside the target.
        packed.extractall(target)
    config = base / "input" / "config"
    hyperparameters = {name: str(value) for name, value in read(config / "hyperparameters.json").items()}
    hosts = read(config / "resourceconfig.json")
    program = target / "program"
    process = subprocess.Popen(
        command(launch, program, hyperparameters, hosts),
        cwd=program,
        env=os.environ | variables(base, hyperparameters, hosts),
        stderr=subprocess.PIPE,
        text=True,
    )
    # A job that is stopped gets two minutes: the program hears of it.
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    assert process.stderr is not None
    tail: list[str] = []
    for line in process.stderr:
        sys.stderr.write(line)
        tail = [*tail[-20:], line]
    code = process.wait()
    if code != 0:
        failure = base / "output" / "failure"
        failure.parent.mkdir(parents=True, exist_ok=True)
        said = "".join(tail).strip()[-MESSAGE_LIMIT + 80 :]
        failure.write_text(f"{launch['entry_point']} ended with exit code {code}: {said}"[:MESSAGE_LIMIT])
    return 1 if code != 0 else 0


if __name__ == "__main__":
    sys.exit(main())
