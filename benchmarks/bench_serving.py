"""One row per request: our endpoint, a container as AWS's samples build it, and the bare floor, side by side.

Every one is a single process. nginx stands before the sample when it is installed, as it does in AWS's.
Needs ``wrk`` (Debian: ``apt-get install wrk``); without it the benchmark is skipped and says so.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.result import Result, Row

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORKLOAD = ROOT / "workloads" / "claims_fraud"
RECORDS = 2000
CLIENTS = (1, 8, 32)
ROUNDS = 3
SECONDS = 2
SAMPLE_GOAL = 40
RAW_GOAL = 2.5
IMAGE_PATHS = (
    "contract",
    "containers/shared",
    "lambda",
    "containers/processing",
    "containers/training",
    "containers/serving",
)


def _environment(**extra: str) -> dict[str, str]:
    paths = os.pathsep.join(str(ROOT / path) for path in IMAGE_PATHS)
    return {**os.environ, "PYTHONPATH": paths, **extra}


def _image(module: str, base: pathlib.Path, command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, command],
        env=_environment(SAGEMAKER_BASE_DIR=str(base)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{module} {command} failed: {done.stderr}")


def _records() -> list[dict[str, Any]]:
    spec = importlib.util.spec_from_file_location("claims_generator", WORKLOAD / "generate.py")
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{WORKLOAD}/generate.py cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    made: list[dict[str, Any]] = module.generate(RECORDS, 7)
    return made


def _model(base: pathlib.Path) -> tuple[pathlib.Path, bytes]:
    """Train the worked example with our own images; return the model folder and one raw record."""
    import polars as pl
    from ml_contract.features.frame import feature_frame
    from ml_contract.load import load_workload
    from ml_contract.records.codec import Record, RecordCodec

    contract = load_workload(WORKLOAD).compiled
    records = _records()
    codec = RecordCodec(contract)
    decoded = [codec.decode(json.dumps(record).encode()) for record in records]
    rows = [record.values for record in decoded if isinstance(record, Record)]
    frame = pl.DataFrame(rows, infer_schema_length=None)
    dates = [pl.col(c.name).cast(pl.String).str.to_date() for c in contract.columns if c.type == "date"]
    features = feature_frame(frame.with_columns(dates), contract)

    prepare = base / "prepare" / "processing"
    (prepare / "input" / "features").mkdir(parents=True)
    (prepare / "input" / "contract").mkdir()
    features.write_parquet(prepare / "input" / "features" / "part.parquet")
    (prepare / "input" / "contract" / "contract.json").write_text(contract.to_json())
    _image("ml_processing", base / "prepare", "prepare")
    train = base / "train"
    data = train / "input" / "data"
    data.mkdir(parents=True)
    for name in ("train", "validation", "transform"):
        shutil.copytree(prepare / "output" / name, data / name)
    shutil.copytree(prepare / "input" / "contract", data / "contract")
    wanted = contract.training["hyperparameters"] | {
        name: contract.training[name] for name in ("rounds", "early_stopping_rounds")
    }
    (train / "input" / "config").mkdir()
    (train / "input" / "config" / "hyperparameters.json").write_text(
        json.dumps({name: str(value) for name, value in wanted.items()})
    )
    _image("ml_training", train, "train")
    label = contract.label_column.source
    return train / "model", json.dumps({k: v for k, v in records[0].items() if k != label}).encode()


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Stack:
    """One way to serve, running."""

    name: str
    port: int
    body: pathlib.Path
    content_type: str
    accept: str


@contextlib.contextmanager
def _running(argv: list[str], environment: dict[str, str], cwd: pathlib.Path) -> Iterator[None]:
    log = cwd / f"{pathlib.Path(argv[0]).name}-{time.monotonic_ns()}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(argv, env=environment, cwd=cwd, stdout=out, stderr=subprocess.STDOUT)
        try:
            yield
            if process.poll() is not None:
                raise RuntimeError(f"{argv[0]} ended: {log.read_text()}")
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait(stack: Stack) -> None:
    """Wait until a real request is answered."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{stack.port}/invocations",
        data=stack.body.read_bytes(),
        headers={"Content-Type": stack.content_type, "Accept": stack.accept},
    )
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                response.read()
                return
        except OSError as error:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{stack.name} never answered: {error}") from error
            time.sleep(0.1)


NGINX = """
{user}
worker_processes 1;
daemon off;
pid {base}/nginx.pid;
error_log {base}/nginx.error.log;
events {{ worker_connections 2048; }}
http {{
  access_log off;
  client_body_temp_path {base}/body;
  proxy_temp_path {base}/proxy;
  fastcgi_temp_path {base}/fastcgi;
  uwsgi_temp_path {base}/uwsgi;
  scgi_temp_path {base}/scgi;
  upstream workers {{ server unix:{base}/gunicorn.sock; }}
  server {{
    listen 127.0.0.1:{port};
    client_max_body_size 6m;
    location / {{ proxy_set_header Host $http_host; proxy_redirect off; proxy_pass http://workers; }}
  }}
}}
"""


@contextlib.contextmanager
def _stacks(base: pathlib.Path) -> Iterator[tuple[list[Stack], bool]]:
    import numpy as np
    from ml_contract.features.row import row_function
    from ml_runtime.content import BodyReader
    from ml_runtime.model import Model

    folder, record = _model(base)
    model = Model.load(folder)
    decoded = BodyReader(model.contract).decode(record)
    features = row_function(model.contract)(decoded.values)  # type: ignore[union-attr]
    vector = np.array([model.fitted.vector(features)], dtype=np.float32)
    np.save(base / "vector.npy", vector)
    (base / "record.json").write_bytes(record)
    (base / "vector.csv").write_text(",".join("" if math.isnan(v) else repr(float(v)) for v in vector[0]))

    environment = _environment(BENCH_MODEL=str(folder), BENCH_VECTOR=str(base / "vector.npy"))
    environment["PYTHONPATH"] += os.pathsep + str(ROOT)
    nginx = shutil.which("nginx")
    ours = Stack("ours", _port(), base / "record.json", "application/json", "application/json")
    raw = Stack("raw", _port(), base / "record.json", "application/json", "application/json")
    sample = Stack("sample", _port(), base / "vector.csv", "text/csv", "text/csv")
    bind = f"unix:{base}/gunicorn.sock" if nginx else f"127.0.0.1:{sample.port}"
    gunicorn = ["-m", "gunicorn", "--workers", "1", "--bind", bind, "--timeout", "60"]
    with contextlib.ExitStack() as running:
        running.enter_context(
            _running(
                [sys.executable, "-m", "ml_serving", "serve"],
                environment
                | {
                    "SAGEMAKER_BASE_DIR": str(folder.parent),
                    "SAGEMAKER_BIND_TO_PORT": str(ours.port),
                    "SAGEMAKER_MODEL_SERVER_WORKERS": "1",
                    "SERVING_HOST": "127.0.0.1",
                },
                base,
            )
        )
        uvicorn = ["-m", "uvicorn", "--port", str(raw.port), "--loop", "uvloop", "--http", "httptools"]
        flags = ["--no-access-log", "--lifespan", "off", "--no-server-header", "benchmarks.serving_raw:app"]
        running.enter_context(_running([sys.executable, *uvicorn, *flags], environment, base))
        running.enter_context(
            # One thread for one row: with more, XGBoost spends its time on waking them.
            _running(
                [sys.executable, *gunicorn, "benchmarks.serving_sample:app"],
                environment | {"OMP_NUM_THREADS": "1"},
                base,
            )
        )
        if nginx:
            # Started by root, nginx becomes somebody who may not enter our folder.
            user = "user root;" if os.geteuid() == 0 else ""
            (base / "nginx.conf").write_text(NGINX.format(user=user, base=base, port=sample.port))
            running.enter_context(_running([nginx, "-c", str(base / "nginx.conf")], environment, base))
        stacks = [ours, raw, sample]
        for stack in stacks:
            _wait(stack)
        yield stacks, nginx is not None


def _wrk(stack: Stack, clients: int, seconds: int) -> dict[str, float]:
    done = subprocess.run(
        [
            *("wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "-s", str(ROOT / "benchmarks/wrk_report.lua")),
            f"http://127.0.0.1:{stack.port}/invocations",
        ],
        env={
            **os.environ,
            "BENCH_BODY": str(stack.body),
            "BENCH_CONTENT_TYPE": stack.content_type,
            "BENCH_ACCEPT": stack.accept,
        },
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    if found["failed"]:
        raise RuntimeError(f"{stack.name}: {found['failed']} requests of {found['requests']} failed")
    return {
        "per_second": found["requests"] / found["seconds"],
        "p50_us": found["p50_us"],
        "p99_us": found["p99_us"],
    }


def run() -> Result:
    """Measure all three in turns; the median of the rounds counts."""
    if shutil.which("wrk") is None:
        return Result(
            name="serving", skipped="wrk is not installed; on Debian: apt-get install wrk nginx-light"
        )
    # The images' packages are installed nowhere but in their images.
    sys.path += [path for part in IMAGE_PATHS if (path := str(ROOT / part)) not in sys.path]
    with (
        tempfile.TemporaryDirectory(prefix="bench-serving-") as folder,
        _stacks(pathlib.Path(folder)) as started,
    ):
        stacks, nginx = started
        runs: dict[str, dict[int, list[dict[str, float]]]] = {
            s.name: {c: [] for c in CLIENTS} for s in stacks
        }
        for stack in stacks:
            _wrk(stack, 8, 1)
        for _ in range(ROUNDS):
            for clients in CLIENTS:
                for stack in stacks:
                    runs[stack.name][clients].append(_wrk(stack, clients, SECONDS))

    def median(name: str, clients: int, figure: str) -> float:
        return statistics.median(measured[figure] for measured in runs[name][clients])

    rows = []
    for clients in CLIENTS:
        people = f"{clients} client{'s' if clients > 1 else ''}"
        rows += [
            Row(
                what=f"requests per second at {people}, ours / sample",
                value=median("ours", clients, "per_second") / median("sample", clients, "per_second"),
                goal=SAMPLE_GOAL if clients == max(CLIENTS) else None,
                at_most=False,
            ),
            Row(
                what=f"p50 at {people}, ours / raw",
                value=median("ours", clients, "p50_us") / median("raw", clients, "p50_us"),
                goal=RAW_GOAL,
            ),
            Row(
                what=f"p99 at {people}, ours / sample",
                value=median("ours", clients, "p99_us") / median("sample", clients, "p99_us"),
            ),
        ]
    for name in runs:
        rows.append(
            Row(
                what=f"{name}: requests per second at {max(CLIENTS)} clients",
                value=median(name, max(CLIENTS), "per_second"),
                unit="/s",
            )
        )
    raw = {"nginx": nginx, "rounds": ROUNDS, "seconds": SECONDS, "runs": runs}
    return Result(name="serving", rows=tuple(rows), raw=raw)
