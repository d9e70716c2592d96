"""SageMaker's inference fleets: endpoints of every style, their rollouts and scaling, batch transform.

``programs`` runs one container, ``fleet`` the variants of a configuration, ``endpoints`` the API of
endpoints, ``deployments`` (by the pure ``rollout``) the way from one configuration to the next,
``invocations`` the requests, ``capture`` and ``traffic`` what is kept of them, ``measures`` their metrics.
``shadow`` and the rest are one style each; ``scaling`` is Application Auto Scaling, by the pure
``scaling_rules`` and on the ``scaling_clock``.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from rehearsal.executors.serving import (
    asynchronous,
    capacity,
    capture,
    components,
    deployments,
    endpoints,
    fleet,
    hosts,
    invocations,
    measures,
    models,
    multi_model,
    programs,
    records,
    rollout,
    scaling,
    scaling_clock,
    scaling_rules,
    serverless,
    shadow,
    traffic,
    transform,
)

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = [
    "asynchronous",
    "capacity",
    "capture",
    "components",
    "deployments",
    "endpoints",
    "fleet",
    "hosts",
    "install",
    "invocations",
    "measures",
    "models",
    "multi_model",
    "programs",
    "records",
    "rollout",
    "scaling",
    "scaling_clock",
    "scaling_rules",
    "serverless",
    "shadow",
    "traffic",
    "transform",
]


def install(runtime: Runtime) -> None:
    """Put the fleets on the clock; writing captured data is not counted as work, since it never ends."""
    for style in (asynchronous, serverless, scaling_clock):
        style.install(runtime)
    threading.Thread(
        target=endpoints.flush_for_ever, args=(runtime,), name="data-capture", daemon=True
    ).start()
