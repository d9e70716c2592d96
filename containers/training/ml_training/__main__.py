"""Entry of the image: SageMaker appends ``train``; the Export step gives ``export``."""

from __future__ import annotations

import sys

from ml_runtime.job import base_folder, run_job
from ml_trainer.entry import run

from ml_training.adopt import adopt
from ml_training.train import train

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments == ["export"]:
        sys.exit(run_job(adopt, base_folder() / "output" / "message"))
    sys.exit(run(arguments, train))
