"""The endpoint: what it answers, how it starts, how it ends."""

from __future__ import annotations

import contextlib
import csv
import http.client
import io
import json
import math
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from container_support import Trained, features_of, image_environment, make_records
from ml_runtime.content import BODY_LIMIT
from ml_runtime.job import BadInputError
from ml_runtime.model import Model
from ml_serving.predictor import Predictor

pytestmark = pytest.mark.slow

JSON, CSV, LINES = "application/json", "text/csv", "application/jsonlines"


@pytest.fixture
def predictor(workload: Trained) -> Predictor:
    return Predictor(Model.load(workload.model))


@pytest.fixture
def binary(trained: Callable[[str], Trained]) -> Trained:
    return trained("binary")


def unlabelled(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if key != "outcome"} for record in records]


def answered(predictor: Predictor, body: object, content_type: str = JSON, accept: str = JSON) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = predictor.answer(data, content_type, accept)
    assert answer.status == 200, answer.body
    return (
        json.loads(answer.body)["predictions"]
        if answer.content_type[1] == b"application/json"
        else answer.body
    )


# --- scores ---------------------------------------------------------------------------------------


def test_should_score_a_record_like_the_batch_path(workload: Trained, predictor: Predictor) -> None:
    """Raw record through the row path, and the same record through the table path: one score."""
    fresh = make_records(workload.task, 200, seed=99)
    model = Model.load(workload.model)
    batch = model.scores(model.fitted.matrix(features_of(fresh, workload.contract)))
    assert np.isfinite(batch).all()
    one_by_one = [answered(predictor, record)[0] for record in unlabelled(fresh)]
    together = answered(predictor, unlabelled(fresh))
    assert [p["score"] for p in together] == pytest.approx([p["score"] for p in one_by_one], abs=1e-6)
    if workload.task == "multiclass":
        values = workload.contract.label.values
        assert values is not None
        served = np.array([[p["scores"][value] for value in values] for p in one_by_one])
        assert [p["label"] for p in one_by_one] == [values[i] for i in batch.argmax(axis=1)]
    else:
        served = np.array([p["score"] for p in one_by_one])
    np.testing.assert_allclose(served, batch, rtol=1e-6, atol=1e-6)


def test_should_answer_the_same_for_every_content_type(workload: Trained, predictor: Predictor) -> None:
    records = unlabelled(make_records(workload.task, 40, seed=5))
    expected = answered(predictor, records)
    assert len(expected) == 40
    assert answered(predictor, {"instances": records}) == expected
    lines = b"\n".join(json.dumps(record).encode() for record in records)
    assert answered(predictor, lines, LINES) == expected
    names = [c.source for c in workload.contract.columns if c.name != "outcome"]
    for header in (False, True):
        text = io.StringIO()
        writer = csv.writer(text)
        if header:
            writer.writerow(names)
        for record in records:
            cells = [record.get(name, "") for name in names]
            writer.writerow([str(cell).lower() if isinstance(cell, bool) else cell for cell in cells])
        assert answered(predictor, text.getvalue().encode(), f"{CSV}; charset=utf-8") == expected


def test_should_label_by_the_decision_threshold(binary: Trained) -> None:
    predictions = answered(Predictor(Model.load(binary.model)), unlabelled(binary.records))
    assert {p["label"] for p in predictions} == {"on time", "late"}
    for prediction in predictions:
        assert (prediction["label"] == "late") == (prediction["score"] >= 0.45)


def test_should_answer_csv_and_lines_when_asked(binary: Trained) -> None:
    predictor = Predictor(Model.load(binary.model))
    records = unlabelled(binary.records[:3])
    expected = answered(predictor, records)
    rows = list(csv.reader(io.StringIO(answered(predictor, records, accept=CSV).decode())))
    found = [{"score": float(score), "label": label} for score, label in rows]
    assert found == expected
    lines = answered(predictor, records, accept=LINES).splitlines()
    assert [json.loads(line) for line in lines] == expected
    assert answered(predictor, records, accept="text/html, */*;q=0.1") == expected
    assert predictor.answer(json.dumps(records).encode(), JSON, "text/html").status == 406


def test_should_take_a_number_too_large_for_the_model(predictor: Predictor) -> None:
    """Beyond 32 bits a number is infinite in a table, and so it must be in a single record."""
    record = {"distance-km": 1e300}
    alone, (first, second) = answered(predictor, record)[0], answered(predictor, [record, record])
    assert first == second
    assert alone["score"] == pytest.approx(first["score"], abs=1e-6)


def test_should_keep_no_trace_of_the_record_before(predictor: Predictor, workload: Trained) -> None:
    records = unlabelled(make_records(workload.task, 20, seed=6))
    forth = [answered(predictor, record)[0] for record in records]
    back = [answered(predictor, record)[0] for record in reversed(records)]
    assert forth == back[::-1]


def test_should_ask_for_no_label_and_no_field(predictor: Predictor) -> None:
    assert math.isfinite(answered(predictor, {})[0]["score"])


# --- bad input ------------------------------------------------------------------------------------


def test_should_refuse_a_body_with_all_reasons_of_every_record(binary: Trained) -> None:
    predictor = Predictor(Model.load(binary.model))
    good = unlabelled(binary.records[:1])[0]
    bad = {**good, "weather": "hail", "passengers": "many", "colour": "red"}
    answer = predictor.answer(json.dumps([good, bad, 7]).encode(), JSON, JSON)
    assert answer.status == 400
    body = json.loads(answer.body)
    assert body["error"] == "2 of 3 records do not fit the contract"
    assert [record["index"] for record in body["records"]] == [1, 2]
    found = {(reason["code"], reason["field"]) for reason in body["records"][0]["reasons"]}
    assert found == {("not_allowed", "weather"), ("wrong_type", "passengers"), ("unknown_field", "colour")}


@pytest.mark.parametrize(
    ("body", "content_type", "status", "text"),
    [
        (b"", JSON, 400, "not_json"),
        (b"[]", JSON, 400, "no record"),
        (b'{"instances": 7}', JSON, 400, "instances"),
        (b"[1, 2", JSON, 400, "not JSON"),
        (b"\xff\xfe", JSON, 400, "not_utf8"),
        (b"[" * 100_000, JSON, 400, "nests too deep"),
        (b'{"a":' * 10_000, JSON, 400, "not_json"),
        (b"a,b\n1,2", CSV, 400, "row 1 has 2 cells"),
        (b"weather,driver\ndry,ann,7", CSV, 400, "row 2 has 3 cells"),
        (b"weather,weather\ndry,dry", CSV, 400, "twice: weather"),
        (b'weather,driver\n"dry', CSV, 400, "not CSV"),
        (b"weather,driver\n\xff,x", CSV, 400, "not UTF-8"),
        (b"", CSV, 400, "no record"),
        (b"{}\n\nnope", LINES, 400, "not_json"),
        (b"{}", "application/x-npy", 415, "not supported"),
        (b"{}", "", 415, "not supported"),
    ],
)
def test_should_refuse_what_is_no_record(
    binary: Trained, body: bytes, content_type: str, status: int, text: str
) -> None:
    answer = Predictor(Model.load(binary.model)).answer(body, content_type, JSON)
    assert answer.status == status
    assert text in answer.body.decode()


def with_output(model: pathlib.Path, target: pathlib.Path, value: float) -> pathlib.Path:
    """Copy a model whose leaves all say ``value``."""
    shutil.copytree(model, target)
    graph = onnx.load(target / "model.onnx")
    for node in graph.graph.node:
        for attribute in node.attribute:
            if attribute.name in ("class_weights", "target_weights"):
                attribute.floats[:] = [value] * len(attribute.floats)
    onnx.save(graph, target / "model.onnx")
    return target


def test_should_answer_500_when_the_model_says_no_number(
    trained: Callable[[str], Trained], tmp_path: pathlib.Path
) -> None:
    for task in ("binary", "regression"):
        workload = trained(task)
        predictor = Predictor(Model.load(with_output(workload.model, tmp_path / task, math.nan)))
        for body in (b"{}", b"[{}, {}]"):
            answer = predictor.answer(body, JSON, JSON)
            assert answer.status == 500
            assert "not finite" in json.loads(answer.body)["error"]


def test_should_refuse_a_model_whose_files_do_not_belong_together(
    trained: Callable[[str], Trained], tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(trained("binary").model, folder)
    fitted = json.loads((folder / "fitted.json").read_text())
    next(feature for feature in fitted["features"] if feature["name"] == "driver")["values"].pop()
    (folder / "fitted.json").write_text(json.dumps(fitted))
    with pytest.raises(BadInputError, match="different trainings"):
        Model.load(folder)
    (folder / "fitted.json").unlink()
    with pytest.raises(BadInputError, match=r"lacks fitted\.json"):
        Model.load(folder)


# --- the server -----------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Endpoint:
    """A running serving container."""

    def __init__(self, base: pathlib.Path, **extra: str) -> None:
        self.port = free_port()
        environment = image_environment(
            "serving",
            base,
            **{
                "SERVING_HOST": "127.0.0.1",
                "SAGEMAKER_BIND_TO_PORT": str(self.port),
                "SAGEMAKER_MODEL_SERVER_WORKERS": "1",
                **extra,
            },
        )
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "ml_serving", "serve"],
            env=environment,
            cwd=base,
            stderr=subprocess.PIPE,
            text=True,
        )

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def request(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        with contextlib.closing(self.connect()) as connection:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            response = connection.getresponse()
            return response.status, response.read(), response.headers

    def ready(self, seconds: float = 30) -> set[int]:
        """Wait until /ping is 200; return the statuses seen before."""
        seen: set[int] = set()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(ConnectionError):
                status = self.request("GET", "/ping")[0]
                if status == 200:
                    return seen
                seen.add(status)
            assert self.process.poll() is None, self.process.communicate()[1]
            time.sleep(0.002)
        raise AssertionError("the endpoint never became ready")

    def stop(self) -> tuple[int, str]:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        _, stderr = self.process.communicate(timeout=30)
        return self.process.returncode, stderr


@pytest.fixture
def endpoint(binary: Trained) -> Iterator[Callable[..., Endpoint]]:
    started: list[Endpoint] = []

    def start(base: pathlib.Path | None = None, **extra: str) -> Endpoint:
        started.append(Endpoint(base or binary.folder / "train", **extra))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


def test_should_serve_the_contract_of_a_sagemaker_container(
    endpoint: Callable[..., Endpoint], binary: Trained
) -> None:
    server = endpoint()
    assert server.ready() <= {503}
    body = json.dumps(unlabelled(binary.records[:1])[0]).encode()
    status, answer, headers = server.request("POST", "/invocations", body, content_type=JSON)
    assert (status, headers["content-type"]) == (200, JSON)
    assert set(json.loads(answer)["predictions"][0]) == {"score", "label"}
    status, answer, _ = server.request("GET", "/execution-parameters")
    assert json.loads(answer)["MaxPayloadInMB"] == 6
    assert server.request("GET", "/invocations")[0] == 405
    assert server.request("POST", "/ping")[0] == 405
    for path in ("/", "/models", "/../../etc/passwd", "/ping/../invocations", "/%2e%2e/model.onnx"):
        assert server.request("GET", path)[0] == 404
    assert server.stop()[0] == 0


def test_should_refuse_a_body_beyond_six_megabytes(endpoint: Callable[..., Endpoint]) -> None:
    server = endpoint()
    server.ready()
    record = b"{}"
    largest = b"[" + b",".join([record] * ((BODY_LIMIT - 2) // 3)) + b"]"
    assert len(largest) <= BODY_LIMIT
    with contextlib.closing(server.connect()) as connection:
        connection.putrequest("POST", "/invocations")
        connection.putheader("content-type", JSON)
        connection.putheader("content-length", str(BODY_LIMIT + 1))
        connection.endheaders()
        response = connection.getresponse()
        assert response.status == 413
        assert response.headers["connection"] == "close"
    # Without a length: in chunks, until it is too much.
    with contextlib.closing(server.connect()) as connection:
        connection.putrequest("POST", "/invocations")
        connection.putheader("content-type", JSON)
        connection.putheader("transfer-encoding", "chunked")
        connection.endheaders()
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        with contextlib.suppress(ConnectionError):
            for _ in range(BODY_LIMIT // 0x10000 + 2):
                connection.send(chunk)
        assert connection.getresponse().status == 413
    assert server.request("POST", "/invocations", b"{}", content_type=JSON)[0] == 200


@pytest.mark.parametrize("workers", ["1", "2"])
def test_should_fail_clearly_without_a_model(
    endpoint: Callable[..., Endpoint], tmp_path: pathlib.Path, workers: str
) -> None:
    (tmp_path / "model").mkdir()
    server = endpoint(tmp_path, SAGEMAKER_MODEL_SERVER_WORKERS=workers)
    assert server.process.wait(timeout=30) == 1
    _, stderr = server.stop()
    assert "lacks model.onnx, contract.json, fitted.json" in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_should_end_without_losing_a_request(
    endpoint: Callable[..., Endpoint], binary: Trained, workers: str
) -> None:
    server = endpoint(SAGEMAKER_MODEL_SERVER_WORKERS=workers)
    server.ready()
    body = json.dumps(unlabelled(binary.records[:1])[0]).encode()
    outcomes: list[int] = []
    lost: list[str] = []

    def call() -> None:
        connection = server.connect()
        while True:
            try:
                connection.connect()
            except ConnectionError:
                return  # nothing was sent: the router would ask another instance
            with contextlib.closing(connection):
                while True:
                    try:
                        connection.request("POST", "/invocations", body, {"content-type": JSON})
                        response = connection.getresponse()
                        response.read()
                    except (ConnectionError, http.client.HTTPException) as error:
                        lost.append(repr(error))
                        return
                    outcomes.append(response.status)
                    if response.headers["connection"] == "close":
                        return  # told to go elsewhere

    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    time.sleep(0.5)
    code, stderr = server.stop()
    for caller in callers:
        caller.join()
    assert code == 0, stderr
    assert lost == []
    assert set(outcomes) == {200}
    assert len(outcomes) > 8


def test_should_start_one_worker_per_vcpu_and_end_with_the_first_that_ends(
    endpoint: Callable[..., Endpoint],
) -> None:
    server = endpoint(SAGEMAKER_MODEL_SERVER_WORKERS="2")
    server.ready()
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(server.process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(children) == 2
    os.kill(int(children[0]), signal.SIGKILL)
    assert server.process.wait(timeout=30) == 1
    assert "ended by itself" in server.stop()[1]


def test_should_not_answer_that_it_is_loading_once_it_was_ready(
    endpoint: Callable[..., Endpoint],
) -> None:
    for _ in range(3):
        server = endpoint(SAGEMAKER_MODEL_SERVER_WORKERS="3")
        server.ready()
        statuses = {server.request("POST", "/invocations", b"{}", content_type=JSON)[0] for _ in range(60)}
        assert statuses == {200}
        assert server.stop()[0] == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_should_end_when_told_so_before_it_is_ready(endpoint: Callable[..., Endpoint], workers: str) -> None:
    server = endpoint(SAGEMAKER_MODEL_SERVER_WORKERS=workers)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(ConnectionError):
            server.request("GET", "/ping")
            break
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=25) == 0


def test_should_say_that_a_port_is_taken(endpoint: Callable[..., Endpoint]) -> None:
    first = endpoint(SAGEMAKER_MODEL_SERVER_WORKERS="2")
    first.ready()
    for workers in ("1", "2"):
        second = endpoint(SAGEMAKER_MODEL_SERVER_WORKERS=workers, SAGEMAKER_BIND_TO_PORT=str(first.port))
        assert second.process.wait(timeout=30) == 1
        assert "cannot listen on" in second.stop()[1]


@pytest.mark.parametrize(
    ("name", "value"), [("SAGEMAKER_BIND_TO_PORT", "http"), ("SAGEMAKER_MODEL_SERVER_WORKERS", "0")]
)
def test_should_refuse_a_wrong_setting(endpoint: Callable[..., Endpoint], name: str, value: str) -> None:
    server = endpoint(**{name: value})
    assert server.process.wait(timeout=30) == 1
    assert f"{name} must be an integer" in server.stop()[1]
