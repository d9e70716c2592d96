"""The serving image beside a plain endpoint: models that come and go, Lambda, a model from S3."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import pathlib
import shutil
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from container_support import Trained
from ml_runtime import archive
from ml_runtime.job import BadInputError
from ml_runtime.model import Model
from ml_serving import multi_model
from ml_serving.app import Application
from ml_serving.fetch import model_folder
from ml_serving.multi_model import ModelShelf
from ml_serving.predictor import Answer, Predictor
from ml_serving.settings import Settings
from moto import mock_aws

pytestmark = pytest.mark.slow

JSON = "application/json"


# --- models that come and go ----------------------------------------------------------------------


class Container:
    """A multi-model container without sockets."""

    def __init__(self, shelf: ModelShelf) -> None:
        self.application = Application(shelf)

    def ask(self, method: str, path: str, body: object = b"", **headers: str) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": data, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        named = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
        scope = {"type": "http", "method": method, "path": path, "headers": named}
        asyncio.run(self.application(scope, receive, send))
        return sent[0]["status"], json.loads(sent[1]["body"])

    def load(self, name: str, folder: pathlib.Path) -> int:
        return self.ask("POST", "/models", {"model_name": name, "url": str(folder)})[0]


@pytest.fixture
def mounted(
    trained: Callable[[str], Trained], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, pathlib.Path]:
    """Two models where SageMaker unpacks them."""
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    found = {}
    for task in ("binary", "regression"):
        found[task] = tmp_path / "models" / task / "model"
        shutil.copytree(trained(task).model, found[task])
    return found


def test_should_serve_models_that_come_and_go(mounted: dict[str, pathlib.Path]) -> None:
    container = Container(ModelShelf())
    assert container.ask("GET", "/ping")[0] == 200
    assert container.ask("GET", "/models") == (200, {"models": []})
    assert container.load("a1", mounted["binary"]) == 200
    assert container.load("a1", mounted["binary"]) == 409
    assert container.load("b2", mounted["regression"]) == 200
    listed = container.ask("GET", "/models")[1]["models"]
    assert {model["modelName"]: model["modelUrl"] for model in listed} == {
        "a1": str(mounted["binary"]),
        "b2": str(mounted["regression"]),
    }
    assert container.ask("GET", "/models/b2")[1]["modelName"] == "b2"
    for name, task in (("a1", "binary"), ("b2", "regression")):
        status, answer = container.ask("POST", f"/models/{name}/invoke", {}, content_type=JSON)
        alone = Predictor(Model.load(mounted[task])).answer(b"{}", JSON, JSON)
        assert (status, answer) == (200, json.loads(alone.body))
    assert container.ask("DELETE", "/models/a1")[0] == 200
    assert container.ask("DELETE", "/models/a1")[0] == 404
    assert container.ask("POST", "/models/a1/invoke", {}, content_type=JSON)[0] == 404
    assert container.ask("POST", "/models/b2/invoke", {}, content_type=JSON)[0] == 200
    # The way of a container with one model is closed.
    assert container.ask("POST", "/invocations", {}, content_type=JSON)[0] == 404


def test_should_name_the_model_by_its_target(mounted: dict[str, pathlib.Path]) -> None:
    container = Container(ModelShelf(group="dev-trips", threshold=0.99))
    container.load("a1", mounted["binary"])
    for version in ("7", "8"):
        status, answer = container.ask(
            "POST",
            "/models/a1/invoke",
            {},
            content_type=JSON,
            x_amzn_sagemaker_target_model=f"{version}.tar.gz",
        )
        assert (status, answer["model"]) == (200, f"dev-trips/{version}")
        assert answer["predictions"][0]["label"] == "on time"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", "model_name, url"),
        ({"model_name": "x"}, "url"),
        ({"model_name": "x/y", "url": "/opt/ml/models/x/model"}, "without slashes"),
        ({"model_name": "x", "url": "/etc"}, "below"),
        ({"model_name": "x", "url": "{root}/models/../../etc"}, "below"),
        ({"model_name": "x", "url": "{root}/models"}, "below"),
        ({"model_name": "x", "url": "{root}/models/none/model"}, "lacks"),
    ],
)
def test_should_load_nothing_from_elsewhere(
    mounted: dict[str, pathlib.Path], tmp_path: pathlib.Path, body: Any, text: str
) -> None:
    if isinstance(body, dict) and "url" in body:
        body = {**body, "url": body["url"].replace("{root}", str(tmp_path))}
    container = Container(ModelShelf())
    status, answer = container.ask("POST", "/models", body)
    assert status == 400
    assert text in answer["error"]
    assert container.ask("GET", "/models") == (200, {"models": []})


def test_should_not_follow_a_link_out_of_its_models(
    mounted: dict[str, pathlib.Path], tmp_path: pathlib.Path, trained: Callable[[str], Trained]
) -> None:
    link = tmp_path / "models" / "link"
    link.symlink_to(trained("binary").model)
    assert Container(ModelShelf()).load("x", link) == 400


def test_should_say_that_memory_is_short(
    mounted: dict[str, pathlib.Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multi_model, "_free_memory", lambda: 1_000)
    container = Container(ModelShelf())
    status, answer = container.ask("POST", "/models", {"model_name": "x", "url": str(mounted["binary"])})
    assert status == 507
    assert "1000 are free" in answer["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/models", 405),
        ("POST", "/models/a1", 405),
        ("GET", "/models/", 404),
        ("GET", "/models/a/b", 404),
        ("POST", "/models//invoke", 404),
        ("POST", "/models/../invoke", 404),
        ("GET", "/models/a1/invoke", 404),
    ],
)
def test_should_refuse_what_is_no_request_of_the_contract(
    mounted: dict[str, pathlib.Path], method: str, path: str, status: int
) -> None:
    container = Container(ModelShelf())
    container.load("a1", mounted["binary"])
    assert container.ask(method, path)[0] == status


# --- a model from S3, and Lambda ------------------------------------------------------------------


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Iterator[Any]:
    for name, value in (("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="models")
        yield client


def packed(folder: pathlib.Path) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name)
    return data.getvalue()


def test_should_fetch_its_model_where_none_is_mounted(
    s3: Any, trained: Callable[[str], Trained], tmp_path: pathlib.Path
) -> None:
    s3.put_object(Bucket="models", Key="served/7.tar.gz", Body=packed(trained("binary").model))
    folder = model_folder("s3://models/served/7.tar.gz")
    assert tmp_path in folder.parents
    assert Model.load(folder).contract.name == "trips"
    assert not list(folder.parent.glob("*.tar.gz"))


def test_should_take_its_model_from_a_file_of_the_device(
    trained: Callable[[str], Trained], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    archived = tmp_path / "3.tar.gz"
    archived.write_bytes(packed(trained("binary").model))
    settings = Settings.of({"MODEL_DATA_URL": f"file://{archived}"})
    folder = model_folder(settings.model_data_url)
    assert Model.load(folder).contract.name == "trips"
    # Greengrass keeps what it brought.
    assert archived.exists()


def test_should_refuse_a_model_that_is_none(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.put_object(Bucket="models", Key="noise.tar.gz", Body=b"noise")
    with pytest.raises(BadInputError, match=r"no readable tar\.gz"):
        model_folder("s3://models/noise.tar.gz")
    with pytest.raises(BadInputError, match=r"s3://models/none\.tar\.gz cannot be read"):
        model_folder("s3://models/none.tar.gz")
    monkeypatch.setattr("ml_serving.fetch.SIZE_LIMIT", 4)
    assert archive.SIZE_LIMIT > 4
    with pytest.raises(BadInputError, match="has 5 bytes, allowed are 4"):
        model_folder("s3://models/noise.tar.gz")


def event(body: bytes, *, method: str = "POST", path: str = "/invocations", encoded: bool = False) -> Any:
    """Return an event of a function URL (payload format 2.0)."""
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"content-type": JSON},
        "requestContext": {
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1"},
            "stage": "$default",
        },
        "body": base64.b64encode(body).decode() if encoded else body.decode(),
        "isBase64Encoded": encoded,
    }


def test_should_answer_lambda_as_it_answers_http(
    s3: Any, trained: Callable[[str], Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ml_serving import lambda_handler

    s3.put_object(Bucket="models", Key="served/7.tar.gz", Body=packed(trained("binary").model))
    monkeypatch.setenv("MODEL_DATA_URL", "s3://models/served/7.tar.gz")
    monkeypatch.setenv("MODEL_PACKAGE", "arn:aws:sagemaker:us-east-1:1:model-package/dev-trips/7")
    lambda_handler.adapter.cache_clear()
    expected = Predictor(Model.load(trained("binary").model), served_as="dev-trips/7")
    body = json.dumps([{"weather": "dry"}, {}]).encode()
    for encoded in (False, True):
        answer = lambda_handler.handler(event(body, encoded=encoded), None)
        assert answer["statusCode"] == 200
        assert answer["body"].encode() == expected.answer(body, JSON, JSON).body
    assert lambda_handler.handler(event(b"", method="GET", path="/ping"), None)["statusCode"] == 200
    assert lambda_handler.handler(event(b"{nope"), None)["statusCode"] == 400
    lambda_handler.adapter.cache_clear()


# --- settings -------------------------------------------------------------------------------------


def test_should_say_all_that_is_wrong_with_its_settings() -> None:
    wrong = {
        "SAGEMAKER_BIND_TO_PORT": "http",
        "SAGEMAKER_MODEL_SERVER_WORKERS": "0",
        "SAGEMAKER_MULTI_MODEL": "maybe",
        "MODEL_DATA_URL": "https://models/7.tar.gz",
        "DECISION_THRESHOLD": "1",
    }
    with pytest.raises(BadInputError) as refused:
        Settings.of(wrong)
    for name in wrong:
        assert name in str(refused.value)


def test_should_raise_where_lambda_must_count_an_error(
    trained: Callable[[str], Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ml_serving import lambda_handler

    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(trained("binary").folder / "train"))
    lambda_handler.adapter.cache_clear()
    predictor = lambda_handler.adapter().app.predictor
    monkeypatch.setattr(
        predictor, "answer", lambda *_: Answer(500, (b"content-type", b"text/csv"), b"defect")
    )
    with pytest.raises(lambda_handler.ServerError, match="500: defect"):
        lambda_handler.handler(event(b"{}"), None)
    lambda_handler.adapter.cache_clear()


def test_should_read_the_group_from_an_arn() -> None:
    group = "arn:aws:sagemaker:us-east-1:1:model-package/dev-trips"
    assert Settings.of({"MODEL_PACKAGE_GROUP": group}).group == "dev-trips"
    assert Settings.of({"MODEL_PACKAGE_GROUP": "dev-trips"}).group == "dev-trips"
    assert Settings.of({}).group is None


@pytest.mark.parametrize("text", ["", "nan", "inf", "0", "-1", "half"])
def test_should_take_no_threshold_that_is_none(text: str) -> None:
    with pytest.raises(BadInputError, match="DECISION_THRESHOLD"):
        Settings.of({"DECISION_THRESHOLD": text})


def test_should_label_by_the_threshold_that_it_is_given(trained: Callable[[str], Trained]) -> None:
    workload = trained("binary")
    body = json.dumps([{k: v for k, v in r.items() if k != "outcome"} for r in workload.records]).encode()

    def labels(threshold: float | None) -> list[tuple[float, str]]:
        answer: Answer = Predictor(Model.load(workload.model), threshold=threshold).answer(body, JSON, JSON)
        return [(p["score"], p["label"]) for p in json.loads(answer.body)["predictions"]]

    low, own, high = labels(0.1), labels(Settings.of({}).threshold), labels(0.9)
    for threshold, found in ((0.1, low), (0.45, own), (0.9, high)):
        assert all((label == "late") == (score >= threshold) for score, label in found)
    assert low != own != high
    assert Settings.of({"DECISION_THRESHOLD": "0.9"}).threshold == 0.9
    assert Settings.of({"DECISION_THRESHOLD": "none"}).threshold is None
