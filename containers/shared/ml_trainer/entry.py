"""The entry of a training image: its one command, its exit code, the reason of a failure."""

from __future__ import annotations

import sys
from collections.abc import Callable

from ml_runtime.job import base_folder, run_job, say

from ml_trainer.interruption import EXIT_CODE, InterruptedTrainingError, Interruption


def run(argv: list[str], train: Callable[[Interruption], None]) -> int:
    """Run ``train``, the one command there is, and return the exit code.

    0 when it is done, 1 when it failed (the reason stands in ``output/failure``), 143 when it was asked to
    end: that is no failure, so no reason is left.
    """
    if argv not in ([], ["train"]):
        print(f"error: the only command is 'train', got {' '.join(argv)!r}", file=sys.stderr)
        return 2
    interrupted = False

    def work() -> None:
        nonlocal interrupted
        with Interruption() as interruption:
            try:
                train(interruption)
            except InterruptedTrainingError as ended:
                say(str(ended))
                interrupted = True

    code = run_job(work, base_folder() / "output" / "failure")
    return EXIT_CODE if interrupted else code
