"""The rehearsal's own control plane: functions served below ``/_rehearsal/``.

AWS has no call for "let an hour pass" or "which permission did nobody use". Whatever steers or inspects the
rehearsal itself is registered here, apart from AWS's APIs, so that no program under rehearsal can mistake
one for the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["ControlError", "Handler", "control", "handlers"]

Handler: TypeAlias = "Callable[[Runtime, dict[str, Any]], dict[str, Any]]"


class ControlError(Exception):
    """A control request that cannot be served; its text is the answer (HTTP 400)."""


_HANDLERS: dict[tuple[str, str], Handler] = {}


def control(method: str, path: str) -> Callable[[Handler], Handler]:
    """Serve the decorated ``function(runtime, body)`` at ``METHOD /_rehearsal{path}``.

    ``body`` is the JSON object of the request, or its query parameters for GET. The function runs on a
    thread of its own, so it may call the embedded AWS. What it returns is rendered as JSON.
    """
    key = (method.upper(), "/" + path.strip("/"))

    def register(function: Handler) -> Handler:
        if key in _HANDLERS:
            raise ValueError(f"control {key[0]} {key[1]} is registered twice; pick another path")
        _HANDLERS[key] = function
        return function

    return register


def handlers() -> dict[tuple[str, str], Handler]:
    """Return every registered control handler by ``(method, path)``."""
    return dict(_HANDLERS)
