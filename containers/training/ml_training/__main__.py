"""Entry of the image; SageMaker appends ``train``."""

from __future__ import annotations

import sys

from ml_runtime.job import base_folder, run_job

from ml_training.train import train


def main(argv: list[str]) -> int:
    """Run the one command there is."""
    if argv not in ([], ["train"]):
        print(f"error: the only command is 'train', got {' '.join(argv)!r}", file=sys.stderr)
        return 2
    return run_job(train, base_folder() / "output" / "failure")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
