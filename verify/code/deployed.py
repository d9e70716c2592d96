"""From a template to the program that a resource runs."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verify.assembly import Assembly, Resource, Stack, walk
from verify.code.program import Program

__all__ = ["Deployed", "programs"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Deployed:
    """A program where it runs.

    Args:
        resource: the resource that starts it.
        kind: ``function``, ``job`` (a container that SageMaker, Batch or ECS starts) or ``glue``.
        program: its code; None when the assembly holds none (somebody else's image).
        variables: environment variables that the template gives it, as text.
        role: the role it runs as.
        path: where in the resource it stands; empty when the resource is the program.
        arguments: what follows the image's entry.
    """

    resource: Resource
    kind: str
    program: Program | None
    variables: Mapping[str, str]
    role: Resource | None
    path: str = ""
    arguments: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """How a finding names it."""
        return f"{self.resource.place}: {self.path}" if self.path else self.resource.place


def programs(assembly: Assembly) -> Iterator[Deployed]:
    """Every program of ours that the assembly starts: functions, jobs in containers, Glue jobs."""
    for resource in assembly.resources():
        if resource.type == "AWS::Lambda::Function":
            yield _function(assembly, resource)
        elif resource.type == "AWS::Glue::Job":
            job = _glue(assembly, resource)
            if job is not None:
                yield job
        else:
            yield from _containers(assembly, resource)


def _function(assembly: Assembly, resource: Resource) -> Deployed:
    properties, stack = resource.properties, resource.stack
    code = properties.get("Code", {})
    folder = assembly.asset_of(stack, code.get("S3Key", code.get("ImageUri", "")))
    handler = properties.get("Handler")
    command = properties.get("ImageConfig", {}).get("Command")
    program = None
    if folder is not None and folder.is_dir():
        if "ImageUri" in code:
            words = list(map(str, command)) if command else _command(folder)
            program = _image_program(folder, tuple(words))
        elif handler is not None:
            program = _loaded((folder,), *_split(str(handler)))
    variables = properties.get("Environment", {}).get("Variables", {})
    return Deployed(
        resource=resource,
        kind="function",
        program=program,
        variables={name: assembly.text(stack, value) for name, value in variables.items()},
        role=assembly.target(stack, properties.get("Role")),
    )


def _glue(assembly: Assembly, resource: Resource) -> Deployed | None:
    properties, stack = resource.properties, resource.stack
    script = assembly.asset_of(stack, properties.get("Command", {}).get("ScriptLocation", ""))
    if script is None or script.suffix != ".py":
        return None
    library = assembly.asset_of(stack, properties.get("DefaultArguments", {}).get("--extra-py-files", ""))
    roots = (library,) if library is not None and library.is_dir() else ()
    return Deployed(
        resource=resource,
        kind="glue",
        program=_loaded(roots, "__main__", None, script),
        # What a Glue job is told are arguments, "--raw_catalog".
        variables={
            name.removeprefix("--"): assembly.text(stack, value)
            for name, value in properties.get("DefaultArguments", {}).items()
        },
        role=assembly.target(stack, properties.get("Role")),
    )


#: Keys of an image and of its variables in what AWS's APIs and templates take.
_IMAGE = ("ImageUri", "TrainingImage", "Image", "image", "imageUri")
_VARIABLES = ("Environment", "environment")
_ROLE = ("RoleArn", "ExecutionRoleArn", "TaskRoleArn", "JobRoleArn", "executionRoleArn", "jobRoleArn")


def _containers(assembly: Assembly, resource: Resource) -> Iterator[Deployed]:
    for path, body in documents(assembly, resource):
        for inner, value in walk(body):
            if not isinstance(value, Mapping):
                continue
            image = next((value[key] for key in _IMAGE if isinstance(value.get(key), str)), None)
            if image is None:
                continue
            folder = assembly.asset_of(resource.stack, image)
            if folder is None or not folder.is_dir() or not (folder / "Dockerfile").is_file():
                continue
            where = "/".join(filter(None, (path, inner)))
            yield _container(assembly, resource, _Image(body=body, value=value, folder=folder, path=where))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Image:
    """An image as a document names it: the document, the mapping in it, the image's folder."""

    body: Any
    value: Mapping[str, Any]
    folder: Path
    path: str


def _container(assembly: Assembly, resource: Resource, image: _Image) -> Deployed:
    value = image.value
    # Processing and training jobs keep the variables beside the specification of the image.
    around = _around(image.body, value)
    own = {key: found for key, found in value.items() if key in _VARIABLES}
    given: Any = next(iter((own or {k: v for k, v in around.items() if k in _VARIABLES}).values()), {})
    if isinstance(given, list):
        given = {item.get("Name", item.get("name")): item.get("Value", item.get("value")) for item in given}
    role = next((part[key] for part in (value, around) for key in _ROLE if key in part), None)
    words = value.get("ContainerArguments", value.get("Command", around.get("ContainerArguments", ())))
    arguments = tuple(map(str, words)) if isinstance(words, list) else ()
    return Deployed(
        resource=resource,
        kind="job",
        program=_image_program(image.folder, tuple(_command(image.folder)), arguments[:1]),
        variables={str(name): str(text) for name, text in dict(given).items()},
        role=_by_mark(assembly, role),
        path=image.path,
        arguments=arguments,
    )


def _around(body: Any, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    """The mapping that holds ``wanted``, over lists and specifications in between."""
    for _path, value in walk(body):
        if isinstance(value, Mapping):
            for part in value.values():
                if part is wanted or (isinstance(part, list) and any(item is wanted for item in part)):
                    return value
    return {}


def documents(assembly: Assembly, resource: Resource) -> Iterator[tuple[str, Any]]:
    """The properties of a resource as plain data, and the JSON documents inside them, with their paths.

    A document may stand in a text: a pipeline's definition, a state machine's, the input of a schedule.
    """
    plain = _plain(assembly, resource)
    yield "", plain
    for path, value in walk(plain):
        if isinstance(value, str) and value[:1] in "{[" and value[-1:] in "}]" and len(value) > 2:
            try:
                yield path, json.loads(value)
            except ValueError:
                continue


@functools.cache
def _plain(assembly: Assembly, resource: Resource) -> Any:
    return assembly.plain(resource.stack, resource.properties)


_MARK = re.compile(r"\$\{([^|{}]+)\|([^.{}]+)[^{}]*\}")


def _by_mark(assembly: Assembly, text: Any) -> Resource | None:
    """The resource that a text's mark names, as ``Assembly.text`` writes it."""
    match = _MARK.search(text) if isinstance(text, str) else None
    stack: Stack | None = assembly.stacks.get(match[1]) if match else None
    return stack.resources.get(match[2]) if stack is not None and match else None


def _split(handler: str) -> tuple[str, str]:
    module, _, function = handler.replace("/", ".").rpartition(".")
    return module, function


@functools.cache
def _loaded(
    roots: tuple[Path, ...],
    module: str,
    function: str | None = None,
    script: Path | None = None,
    words: tuple[str, ...] = (),
) -> Program:
    return Program(roots, (module, function), script, frozenset(words))


@functools.cache
def _command(folder: Path) -> list[str]:
    """The words of a Dockerfile's entry and command, the last of each."""
    found: dict[str, list[str]] = {}
    text = (folder / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word in ("ENTRYPOINT", "CMD"):
            try:
                found[word] = [str(part) for part in json.loads(rest)]
            except ValueError:
                found[word] = rest.split()
    return [*found.get("ENTRYPOINT", []), *found.get("CMD", [])]


@functools.cache
def _image_program(folder: Path, words: tuple[str, ...], given: tuple[str, ...] = ()) -> Program | None:
    """The program that an image starts: ``python -m package``, or Lambda's ``package.module.handler``.

    ``given`` are the words that follow, such as the command it is to do.
    """
    for place, word in enumerate(words):
        if word == "-m" and place + 1 < len(words):
            name = words[place + 1]
            main = _loaded((folder,), f"{name}.__main__", words=given)
            if main.found:
                return main
            module = _loaded((folder,), name, words=given)
            return module if module.found else None
        if word.count(".") >= 1 and "/" not in word and not word.startswith("-"):
            program = _loaded((folder,), *_split(word))
            if program.found:
                return program
    return None
