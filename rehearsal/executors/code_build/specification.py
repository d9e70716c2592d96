"""A build specification: which commands in which order, what comes out."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["PHASES", "Specification", "SpecificationError", "parsed"]

#: AWS CodeBuild, "Build specification reference": phases in order.
PHASES = ("install", "pre_build", "build", "post_build")
#: What is followed; anything else is refused, or a build would do less here than it says.
_FOLLOWED = frozenset({"version", "phases", "artifacts", "env"})
_OF_PHASE = frozenset({"commands", "runtime-versions", "finally"})
_OF_ARTIFACTS = frozenset({"base-directory", "files", "secondary-artifacts"})
_OF_ENV = frozenset({"variables", "exported-variables", "shell"})


class SpecificationError(Exception):
    """A specification that cannot be followed."""


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """What a build leaves: files below a folder."""

    base: str = "."
    files: Sequence[str] = ("**/*",)

    def paths(self, root: Path) -> list[tuple[Path, str]]:
        """Each file with its name in the artifact."""
        base = (root / self.base).resolve()
        if not base.is_dir():
            raise SpecificationError(f"artifacts.base-directory {self.base} is no folder")
        found = []
        for path in sorted(p for p in base.rglob("*") if p.is_file()):
            name = path.relative_to(base).as_posix()
            if any(pattern == "**/*" or fnmatch.fnmatchcase(name, pattern) for pattern in self.files):
                found.append((path, name))
        return found


@dataclass(frozen=True, kw_only=True)
class Specification:
    """One parsed specification; ``artifacts`` are by name, the primary one under the empty name."""

    commands: Mapping[str, Sequence[str]]
    always: Mapping[str, Sequence[str]]
    runtimes: Mapping[str, str]
    variables: Mapping[str, str]
    exported: Sequence[str]
    artifacts: Mapping[str, Artifact]


def parsed(text: str) -> Specification:
    """Parse a specification in YAML or JSON.

    Raises:
        SpecificationError: it says something that is not followed here.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        document = YAML(typ="safe").load(text)
    except YAMLError as error:
        raise SpecificationError(f"the build specification is no YAML: {error}") from error
    if not isinstance(document, Mapping):
        raise SpecificationError("the build specification is no mapping")
    _known("", document, _FOLLOWED)
    if str(document.get("version")) != "0.2":
        raise SpecificationError(f"version must be 0.2, got {document.get('version')!r}")
    phases = document.get("phases") or {}
    _known("phases.", phases, frozenset(PHASES))
    for name, phase in phases.items():
        _known(f"phases.{name}.", phase, _OF_PHASE)
    env = document.get("env") or {}
    _known("env.", env, _OF_ENV)
    if env.get("shell", "sh") not in ("sh", "bash"):
        raise SpecificationError(f"env.shell must be sh or bash, got {env['shell']!r}")
    artifacts = document.get("artifacts") or {}
    _known("artifacts.", artifacts, _OF_ARTIFACTS)
    found = {name: _artifact(each) for name, each in (artifacts.get("secondary-artifacts") or {}).items()}
    if "files" in artifacts:
        found[""] = _artifact(artifacts)
    return Specification(
        commands={name: _listed(phases.get(name, {}).get("commands")) for name in PHASES},
        always={name: _listed(phases.get(name, {}).get("finally")) for name in PHASES},
        runtimes={
            str(k): str(v) for p in phases.values() for k, v in (p.get("runtime-versions") or {}).items()
        },
        variables={str(k): str(v) for k, v in (env.get("variables") or {}).items()},
        exported=_listed(env.get("exported-variables")),
        artifacts=found,
    )


def _known(where: str, given: Any, allowed: frozenset[str]) -> None:
    unknown = sorted(set(given) - allowed)
    if unknown:
        raise SpecificationError(
            f"the rehearsal does not follow {', '.join(where + name for name in unknown)}; "
            f"it follows {', '.join(sorted(where + name for name in allowed))}"
        )


def _artifact(given: Mapping[str, Any]) -> Artifact:
    return Artifact(base=str(given.get("base-directory", ".")), files=tuple(_listed(given.get("files"))))


def _listed(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]
