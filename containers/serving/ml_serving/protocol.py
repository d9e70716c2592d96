"""HTTP for callers that mean harm: a request that comes too slowly, headers that never end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["RECEIVE_SECONDS", "PatientProtocol", "hang_up_on_slow_callers"]

#: From the first byte of a request to its last. SageMaker sends a request at once, and gives a container 60 s
#: for its answer (developer guide, "How containers serve requests").
RECEIVE_SECONDS = 30.0
#: All headers of a request together. SageMaker's longest is the custom attributes' 1,024 characters.
HEADER_BYTES = 65_536

_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class PatientProtocol(HttpToolsProtocol):
    """Uvicorn's protocol, which knows since when it is receiving a request.

    A look at all connections once a second (``hang_up_on_slow_callers``) is cheaper than a timer a request.
    """

    receiving_since: float | None = None
    _header_bytes = 0

    def on_message_begin(self) -> None:
        """Note when the request began."""
        self.receiving_since = time.monotonic()
        self._header_bytes = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count the headers' bytes; hang up when they are too many."""
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > HEADER_BYTES:
            self.hang_up(_TOO_LONG)
            return
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request unless its caller was hung up on."""
        if self._header_bytes <= HEADER_BYTES:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is here as a whole."""
        self.receiving_since = None
        if self._header_bytes <= HEADER_BYTES:
            super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        """Keep the body of a request that is answered."""
        if self._header_bytes <= HEADER_BYTES:
            super().on_body(body)

    def hang_up(self, answer: bytes) -> None:
        """Answer, unless an answer has begun, and close the connection."""
        self.receiving_since = None
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(answer)
        self.transport.close()


def hang_up_on_slow_callers(connections: Iterable[object], now: float) -> int:
    """Hang up on who has been sending one request for too long; return how many that were."""
    slow = [
        connection
        for connection in connections
        if isinstance(connection, PatientProtocol)
        and connection.receiving_since is not None
        and now - connection.receiving_since > RECEIVE_SECONDS
    ]
    for connection in slow:
        connection.hang_up(_TOO_SLOW)
    return len(slow)
