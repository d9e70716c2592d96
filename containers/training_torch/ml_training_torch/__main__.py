"""Entry of the image; SageMaker appends ``train``."""

from __future__ import annotations

import sys

from ml_trainer.entry import run

from ml_training_torch.train import train

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], train))
