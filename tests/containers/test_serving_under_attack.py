"""The serving container under attack: whatever comes is answered, and so is what comes after it."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import math
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from container_support import ROOT, Trained, image_environment, make_records
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from ml_runtime.content import BODY_LIMIT
from ml_runtime.model import Model
from ml_serving import predictor as predicting
from ml_serving import protocol
from ml_serving.app import Application
from ml_serving.predictor import Predictor

pytestmark = pytest.mark.slow

JSON = "application/json"
TYPES = [JSON, "text/csv", "application/jsonlines", "application/x-npy", "", "text/csv; charset=utf-8"]
#: The container's promise is worth a thousand tries.
THOUSAND = settings(max_examples=1_000, suppress_health_check=[HealthCheck.function_scoped_fixture])


LOOP = asyncio.new_event_loop()


class Reply(NamedTuple):
    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


def ask(
    application: Application, method: str, path: str, chunks: list[bytes], **headers: str
) -> Reply | None:
    """Send one request to the application, without sockets; None when it said nothing."""
    sent: list[dict[str, Any]] = []
    waiting = [
        {"type": "http.request", "body": chunk, "more_body": position < len(chunks) - 1}
        for position, chunk in enumerate(chunks)
    ]

    async def receive() -> dict[str, Any]:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    named = [(k.replace("_", "-").encode(), v.encode("latin-1")) for k, v in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": named}
    LOOP.run_until_complete(application(scope, receive, send))
    if not sent:
        return None
    start, body = sent
    assert start["type"] == "http.response.start"
    reply = Reply(start["status"], dict(start["headers"]), body["body"])
    assert int(reply.headers[b"content-length"]) == len(reply.body)
    return reply


@pytest.fixture(scope="module")
def applications(trained: Callable[[str], Trained]) -> dict[str, Application]:
    found = {}
    for task in ("binary", "multiclass", "regression"):
        found[task] = Application()
        found[task].predictor = Predictor(Model.load(trained(task).model))
    return found


@pytest.fixture(scope="module")
def empty_scores(applications: dict[str, Application]) -> dict[str, list[float]]:
    found = {}
    for task, application in applications.items():
        reply = ask(application, "POST", "/invocations", [b"{}"], content_type=JSON)
        assert reply is not None
        found[task] = scored(reply)
    return found


def scored(reply: Reply) -> list[float]:
    """Return the scores of an answer, which must be numbers."""
    scores = [prediction["score"] for prediction in reply.document["predictions"]]
    assert all(math.isfinite(score) for score in scores)
    return scores


# --- any body, any type, any path ------------------------------------------------------------------

CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["dry", "?", "2026-02-30T00:00:00Z", "1e999", "-0", "\x00"]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
NAMES = st.sampled_from(
    [
        *("trip_id", "started_at", "distance-km", "distance", "passengers", "weather", "driver", "electric"),
        *("booked_on", "outcome", "instances", "colour", "__proto__", ""),
    ]
)
RECORDS = st.dictionaries(NAMES, CELLS, max_size=8)
DOCUMENTS = st.one_of(
    RECORDS, st.lists(RECORDS, max_size=4), st.builds(lambda r: {"instances": r}, st.lists(RECORDS))
)
BODIES = st.one_of(
    st.binary(max_size=300),
    # Python's encoder writes NaN and Infinity, which are no JSON.
    DOCUMENTS.map(lambda document: json.dumps(document).encode("utf-8", "surrogatepass")),
    DOCUMENTS.map(lambda document: json.dumps(document).encode()[:-1]),
    st.text(alphabet='{}[]",:0123456789.eE-ntf\n', max_size=80).map(str.encode),
)


@THOUSAND
@given(
    task=st.sampled_from(["binary", "multiclass", "regression"]),
    body=BODIES,
    content_type=st.one_of(st.sampled_from(TYPES), st.text(alphabet=st.characters(max_codepoint=255))),
    accept=st.one_of(st.sampled_from([*TYPES, "*/*"]), st.text(alphabet=st.characters(max_codepoint=255))),
    cut=st.integers(1, 5),
)
@example(task="binary", body=b'{"distance-km": NaN}', content_type=JSON, accept=JSON, cut=1)
@example(task="binary", body=b'{"distance-km": 1e400}', content_type=JSON, accept=JSON, cut=1)
@example(task="regression", body=b"\xef\xbb\xbf{}", content_type=JSON, accept=JSON, cut=1)
def test_should_answer_any_request_with_scores_or_with_a_reason(
    applications: dict[str, Application],
    empty_scores: dict[str, list[float]],
    task: str,
    body: bytes,
    content_type: str,
    accept: str,
    cut: int,
) -> None:
    size = max(1, -(-len(body) // cut))
    chunks = [body[start : start + size] for start in range(0, len(body), size)] or [b""]
    application = applications[task]
    reply = ask(application, "POST", "/invocations", chunks, content_type=content_type, accept=accept)
    assert reply is not None
    assert reply.status in (200, 400, 406, 415)
    if reply.status == 200:
        if reply.headers[b"content-type"] == b"application/json":
            assert scored(reply)
    else:
        assert reply.document["error"]
    assert application.running == 0
    # What was asked before leaves no trace.
    after = ask(application, "POST", "/invocations", [b"{}"], content_type=JSON)
    assert after is not None
    assert scored(after) == empty_scores[task]


@THOUSAND
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE"]),
    path=st.one_of(
        st.sampled_from(["/ping", "/invocations", "/execution-parameters", "/models", "/models/a/invoke"]),
        st.text(max_size=30).map(lambda text: f"/{text}"),
        st.lists(st.sampled_from(["..", "ping", "models", "opt", "ml", "", "."]), max_size=6).map("/".join),
    ),
    body=st.binary(max_size=50),
)
def test_should_know_its_paths_and_no_others(
    applications: dict[str, Application], method: str, path: str, body: bytes
) -> None:
    reply = ask(applications["binary"], method, path, [body], content_type=JSON)
    assert reply is not None
    paths = {"/ping": "GET", "/execution-parameters": "GET", "/invocations": "POST"}
    if path not in paths:
        assert reply.status == 404
    elif method != paths[path]:
        assert reply.status == 405
    else:
        assert reply.status in (200, 400)
    assert b"/opt" not in reply.body


@THOUSAND
@given(data=st.data())
def test_should_score_what_fits_the_contract_and_name_what_does_not(
    applications: dict[str, Application], data: st.DataObject
) -> None:
    """A sound record with some fields changed: 200 exactly when no field is wrong."""
    task = data.draw(st.sampled_from(["binary", "multiclass", "regression"]))
    record = dict(data.draw(st.sampled_from(SOUND[task])))
    wrong = data.draw(
        st.dictionaries(
            st.sampled_from(sorted(WRONG)),
            st.integers(0, 10),
            max_size=3,
        )
    )
    for name, which in wrong.items():
        record[name] = WRONG[name][which % len(WRONG[name])]
    reply = ask(
        applications[task], "POST", "/invocations", [json.dumps([record]).encode()], content_type=JSON
    )
    assert reply is not None
    if wrong:
        assert reply.status == 400
        found = {reason["field"] for reason in reply.document["records"][0]["reasons"]}
        assert found == {"distance" if name == "distance-km" else name for name in wrong}
    else:
        assert reply.status == 200
        assert len(scored(reply)) == 1


SOUND = {
    task: [{k: v for k, v in r.items() if k != "outcome"} for r in make_records(task, 50, seed=3)]
    for task in ("binary", "multiclass", "regression")
}
#: Values that the contract of the trips refuses, by field.
WRONG: dict[str, list[Any]] = {
    "distance-km": [-1, "far", True, [1]],
    "passengers": [-1, 10, 1.5, "two", {}],
    "weather": ["hail", 1, ["dry"]],
    "electric": ["perhaps", 2, []],
    "booked_on": ["2026-01-01", "31.02.2026", 7],
    "started_at": ["yesterday", "2026-13-01T00:00:00Z"],
    "colour": ["red", None],
}


def test_should_say_that_nobody_listens_any_more(applications: dict[str, Application]) -> None:
    """A caller that hangs up in the middle of its body gets no answer and leaves nothing behind."""
    application = applications["binary"]
    sent: list[Any] = []
    messages = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/invocations", "headers": []}
    LOOP.run_until_complete(application(scope, receive, send))
    assert sent == []
    assert application.running == 0


# --- too much --------------------------------------------------------------------------------------


def test_should_refuse_a_million_empty_records_at_once(applications: dict[str, Application]) -> None:
    body = b"[" + b",".join([b"{}"] * (BODY_LIMIT // 3 - 1)) + b"]"
    assert len(body) <= BODY_LIMIT
    started = time.monotonic()
    reply = ask(applications["binary"], "POST", "/invocations", [body], content_type=JSON)
    assert reply is not None
    assert reply.status == 413
    assert "allowed are 100000; send several bodies" in reply.document["error"]
    # Minutes when it is scored; SageMaker waits for one.
    assert time.monotonic() - started < 20


def test_should_score_in_parts_as_it_scores_at_once(
    applications: dict[str, Application], monkeypatch: pytest.MonkeyPatch
) -> None:
    body = json.dumps(SOUND["binary"]).encode()
    at_once = ask(applications["binary"], "POST", "/invocations", [body], content_type=JSON)
    monkeypatch.setattr(predicting, "RECORDS_AT_ONCE", 7)
    in_parts = ask(applications["binary"], "POST", "/invocations", [body], content_type=JSON)
    assert at_once == in_parts
    bad = json.dumps([*SOUND["binary"], {"weather": "hail"}]).encode()
    reply = ask(applications["binary"], "POST", "/invocations", [bad], content_type=JSON)
    assert reply is not None
    assert [record["index"] for record in reply.document["records"]] == [len(SOUND["binary"])]


# --- over sockets ----------------------------------------------------------------------------------


class Server:
    """The image's program, as SageMaker starts it."""

    def __init__(self, base: pathlib.Path, *, home: pathlib.Path | None = None, **extra: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        settings_ = {
            "SERVING_HOST": "127.0.0.1",
            "SAGEMAKER_BIND_TO_PORT": str(self.port),
            "SAGEMAKER_MODEL_SERVER_WORKERS": "1",
            **extra,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ml_serving", "serve"],
            env=image_environment("serving", base, **settings_),
            cwd=home or base,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 30
        while self.raw(b"GET /ping HTTP/1.1\r\n\r\n", missing=b"")[:12] != b"HTTP/1.1 200":
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=15)

    def raw(self, request: bytes, *, missing: bytes | None = None) -> bytes:
        """Send bytes; return the answer to them."""
        try:
            with self.connect() as connection, connection.makefile("rb") as answer:
                connection.sendall(request)
                head = b"".join(iter(answer.readline, b"\r\n"))
                length = re.search(rb"content-length: (\d+)", head)
                return head + b"\r\n" + answer.read(int(length[1]) if length else -1)
        except ConnectionError:
            if missing is None:
                raise
            return missing

    def score(self) -> bytes:
        return self.raw(
            b"POST /invocations HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
        )

    def stop(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        _, stderr = self.process.communicate(timeout=30)
        return self.process.returncode, stderr


@pytest.fixture
def serving(trained: Callable[[str], Trained]) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(base: pathlib.Path | None = None, **extra: Any) -> Server:
        started.append(Server(base or trained("binary").folder / "train", **extra))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
        server.process.communicate()


PATIENCE = """
import sys
from ml_serving import protocol, __main__
protocol.RECEIVE_SECONDS = 1.0
sys.exit(__main__.main(["serve"]))
"""


@pytest.mark.parametrize(
    "beginning",
    [
        b"POST /invocations HTTP/1.1\r\ncontent-ty",
        b"POST /invocations HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 20\r\n\r\n{",
    ],
    ids=["headers", "body"],
)
def test_should_hang_up_on_who_sends_too_slowly(
    serving: Callable[..., Server], beginning: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, **more: popen([command[0], "-c", PATIENCE], **more)
    )
    server = serving()
    with server.connect() as slow:
        slow.sendall(beginning)
        started = time.monotonic()
        answer = b""
        with contextlib.suppress(ConnectionError):
            # A byte now and then keeps a connection busy, and must not keep it alive.
            while not answer and time.monotonic() - started < 10:
                slow.settimeout(0.3)
                with contextlib.suppress(TimeoutError):
                    answer = slow.recv(1_000)
                if not answer:
                    slow.sendall(b"a")
        assert answer.startswith(b"HTTP/1.1 408")
        assert server.score().startswith(b"HTTP/1.1 200")
    assert server.stop()[0] == 0


def test_should_hang_up_on_headers_that_never_end(serving: Callable[..., Server]) -> None:
    server = serving()
    with server.connect() as endless:
        endless.sendall(b"POST /invocations HTTP/1.1\r\n")
        answer = b""
        for number in range(200):
            try:
                endless.sendall(b"x-%d: %s\r\n" % (number, b"y" * 1_000))
            except ConnectionError:
                break
        with contextlib.suppress(ConnectionError):
            answer = endless.recv(1_000)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 431")
    assert protocol.HEADER_BYTES < 200 * 1_000
    assert server.score().startswith(b"HTTP/1.1 200")


def test_should_answer_requests_that_come_in_one_piece_each_in_its_turn(
    serving: Callable[..., Server],
) -> None:
    server = serving()
    one = b"POST /invocations HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
    bodies = [json.dumps(record).encode() for record in SOUND["binary"][:20]]
    with server.connect() as connection:
        connection.sendall(b"".join(one % (len(body), body) for body in bodies))
        received = b""
        while received.count(b"HTTP/1.1 200") < len(bodies) or not received.endswith(b"}"):
            part = connection.recv(65_536)
            assert part, received
            received += part
    alone = [server.raw(one % (len(body), body)).rpartition(b"\r\n\r\n")[2] for body in bodies]
    assert [answer.rpartition(b"\r\n\r\n")[2] for answer in received.split(b"HTTP/1.1 200")[1:]] == alone


@pytest.mark.parametrize(
    "noise",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\x00" * 500,
    ],
    ids=["tls", "version", "negative length", "two lengths", "zeros"],
)
def test_should_survive_what_is_no_http(serving: Callable[..., Server], noise: bytes) -> None:
    server = serving()
    answer = server.raw(noise, missing=b"")
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert server.score().startswith(b"HTTP/1.1 200")


def test_should_answer_ping_while_a_large_body_is_scored(serving: Callable[..., Server]) -> None:
    server = serving()
    body = json.dumps(SOUND["binary"] * 400).encode()
    assert len(body) < BODY_LIMIT
    head = b"POST /invocations HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    answers: list[bytes] = []
    caller = threading.Thread(target=lambda: answers.append(server.raw(head % len(body) + body)))
    caller.start()
    slowest = 0.0
    pings = 0
    while caller.is_alive():
        started = time.monotonic()
        assert server.raw(b"GET /ping HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200")
        slowest = max(slowest, time.monotonic() - started)
        pings += 1
    caller.join()
    assert answers[0].startswith(b"HTTP/1.1 200")
    # SageMaker waits two seconds for /ping (developer guide, "How your container should respond to health
    # check requests").
    assert slowest < 2
    assert pings > 1


# --- what it may touch -----------------------------------------------------------------------------

GUARD = """
import os, sys
TEMP = os.path.realpath(os.environ["TMPDIR"])
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
def guard(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if isinstance(path, int) or path in (None, os.devnull):
            return
        written = (flags or 0) & WRITES
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.chmod", "shutil.move"):
        path, written = arguments[0], True
    elif event in ("pickle.find_class", "marshal.loads") and event == "pickle.find_class":
        os.write(2, b"GUARD pickle\\n"); os._exit(97)
    else:
        return
    if written and not os.path.realpath(os.fsdecode(path)).startswith(TEMP + os.sep):
        os.write(2, f"GUARD {event} {path}\\n".encode()); os._exit(98)
sys.addaudithook(guard)
"""


def test_should_write_nowhere_and_unpickle_nothing(
    serving: Callable[..., Server], trained: Callable[[str], Trained], tmp_path: pathlib.Path
) -> None:
    """The root file system may be read-only: an audit hook ends the process at the first write."""
    guard, temp = tmp_path / "guard", tmp_path / "temp"
    guard.mkdir()
    temp.mkdir()
    (guard / "sitecustomize.py").write_text(GUARD)
    base = trained("binary").folder / "train"
    paths = image_environment("serving", base)["PYTHONPATH"]
    extra = {"PYTHONPATH": f"{guard}{os.pathsep}{paths}", "TMPDIR": str(temp), "PYTHONDONTWRITEBYTECODE": "1"}
    server = serving(base, home=pathlib.Path("/"), HOME="/nowhere", **extra)
    assert server.score().startswith(b"HTTP/1.1 200")
    assert server.raw(b"POST /invocations HTTP/1.1\r\ncontent-length: 1\r\n\r\nx").startswith(b"HTTP/1.1 415")
    code, stderr = server.stop()
    assert (code, "GUARD" in stderr) == (0, False), stderr
    # The guard itself works: a model that is not there to be loaded is not the reason for the silence.
    probe = subprocess.run(
        [sys.executable, "-c", "open('/tmp/never-written', 'w')"],
        env=image_environment("serving", base, **extra),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (probe.returncode, probe.stderr.startswith("GUARD open")) == (98, True)


def test_should_import_no_pickle_in_what_the_image_holds() -> None:
    loaders = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    folders = [ROOT / "containers/serving", ROOT / "containers/shared/ml_runtime", ROOT / "contract"]
    modules = [path for folder in folders for path in folder.rglob("*.py")]
    assert len(modules) > 20
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            assert not {name.partition(".")[0] for name in names} & loaders, path
