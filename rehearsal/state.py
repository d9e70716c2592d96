"""The folder in which one rehearsal server keeps everything: files of images, logs, temporary files of
functions.

Nothing in it outlives the server on purpose: a second start over an old folder begins clean.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import IO

__all__ = ["MARKER", "StateError", "StateFolder"]

#: Says that a folder is ours to clear.
MARKER = ".ml-lifecycle-rehearsal"
#: What a rehearsal with Spark, images and a few thousand records writes, with room to spare.
DISK_NEEDED_GIB = 1.0


class StateError(Exception):
    """The folder cannot be used; the text says why and what to do."""


class StateFolder:
    """A locked, cleared state folder. Only one server uses a folder at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._lock: IO[str] | None = None

    def acquire(self) -> None:
        """Make the folder, lock it and clear what an earlier server left.

        :raises StateError: it holds other files, another server uses it, or the disk is full
        """
        marker = self.path / MARKER
        if self.path.exists() and not self.path.is_dir():
            raise StateError(f"state {self.path} is a file; name a folder that does not exist yet")
        if self.path.exists() and not marker.exists() and any(self.path.iterdir()):
            raise StateError(f"state {self.path} holds other files and would be cleared; name another folder")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StateError(
                f"state {self.path} cannot be made: {error.strerror}; name another folder"
            ) from None
        free = shutil.disk_usage(self.path).free / 2**30
        if free < DISK_NEEDED_GIB:
            raise StateError(
                f"{free:.1f} GiB of disk are free under {self.path}; needed are {DISK_NEEDED_GIB:g} GiB"
            )
        lock = marker.open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise StateError(
                f"state {self.path} is in use by a running rehearsal (process {owner}); stop it first"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock
        for entry in self.path.iterdir():
            # The log belongs to who started this server and is being written.
            if entry.name in (MARKER, "server.log"):
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        (self.path / "tmp").mkdir()

    def release(self) -> None:
        """Give the folder free; its files stay for a look at them."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
