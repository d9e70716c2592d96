"""The web side: a plain ASGI application.

No framework: a few routes need no router, and one costs more than the model (docs/containers.md has the
figures).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from function_log.spans import SERVER, context_in, ended
from ml_runtime.content import BODY_LIMIT

from ml_serving.multi_model import TARGET_HEADER, ModelShelf
from ml_serving.predictor import JSON_HEADER, Answer, Predictor, failure

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

log = logging.getLogger("ml_serving")

#: A larger body is scored beside the loop, so that /ping is answered meanwhile.
_LARGE = 64 * 1024

#: What a caller says besides its record; SageMaker hands both headers on as they came (InvokeEndpoint).
ATTRIBUTES_HEADER = b"x-amzn-sagemaker-custom-attributes"
INFERENCE_HEADER = b"x-amzn-sagemaker-inference-id"
#: Begins a ``traceparent`` of W3C Trace Context, version 00.
TRACE_MARK = b"traceparent=00-"

_CLOSE = (b"connection", b"close")
_LOADING = failure(503, "the model is being loaded")
_DRAINING = failure(503, "the server is stopping")
_TOO_LARGE = failure(413, f"the body is larger than {BODY_LIMIT} bytes")
_UNKNOWN_PATH = failure(404, "the paths are /ping, /invocations and /execution-parameters")
_HEALTHY = Answer(200, JSON_HEADER, b"{}")
_METHODS = {"/ping": "GET", "/invocations": "POST", "/execution-parameters": "GET"}


class Application:
    """Answers requests with a predictor, once there is one, or with the models of a shelf."""

    def __init__(self, shelf: ModelShelf | None = None) -> None:
        self.predictor: Predictor | None = None
        self.shelf = shelf
        self.draining = False
        self.running = 0
        self.last_request = time.monotonic()
        # One thread: large bodies wait for each other, small ones for none of them.
        self._large = ThreadPoolExecutor(1, thread_name_prefix="large")
        # What batch transform asks before it sends: one request at a time per worker, as large as one may be.
        self.parameters = Answer(
            200,
            JSON_HEADER,
            b'{"MaxConcurrentTransforms":1,"BatchStrategy":"MULTI_RECORD","MaxPayloadInMB":%d}'
            % (BODY_LIMIT >> 20),
        )

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"expected an http request, got {scope['type']}")
        self.running += 1
        try:
            path = scope["path"]
            if path == "/invocations" and scope["method"] == "POST":
                answer = await self._invoke(self.predictor, scope, receive)
            elif self.shelf is not None and path.startswith("/models"):
                answer = await self._shelf(self.shelf, scope, receive)
            else:
                answer = self._other(path, scope["method"])
            if answer is None:
                return  # the caller is gone
            headers = [answer.content_type, (b"content-length", b"%d" % len(answer.body))]
            if self.draining or answer is _TOO_LARGE:
                headers.append(_CLOSE)
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            await send({"type": "http.response.body", "body": answer.body})
        finally:
            self.running -= 1
            self.last_request = time.monotonic()

    def _other(self, path: str, method: str) -> Answer:
        allowed = _METHODS.get(path)
        if allowed is None:
            return _UNKNOWN_PATH
        if method != allowed:
            return failure(405, f"{path} takes {allowed}, got {method}")
        if path == "/execution-parameters":
            return self.parameters
        if self.draining:
            return _DRAINING
        return _LOADING if self.predictor is None and self.shelf is None else _HEALTHY

    async def _shelf(self, shelf: ModelShelf, scope: Message, receive: Receive) -> Answer | None:
        path, method = scope["path"], scope["method"]
        if method == "POST" and shelf.is_invocation(path):
            target = next((v.decode("latin-1") for k, v in scope["headers"] if k == TARGET_HEADER), None)
            predictor = shelf.predictor(path, target)
            if predictor is None:
                return failure(404, f"no model is loaded that {path} could ask")
            return await self._invoke(predictor, scope, receive)
        body = await self._body(receive)
        return body if body is None or isinstance(body, Answer) else await shelf.answer(method, path, body)

    async def _invoke(  # noqa: PLR0911 - one return per refusal, and no call more on the way of an answer
        self, predictor: Predictor | None, scope: Message, receive: Receive
    ) -> Answer | None:
        if predictor is None:
            return _LOADING if self.shelf is None else _UNKNOWN_PATH
        content_type, accept, attributes = "", "application/json", b""
        for name, value in scope["headers"]:
            if name == b"content-type":
                content_type = value.decode("latin-1")
            elif name == b"accept":
                accept = value.decode("latin-1")
            elif name == b"content-length" and int(value) > BODY_LIMIT:
                return _TOO_LARGE
            elif name == ATTRIBUTES_HEADER:
                attributes = value
        body = await self._body(receive)
        if body is None or isinstance(body, Answer):
            return body
        try:
            if TRACE_MARK in attributes:
                return await self._traced(predictor, scope, body, content_type, accept)
            if len(body) <= _LARGE:
                return predictor.answer(body, content_type, accept)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._large, predictor.answer_many, body, content_type, accept)
        except Exception:
            # A defect, not a bad request: the traceback names code, never the values of a record.
            log.exception("request failed")
            return failure(500, "internal error; the log of the endpoint has the reason")

    async def _traced(
        self, predictor: Predictor, scope: Message, body: bytes, content_type: str, accept: str
    ) -> Answer:
        """Answer a request whose caller has begun a trace; its span is a line of the log."""
        headers = dict(scope["headers"])
        context = context_in(headers[ATTRIBUTES_HEADER].decode("latin-1"))
        started, status = time.perf_counter(), 500
        try:
            if len(body) <= _LARGE:
                answer = predictor.answer(body, content_type, accept)
            else:
                loop = asyncio.get_running_loop()
                many = predictor.answer_many
                answer = await loop.run_in_executor(self._large, many, body, content_type, accept)
            status = answer.status
            return answer
        finally:
            if context is not None:
                inference = headers.get(INFERENCE_HEADER, b"").decode("latin-1") or None
                ended(
                    "POST /invocations",
                    context,
                    service="ml-serving",
                    seconds=time.perf_counter() - started,
                    kind=SERVER,
                    failed=status >= 500,
                    attributes={"http.response.status_code": status, "http.request.body.size": len(body)},
                    correlation_id=inference,
                )

    @staticmethod
    async def _body(receive: Receive) -> bytes | Answer | None:
        """Return the body, the refusal of one that is too large, or None when the caller is gone."""
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body: bytes = message["body"]
        if not message["more_body"]:
            return body
        parts, size = [body], len(body)
        while message["more_body"]:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message["body"])
            size += len(message["body"])
            if size > BODY_LIMIT:
                return _TOO_LARGE
        return b"".join(parts)
