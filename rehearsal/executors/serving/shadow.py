"""Shadow variants: they get copies of requests, answer nobody, are measured and captured like any other."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from rehearsal.executors.serving.fleet import Endpoint, Fleet, Place
from rehearsal.executors.serving.invocations import HEARD, Sent, copied, exchange
from rehearsal.services.engine import ApiError

__all__ = ["copy"]

_COPIES = ThreadPoolExecutor(max_workers=8, thread_name_prefix="shadow")


def copy(place: Place, params: Mapping[str, Any], sent: Sent) -> None:
    """Send a copy of a request, as the weights ask for, and drop the answer."""
    if not copied(place.fleet):
        return
    # On the way from here, so that the shadow is not ended before the copy has reached it.
    place.fleet.shadows[0].expect(1)
    _COPIES.submit(_copy, place.endpoint, place.fleet, params, sent)


def _copy(endpoint: Endpoint, fleet: Fleet, params: Mapping[str, Any], sent: Sent) -> None:
    shadow = fleet.shadows[0]
    try:
        instance = shadow.take()
        try:
            place = Place(endpoint=endpoint, fleet=fleet, variant=shadow, instance=instance)
            exchange(place, replace(sent, began=time.perf_counter()), params)
        finally:
            shadow.give_back(instance)
    except ApiError as error:
        endpoint.service.runtime.ledger.failed("shadow", endpoint.record.name, str(error))
    finally:
        shadow.expect(-1)


HEARD.append(copy)
