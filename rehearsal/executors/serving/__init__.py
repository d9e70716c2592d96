"""SageMaker's inference fleets: endpoints of every style, their rollouts and scaling, batch transform.

``programs`` runs one container, ``fleet`` the variants of a configuration, ``endpoints`` the API of
endpoints, ``deployments`` (by the pure ``rollout``) the way from one configuration to the next,
``invocations`` the requests, ``capture`` and ``traffic`` what is kept of them, ``measures`` their metrics.
``shadow`` and the rest are one style each; ``scaling`` is Application Auto Scaling.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from rehearsal.executors.serving import (
    asynchronous,
    capture,
    deployments,
    endpoints,
    fleet,
    invocations,
    measures,
    models,
    multi_model,
    programs,
    rollout,
    scaling,
    serverless,
    shadow,
    traffic,
)

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = [
    "asynchronous",
    "capture",
    "deployments",
    "endpoints",
    "fleet",
    "install",
    "invocations",
    "measures",
    "models",
    "multi_model",
    "programs",
    "rollout",
    "scaling",
    "serverless",
    "shadow",
    "traffic",
]


def install(runtime: Runtime) -> None:
    """Put the fleets on the clock; writing captured data is not counted as work, since it never ends."""
    for style in (asynchronous, serverless, scaling):
        style.install(runtime)
    threading.Thread(
        target=endpoints.flush_for_ever, args=(runtime,), name="data-capture", daemon=True
    ).start()
