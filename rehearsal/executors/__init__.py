"""Executors: what makes a recorded job real.

Each module of this package stands for one AWS scheduler or fleet (SageMaker training, Firehose delivery,
Glue, ...). A module registers its hooks when it is imported (``@instead``, ``@after``, ``@control``) and may
define ``install(runtime)``, which the server calls once before it answers its first request.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    from rehearsal.runtime import Runtime

__all__ = ["install_all", "modules"]


def modules() -> tuple[ModuleType, ...]:
    """Import every module of this package, in order of name; a broken one raises, none is skipped."""
    names = sorted(info.name for info in pkgutil.iter_modules(__path__) if not info.name.startswith("_"))
    return tuple(importlib.import_module(f"{__name__}.{name}") for name in names)


def install_all(runtime: Runtime) -> None:
    """Import every executor and call the ``install(runtime)`` of those that define one."""
    for module in modules():
        install = getattr(module, "install", None)
        if install is not None:
            install(runtime)
