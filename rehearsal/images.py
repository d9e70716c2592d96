"""Container images without Docker: which folder an image was built from, and the program it would run.

The CDK CLI builds and pushes images through `rehearsal.docker_shim`, which only remembers the folder and the
Dockerfile of each tag. A Dockerfile is then read as the build would read it, as far as a process on this
machine can follow it: what COPY, ENV, WORKDIR, ENTRYPOINT, CMD, USER, ARG and FROM say is done; what RUN
says is not, and is reported.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from rehearsal.sagemaker_images import stand_in

__all__ = ["Dockerfile", "ImageError", "Images", "Program", "read_dockerfile"]

_INSTRUCTION = re.compile(r"([A-Za-z]+)\s+(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\\\$|\$(?:\{(\w+)(?::([-+])([^}]*))?\}|(\w+))")
_DONE = frozenset({"COPY", "ADD", "ENV", "WORKDIR", "ENTRYPOINT", "CMD", "USER", "ARG", "FROM"})
#: Instructions that say nothing about the program itself.
_SILENT = frozenset({"LABEL", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL", "SHELL", "VOLUME", "MAINTAINER"})


class ImageError(Exception):
    """An image that is unknown, or a Dockerfile that cannot be followed."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """What a container of an image would start, as a process on this machine.

    ``argv`` is ENTRYPOINT and CMD with ``python`` replaced by this Python, ``env`` the image's own variables
    with paths of the image replaced by where they lie here, ``cwd`` the working directory. ``entrypoint``
    and ``command`` are the two parts of ``argv``, for callers that override one. ``skipped`` are the RUN
    instructions.
    """

    argv: list[str]
    env: dict[str, str]
    cwd: Path
    context: Path
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    user: str | None = None
    base: str = ""
    skipped: tuple[str, ...] = ()
    root: Path = Path()


@dataclass(kw_only=True)
class Dockerfile:
    """The last stage of a Dockerfile, read for one set of build arguments."""

    base: str
    copies: list[tuple[list[str], str]] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    workdir: PurePosixPath = field(default_factory=lambda: PurePosixPath("/"))
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    user: str | None = None
    skipped: list[str] = field(default_factory=list)
    #: Folders that WORKDIR has made: what is copied to one of them goes into it.
    folders: set[PurePosixPath] = field(default_factory=set)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the instructions with the number of their first line; comments and line ends are resolved."""
    pending, start = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if not pending:
            start = number
        if stripped.endswith("\\"):
            pending += stripped[:-1] + " "
            continue
        yield start, pending + stripped
        pending = ""
    if pending:
        yield start, pending.strip()


def _expanded(text: str, values: Mapping[str, str]) -> str:
    def replace(match: re.Match[str]) -> str:
        if match.group(0) == "\\$":
            return "$"
        name = match.group(1) or match.group(4)
        value = values.get(name, "")
        if match.group(2) == "-":
            return value if value else match.group(3)
        if match.group(2) == "+":
            return match.group(3) if value else ""
        return value

    return _VARIABLE.sub(replace, text)


def _words(text: str) -> list[str]:
    """Read the exec form (a JSON list); the shell form is a command for ``/bin/sh -c``, as Docker has it."""
    if text.lstrip().startswith("["):
        value = json.loads(text)
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            return list(value)
        raise ValueError("the exec form must be a list of strings")
    return ["/bin/sh", "-c", text]


def _pairs(text: str) -> dict[str, str]:
    parts = shlex.split(text)
    if parts and "=" not in parts[0]:
        return {parts[0]: " ".join(parts[1:])}
    return dict(part.partition("=")[::2] for part in parts)


def read_dockerfile(path: Path, build_args: Mapping[str, str] | None = None) -> Dockerfile:
    """Read a Dockerfile; an instruction that is not understood is an error that names its line."""
    given = {} if build_args is None else dict(build_args)
    outside: dict[str, str] = {}
    stage: Dockerfile | None = None
    values: dict[str, str] = {}
    for number, line in _logical_lines(path.read_text(encoding="utf-8")):
        match = _INSTRUCTION.fullmatch(line)
        if match is None:
            raise ImageError(f"{path}:{number}: {line!r} is not an instruction")
        name, rest = match.group(1).upper(), match.group(2).strip()
        try:
            if name == "FROM":
                image = next(word for word in rest.split() if not word.startswith("--"))
                stage, values = Dockerfile(base=_expanded(image, outside)), {}
            elif name == "ARG":
                key, _, default = rest.partition("=")
                value = given.get(key, outside.get(key, _expanded(default.strip("\"'"), values)))
                (outside if stage is None else values)[key] = value
            elif stage is None:
                raise ImageError(f"{path}:{number}: {name} stands before FROM")
            elif name == "RUN":
                stage.skipped.append(rest)
            elif name in _DONE:
                _apply(stage, name, rest, values)
            elif name not in _SILENT:
                followed = ", ".join(sorted(_DONE | _SILENT | {"RUN"}))
                raise ImageError(f"{path}:{number}: {name} is not followed; allowed: {followed}")
        except (ValueError, StopIteration) as error:
            raise ImageError(f"{path}:{number}: {name}: {error}") from error
    if stage is None:
        raise ImageError(f"{path}: no FROM")
    return stage


def _apply(stage: Dockerfile, name: str, rest: str, values: dict[str, str]) -> None:
    known = {**values, **stage.env}
    if name == "ENV":
        stage.env.update({key: _expanded(value, known) for key, value in _pairs(rest).items()})
    elif name == "WORKDIR":
        stage.workdir = stage.workdir / _expanded(rest, known)
        stage.folders.add(stage.workdir)
    elif name == "USER":
        stage.user = _expanded(rest, known)
    elif name == "ENTRYPOINT":
        stage.entrypoint = _words(rest)
        # An entry point resets what an earlier stage or line gave as command.
        stage.command = []
    elif name == "CMD":
        stage.command = _words(rest)
    else:
        flags = [word for word in rest.split() if word.startswith("--")]
        if any(flag.startswith("--from") for flag in flags):
            raise ValueError("copying from another stage or image is not followed; use one stage")
        if name == "ADD" and "://" in rest:
            raise ValueError("adding a URL is not followed; put the file into the build context")
        text = " ".join(word for word in rest.split() if not word.startswith("--")) if flags else rest
        words = json.loads(text) if text.startswith("[") else shlex.split(_expanded(text, known))
        if len(words) < 2:
            raise ValueError("needs a source and a destination")
        destination = stage.workdir / words[-1]
        into = words[-1].endswith("/") or destination in stage.folders
        stage.copies.append((words[:-1], str(destination).rstrip("/") + "/" * into))


class Images:
    """The images that were built, by every tag and URI they have.

    ``state`` is the server's folder; the shim writes ``images.json`` there, and the files of each image are
    laid out below ``images/``.
    """

    def __init__(self, state: Path) -> None:
        self.state = state
        self._lock = threading.Lock()

    @property
    def database(self) -> Path:
        """The file in which the shim remembers what it built."""
        return self.state / "images.json"

    def entry(self, image_uri: str) -> dict[str, str]:
        """Return what is known of an image: its build context, Dockerfile and build arguments."""
        known: dict[str, dict[str, str]] = {}
        if self.database.exists():
            known = json.loads(self.database.read_text(encoding="utf-8"))
        if image_uri not in known:
            there = ", ".join(sorted(known)) or "none"
            raise ImageError(f"image {image_uri} was not built in this rehearsal; known: {there}")
        return known[image_uri]

    def dockerfile(self, image_uri: str) -> tuple[Dockerfile, Path]:
        """Return the Dockerfile of an image as read, and its build context."""
        entry = self.entry(image_uri)
        context = Path(entry["context"])
        arguments: dict[str, str] = json.loads(entry.get("arguments", "{}"))
        return read_dockerfile(context / entry["dockerfile"], arguments), context

    def program(self, image_uri: str) -> Program:
        """Return the program of an image, its files laid out as COPY says.

        For an image of SageMaker's own: what stands in for it.
        """
        standing = stand_in(image_uri)
        if standing is not None:
            folder, command = standing
            return Program(argv=command, env={}, cwd=folder, context=folder, entrypoint=command)
        dockerfile, context = self.dockerfile(image_uri)
        root = self._layout(image_uri, dockerfile, context)
        env = {key: self._relocated(value, root) for key, value in dockerfile.env.items()}
        entrypoint = self._local(dockerfile.entrypoint, root)
        command = self._local(dockerfile.command, root) if not entrypoint else list(dockerfile.command)
        cwd = root / str(dockerfile.workdir).lstrip("/")
        cwd.mkdir(parents=True, exist_ok=True)
        return Program(
            argv=[*entrypoint, *command],
            env=env,
            cwd=cwd,
            context=context,
            entrypoint=entrypoint,
            command=command,
            user=dockerfile.user,
            base=dockerfile.base,
            skipped=tuple(dockerfile.skipped),
            root=root,
        )

    def _layout(self, image_uri: str, dockerfile: Dockerfile, context: Path) -> Path:
        """Lay the image's files out once; an image's tag is the hash of its content."""
        root = self.state / "images" / re.sub(r"[^\w.-]", "_", image_uri)
        with self._lock:
            if root.exists():
                return root
            partial = root.with_name(root.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            for sources, destination in dockerfile.copies:
                _copy(context, sources, destination, partial)
            partial.rename(root)
        return root

    @staticmethod
    def _local(words: list[str], root: Path) -> list[str]:
        if not words:
            return []
        first = words[0]
        if PurePosixPath(first).name.startswith("python"):
            return [sys.executable, *words[1:]]
        inside = root / first.lstrip("/")
        return [str(inside) if first.startswith("/") and inside.exists() else first, *words[1:]]

    @staticmethod
    def _relocated(value: str, root: Path) -> str:
        """Point the paths of a variable to where COPY put them here."""
        parts = value.split(os.pathsep)
        moved = [
            str(root / part.lstrip("/"))
            if part.startswith("/") and (root / part.lstrip("/")).exists()
            else part
            for part in parts
        ]
        return os.pathsep.join(moved)


def _copy(context: Path, sources: list[str], destination: str, root: Path) -> None:
    target = root / destination.lstrip("/")
    found = [path for source in sources for path in _matches(context, source)]
    if not found:
        raise ImageError(f"COPY {' '.join(sources)}: nothing in {context} matches")
    as_folder = destination.endswith("/") or len(found) > 1 or target.is_dir()
    for path in found:
        if path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True)
        else:
            place = target / path.name if as_folder else target
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, place)


def _matches(context: Path, source: str) -> list[Path]:
    inside = source.lstrip("/")
    if inside in (".", "./", ""):
        return [context]
    path = (context / inside).resolve()
    if not path.is_relative_to(context.resolve()):
        raise ImageError(f"COPY {source}: outside of the build context {context}")
    if path.exists():
        return [path]
    parent = path.parent
    return sorted(p for p in parent.iterdir() if fnmatchcase(p.name, path.name)) if parent.is_dir() else []
