"""Entry of the image; SageMaker appends ``serve``. ``worker ...`` is what it starts itself as."""

from __future__ import annotations

import os
import sys

from ml_serving.server import run_worker, serve


def main(argv: list[str]) -> int:
    """Serve until told to stop."""
    if argv in ([], ["serve"]):
        return serve(os.environ)
    match argv:
        case ["worker", listener, "leads", end] if listener.isdecimal() and end.isdecimal():
            return run_worker(int(listener), announce=int(end))
        case ["worker", listener, "follows", end] if listener.isdecimal() and end.isdecimal():
            return run_worker(int(listener), follow=int(end))
    print(f"error: the only command is 'serve', got {' '.join(argv)!r}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
