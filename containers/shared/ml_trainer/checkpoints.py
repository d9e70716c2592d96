"""Checkpoints that survive being killed at any moment, and being copied while they are written.

SageMaker copies ``/opt/ml/checkpoints`` to S3 file by file while a job runs, and back when it starts again:
a checkpoint can arrive in part. So each is a folder with a manifest that holds the digest of every file and
of itself; it is whole or it is skipped, with a note.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ml_runtime.job import base_folder, say

MANIFEST = "manifest.json"
VERSION = 1
#: How often one is saved where the workload does not say.
DEFAULT_MINUTES = 5.0
_NAME = re.compile(r"step-(\d{8})")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read back: after how many rounds, its files, and what else is known."""

    step: int
    folder: pathlib.Path
    state: dict[str, Any]

    def read(self, name: str) -> bytes:
        """Return one of its files."""
        return (self.folder / name).read_bytes()


class Checkpoints:
    """The checkpoints of one training.

    Args:
        folder: where they stand; when it is None or does not exist, nothing is saved (SageMaker makes it when
            the job has a CheckpointConfig).
        training: the fingerprint of the training (``Inputs.fingerprint``); checkpoints of others are skipped.
        every_rounds: save each time so many rounds are done.
        every_minutes: save when so many minutes have passed; the default where neither is given is 5.
        keep: how many stay: the newest may be torn on its way to S3.
        writes: false on a host that only reads them.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        folder: pathlib.Path | None,
        *,
        training: str,
        every_rounds: int | None = None,
        every_minutes: float | None = None,
        keep: int = 2,
        writes: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}")
        self._folder = folder if folder is not None and folder.is_dir() else None
        self._training = training
        self._every_rounds = every_rounds
        nothing_said = every_rounds is None and every_minutes is None
        minutes = DEFAULT_MINUTES if nothing_said else every_minutes
        self._every_seconds = None if minutes is None else minutes * 60
        self._keep = keep
        self._writes = writes
        self._clock = clock
        self._saved_at = clock()
        self._saved_step = 0

    @classmethod
    def of(cls, settings: Mapping[str, Any], training: str, *, writes: bool = True) -> Checkpoints:
        """Return those that a workload's ``training`` block asks for.

        Its keys: ``checkpoint_every_rounds``, ``checkpoint_every_minutes``.
        """
        return cls(
            base_folder() / "checkpoints",
            training=training,
            every_rounds=settings.get("checkpoint_every_rounds"),
            every_minutes=settings.get("checkpoint_every_minutes"),
            writes=writes,
        )

    @property
    def enabled(self) -> bool:
        """Whether the job keeps checkpoints at all."""
        return self._folder is not None

    def newest(self) -> Checkpoint | None:
        """Return the newest checkpoint of this training that is whole; say of each other why not."""
        for step, folder in self._all():
            problem, state = self._examine(step, folder)
            if problem is None:
                self._saved_step, self._saved_at = step, self._clock()
                return Checkpoint(step, folder, state)
            say(f"checkpoint {folder.name} is not used: {problem}")
        return None

    def due(self, step: int) -> bool:
        """Whether one should be saved after ``step`` rounds."""
        if self._folder is None or step <= self._saved_step:
            return False
        by_rounds = self._every_rounds is not None and step - self._saved_step >= self._every_rounds
        by_time = self._every_seconds is not None and self._clock() - self._saved_at >= self._every_seconds
        return by_rounds or by_time

    def save(self, step: int, write: Callable[[pathlib.Path], None], state: Mapping[str, Any]) -> None:
        """Save the training as it is after ``step`` rounds.

        Args:
            step: rounds done.
            write: puts its files into the folder that it is given.
            state: what else is needed to go on, as JSON.
        """
        if self._folder is None or not self._writes:
            return
        # Names with a dot are never read: what a kill leaves of one is cleaned by the next save.
        building = self._folder / f".step-{step:08d}"
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        write(building)
        manifest = {
            "version": VERSION,
            "training": self._training,
            "step": step,
            "state": dict(state),
            "files": {path.name: _described(path) for path in sorted(building.iterdir())},
        }
        _write_through(building / MANIFEST, json.dumps({**manifest, "sha256": _digest_of(manifest)}))
        final = self._folder / f"step-{step:08d}"
        shutil.rmtree(final, ignore_errors=True)
        building.rename(final)
        _flush_folder(self._folder)
        self._saved_step, self._saved_at = step, self._clock()
        self._clean(step)

    def _all(self) -> Iterator[tuple[int, pathlib.Path]]:
        if self._folder is None:
            return
        found = [(int(match[1]), path) for path in self._folder.iterdir() if (match := _match(path))]
        yield from sorted(found, reverse=True)

    def _examine(self, step: int, folder: pathlib.Path) -> tuple[str | None, dict[str, Any]]:
        """Return what is wrong with a checkpoint, or None and its state."""
        try:
            manifest = json.loads((folder / MANIFEST).read_text())
            digest = manifest.pop("sha256")
            damaged = digest != _digest_of(manifest)
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            return f"its manifest cannot be read ({type(error).__name__})", {}
        problem = None
        if damaged:
            problem = "its manifest is damaged"
        elif manifest["version"] != VERSION:
            problem = f"it is of version {manifest['version']}, this image writes {VERSION}"
        elif manifest["training"] != self._training:
            problem = "it is of a training on other data or with other settings"
        elif manifest["step"] != step:
            problem = f"it was saved after {manifest['step']} rounds"
        else:
            torn = [
                name
                for name, described in manifest["files"].items()
                if not (folder / name).is_file() or _described(folder / name) != described
            ]
            if torn:
                problem = f"{', '.join(torn)} is missing or damaged"
        return problem, manifest["state"] if problem is None else {}

    def _clean(self, step: int) -> None:
        # Those of later rounds were not used, so they are torn or of another training.
        for path in self._folder.glob(".step-*") if self._folder is not None else ():
            shutil.rmtree(path, ignore_errors=True)
        kept = [path for number, path in self._all() if number <= step][: self._keep]
        for _, path in self._all():
            if path not in kept:
                shutil.rmtree(path, ignore_errors=True)


def _match(path: pathlib.Path) -> re.Match[str] | None:
    return _NAME.fullmatch(path.name) if path.is_dir() else None


def _described(path: pathlib.Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _digest_of(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _write_through(path: pathlib.Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: pathlib.Path) -> None:
    # A rename is durable once its folder is.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
