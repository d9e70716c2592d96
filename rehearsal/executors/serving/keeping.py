"""Who looks after a container of an endpoint: one that ends by itself is started again, as SageMaker does.

Until the new one is healthy, requests go to the other instances; where there is none they fail, and count.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from rehearsal.deaths import DEATHS
from rehearsal.executors import containers
from rehearsal.executors.containers import said_status
from rehearsal.executors.serving.programs import FleetError, Instance
from rehearsal.executors.transfer import TransferError
from rehearsal.services.engine import ApiError

if TYPE_CHECKING:
    from rehearsal.services.engine import Service

__all__ = ["keep", "restarted"]

_LOOK_SECONDS: Final = 0.02
#: A container that does not come up is tried so often; then its instance stays without one.
_ATTEMPTS: Final = 5


def keep(
    service: Service, endpoint: str, instance: Instance, *, mine: Callable[[], bool], lost: Callable[[], None]
) -> None:
    """Watch a container that serves until it has ended; ``lost`` is called if nobody has ended it.

    Args:
        endpoint: its name.
        mine: whether it is still one of the endpoint's; who ends one takes it out before.
        lost: what is done about it, in the background.
    """
    runtime, began = service.runtime, time.monotonic()

    def watch() -> None:
        while instance.process.poll() is None:
            if runtime.stopping.wait(_LOOK_SECONDS):
                return
            folder = instance.folder
            DEATHS.look(
                runtime,
                "endpoint",
                endpoint,
                instance.process,
                since=began,
                log=folder.log,
                folder=folder.base,
            )
        if not runtime.stopping.is_set() and mine():
            status = said_status(instance.process.returncode)
            runtime.ledger.ran("container-restart", endpoint, exit_code=status, stream=instance.stream)
            containers.start_work(runtime, f"a container of endpoint {endpoint} is started again", lost)

    threading.Thread(target=watch, name=f"keeper of {endpoint}", daemon=True).start()


def restarted(service: Service, endpoint: str, start: Callable[[], Instance]) -> Instance | None:
    """Start a container in the place of one that has ended; None when none comes up."""
    problem = ""
    for _ in range(_ATTEMPTS):
        if service.runtime.stopping.is_set():
            return None
        try:
            return start()
        except (FleetError, TransferError, ApiError) as error:
            problem = str(error)
    service.runtime.ledger.failed("container-restart", endpoint, problem)
    return None
