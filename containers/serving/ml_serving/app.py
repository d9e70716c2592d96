"""The web side: a plain ASGI application.

No framework: two routes need no router, and one costs more than the model (docs/containers.md has the
figures).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ml_runtime.content import BODY_LIMIT

from ml_serving.predictor import JSON_HEADER, Answer, Predictor, failure

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

log = logging.getLogger("ml_serving")

_CLOSE = (b"connection", b"close")
_LOADING = failure(503, "the model is being loaded")
_DRAINING = failure(503, "the server is stopping")
_TOO_LARGE = failure(413, f"the body is larger than {BODY_LIMIT} bytes")
_UNKNOWN_PATH = failure(404, "the paths are /ping, /invocations and /execution-parameters")
_HEALTHY = Answer(200, JSON_HEADER, b"{}")
_METHODS = {"/ping": "GET", "/invocations": "POST", "/execution-parameters": "GET"}


class Application:
    """Answers requests with a predictor, once there is one."""

    def __init__(self) -> None:
        self.predictor: Predictor | None = None
        self.draining = False
        self.running = 0
        self.last_request = time.monotonic()
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
                answer = await self._invoke(scope, receive)
                if answer is None:
                    return  # the caller is gone
            else:
                answer = self._other(path, scope["method"])
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
        return _LOADING if self.predictor is None else _HEALTHY

    async def _invoke(self, scope: Message, receive: Receive) -> Answer | None:  # noqa: PLR0911
        if self.predictor is None:
            return _LOADING
        content_type, accept = "", "application/json"
        for name, value in scope["headers"]:
            if name == b"content-type":
                content_type = value.decode("latin-1")
            elif name == b"accept":
                accept = value.decode("latin-1")
            elif name == b"content-length" and int(value) > BODY_LIMIT:
                return _TOO_LARGE
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body: bytes = message["body"]
        if message["more_body"]:
            parts, size = [body], len(body)
            while message["more_body"]:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                parts.append(message["body"])
                size += len(message["body"])
                if size > BODY_LIMIT:
                    return _TOO_LARGE
            body = b"".join(parts)
        try:
            return self.predictor.answer(body, content_type, accept)
        except Exception:
            # A defect, not a bad request: the traceback names code, never the values of a record.
            log.exception("request failed")
            return failure(500, "internal error; the log of the endpoint has the reason")
