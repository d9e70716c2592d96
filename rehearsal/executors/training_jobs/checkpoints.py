"""Checkpoints: copied to S3 while a job runs, file by file, and back before it starts."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rehearsal.executors import transfer

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["Syncing", "restore"]

_PERIOD_SECONDS = 0.5


def restore(runtime: Runtime, uri: str, to: Path, *, role: str, region: str) -> int:
    """Bring back the checkpoints of an earlier run, how many files; a first run has none."""
    bucket, prefix = transfer.split_uri(uri)
    client = runtime.client("s3", role=role, region=region)
    found = client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1).get("KeyCount", 0)
    to.mkdir(parents=True, exist_ok=True)
    return transfer.download(runtime, uri, to, role=role, region=region) if found else 0


class Syncing:
    """Copies what changes in the folders of all hosts, until the end; what is removed there stays in S3.

    A file that is written while it is copied arrives torn, as it may in an account.
    """

    def __init__(self, runtime: Runtime, folders: list[Path], uri: str, *, role: str, region: str) -> None:
        self._runtime = runtime
        self._folders = folders
        self._uri = uri.rstrip("/")
        self._role = role
        self._region = region
        self._known = {path: _state(path) for folder in folders for path in _files(folder)}
        self._ended = threading.Event()
        self._problem: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"checkpoints to {uri}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def finish(self) -> None:
        """Copy what is there now, as SageMaker does while the machine is still there.

        :raises TransferError: the role may not write them
        """
        self._ended.set()
        self._thread.join()
        if self._problem is not None:
            raise self._problem
        self._copy()

    def _run(self) -> None:
        while not self._ended.wait(_PERIOD_SECONDS):
            try:
                self._copy()
            except transfer.TransferError as error:
                self._problem = error
                return

    def _copy(self) -> None:
        for folder in self._folders:
            for path in _files(folder):
                try:
                    state = _state(path)
                    if self._known.get(path) == state:
                        continue
                    key = f"{self._uri}/{path.relative_to(folder).as_posix()}"
                    transfer.upload_file(self._runtime, path, key, role=self._role, region=self._region)
                except OSError:
                    # It was renamed or removed since it was listed; the next look finds what it became.
                    continue
                self._known[path] = state


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size
