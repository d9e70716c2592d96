"""Entry of the image; SageMaker appends ``serve``. ``worker FD`` is what it starts itself as."""

from __future__ import annotations

import os
import sys

from ml_serving.server import run_worker, serve


def main(argv: list[str]) -> int:
    """Serve until told to stop."""
    if argv in ([], ["serve"]):
        return serve(os.environ)
    if len(argv) == 2 and argv[0] == "worker" and argv[1].isdecimal():
        return run_worker(int(argv[1]))
    print(f"error: the only command is 'serve', got {' '.join(argv)!r}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
