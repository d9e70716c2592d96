"""What SageMaker does before it takes an instance away: SIGTERM, and 120 seconds later SIGKILL.

(CreateTrainingJob and StopTrainingJob, API reference.) A spot instance that is reclaimed and a job that is
stopped look alike to the program: it saves a checkpoint and goes.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from ml_runtime.job import JobError

#: How a shell names an end by SIGTERM; SageMaker does not count it as a failure of a job that it ended.
EXIT_CODE = 128 + signal.SIGTERM


class InterruptedTrainingError(JobError):
    """The training was asked to end; what it knows is in its checkpoint."""


class Interruption:
    """Notes SIGTERM; the training asks between its rounds, when what it holds is whole.

    Nothing is raised out of the signal's handler: it could come in the middle of a file.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.asked = True

    def check(self, doing: str) -> None:
        """Raise InterruptedTrainingError when the end was asked for; ``doing`` says in what."""
        if self.asked:
            raise InterruptedTrainingError(f"interrupted {doing}")
