"""Stands in for ``docker`` (CDK_DOCKER): remembers which folder each image was built from, and builds
nothing.

The CDK CLI asks docker to build, tag, log in, inspect and push. Each answer here is quick; `push` registers
the image in the embedded ECR, so that a second deploy finds it there. Anything else is refused: a silent
success would hide that nothing happened.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["STATE_VARIABLE", "main"]

#: Names the server's state folder to this program.
STATE_VARIABLE = "REHEARSAL_STATE"

_TAKES_A_VALUE = frozenset(
    {"--tag", "-t", "--file", "-f", "--build-arg", "--target", "--platform", "--secret", "--ssh", "--network"}
    | {"--output", "--cache-from", "--cache-to", "--build-context", "--label", "--progress"}
)


@contextmanager
def _database(state: Path) -> Iterator[dict[str, Any]]:
    """Read the images, and write them back; the CLI may run several of this program at once."""
    path = state / "images.json"
    with (state / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        images: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        yield images
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(images, indent=1, sort_keys=True), encoding="utf-8")
        partial.replace(path)


def _options(words: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Split the words of a command into options and the rest."""
    options: dict[str, list[str]] = {}
    rest: list[str] = []
    pending: str | None = None
    for word in words:
        if pending is not None:
            options.setdefault(pending, []).append(word)
            pending = None
        elif word.startswith("-") and len(word) > 1:
            name, equals, value = word.partition("=")
            if equals:
                options.setdefault(name, []).append(value)
            elif name in _TAKES_A_VALUE:
                pending = name
            else:
                options.setdefault(name, []).append("")
        else:
            rest.append(word)
    return options, rest


def _build(state: Path, words: Sequence[str]) -> None:
    options, rest = _options(words)
    if len(rest) != 1:
        raise SystemExit(f"docker build: needs one build context, got {rest}")
    context = Path(rest[0]).resolve()
    dockerfile = Path((options.get("--file") or options.get("-f") or ["Dockerfile"])[0])
    # cdk-assets gives the Dockerfile relative to the context; docker itself relative to where it is called.
    if not (context / dockerfile).is_file():
        raise SystemExit(f"docker build: no {dockerfile} in {context}")
    if "--target" in options:
        raise SystemExit("docker build: --target is not followed; use a Dockerfile with one stage")
    arguments = dict(argument.partition("=")[::2] for argument in options.get("--build-arg", []))
    entry = {"context": str(context), "dockerfile": str(dockerfile), "arguments": json.dumps(arguments)}
    with _database(state) as images:
        for tag in [*options.get("--tag", []), *options.get("-t", [])]:
            images[tag] = entry


def _push(state: Path, uri: str) -> None:
    with _database(state) as images:
        if uri not in images:
            raise SystemExit(f"docker push: {uri} was not built or tagged")
    import boto3

    repository, _, tag = uri.split("/", 1)[1].partition(":")
    digest = f"sha256:{hashlib.sha256(uri.encode()).hexdigest()}"
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "size": 2,
            "digest": digest,
        },
        "layers": [],
    }
    client = boto3.client("ecr")
    try:
        client.put_image(
            repositoryName=repository,
            imageTag=tag,
            imageManifest=json.dumps(manifest),
            imageManifestMediaType=kind,
        )
    except client.exceptions.ImageAlreadyExistsException:
        print(f"{uri} is there already")


def _inspect(state: Path, uri: str) -> None:
    with _database(state) as images:
        if uri not in images:
            raise SystemExit(f"docker inspect: no such image: {uri}")
    print("[{}]")


def main(arguments: Sequence[str]) -> None:
    """Answer one docker command."""
    if STATE_VARIABLE not in os.environ:
        raise SystemExit(f"docker: {STATE_VARIABLE} is not set; this program only runs below the rehearsal")
    state = Path(os.environ[STATE_VARIABLE])
    command, words = (arguments[0], arguments[1:]) if arguments else ("", [])
    if command == "build":
        _build(state, words)
    elif command == "tag":
        with _database(state) as images:
            if words[0] not in images:
                raise SystemExit(f"docker tag: no such image: {words[0]}")
            images[words[1]] = images[words[0]]
    elif command == "push":
        _push(state, _options(words)[1][-1])
    elif command == "inspect":
        _inspect(state, _options(words)[1][-1])
    elif command == "login":
        sys.stdin.read()
    else:
        raise SystemExit(
            f"docker {command}: not answered by the rehearsal; it answers build, tag, login, inspect, push"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
