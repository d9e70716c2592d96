"""What the modules of this room share."""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from types import ModuleType

#: The version whose inside this room knows.
PINNED_VERSION = "1.5.33"
CFN = "ministack.services.cloudformation"


def account_scope(account: str, region: str) -> AbstractContextManager[None]:
    """Pin the account and region that ministack's stores are read and written under."""
    responses = importlib.import_module("ministack.core.responses")
    return responses.request_scope(account, region)  # type: ignore[no-any-return]


def substitute(module: ModuleType, name: str, value: object) -> None:
    """Put something else under a name of a module of ministack; the name must be there."""
    if name not in vars(module):
        raise RuntimeError(f"{module.__name__} has no {name}; the rehearsal knows ministack {PINNED_VERSION}")
    vars(module)[name] = value


def current_region() -> str:
    """Return the region of the call or stack operation that runs on this thread."""
    return str(importlib.import_module("ministack.core.responses").get_region())
