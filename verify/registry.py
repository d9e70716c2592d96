"""Every check there is, found in ``verify.checks``."""

from __future__ import annotations

import functools
import importlib
import pkgutil

from verify import checks
from verify.finding import Check

__all__ = ["every_check"]


@functools.cache
def every_check() -> tuple[Check, ...]:
    """The checks in the order of their modules' names; each module brings one ``CHECK``.

    Raises:
        RuntimeError: two modules give the same id.
    """
    found: dict[str, Check] = {}
    for module in sorted(pkgutil.iter_modules(checks.__path__), key=lambda item: item.name):
        check: Check = importlib.import_module(f"{checks.__name__}.{module.name}").CHECK
        if check.id in found:
            raise RuntimeError(f"two checks have the id {check.id!r}")
        found[check.id] = check
    return tuple(found.values())
